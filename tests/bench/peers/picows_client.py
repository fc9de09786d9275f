"""picows under uvloop: receives each payload as bytes, counts."""

import asyncio
import sys

import picows
import uvloop
from common import tell, trust


class Listener(picows.WSListener):
    count = 0

    def on_ws_frame(self, transport, frame):
        frame.get_payload_as_bytes()
        self.count += 1


async def main():
    transport, listener = await picows.ws_connect(Listener, sys.argv[1], ssl_context=trust())
    tell(asyncio.get_running_loop(), lambda: listener.count)
    await transport.wait_disconnected()


uvloop.run(main())
