"""Cost of one message with websockets, from its bytes to the send of an XPUB, without a socket.

    .venv/bin/python tests/bench/hot_path.py

Shows what is ours and what the kernel's wake-ups cost besides (tests/bench/measure.py).
"""

import os
import tempfile
import time
from pathlib import Path

import uvloop
from websockets.utils import accept_key

from shm.journal import Journal
from shm.process import start_ticks
from shm.stats import StatsWriter
from supervisor.listener import listen
from worker.runner import Runner
from worker.spec import Assignment, ConnectionSpec
from worker.websockets_wire import WebsocketsWire
from worker.wire import Route

MESSAGES = 200_000
PAYLOAD = b'{"topic":"publicTrade.BTCUSDT","type":"snapshot","data":[' + b"x" * 311 + b"]}"
FRAME = b"\x81\x7e" + len(PAYLOAD).to_bytes(2, "big") + PAYLOAD
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


class Transport:
    """What a wire needs of a transport that nothing leaves."""

    def is_closing(self):
        return False

    def write(self, _data):
        pass

    def get_write_buffer_size(self):
        return 0

    def resume_reading(self):
        pass

    def get_extra_info(self, name):
        return open(os.devnull) if name == "socket" else None


def opened(connection, spec):
    connection.wire = wire = WebsocketsWire(spec, Route(url=spec.url), connection)
    wire.connection_made(Transport())
    accept = accept_key(wire._engine.key).encode()
    wire.data_received(SWITCHING + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    return wire


def per_message_us(call, times, messages):
    began = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - began) / messages * 1e6


async def main():
    folder = Path(tempfile.mkdtemp())
    (folder / "data").mkdir()
    spec = ConnectionSpec(name="a", url="ws://127.0.0.1:1/", heartbeat=None)
    assignment = Assignment(
        fleet="bench",
        incarnation=1,
        runtime_dir=str(folder),
        shm_dir=str(folder),
        supervisor_pid=os.getpid(),
        supervisor_start_ticks=start_ticks(os.getpid()),
        spec=spec,
    )
    stats = StatsWriter.create(folder, "a", incarnation=1, ring_slots=1024)
    listener = listen(folder / "data" / "a.sock").detach()
    journal = Journal.take_over(folder, "a", size=spec.publish.journal, incarnation=1)
    connection = Runner(assignment, stats, listener, journal)._connection
    wire = opened(connection, spec)
    batch = FRAME * 20
    print(f"{len(PAYLOAD)} bytes, nobody subscribed, µs of CPU a message:")
    for what, call, times in (
        ("one a read", lambda: wire.data_received(FRAME), MESSAGES),
        ("twenty a read", lambda: wire.data_received(batch), MESSAGES // 20),
        ("behind the parser", lambda: connection.on_message(True, PAYLOAD, 1, 2), MESSAGES),
    ):
        best = min(per_message_us(call, times, MESSAGES) for _ in range(3))
        print(f"  {what:<18} {best:.2f}")
    os._exit(0)


if __name__ == "__main__":
    uvloop.run(main())
