"""What people write: websockets and zmq.asyncio under uvloop, topic and payload in two frames."""

import asyncio
import os
import sys

import uvloop
import websockets
import zmq
import zmq.asyncio
from common import tell, trust


async def main():
    url, endpoint = sys.argv[1:]
    count, topic = 0, b"hand.%d" % os.getpid()
    tell(asyncio.get_running_loop(), lambda: count)
    publisher = zmq.asyncio.Context().socket(zmq.PUB)
    publisher.bind(endpoint)
    async with websockets.connect(url, compression=None, ssl=trust(), max_size=None) as socket:
        async for message in socket:
            payload = message.encode() if isinstance(message, str) else message
            await publisher.send_multipart([topic, payload])
            count += 1


uvloop.run(main())
