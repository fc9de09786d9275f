"""The floor: picows and a plain ZeroMQ socket, one frame; no statistics, no journal, no heartbeat.

A frame is topic, NUL, sequence number and time of receipt, payload: without the two nobody could
notice a loss or an age.
"""

import asyncio
import struct
import sys
import time

import picows
import uvloop
import zmq
from common import tell, trust

HEADER = struct.Struct("<Qq").pack
DONTWAIT = 1


class Listener(picows.WSListener):
    def __init__(self, endpoint):
        self.socket = zmq.Context().socket(zmq.PUB)
        self.socket.setsockopt(zmq.SNDHWM, 10_000)
        self.socket.bind(endpoint)
        self.send, self.seq = self.socket.send, 0

    def on_ws_frame(self, transport, frame):
        self.seq = seq = self.seq + 1
        header = HEADER(seq, time.monotonic_ns())
        self.send(b"floor\0" + header + frame.get_payload_as_bytes(), DONTWAIT)


async def main():
    url, endpoint = sys.argv[1:]
    listener = Listener(endpoint)
    tell(asyncio.get_running_loop(), lambda: listener.seq)
    transport, _ = await picows.ws_connect(lambda: listener, url, ssl_context=trust())
    await transport.wait_disconnected()


uvloop.run(main())
