"""JetSocket under uvloop, as its guide shows it: receives, counts."""

import asyncio
import sys

import uvloop
from common import tell, trust
from jetsocket import WebSocket


async def main():
    count = 0
    tell(asyncio.get_running_loop(), lambda: count)
    async with WebSocket(sys.argv[1], compress=False, ssl_context=trust()) as socket:
        async for _message in socket:
            count += 1


uvloop.run(main())
