"""websockets, its asyncio client under uvloop: receives, counts."""

import asyncio
import sys

import uvloop
import websockets
from common import tell, trust


async def main():
    count = 0
    tell(asyncio.get_running_loop(), lambda: count)
    url = sys.argv[1]
    async with websockets.connect(url, compression=None, ssl=trust(), max_size=None) as socket:
        async for _message in socket:
            count += 1


uvloop.run(main())
