"""Turns: of two sessions that are both kept up, one after the other is replaced by a fresh one.

Pure. A session is closed and dialled again only while the other one carries the stream, so nothing
is missed. Its shell is ``worker/two_legs.py``.
"""

import enum
from dataclasses import dataclass

from worker.announcement import Cause
from worker.rotation_time import Lifetime
from worker.spec import RotateSpec


class State(enum.Enum):
    """Whether a session is being replaced."""

    RESTING = 0
    RENEWING = 1


TRANSITIONS: dict[State, frozenset[State]] = {
    State.RESTING: frozenset({State.RENEWING}),
    State.RENEWING: frozenset({State.RESTING}),
}

# Facts ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Up:
    """A side is subscribed; ``wall_ns`` is CLOCK_REALTIME, ``draw`` of [0, 1) for its jitter."""

    side: int
    wall_ns: int
    draw: float


@dataclass(frozen=True, slots=True)
class Fed:
    """A side brought its first data."""

    side: int


@dataclass(frozen=True, slots=True)
class Down:
    """A side's session has ended, or was not to be had."""

    side: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """A fresh session is wanted, of one side or of both (``None``)."""

    cause: Cause
    side: int | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event = Up | Fed | Down | Wanted | Tick

# Requests ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Renew:
    """Tell that a side's session is replaced; close it and have it dialled again."""

    side: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Finish:
    """Tell that it is done: the side brings data again."""

    side: int


Action = Renew | Finish


@dataclass(slots=True)
class _Side(Lifetime):
    carries: bool = False
    wanted: Cause | None = None


class Turns:
    """
    The rotations of two sessions.

    Args:
        spec: When they are wanted.

    """

    def __init__(self, spec: RotateSpec) -> None:
        self._spec = spec
        self.state = State.RESTING
        self._sides = (_Side(), _Side())
        self._renewing = 0

    def adjust(self, spec: RotateSpec) -> None:
        """Want it otherwise from now on."""
        self._spec = spec
        for side in self._sides:
            side.plan(spec)

    @property
    def deadline_ns(self) -> int | None:
        """When ``Tick`` is due, CLOCK_MONOTONIC; ``None`` if there is nothing to wait for."""
        if self.state is State.RENEWING:
            return None
        due = [
            side.due_ns
            for number, side in enumerate(self._sides)
            if side.due_ns is not None and self._may_renew(number)
        ]
        return min(due, default=None)

    def handle(self, now_ns: int, event: Event) -> tuple[Action, ...]:
        """Take one fact at ``now_ns`` (CLOCK_MONOTONIC); return what the shell must do."""
        before = self.state
        actions = self._step(now_ns, event)
        assert self.state is before or self.state in TRANSITIONS[before], (before, event)
        return actions

    def _step(self, now_ns: int, event: Event) -> tuple[Action, ...]:
        match event:
            case Up(number, wall_ns, draw):
                self._sides[number].begin(now_ns, wall_ns, draw, self._spec)
            case Fed(number):
                self._sides[number].carries = True
                if self.state is State.RENEWING and number == self._renewing:
                    self.state = State.RESTING
                    return (Finish(number),)
            case Down(number):
                side = self._sides[number]
                side.up_ns, side.carries = 0, False
                side.due_ns = side.wanted = None  # the next one is fresh
            case Wanted(cause, wanted):
                for number, side in enumerate(self._sides):
                    if side.up_ns and wanted in (None, number):
                        side.wanted = side.wanted or cause
            case Tick():
                pass
        return self._next(now_ns)

    def _may_renew(self, number: int) -> bool:
        return self._sides[number].up_ns > 0 and self._sides[1 - number].carries

    def _next(self, now_ns: int) -> tuple[Action, ...]:
        if self.state is State.RENEWING:
            return ()
        for number, side in enumerate(self._sides):
            is_old = side.due_ns is not None and now_ns >= side.due_ns
            cause = side.wanted or (Cause.MAX_AGE if is_old else None)
            if cause is not None and self._may_renew(number):
                self.state, self._renewing = State.RENEWING, number
                side.wanted, side.due_ns = None, None
                return (Renew(number, cause),)
        return ()
