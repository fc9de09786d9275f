"""Event inlet: a fleet's event stream, for who wants it and for what it tells the subscriber."""

from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

import msgspec
import zmq

from supervisor.items import Event, Item
from supervisor.sockets import DONTWAIT, subscribed
from worker.endpoints import EVENTS
from worker.envelope import EnvelopeError, Kind, decode


class EventBody(msgspec.Struct):
    """The JSON of an event (docs/wire-format.md)."""

    fleet: str
    connection: str | None
    kind: str
    cause: str
    detail: dict[str, object]
    delay_s: float | None
    incarnation: int
    pid: int
    seq: int
    time: str
    monotonic_ns: int


_events = msgspec.json.Decoder(EventBody)


class EventInlet:
    """
    ``events.sock`` of a fleet.

    Args:
        context: Of the socket.
        runtime_dir: The fleet's.
        on_event: Hears each; returns whether it is delivered, too.
        counts: Of ``events``, of ``events_lost`` as their numbers tell, of ``malformed`` frames.

    Attributes:
        fd: Readable when ``drain`` has something to do.

    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        runtime_dir: Path,
        on_event: Callable[[Event], bool],
        counts: Counter[str],
    ) -> None:
        self.runtime_dir, self._on_event, self._counts = runtime_dir, on_event, counts
        endpoint = f"ipc://{runtime_dir / EVENTS}"
        self._socket = subscribed(context, endpoint, (b"event.",))
        self.fd = int(self._socket.getsockopt(zmq.FD))
        self._seq = 0

    def drain(self, out: deque[Item], budget: int) -> bool:
        """Read at most so many frames; return whether there are no more."""
        for _ in range(budget):
            try:
                frame = self._socket.recv(DONTWAIT)
            except zmq.Again:
                return True
            event = self._event(frame)
            if event is None:
                self._counts["malformed"] += 1
            elif self._on_event(event):
                out.append(event)
        return False

    def _event(self, frame: bytes) -> Event | None:
        try:
            envelope = decode(frame)
            if envelope.kind != Kind.EVENT:
                return None
            body = _events.decode(envelope.payload)
        except (EnvelopeError, ValueError, RecursionError):  # MsgspecError is a ValueError
            return None
        self._counts["events"] += 1
        if 0 < self._seq < body.seq:  # else the first, or of another supervisor
            self._counts["events_lost"] += body.seq - self._seq - 1
        self._seq = body.seq
        return Event(**msgspec.structs.asdict(body))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(0)
