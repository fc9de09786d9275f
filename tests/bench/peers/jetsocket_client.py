"""JetSocket under uvloop: receives each payload as bytes (its default parses JSON), counts."""

import asyncio
import sys

import uvloop
from common import tell, trust
from jetsocket import WebSocket


async def main():
    count = 0
    tell(asyncio.get_running_loop(), lambda: count)
    options = {"compress": False, "deserializer": bytes, "ssl_context": trust()}
    async with WebSocket(sys.argv[1], **options) as socket:
        async for _message in socket:
            count += 1


uvloop.run(main())
