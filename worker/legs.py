"""Legs: one connection over one or two sessions at a time, each on a ``Connection`` of its own.

The I/O shell of ``Together``: it makes sessions, and tells what they are as one. What two of them
bring is delivered by ``worker/pair.py``; while there is one, none of it is in the way of a message.
When a second one is made or ended is for ``worker/one_leg.py`` and ``worker/two_legs.py``.
"""

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from shm.layout import Counter
from worker.alarm import Alarm
from worker.announcement import Announcement, Cause, EventKind
from worker.close_codes import NORMAL
from worker.connection import Connection
from worker.dialect import Dialect, MatchFunction
from worker.exits import Exit
from worker.login import LoginFunction
from worker.output import Cells, Owner
from worker.overlap import Overlap
from worker.pair import Pair
from worker.session import Session
from worker.spec import SECOND_NS, ConnectionSpec, SubscribeSpec
from worker.together import Seen, Together


class Replacement(NamedTuple):
    """Why a session is replaced, its number, and since when (CLOCK_MONOTONIC)."""

    cause: Cause
    session: int
    began_ns: int


class Leg:
    """
    What one session tells: the ``Output`` of its connection (``worker/output.py``).

    What is of one session alone goes on as it comes; all else passes through ``Legs``.
    """

    def __init__(self, legs: "Legs", side: int, output: Owner) -> None:
        self.message, self.read = output.message, output.read
        self.ping, self.pong = output.ping, output.pong
        self.dialect_error, self.tuned = output.dialect_error, output.tuned
        self.state = partial(legs.on_state, side)
        self.announce = partial(legs.on_announcement, side)
        self.notice = partial(legs.on_notice, side)
        self.crowded = partial(legs.on_crowded, side)
        self.ended = partial(legs.on_ended, side)


class Legs(ABC):
    """
    The sessions of one connection.

    Args:
        spec: What to keep up.
        output: Who hears of it.
        words: Hot words, by ``shm.layout.Word``.
        counters: By ``shm.layout.Counter``.
        pong_matcher: The matcher, if it is a function.
        login: The login function.
        numbers: Gives sessions their numbers, if there were others before.

    """

    # The same message may come so much later in the other session; a later one is another message.
    WINDOW_NS: int

    def __init__(
        self,
        spec: ConnectionSpec,
        output: Owner,
        words: Cells,
        counters: Cells,
        *,
        pong_matcher: MatchFunction | None = None,
        login: LoginFunction | None = None,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self._spec, self._output = spec, output
        self._words, self._counters = words, counters
        self._pong_matcher, self._login = pong_matcher, login
        self._loop = asyncio.get_running_loop()
        self._numbers = numbers if numbers is not None else itertools.count(1)
        self._together = Together()
        self.lines: dict[int, Connection] = {}  # by side, 0 and 1
        self._disposals: set[asyncio.Task[None]] = set()
        self._subscription = spec.subscribe
        self._dialect = Dialect(spec, pong_matcher) if spec.dedup else None
        self._pair: Pair | None = None  # while there are two
        self._alarm = Alarm(self._expire)  # of what replaces sessions
        self._replacement = Replacement(Cause.OPERATOR, 0, 0)  # the latest
        self._stopping = False

    # What its owner wants --------------------------------------------------------------------

    @abstractmethod
    def start(self) -> None:
        """Dial."""

    @abstractmethod
    def rotate(self, cause: Cause) -> None:
        """Replace what sessions there are by fresh ones."""

    def stop(self, code: int = NORMAL, reason: str = "", cause: Cause = Cause.STOP) -> None:
        """End for good: ``ended`` is called once the last socket is gone."""
        self._stopping = True
        self._alarm.cancel()
        for line in list(self.lines.values()):
            line.stop(code, reason, cause)

    def adjust(self, spec: ConnectionSpec) -> None:
        """Have other numbers where ``worker.respec`` says that they are live."""
        self._spec = spec
        for side, line in list(self.lines.items()):
            line.adjust(self._spec_of(side))

    def _spec_of(self, _side: int) -> ConnectionSpec:
        return self._spec

    def resubscribe(self, wanted: SubscribeSpec) -> None:
        """Have another subscription from now on, without a new session where that is possible."""
        self._subscription = wanted
        for line in list(self.lines.values()):
            line.resubscribe(wanted)

    async def close(self) -> None:
        """Let go of timers and of what is kept between dials; the sessions must have ended."""
        self._alarm.cancel()
        if self._pair is not None:
            self._pair.close()
        for line in self.lines.values():
            await line.close()
        await asyncio.gather(*self._disposals)

    # Rotation --------------------------------------------------------------------------------

    @abstractmethod
    def _expire(self) -> None:
        """What replaces sessions is due."""

    def _begun(self, side: int, cause: Cause, now_ns: int, **detail: object) -> None:
        """Tell that a side's session is being replaced."""
        self._replacement = Replacement(cause, self.lines[side].session.number, now_ns)
        self._tell_rotation("begin", **detail)

    def _finished(self, side: int, now_ns: int, **detail: object) -> None:
        """Tell that a side's session is the fresh one."""
        self._counters[Counter.ROTATIONS] += 1
        took_s = round((now_ns - self._replacement.began_ns) / SECOND_NS, 3)
        to = self.lines[side].session.number
        self._tell_rotation("done", to=to, took_s=took_s, **detail)

    def _tell_rotation(self, phase: str, **detail: object) -> None:
        cause, number, _began_ns = self._replacement
        said = {"phase": phase, "from": number, **detail}
        self._output.announce(Announcement(kind=EventKind.ROTATE, cause=cause, detail=said))

    # Lines -----------------------------------------------------------------------------------

    def _add(self, side: int) -> Connection:
        """Make a line that has not dialled; it does so beside the other one, if there is one."""
        other = self.lines.get(1 - side)
        self.lines[side] = line = Connection(
            replace(self._spec_of(side), subscribe=self._subscription),
            Leg(self, side, self._output),
            self._words,
            self._counters,
            pong_matcher=self._pong_matcher,
            login=self._login,
            tls=other.tls if other is not None else None,
            numbers=self._numbers,
        )
        return line

    def _remove(self, side: int) -> None:
        """End a line for good, whatever its state, and forget it."""
        line = self.lines.pop(side)
        line.stop()
        if self._pair is not None:
            self._pair.leave(side)
        self._show(self._together.drop(side), time.monotonic_ns())
        task = self._loop.create_task(line.close())
        self._disposals.add(task)
        task.add_done_callback(self._disposals.discard)

    # Two at a time ---------------------------------------------------------------------------

    def _go_beside(self) -> None:
        """Have what both lines bring delivered once, from now on."""
        overlap = Overlap(self._spec.limits.max_overlap, self.WINDOW_NS)
        self._pair = pair = Pair(overlap, self._output, self._counters, self._dialect, self)
        for side, line in self.lines.items():
            line.go_beside(pair.deliverer(side, line))
            self._note_in_pair(side, line.session, time.monotonic_ns())
        pair.mind()

    def _go_alone(self) -> None:
        """Hand on without ado what the only line brings."""
        if self._pair is not None:
            self._pair.close()
            self._pair = None
        for line in self.lines.values():
            line.go_alone()

    def _note_in_pair(self, side: int, machine: Session, now_ns: int) -> None:
        if self._pair is not None:
            hold = self._together.is_up_without(side)
            self._pair.note(side, machine.state, now_ns, hold=hold)

    def on_first_data(self, side: int, now_ns: int) -> None:
        """A session beside another has its first data (PairEvents)."""
        self._show(self._together.feed(side), now_ns)
        self.on_fed(side)

    @abstractmethod
    def on_fed(self, side: int) -> None:
        """A session beside another has its first data."""

    @abstractmethod
    def on_match(self) -> None:
        """A message came that both sessions have (PairEvents)."""

    @abstractmethod
    def on_count(self, overlap: Overlap) -> None:
        """What two sessions brought was counted (PairEvents)."""

    # What the lines tell ---------------------------------------------------------------------

    def on_state(self, side: int, machine: Session, now_ns: int) -> None:
        """A session may have another state."""
        if side not in self.lines or self.lines[side].session is not machine:
            return  # the end of one that was removed
        self._show(self._together.note(side, machine), now_ns)
        self._note_in_pair(side, machine, now_ns)

    def _show(self, seen: Seen, now_ns: int) -> None:
        self._output.state(seen, now_ns)

    def on_announcement(self, side: int, announcement: Announcement) -> None:
        """An event of a session."""
        if side not in self.lines:
            return
        for told in self._together.told(side, announcement, named=len(self.lines) > 1):
            self._output.announce(told)
        if announcement.kind is EventKind.UP:
            self.on_up(side)
        elif announcement.kind is EventKind.DOWN:
            self.on_down(side)

    @abstractmethod
    def on_up(self, side: int) -> None:
        """A session is subscribed."""

    @abstractmethod
    def on_down(self, side: int) -> None:
        """A session has ended, or never came to be."""

    @abstractmethod
    def on_notice(self, side: int) -> None:
        """The exchange announces the end of a session."""

    @abstractmethod
    def on_crowded(self, side: int) -> None:
        """A dial waits, for the host allows no further session at a time."""

    @abstractmethod
    def on_ended(self, side: int, code: Exit) -> None:
        """A line has ended for good."""
