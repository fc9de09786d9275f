"""Worker memory: what the supervisor reads of a worker's segment, whatever somebody did to it.

A worker writes it, so it may be cut, foreign, of another version or full of garbage at any moment:
it then counts as gone. Nothing here raises for what a segment holds.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from shm.errors import SegmentError
from shm.layout import Word
from shm.view import EventRecord, StatsView
from supervisor.calm import Calm
from worker.announcement import Announcement, EventKind

log = logging.getLogger("supervisor.worker_memory")

EVENTS_A_SCAN_MAX = 256


@dataclass(frozen=True, slots=True)
class Heard:
    """One event, and the incarnation and process that wrote it."""

    record: EventRecord
    epoch: int
    pid: int


class _Body(msgspec.Struct):
    """The JSON that a worker writes into its event ring."""

    cause: str = ""
    detail: dict[str, Any] = {}
    delay_s: float | None = None


_bodies = msgspec.json.Decoder(_Body)


def told_by(record: EventRecord) -> Announcement:
    """
    Return what a record of a worker's event ring says.

    Raises:
        ValueError: If no worker in its senses wrote that.

    """
    body = _bodies.decode(record.body)
    return Announcement(
        kind=EventKind(record.kind), cause=body.cause, detail=body.detail, delay_s=body.delay_s
    )


class WorkerMemory:
    """
    The segment of one connection, over all its incarnations.

    Events of an earlier life are told already: only what is written from now on is heard.

    Args:
        shm_dir: The fleet's directory.
        name: The connection.

    """

    def __init__(self, shm_dir: Path, name: str) -> None:
        self._shm_dir, self._name = shm_dir, name
        self._view = self._opened()
        self._events_read = 0
        if self._view is not None:
            self._events_read = self._view.words[Word.EVENT_PUBLISH]

    @property
    def epoch(self) -> int:
        """The incarnation whose segment is mapped, 0 if none is."""
        return self._view.epoch if self._view is not None else 0

    @property
    def heard(self) -> int:
        """The number of the last event that was handed over, or is of a time before ours."""
        return self._events_read

    def resume(self, heard: int) -> None:
        """Begin after this event instead: so far an earlier supervisor had read."""
        self._events_read = min(self._events_read, heard)

    def listen(self, hear: Callable[[Heard], None]) -> None:
        """Hand over what was written since the last time, going over to a successor."""
        self._read(hear)
        if self._view is None or self._view.replaced():
            self.close()
            self._view = self._opened()
            self._read(hear)

    def stamp_ns(self, incarnation: int) -> int | None:
        """Return the liveness stamp if the segment is of this incarnation."""
        return self.word(Word.LIVENESS_NS, incarnation)

    def word(self, word: Word, incarnation: int) -> int | None:
        """Return a hot word if the segment is of this incarnation."""
        view = self._intact()
        if view is None or view.epoch != incarnation:
            return None
        return view.words[word]

    def calm(self, incarnation: int, warn_after_ns: int) -> Calm | None:
        """Return what tells that nothing is new, if the segment is of this incarnation."""
        view = self._view
        if view is None or view.epoch != incarnation:
            return None
        return Calm(view.words, self._events_read, warn_after_ns)

    def close(self) -> None:
        """Unmap."""
        if self._view is not None:
            self._view.close()
            self._view = None

    def _opened(self) -> StatsView | None:
        try:
            return StatsView.open(self._shm_dir, self._name)
        except (SegmentError, OSError, ValueError):  # none, not ours, or no descriptor to be had
            return None

    def _intact(self) -> StatsView | None:
        if self._view is not None and self._view.truncated():
            log.warning("segment was cut connection=%s", self._name)
            self.close()
        return self._view

    def _read(self, hear: Callable[[Heard], None]) -> None:
        view = self._intact()
        if view is None:
            return
        published = view.words[Word.EVENT_PUBLISH]
        if published == self._events_read:
            return
        if published < self._events_read:  # a segment that could not go on with its predecessor
            self._events_read = 0
        records, lapped = view.events(self._events_read, EVENTS_A_SCAN_MAX)
        if lapped:
            log.warning("events lost: %d connection=%s", lapped, self._name)
        # Counted as read before they are told: what a hearer does may come back here.
        self._events_read = max(published, records[-1].seq if records else 0)
        epoch, pid = view.epoch, view.pid
        for record in records:
            hear(Heard(record, epoch, pid))
