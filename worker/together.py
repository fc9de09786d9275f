"""Together: what one or two sessions are as one connection, for whoever reads its state.

Pure. A connection is as well as its best session. Its session number says since when its messages
come without a break: it changes when no session carries the stream on, not when one takes it over
from another that had the same messages.
"""

from dataclasses import dataclass, replace
from typing import Protocol

from worker.announcement import Announcement, EventKind
from worker.session_state import OPEN, SERVING, State

# The best first.
ORDER = (
    State.UP,
    State.STALE,
    State.SUBSCRIBING,
    State.HANDSHAKING,
    State.DIALING,
    State.WAITING,
    State.DRAINING,
    State.CLOSED,
    State.IDLE,
)
BESIDE = {EventKind.UP: EventKind.LEG_UP, EventKind.DOWN: EventKind.LEG_DOWN}


class Machine(Protocol):
    """What is read of a session; ``worker.session.Session`` is one."""

    state: State
    number: int
    up_ns: int


@dataclass(frozen=True, slots=True)
class Seen:
    """
    A session, or all of them as one.

    Attributes:
        state: Its state.
        number: Its number; of all, that of the session with which the stream began anew last.
        up_ns: Since when it is up, CLOCK_MONOTONIC; 0 while it is not.

    """

    state: State = State.IDLE
    number: int = 0
    up_ns: int = 0


class Together:
    """
    The sessions of one connection, by side.

    Attributes:
        seen: As one.

    """

    def __init__(self) -> None:
        self._sides: dict[int, Seen] = {}
        self._fed: set[int] = set()  # sides that brought data beside another
        self.seen = Seen()
        self._stale: Announcement | None = None  # the latest of a session
        self._told_stale = False  # of the connection

    def note(self, side: int, machine: Machine) -> Seen:
        """Take the state of a side's session; return what all are as one."""
        seen = Seen(machine.state, machine.number, machine.up_ns)
        if side not in self._sides:
            self._fed |= self._carrying()  # alone it needed no proof
        elif self._sides[side].number != seen.number or seen.state not in OPEN:
            self._fed.discard(side)
        return self._set(side, seen)

    def feed(self, side: int) -> Seen:
        """Take that a side brought data in its session; return what all are as one."""
        self._fed.add(side)
        return self._set(side, self._sides[side])

    def drop(self, side: int) -> Seen:
        """Forget a side; return what all are as one."""
        before = self._carrying()
        self._sides.pop(side, None)
        self._fed.discard(side)
        return self._look(before)

    def is_up_without(self, side: int) -> bool:
        """Return whether another side's session is up."""
        return any(seen.state in SERVING for other, seen in self._sides.items() if other != side)

    def told(self, side: int, announcement: Announcement, *, named: bool) -> list[Announcement]:
        """
        Return what is told of the connection when the session of a side tells an event, in order.

        Beside a session that is up it is a leg's. A connection is stale if each of its sessions
        that are up is.

        Args:
            side: Whose event it is.
            announcement: The event; the session's state was noted before.
            named: Whether it names the leg, from 1.

        """
        found: list[Announcement] = []
        if announcement.kind is EventKind.STALE:
            self._stale = announcement
        elif announcement.kind is not EventKind.FRESH:
            is_leg = announcement.kind in BESIDE and self.is_up_without(side)
            kind = BESIDE[announcement.kind] if is_leg else announcement.kind
            detail = announcement.detail | ({"leg": side + 1} if named else {})
            found.append(replace(announcement, kind=kind, detail=detail))
        state = self.seen.state
        if state is State.STALE and not self._told_stale and self._stale is not None:
            self._told_stale = True
            found.append(self._stale)
        elif state is not State.STALE and self._told_stale:
            self._told_stale = False
            if state is State.UP:
                found.append(Announcement(kind=EventKind.FRESH))
        return found

    def _set(self, side: int, seen: Seen) -> Seen:
        before = self._carrying()
        self._sides[side] = seen
        return self._look(before)

    def _carrying(self) -> set[int]:
        """Return the sides that have the stream: up, and known to bring data if not alone."""
        up = {side for side, seen in self._sides.items() if seen.state in SERVING}
        return up if len(self._sides) == 1 else up & self._fed

    def _look(self, before: set[int]) -> Seen:
        if not self._sides:
            self.seen = Seen(State.CLOSED, self.seen.number)
            return self.seen
        best = min(
            self._sides.values(),
            key=lambda seen: (ORDER.index(seen.state), seen.up_ns, seen.number),
        )
        goes_on = bool(before & self._carrying())
        number = self.seen.number if goes_on else best.number
        up_ns = min((seen.up_ns for seen in self._sides.values() if seen.up_ns), default=0)
        self.seen = Seen(best.state, number, up_ns if best.state in SERVING else 0)
        return self.seen
