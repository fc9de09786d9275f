"""One leg: a connection with one session, replaced by a fresh one from time to time.

The I/O shell of ``Rotation``.
"""

import asyncio
import random
import time
from typing import Any

from shm.layout import Counter
from worker import rotation_facts as facts
from worker.announcement import Cause
from worker.close_codes import NORMAL
from worker.exits import Exit
from worker.legs import Legs
from worker.output import Cells, Owner
from worker.overlap import Overlap
from worker.rotation import Rotation, State
from worker.session_state import State as SessionState
from worker.spec import SECOND_NS, ConnectionSpec

# What the first session says is listened to for so long before the second is dialled: twice the
# window (``worker/overlap.py``). A notice does not leave us that time.
LISTEN_S = 4.0


class OneLeg(Legs):
    """The sessions of one connection: one, and two while one replaces the other."""

    WINDOW_NS = 2 * SECOND_NS

    def __init__(
        self, spec: ConnectionSpec, output: Owner, words: Cells, counters: Cells, **keys: Any
    ) -> None:
        super().__init__(spec, output, words, counters, **keys)
        self._rotation = Rotation(spec.rotate, breaks=_allows_one(spec))
        self._first = 0
        self._awaits_match = False
        self._dial_timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Dial."""
        self._add(self._first).start()

    def rotate(self, cause: Cause) -> None:
        """Replace the session by a fresh one."""
        self._tell(facts.Wanted(cause))

    def stop(self, code: int = NORMAL, reason: str = "", cause: Cause = Cause.STOP) -> None:
        """End for good: ``ended`` is called once the last socket is gone."""
        if self._dial_timer is not None:
            self._dial_timer.cancel()
        super().stop(code, reason, cause)

    def adjust(self, spec: ConnectionSpec) -> None:
        """Have other numbers where ``worker.respec`` says that they are live."""
        super().adjust(spec)
        self._rotation.adjust(spec.rotate, breaks=_allows_one(spec))
        self._alarm.set(self._rotation.deadline_ns)

    # Machine and shell -----------------------------------------------------------------------

    def _tell(self, event: facts.Event) -> None:
        if self._stopping:
            return
        now_ns = time.monotonic_ns()
        for action in self._rotation.handle(now_ns, event):
            self._perform(action, now_ns)
        self._alarm.set(self._rotation.deadline_ns)

    def _expire(self) -> None:
        self._tell(facts.Tick(self.lines[self._first].data_ns))

    def _perform(self, action: facts.Action, now_ns: int) -> None:
        first, second = self._first, 1 - self._first
        match action:
            case facts.Begin(cause, breaks):
                self._begun(first, cause, now_ns, breaks=breaks)
            case facts.MakeSecond():
                self._make_second(second)
            case facts.DropSecond():
                self._remove(second)
                self._go_alone()
            case facts.RenewSecond():
                self.lines[second].renew(Cause.NO_FIRST_DATA)
            case facts.RenewFirst():
                self.lines[first].renew(Cause.ROTATED)
            case facts.AwaitMatch():
                self._awaits_match = True
            case facts.CloseFirst():
                self._awaits_match = False
                self.lines[first].stop(cause=Cause.ROTATED)
            case facts.TakeOver():
                self._first = second
                self._remove(first)
                self._dial_now()
            case facts.Finish(overlap_ns):
                self._finish(now_ns, overlap_ns)
            case facts.GiveUp():
                self._go_alone()
                self._tell_rotation("failed")

    def _make_second(self, side: int) -> None:
        self._add(side)
        self._go_beside()
        delay_s = 0.0 if self._replacement.cause is Cause.NOTICE else LISTEN_S
        self._dial_timer = self._loop.call_later(delay_s, self._dial_now)

    def _dial_now(self) -> None:
        """Have the second session dialled, unless it has been."""
        timer, self._dial_timer = self._dial_timer, None
        if timer is not None:
            timer.cancel()
            for line in self.lines.values():
                if line.session.state is SessionState.IDLE:
                    line.start()

    def _finish(self, now_ns: int, overlap_ns: int) -> None:
        found: dict[str, Any] = {}
        if self._pair is not None:
            overlap = self._pair.overlap
            self._pair.leave(self._first)
            found = {
                "overlap_s": round(overlap_ns / SECOND_NS, 3),
                "duplicates": overlap.duplicates,
                "unmatched": overlap.unmatched,
                "overflows": overlap.overflows,
            }
            self._go_alone()
        self._finished(self._first, now_ns, **found)

    # What the lines tell ---------------------------------------------------------------------

    def on_up(self, side: int) -> None:
        """A session is subscribed."""
        self._tell(facts.Up(side != self._first, time.time_ns(), random.random()))

    def on_down(self, side: int) -> None:
        """A session has ended, or never came to be."""
        self._tell(facts.Down(side != self._first))

    def on_fed(self, side: int) -> None:
        """A session beside another has its first data."""
        if side != self._first:
            self._tell(facts.SecondData())

    def on_match(self) -> None:
        """A message came that both sessions have."""
        if self._awaits_match:
            self._tell(facts.Matched())
        elif self._rotation.state is State.SETTLING:
            assert self._pair is not None
            if not self._pair.overlap.sides[1 - self._first].waiting:
                self._tell(facts.Settled())

    def on_count(self, overlap: Overlap) -> None:
        """What two sessions brought was counted: told when the rotation is done."""

    def on_notice(self, side: int) -> None:
        """The exchange announces the end of a session."""
        self._counters[Counter.NOTICES] += 1
        self._tell(facts.Wanted(Cause.NOTICE))

    def on_crowded(self, side: int) -> None:
        """A dial waits, for the host allows no further session at a time."""
        if side != self._first:
            self._tell(facts.Crowded())

    def on_ended(self, side: int, code: Exit) -> None:
        """A line has ended for good."""
        if side not in self.lines:
            return
        if len(self.lines) == 1:
            self._output.ended(code)
        elif self._stopping:
            self._remove(side)
        elif side == self._first:
            self._tell(facts.FirstGone())
        else:
            self._remove(side)
            self._tell(facts.SecondGone())


def _allows_one(spec: ConnectionSpec) -> bool:
    return spec.budget is not None and spec.budget.concurrent == 1
