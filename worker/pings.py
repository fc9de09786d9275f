"""Pings: how our pings leave, who is told of them, and which of them an answer is for.

The I/O shell of ``Heartbeat``, over all sessions of a connection; ``worker/connection.py`` hands it
what the machine requests and what the wire hears.
"""

import asyncio
import time
import uuid

from shm.layout import Counter
from worker import heartbeat_facts
from worker.dialect import Dialect
from worker.manual_pings import ManualPings
from worker.output import Cells, Output
from worker.session_facts import Feed
from worker.spec import HeartbeatSpec
from worker.wire import Wire

# A ping is told after it has left, or with its pong; and where that takes longer, as shortly before
# it as a timer of 1 ms allows: a loop that has just worked reads 0.1 ms sooner than one that slept.
TELL_S = 0.001
LEAD_S = 0.0015


class Pings:
    """
    Those of one connection, by the timetable and by hand.

    Args:
        spec: Their kind, ``None`` if the timetable has none.
        dialect: What they say.
        output: Who hears of them.
        counters: By ``shm.layout.Counter``.
        feed: Called with what became of them.

    """

    def __init__(
        self,
        spec: HeartbeatSpec | None,
        dialect: Dialect,
        output: Output,
        counters: Cells,
        feed: Feed,
    ) -> None:
        self._spec, self._dialect, self._output = spec, dialect, output
        self._counters, self._feed = counters, feed
        self._loop = asyncio.get_running_loop()
        self._untold: tuple[bytes, int] | None = None  # body of the latest, and when it was sent
        self._pong_payload = b""  # of the latest that came
        self._rtt_ns = 0  # of the latest that was measured
        self._manual = ManualPings()

    def send(self, wire: Wire, session: int, seq: int) -> None:
        """Send ping ``seq`` of session number ``session``, as ``heartbeat_facts.SendPing`` asks."""
        assert self._spec is not None
        application = self._spec.application
        body = self._dialect.ping_body(seq, time.time_ns() // 1_000_000, lambda: str(uuid.uuid4()))
        if not application and not body:
            body = f"{session}-{seq}".encode()
        # Whatever is done between the stamp and the next look at the socket is in a short round
        # trip, and after a sleep all that is done takes ten times as long as it does warm. So the
        # machine takes note before, and only the stamp after; and the ping is told later, or with
        # its pong.
        self.tell()  # the one before
        self._feed(heartbeat_facts.Sending(seq, body))
        sent = wire.send_text(body) if application else wire.send_ping(body)
        if not sent:
            self._feed(heartbeat_facts.SendFailed())
            return
        self._feed(heartbeat_facts.Sent(seq), wire.written_ns)
        self._counters[Counter.PINGS] += 1
        self._untold = body, wire.written_ns
        self._loop.call_later(max(TELL_S, self._rtt_ns / 1e9 - LEAD_S), self.tell)

    def tell(self) -> None:
        """Tell the latest ping, unless it has been: before whatever comes after it."""
        if self._untold is not None:
            (body, sent_ns), self._untold = self._untold, None
            self._output.ping(body, sent_ns)

    def tell_answered(self, rtt_ns: int | None, now_ns: int) -> None:
        """Tell that the latest pong was in time, as ``heartbeat_facts.TakePong`` says."""
        self.tell()
        self._rtt_ns = rtt_ns or 0
        self._output.pong(rtt_ns, now_ns, self._pong_payload)

    def hear_frame(self, body: bytes, read_ns: int) -> None:
        """Take a PONG frame that was read at ``read_ns``, CLOCK_MONOTONIC."""
        if (sent_ns := self._manual.take(body, read_ns)) is not None:
            self._feed(heartbeat_facts.PongElsewhere(sent_ns), read_ns)
            return
        self._pong_payload = body
        self._feed(heartbeat_facts.PongFrame(body), read_ns)

    def hear_message(self, payload: bytes, echo: str | None, read_ns: int) -> None:
        """Take a message that is a pong; ``echo`` is that of ``heartbeat_facts.PongMessage``."""
        self._pong_payload = payload
        self._feed(heartbeat_facts.PongMessage(echo), read_ns)

    def send_once(self, wire: Wire, body: bytes | None) -> asyncio.Future[int] | None:
        """
        Send one PING frame outside the timetable.

        Args:
            wire: Where.
            body: Its body; by default one of its own.

        Returns:
            The round trip to be, in ns, or ``None`` if the socket did not take it. A session that
            ends meanwhile makes it a ``ConnectionResetError``.

        Raises:
            ValueError: If a ping of that body waits for its answer already.

        """
        chosen = self._manual.body(body)
        return self._manual.sent(chosen, wire.written_ns) if wire.send_ping(chosen) else None

    def lost(self) -> None:
        """The socket is gone: nobody need wait for an answer any more."""
        self._manual.lost()
