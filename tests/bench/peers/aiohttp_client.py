"""aiohttp, its client under uvloop: receives, counts."""

import asyncio
import sys

import aiohttp
import uvloop
from common import tell, trust


async def main():
    count = 0
    tell(asyncio.get_running_loop(), lambda: count)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(sys.argv[1], ssl=trust() or True, max_msg_size=0) as socket,
    ):
        async for _message in socket:
            count += 1


uvloop.run(main())
