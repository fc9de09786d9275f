"""The far end of the bench: a process of its own that counts, and notes when, on order.

    python -m bench.subscriber_process sub ENDPOINT PREFIX [SOCKETS]
    python -m bench.subscriber_process follow FLEET CONNECTION
    python -m bench.subscriber_process library FLEET CONNECTION

Orders are lines of JSON on stdin, answers on stdout. ``mark`` starts the count anew, ``count``
tells it. After a ``timed`` mark, ``times`` writes the arrival of every message (int64
CLOCK_MONOTONIC) and, where the frame has it, the publisher's own stamp. ``sources`` tells when each
incarnation of a publisher was first heard, and begins to note it.
"""

import json
import os
import sys
import threading
import time
from array import array
from pathlib import Path

import zmq

BUDGET = 256
DONTWAIT = int(zmq.DONTWAIT)
# Where things stand behind the first NUL of an envelope (docs/wire-format.md), and of the frame of
# peers/floor.py. By hand, topic and payload are two frames and nothing else.
ENVELOPE_STAMP, FLOOR_STAMP, EPOCH_AT = 32, 8, 4
HAND = "hand"
NUMBERED = b'{"session":'


class Counted:
    """What has come since the mark."""

    def __init__(self, stamp_at: int | None) -> None:
        self._stamp_at = stamp_at
        self.mark()

    def mark(self, timed: bool = False) -> None:
        """Begin anew; with ``timed``, note when each comes instead of only counting."""
        self.timed, self.count = timed, 0
        self.arrived, self.stamped = array("q"), array("q")
        self.extra: dict[str, int] = {}

    def take(self, frame: bytes, now_ns: int) -> None:
        """Note one message."""
        self.count += 1
        self.arrived.append(now_ns)
        if self._stamp_at is not None:
            at = frame.index(b"\0") + 1 + self._stamp_at
            self.stamped.append(int.from_bytes(frame[at : at + 8], "little"))

    def obey(self, order: dict) -> dict:
        """Carry out an order that all kinds know."""
        if order["do"] == "mark":
            self.mark(order["timed"])
        elif order["do"] == "times":
            Path(order["path"]).write_bytes(self.arrived.tobytes())
            Path(order["path"] + ".stamped").write_bytes(self.stamped.tobytes())
        return {"count": self.count, **self.extra}


class Streamed:
    """The exchange's own stream (exchange_process.STREAMED): which numbers of a session came."""

    def __init__(self) -> None:
        self._session = self._number = 0

    def take(self, payload: bytes, extra: dict[str, int]) -> None:
        """Note one message: whether a session is new, and how many before it did not come."""
        session, number = int(payload[11:19]), int(payload[29:39])
        if session != self._session:
            self._session, self._number = session, 0
            extra["sessions"] = extra.get("sessions", 0) + 1
        extra["missing"] = extra.get("missing", 0) + abs(number - self._number - 1)
        self._number = number


def orders():
    """Yield the orders that have come, without a wait."""
    data = os.read(0, 65536)
    if not data:
        os._exit(0)
    for line in data.splitlines():
        yield json.loads(line)


def answer(document: dict) -> None:
    """Write one answer."""
    print(json.dumps(document), flush=True)


def source_of(frame: bytes) -> bytes:
    """Return what differs between a publisher and its replacement: topic, and epoch if there."""
    topic, _, rest = frame.partition(b"\0")
    return topic + rest[EPOCH_AT : EPOCH_AT + 4]


def subscribe(endpoint: str, prefix: str, sockets: str = "1") -> None:
    """Receive by plain SUB sockets; with several of them only the first one's messages count."""
    context, poller, found = zmq.Context(), zmq.Poller(), []
    for _ in range(int(sockets)):
        socket = context.socket(zmq.SUB)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.RCVHWM, 1_000_000),
            (zmq.RECONNECT_IVL, 1),
            (zmq.RECONNECT_IVL_MAX, 100),
        ):
            socket.setsockopt(option, value)
        socket.subscribe(prefix.encode() + (b"\0" if prefix.startswith("data.") else b""))
        socket.connect(endpoint)
        poller.register(socket, zmq.POLLIN)
        found.append(socket)
    poller.register(0, zmq.POLLIN)
    stamp_at = {"floor": FLOOR_STAMP, HAND: None}.get(prefix, ENVELOPE_STAMP)
    counted, since, watched = Counted(stamp_at), {}, False
    answer({})
    while True:
        for ready, _ in poller.poll():
            if ready == 0:
                for order in orders():
                    watched = watched or order["do"] == "sources"
                    answer(since if order["do"] == "sources" else counted.obey(order))
                continue
            for _ in range(BUDGET):
                try:
                    frame = ready.recv(DONTWAIT)
                except zmq.Again:
                    break
                now_ns = time.monotonic_ns()
                if prefix == HAND:
                    ready.recv(DONTWAIT)
                if ready is not found[0]:
                    continue
                if counted.timed:
                    counted.take(frame, now_ns)
                else:
                    counted.count += 1
                if watched:
                    since.setdefault(source_of(frame).hex(), now_ns)


def follow(fleet: str, connection: str) -> None:
    """Receive from the journal; ``follow`` with ``count`` and ``poll_s`` answers when they came."""
    import shm

    counted = Counted(ENVELOPE_STAMP)
    with shm.attach(fleet, connection) as reader:
        answer({})
        while True:
            for order in orders():
                if order["do"] != "follow":
                    answer(counted.obey(order))
                    continue
                counted.mark()
                missed, last = 0, reader.journal().last_seq
                answer({})  # whatever is sent now is followed
                for seq, frame in reader.follow(last, poll_s=order["poll_s"], timeout_s=2):
                    counted.take(frame, time.monotonic_ns())
                    missed += seq - last - 1
                    last = seq
                    if counted.count >= order["count"]:
                        break
                answer({"count": counted.count, "missed": missed})


def library(fleet: str, connection: str) -> None:
    """Receive by supervisor.subscriber: gaps repaired from the journal."""
    from supervisor.subscriber import Gap, Message, Subscriber

    counted, streamed = Counted(None), Streamed()

    def run() -> None:
        for item in Subscriber(fleet, connection):
            extra = counted.extra
            if isinstance(item, Message):
                counted.count += 1
                counted.arrived.append(time.monotonic_ns())
                counted.stamped.append(item.monotonic_ns)
                if item.repaired:
                    extra["repaired"] = extra.get("repaired", 0) + 1
                if item.payload.startswith(NUMBERED):
                    streamed.take(item.payload, extra)
            elif isinstance(item, Gap):
                extra["lost"] = extra.get("lost", 0) + item.last - item.first + 1

    threading.Thread(target=run, daemon=True).start()
    answer({})
    while True:
        for order in orders():
            answer(counted.obey(order))


if __name__ == "__main__":
    kinds = {"sub": subscribe, "follow": follow, "library": library}
    kinds[sys.argv[1]](*sys.argv[2:])
