"""Pair: what two lines of one connection bring, delivered once. The I/O shell of ``Overlap``.

It lasts as long as there are two lines, or until what the former one brought is settled
(``worker/legs.py``); while there is one, nothing of this is in the way of a message.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from shm.layout import Counter
from worker.connection import Connection, Deliver
from worker.dialect import Dialect, DialectError
from worker.output import Cells, Owner
from worker.overlap import Item, Overlap
from worker.session_state import OPEN, SERVING, State

# From before its request leaves: some exchanges send data without being asked again, and the other
# session's copy may be read before the answer to the handshake.
JOINING = OPEN | {State.HANDSHAKING}
BRINGING = JOINING | {State.DRAINING}
MIND_S = 0.25
STOOD_NS = 250_000_000  # our loop came so late: for a while it read nothing


class PairEvents(Protocol):
    """Who is told of a pair."""

    def on_first_data(self, side: int, now_ns: int) -> None:
        """A side's session has its first data; CLOCK_MONOTONIC."""

    def on_match(self) -> None:
        """A message came that both sessions have."""

    def on_count(self, overlap: Overlap) -> None:
        """What was counted since the last time is shown."""


class Pair:
    """
    Two lines, by side.

    Args:
        overlap: Which messages are the same; fresh.
        output: Where they go.
        counters: By ``shm.layout.Counter``.
        dialect: Finds by what a message is known, ``None`` if it is the message itself.
        events: Who is told.

    """

    def __init__(
        self,
        overlap: Overlap,
        output: Owner,
        counters: Cells,
        dialect: Dialect | None,
        events: PairEvents,
    ) -> None:
        self.overlap = overlap
        self._output, self._counters = output, counters
        self._dialect, self._events = dialect, events
        self._loop = asyncio.get_running_loop()
        self._unfed: set[int] = set()  # sides without data in their session
        self._counted = (0, 0, 0)  # of the overlap's numbers, in the counters already
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = 0

    def deliverer(self, side: int, line: Connection) -> Deliver:
        """Return what delivers the messages of a side's line."""
        message, unfed, key_of = self._output.message, self._unfed, self._key_of
        overlap, dialect = self.overlap, self._dialect
        arrived, on_match = overlap.arrived, self._events.on_match

        def deliver(payload: bytes, is_text: bool, now_ns: int, wall_ns: int) -> None:
            key = payload if dialect is None else key_of(dialect, payload)
            before = overlap.duplicates
            for item in arrived(side, key, (payload, is_text, now_ns, wall_ns)):
                message(*item)
            if side in unfed and now_ns != line.answer_ns and line.session.state in SERVING:
                unfed.discard(side)
                self._events.on_first_data(side, now_ns)
            if overlap.duplicates != before:
                on_match()

        return deliver

    def _key_of(self, dialect: Dialect, payload: bytes) -> bytes:
        try:
            return dialect.dedup_key(payload)
        except DialectError as error:
            self._output.dialect_error(error)
            return payload

    def note(self, side: int, state: State, now_ns: int, *, hold: bool) -> None:
        """Take the state of a side's session; ``hold`` as ``Overlap.join``."""
        was_there = self.overlap.sides[side].present
        if state in JOINING and not was_there:
            self.overlap.join(side, now_ns, hold=hold)
            self._unfed.add(side)
        elif was_there and state not in BRINGING:
            self.leave(side)

    def leave(self, side: int) -> None:
        """Take that a side's session has ended, if it has not been told so."""
        if self.overlap.sides[side].present:
            self._deliver(self.overlap.leave(side))

    def _deliver(self, items: Sequence[Item]) -> None:
        for item in items:
            self._output.message(*item)
        if items:
            self._output.read()

    def mind(self) -> None:
        """Forget what is too old, and show what was counted: now, and from time to time."""
        overlap, now_ns = self.overlap, time.monotonic_ns()
        if self._due_ns and now_ns > self._due_ns + STOOD_NS:
            overlap.stood(now_ns - self._due_ns)
        self._deliver(overlap.expire(now_ns))
        self._count()
        self._due_ns = now_ns + int(MIND_S * 1e9)
        self._timer = self._loop.call_later(MIND_S, self.mind)

    def close(self) -> None:
        """Mind no more, and show what was counted since."""
        self._count()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _count(self) -> None:
        overlap = self.overlap
        counted = overlap.duplicates, overlap.unmatched, overlap.overflows
        names = Counter.OVERLAP_DUPLICATES, Counter.OVERLAP_UNMATCHED, Counter.OVERLAP_OVERFLOWS
        for counter, number, former in zip(names, counted, self._counted, strict=True):
            self._counters[counter] += number - former
        self._counted = counted
        self._events.on_count(overlap)
