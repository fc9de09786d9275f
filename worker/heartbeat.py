"""Heartbeat: decides when to ping the exchange and when to call a session dead.

Pure. One ``Heartbeat`` lives as long as one session. It knows nothing of how a pong looks
(``worker/dialect.py``), sends nothing and closes nothing: its shell is ``worker/pings.py``.
"""

import enum
from collections import OrderedDict

from worker.announcement import Cause
from worker.heartbeat_facts import (
    Action,
    CountForeignPong,
    CountLatePong,
    CountMissed,
    DeclareDead,
    Event,
    Look,
    Looked,
    PongElsewhere,
    PongFrame,
    PongMessage,
    SendFailed,
    Sending,
    SendPing,
    Sent,
    TakePong,
    Tick,
)
from worker.spec import HeartbeatSpec

EXPIRED_MAX = 16  # pings whose late pongs are still known as such


class State(enum.Enum):
    """What the heartbeat waits for."""

    RESTING = "resting"  # no ping outstanding
    AWAITING = "awaiting"  # at least one
    OVERDUE = "overdue"  # the oldest has timed out by the clock; the socket is being looked at
    DEAD = "dead"  # final: a new session has a new heartbeat


TRANSITIONS: dict[State, frozenset[State]] = {
    State.RESTING: frozenset({State.AWAITING, State.DEAD}),
    State.AWAITING: frozenset({State.RESTING, State.OVERDUE, State.DEAD}),
    State.OVERDUE: frozenset({State.RESTING, State.AWAITING, State.DEAD}),
    State.DEAD: frozenset(),
}


class Heartbeat:
    """
    Ping timetable and death of one session.

    Pings leave on an absolute timetable, ``start + first + n * interval``, whatever the round trips
    take; points that passed while the process stood are skipped, not made up for. Data never
    postpones a ping. A pong to a newer ping answers the older ones too, without a sample for them:
    RFC 6455 section 5.5.3 lets a peer answer only the latest.

    Args:
        spec: Intervals and kind of ping.
        start_ns: When the session began to subscribe: a long list, paced, may take longer than an
            exchange waits for a ping. CLOCK_MONOTONIC nanoseconds, like every ``_ns`` here.

    """

    def __init__(self, spec: HeartbeatSpec, start_ns: int) -> None:
        self._spec = spec
        self.state = State.RESTING
        self._first_ns = start_ns + spec.first_ns
        self._point = 0  # number of the next point of the timetable
        self._seq = 0
        self._missed = 0  # in a row
        self._outstanding: OrderedDict[int, tuple[int, bytes]] = OrderedDict()
        self._expired: dict[int, tuple[int, bytes]] = {}

    @property
    def awaiting(self) -> bool:
        """Whether a pong would mean anything; the dialect's rules rest otherwise."""
        return bool(self._outstanding)

    @property
    def deadline_ns(self) -> int | None:
        """When ``Tick`` is due; ``None`` if there is nothing to wait for."""
        if self.state in (State.OVERDUE, State.DEAD):
            return None
        due_ns = self._point_ns(self._point)
        if self._outstanding:
            sent_ns, _body = next(iter(self._outstanding.values()))
            due_ns = min(due_ns, sent_ns + self._spec.timeout_ns)
        return due_ns

    def handle(self, now_ns: int, event: Event) -> tuple[Action, ...]:
        """
        Take one fact, return what the shell must do, in order. Late calls are safe.

        For a pong ``now_ns`` is the moment its bytes arrived, not the moment this runs.
        """
        before = self.state
        actions = self._step(now_ns, event)
        assert self.state is before or self.state in TRANSITIONS[before], (before, event)
        return actions

    def _step(self, now_ns: int, event: Event) -> tuple[Action, ...]:
        match event:
            case Tick():
                return self._tick(now_ns)
            case Sending(seq, body):
                if self.state is not State.DEAD:
                    self._outstanding[seq] = (now_ns, body)
                    self._settle()
                return ()
            case Sent(seq):
                if seq in self._outstanding:
                    self._outstanding[seq] = (now_ns, self._outstanding[seq][1])
                return ()
            case SendFailed():
                return self._die(Cause.SEND_FAILED, self._seq, 0)
            case PongFrame(body):
                return self._pong(now_ns, self._seq_of_body(body))
            case PongElsewhere(sent_ns):
                return self._answered_elsewhere(sent_ns)
            case PongMessage(echo):
                return self._pong(now_ns, self._seq_of_echo(echo))
            case Looked():
                return self._looked(now_ns, event)

    def _tick(self, now_ns: int) -> tuple[Action, ...]:
        deadline_ns = self.deadline_ns
        if deadline_ns is None or now_ns < deadline_ns:
            return ()
        if self._oldest_expired(now_ns):
            self.state = State.OVERDUE
            sent_ns, _body = next(iter(self._outstanding.values()))
            return (Look(sent_ns),)
        passed = (now_ns - self._first_ns) // self._spec.interval_ns
        self._point = passed + 1
        self._seq += 1
        return (SendPing(self._seq),)

    def _looked(self, now_ns: int, looked: Looked) -> tuple[Action, ...]:
        if self.state is not State.OVERDUE:
            return ()
        if not self._oldest_expired(now_ns):
            self._settle()
            return ()
        seq, sent = next(iter(self._outstanding.items()))
        self._missed += 1
        if self._missed >= self._spec.misses:
            waited_ns = now_ns - sent[0]
            cause = Cause.BUSY if looked.blames_us(waited_ns) else Cause.PING_TIMEOUT
            return self._die(cause, seq, waited_ns, looked)
        self._expired[seq] = sent
        while len(self._expired) > EXPIRED_MAX:
            del self._expired[next(iter(self._expired))]
        del self._outstanding[seq]
        self._settle()
        return (CountMissed(seq),)

    def _die(
        self, cause: Cause, seq: int, waited_ns: int, looked: Looked | None = None
    ) -> tuple[Action, ...]:
        if self.state is State.DEAD:
            return ()
        self.state = State.DEAD
        self._expired |= self._outstanding
        self._outstanding.clear()
        return (DeclareDead(cause, seq, waited_ns, looked),)

    def _pong(self, now_ns: int, seq: int | None) -> tuple[Action, ...]:
        if seq is None:
            return (CountForeignPong(),)
        if seq in self._expired:
            sent_ns, _body = self._expired.pop(seq)
            return (CountLatePong(now_ns - sent_ns),)
        sent_ns, _body = self._outstanding[seq]
        if now_ns < sent_ns:  # it was read before, and is only found now
            return (CountForeignPong(),)
        for older in [number for number in self._outstanding if number <= seq]:
            del self._outstanding[older]
        rtt_ns = now_ns - sent_ns
        self._missed = 0
        self._settle()
        return (TakePong(seq, rtt_ns if rtt_ns <= self._spec.timeout_ns else None),)

    def _answered_elsewhere(self, pinged_ns: int) -> tuple[Action, ...]:
        older = [seq for seq, sent in self._outstanding.items() if sent[0] <= pinged_ns]
        if older and not self._spec.application:
            for seq in older:
                del self._outstanding[seq]
            self._missed = 0
            self._settle()
        return ()

    def _seq_of_body(self, body: bytes) -> int | None:
        if self._spec.application:
            return None
        for pings in (self._outstanding, self._expired):
            for seq, (_sent_ns, sent_body) in pings.items():
                if sent_body == body:
                    return seq
        return None

    def _seq_of_echo(self, echo: str | None) -> int | None:
        if not self._spec.application:
            return None
        if self._spec.pong_id is None:
            return next(iter(self._outstanding or self._expired), None)
        # Looked for as text: what the exchange sends is never parsed into a number of any length.
        return next((n for n in (*self._outstanding, *self._expired) if str(n) == echo), None)

    def _oldest_expired(self, now_ns: int) -> bool:
        if not self._outstanding:
            return False
        sent_ns, _body = next(iter(self._outstanding.values()))
        return now_ns >= sent_ns + self._spec.timeout_ns

    def _settle(self) -> None:
        self.state = State.AWAITING if self._outstanding else State.RESTING

    def _point_ns(self, point: int) -> int:
        return self._first_ns + point * self._spec.interval_ns
