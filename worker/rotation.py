"""Rotation: a session is replaced by a fresh one, which is made before the old one is broken.

Pure. Decides when to begin, when the second session carries the stream, when the first is closed,
and when all is over; two sessions at a time, of which the first carries until it is dropped. Dials
and their backoff are the second session's own (``worker/session.py``). Its shell is
``worker/one_leg.py``.
"""

import enum

from worker import rotation_facts as facts
from worker.announcement import Cause
from worker.rotation_time import Lifetime
from worker.spec import SECOND_NS, RotateSpec

# A second session that is subscribed and gives nothing for so long while the first gives data.
DATA_PATIENCE_NS = 10 * SECOND_NS
# Given to the two, beyond ``overlap``, to bring a message that both have: their streams then join.
MATCH_PATIENCE_NS = 5 * SECOND_NS
# What the first was ahead by still comes from the second, and is left out.
SETTLE_NS = 2 * SECOND_NS
RETRY_NS = 60 * SECOND_NS
# A notice may be said to every session, the fresh one included.
NOTICE_SPACING_NS = 10 * SECOND_NS


class State(enum.Enum):
    """Where a rotation stands."""

    RESTING = 0  # one session, or none
    MAKING = 1  # the second one is dialled, subscribed, waited for
    OVERLAPPING = 2  # both bring data
    CLOSING = 3  # the first one is being closed
    SETTLING = 4  # the second one is alone; what the first had brought before it is left out
    RENEWING = 5  # the only one allowed is closed and dialled again


TRANSITIONS: dict[State, frozenset[State]] = {
    State.RESTING: frozenset({State.MAKING, State.RENEWING}),
    State.MAKING: frozenset({State.OVERLAPPING, State.RESTING, State.SETTLING, State.RENEWING}),
    State.OVERLAPPING: frozenset({State.CLOSING, State.MAKING, State.SETTLING, State.RESTING}),
    State.CLOSING: frozenset({State.SETTLING}),
    State.SETTLING: frozenset({State.RESTING}),
    State.RENEWING: frozenset({State.RESTING}),
}


class Rotation:
    """
    The rotations of one connection.

    Args:
        spec: What is wanted.
        breaks: Whether the exchange allows only one session at a time.

    """

    def __init__(self, spec: RotateSpec, *, breaks: bool) -> None:
        self.state = State.RESTING
        self._first, self._second = Lifetime(), Lifetime()
        self.adjust(spec, breaks=breaks)
        self._deadline_ns: int | None = None
        self._both_ns = self._overlap_ns = 0
        self._crowded_ns = 0
        self._wanted: Cause | None = None  # heard meanwhile

    def adjust(self, spec: RotateSpec, *, breaks: bool) -> None:
        """Want it otherwise from now on; arguments as of the class."""
        self._spec, self._breaks = spec, breaks or not spec.overlap_ns
        for session in (self._first, self._second):
            session.plan(spec)

    @property
    def deadline_ns(self) -> int | None:
        """When ``Tick`` is due, CLOCK_MONOTONIC; ``None`` if there is nothing to wait for."""
        if self.state is not State.RESTING:
            return self._deadline_ns
        if not self._first.up_ns:
            return None
        noticed_ns = self._first.up_ns + NOTICE_SPACING_NS if self._wanted else None
        due = (self._first.due_ns, noticed_ns)
        return min((moment for moment in due if moment is not None), default=None)

    def handle(self, now_ns: int, event: facts.Event) -> tuple[facts.Action, ...]:
        """Take one fact at ``now_ns`` (CLOCK_MONOTONIC); return what the shell must do."""
        before = self.state
        actions = self._step(now_ns, event)
        assert self.state is before or self.state in TRANSITIONS[before], (before, event)
        return actions

    def _step(self, now_ns: int, event: facts.Event) -> tuple[facts.Action, ...]:
        match event:
            case facts.Up():
                return self._up(now_ns, event)
            case facts.Down(is_second):
                return self._second_down() if is_second else self._first_down(now_ns)
            case facts.Wanted(cause):
                return self._want(now_ns, cause)
            case facts.SecondData():
                return self._second_data(now_ns)
            case facts.Matched():
                return self._close(now_ns) if self.state is State.OVERLAPPING else ()
            case facts.Crowded():
                return self._crowded(now_ns)
            case facts.FirstGone():
                return self._first_gone(now_ns)
            case facts.SecondGone():
                return self._second_gone(now_ns)
            case facts.Settled():
                return self._finish() if self.state is State.SETTLING else ()
            case facts.Tick(first_data_ns):
                return self._tick(now_ns, first_data_ns)

    # Beginning -------------------------------------------------------------------------------

    def _up(self, now_ns: int, up: facts.Up) -> tuple[facts.Action, ...]:
        session = self._second if up.is_second else self._first
        session.begin(now_ns, up.wall_ns, up.draw, self._spec)
        if up.is_second and self.state is State.MAKING:
            self._deadline_ns = now_ns + DATA_PATIENCE_NS
        if self.state is State.RENEWING:
            return self._finish()
        return ()

    def _want(self, now_ns: int, cause: Cause) -> tuple[facts.Action, ...]:
        if self.state is not State.RESTING:
            if cause is Cause.NOTICE and self.state in (State.CLOSING, State.SETTLING):
                self._wanted = cause  # of the session that is to stay, as likely as not
            return ()
        if not self._first.up_ns:  # the next one will be fresh
            return ()
        if cause is Cause.NOTICE and now_ns < self._first.up_ns + NOTICE_SPACING_NS:
            self._wanted = cause
            return ()
        return self._begin(cause)

    def _begin(self, cause: Cause) -> tuple[facts.Action, ...]:
        self._wanted, self._deadline_ns = None, None
        self._second = Lifetime()
        self._both_ns = self._overlap_ns = self._crowded_ns = 0
        if self._breaks:
            return self._renew(cause)
        self.state = State.MAKING
        return (facts.Begin(cause, breaks=False), facts.MakeSecond())

    def _renew(self, cause: Cause) -> tuple[facts.Action, ...]:
        self.state, self._deadline_ns = State.RENEWING, None
        return (facts.Begin(cause, breaks=True), facts.RenewFirst())

    def _crowded(self, now_ns: int) -> tuple[facts.Action, ...]:
        if self.state is not State.MAKING:
            return ()
        self._crowded_ns = self._crowded_ns or now_ns
        if now_ns - self._crowded_ns < DATA_PATIENCE_NS:
            return ()
        return (facts.DropSecond(), *self._renew(Cause.CROWDED))

    # Two sessions ----------------------------------------------------------------------------

    def _second_data(self, now_ns: int) -> tuple[facts.Action, ...]:
        if self.state is not State.MAKING or not self._second.up_ns:
            return ()
        self.state, self._both_ns = State.OVERLAPPING, now_ns
        self._deadline_ns = now_ns + self._spec.overlap_ns
        return ()

    def _second_down(self) -> tuple[facts.Action, ...]:
        self._second = Lifetime()
        if self.state is State.OVERLAPPING:
            self.state, self._deadline_ns = State.MAKING, None
        elif self.state is State.MAKING:
            self._deadline_ns = None
        return ()

    def _second_gone(self, now_ns: int) -> tuple[facts.Action, ...]:
        self._second = Lifetime()
        if self.state not in (State.MAKING, State.OVERLAPPING):
            return ()
        self.state, self._deadline_ns = State.RESTING, None
        if self._first.due_ns is not None:
            self._first.due_ns = max(self._first.due_ns, now_ns + RETRY_NS)
        return (facts.GiveUp(),)

    def _first_down(self, now_ns: int) -> tuple[facts.Action, ...]:
        self._first = Lifetime()
        match self.state:
            case State.MAKING | State.OVERLAPPING:
                self._note_overlap(now_ns)
                return self._take_over(now_ns)
            case State.SETTLING:
                return self._finish()
            case _:
                return ()

    def _close(self, now_ns: int) -> tuple[facts.Action, ...]:
        self.state, self._deadline_ns = State.CLOSING, None
        self._note_overlap(now_ns)
        return (facts.CloseFirst(),)

    def _note_overlap(self, now_ns: int) -> None:
        self._overlap_ns = now_ns - self._both_ns if self._both_ns else 0

    def _first_gone(self, now_ns: int) -> tuple[facts.Action, ...]:
        return self._take_over(now_ns) if self.state is State.CLOSING else ()

    def _take_over(self, now_ns: int) -> tuple[facts.Action, ...]:
        self._first, self._second = self._second, Lifetime()
        self.state, self._deadline_ns = State.SETTLING, now_ns + SETTLE_NS
        return (facts.TakeOver(),)

    def _finish(self) -> tuple[facts.Action, ...]:
        self.state, self._deadline_ns = State.RESTING, None
        return (facts.Finish(self._overlap_ns),)

    # Time ------------------------------------------------------------------------------------

    def _tick(self, now_ns: int, first_data_ns: int) -> tuple[facts.Action, ...]:
        deadline_ns = self.deadline_ns
        if deadline_ns is None or now_ns < deadline_ns:
            return ()
        match self.state:
            case State.RESTING:
                is_old = self._first.due_ns is not None and now_ns >= self._first.due_ns
                return self._begin(Cause.MAX_AGE if is_old else self._wanted or Cause.NOTICE)
            case State.MAKING:
                return self._still_without_data(now_ns, first_data_ns)
            case State.OVERLAPPING:
                return self._joined(now_ns)
            case State.SETTLING:
                return self._finish()
            case _:
                return ()

    def _still_without_data(self, now_ns: int, first_data_ns: int) -> tuple[facts.Action, ...]:
        """The market may be quiet; a second session that alone is quiet is of no use."""
        self._deadline_ns = now_ns + DATA_PATIENCE_NS
        return (facts.RenewSecond(),) if first_data_ns > self._second.up_ns else ()

    def _joined(self, now_ns: int) -> tuple[facts.Action, ...]:
        """Both were there for long enough: the next message that both have joins the streams."""
        if now_ns >= self._both_ns + self._spec.overlap_ns + MATCH_PATIENCE_NS:
            return self._close(now_ns)
        self._deadline_ns = self._both_ns + self._spec.overlap_ns + MATCH_PATIENCE_NS
        return (facts.AwaitMatch(),)
