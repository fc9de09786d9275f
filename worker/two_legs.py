"""Two legs: a connection over two sessions that are both kept up; the first arrival is delivered.

The I/O shell of ``Turns``. Each leg has its own heartbeat and dials again by itself.
"""

import random
import time
from dataclasses import replace
from typing import Any

from shm.layout import Counter, Word
from worker import turns
from worker.announcement import Cause
from worker.exits import Exit
from worker.legs import Legs
from worker.output import Cells, Owner
from worker.overlap import Overlap
from worker.session import Session
from worker.spec import SECOND_NS, ConnectionSpec
from worker.turns import Turns

WORDS = (
    (Word.LEG_1_STATE, Word.LEG_1_SESSION, Word.LEG_1_UP_SINCE_NS, Word.LEG_1_LAG_NS),
    (Word.LEG_2_STATE, Word.LEG_2_SESSION, Word.LEG_2_UP_SINCE_NS, Word.LEG_2_LAG_NS),
)
WINS = (Counter.LEG_1_WINS, Counter.LEG_2_WINS)


class TwoLegs(Legs):
    """The two sessions of one connection."""

    WINDOW_NS = 10 * SECOND_NS  # a leg that is slow in a storm would double every message

    def __init__(
        self, spec: ConnectionSpec, output: Owner, words: Cells, counters: Cells, **keys: Any
    ) -> None:
        super().__init__(spec, output, words, counters, **keys)
        self._turns = Turns(spec.rotate)
        self._wins = [0, 0]  # in the counters already

    def start(self) -> None:
        """Dial both."""
        for side in (0, 1):
            self._add(side)
        self._go_beside()
        for line in list(self.lines.values()):
            line.start()

    def rotate(self, cause: Cause) -> None:
        """Replace both sessions by fresh ones, one after the other."""
        self._tell(turns.Wanted(cause))

    def adjust(self, spec: ConnectionSpec) -> None:
        """Have other numbers where ``worker.respec`` says that they are live."""
        super().adjust(spec)
        self._turns.adjust(spec.rotate)
        self._alarm.set(self._turns.deadline_ns)

    def _spec_of(self, side: int) -> ConnectionSpec:
        spec, leg = self._spec, self._spec.leg2
        if side == 0 or leg is None:
            return spec
        return replace(spec, url=leg.url, source_address=leg.source_address, budget=leg.budget)

    # Machine and shell -----------------------------------------------------------------------

    def _tell(self, event: turns.Event) -> None:
        if self._stopping:
            return
        now_ns = time.monotonic_ns()
        for action in self._turns.handle(now_ns, event):
            match action:
                case turns.Renew(side, cause):
                    self._begun(side, cause, now_ns, leg=side + 1)
                    # Not in the midst of what its own session is doing.
                    self._loop.call_soon(self._renew, side)
                case turns.Finish(side):
                    self._finished(side, now_ns, leg=side + 1)
                    self._loop.call_soon(self._expire)
        self._alarm.set(self._turns.deadline_ns)

    def _renew(self, side: int) -> None:
        if side in self.lines:
            self.lines[side].renew(Cause.ROTATED)

    def _expire(self) -> None:
        self._tell(turns.Tick())

    def on_count(self, overlap: Overlap) -> None:
        """Show which leg was the first, and by how much (PairEvents)."""
        for number, side in enumerate(overlap.sides):
            self._counters[WINS[number]] += side.wins - self._wins[number]
            self._wins[number] = side.wins
            self._words[WORDS[number][3]] = side.lag_mean_ns

    # What the lines tell ---------------------------------------------------------------------

    def on_state(self, side: int, machine: Session, now_ns: int) -> None:
        """A session may have another state."""
        super().on_state(side, machine, now_ns)
        state, session, since, _lag = WORDS[side]
        self._words[state] = machine.state.value
        self._words[session] = machine.number
        self._words[since] = machine.up_ns

    def on_up(self, side: int) -> None:
        """A session is subscribed."""
        self._tell(turns.Up(side, time.time_ns(), random.random()))

    def on_down(self, side: int) -> None:
        """A session has ended, or never came to be."""
        self._tell(turns.Down(side))

    def on_fed(self, side: int) -> None:
        """A session has its first data."""
        self._tell(turns.Fed(side))

    def on_match(self) -> None:
        """A message came that both sessions have."""

    def on_notice(self, side: int) -> None:
        """The exchange announces the end of a session."""
        self._counters[Counter.NOTICES] += 1
        self._tell(turns.Wanted(Cause.NOTICE, side))

    def on_crowded(self, side: int) -> None:
        """A dial waits, for the host allows no further session at a time: so be it."""

    def on_ended(self, side: int, code: Exit) -> None:
        """A line has ended for good; the other one goes on."""
        if side not in self.lines:
            return
        if len(self.lines) == 1:
            self._output.ended(code)
        else:
            self._remove(side)
