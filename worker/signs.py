"""Signs: messages by which the exchange speaks of the session itself, as the machine takes them.

The I/O shell of ``Dialect``: pongs and pings, welcomes and answers to subscriptions, its own
heartbeat, its notice of an end. ``worker/connection.py`` hands messages in while any would mean
something.
"""

from shm.layout import Counter
from worker import session_facts as facts
from worker.dialect import (
    Ack,
    Beat,
    Dialect,
    DialectError,
    Notice,
    Ping,
    Pong,
    Ready,
    Sign,
    Watch,
)
from worker.output import Cells, Output
from worker.pings import Pings
from worker.session import Session, State
from worker.wire import Wire


class Signs:
    """
    Those of one connection.

    Args:
        dialect: What they look like.
        session: The machine, which knows what would mean something.
        pings: Ours, which a pong answers.
        output: Who hears of notices and errors.
        counters: By ``shm.layout.Counter``.
        feed: Called with what they mean.

    Attributes:
        beat_ns: When the exchange's own heartbeat came last, CLOCK_MONOTONIC; 0 for never.
        answer_ns: When a welcome or an answer to a subscription did.

    """

    def __init__(
        self,
        dialect: Dialect,
        session: Session,
        pings: Pings,
        output: Output,
        counters: Cells,
        feed: facts.Feed,
    ) -> None:
        self._dialect, self._session, self._pings = dialect, session, pings
        self._output, self._counters, self._feed = output, counters, feed
        self.beat_ns = self.answer_ns = 0

    def matter(self) -> bool:
        """Return whether any message may be one that means something now."""
        session = self._session
        return (
            self._dialect.always_looks
            or session.state is State.STALE
            or session.awaiting_ready
            or session.awaiting_acks
            or (self._dialect.has_pong and session.awaiting_pong)
        )

    def take(self, wire: Wire, payload: bytes, now_ns: int) -> bool:
        """
        Take a message for what it says of the session; return whether it is that and no data.

        Args:
            wire: Where it came from.
            payload: As it was sent.
            now_ns: When its bytes arrived, CLOCK_MONOTONIC.

        """
        match self._look(payload):
            case Pong(echo):
                self._pings.hear_message(payload, echo, wire.read_ns)
            case Ping(reply):
                if wire.send_text(reply.encode()):
                    self._counters[Counter.SERVER_PINGS] += 1
                    self._feed(facts.Said())
            case Beat():
                self.beat_ns = now_ns
            case sign:
                self._take_data(sign, now_ns)
                return False
        self._counters[Counter.CONTROL_MESSAGES] += 1
        return True

    def _look(self, payload: bytes) -> Sign | None:
        session = self._session
        watch = Watch(0)
        if session.awaiting_pong:
            watch |= Watch.PONG
        if session.awaiting_ready:
            watch |= Watch.READY
        elif session.awaiting_acks:
            watch |= Watch.ACK
        try:
            return self._dialect.look(payload, watch)
        except DialectError as error:
            self._output.dialect_error(error)
            return None

    def _take_data(self, sign: Ready | Ack | Notice | None, now_ns: int) -> None:
        """Take a message that is data too, or nothing else."""
        match sign:
            case Ready():
                self.answer_ns = now_ns
                self._feed(facts.ReadySeen(), now_ns)
            case Ack(error):
                self.answer_ns = now_ns
                self._feed(facts.AckSeen(error), now_ns)
            case Notice():
                self._output.notice()
        if self._session.state is State.STALE:
            self._feed(facts.DataSeen(), now_ns)
