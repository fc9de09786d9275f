"""Repairs: what a connection's journal has of the numbers that a subscriber misses."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from shm.errors import SegmentError
from shm.journal_reader import JournalReader
from shm.journal_ring import Frames
from supervisor.items import Message
from supervisor.sequencer import Found, Look
from worker.envelope import STRETCH_SHIFT, EnvelopeError, Flag, Kind, decode


def holes_of(numbers: Iterable[int], first: int, last: int) -> list[tuple[int, int]]:
    """Return the ranges of ``first`` to ``last`` that are not among the ascending numbers."""
    holes = []
    for number in numbers:
        if number > first:
            holes.append((first, number - 1))
        first = number + 1
    if first <= last:
        holes.append((first, last))
    return holes


def message_of(connection: str, frame: bytes, *, repaired: bool = False) -> Message | None:
    """Return the message of a frame, ``None`` if it holds none."""
    try:
        envelope = decode(frame)
    except EnvelopeError:
        return None
    if envelope.kind != Kind.DATA:
        return None
    return Message(
        connection,
        envelope.epoch,
        envelope.seq,
        envelope.topic_seq,
        envelope.topic,
        envelope.payload,
        envelope.wall_ns,
        envelope.monotonic_ns,
        repaired,
        bool(envelope.flags & Flag.TEXT),
        envelope.flags >> STRETCH_SHIFT,
    )


class Repairs:
    """
    The door to one connection's journal.

    It is kept open: what a fleet that ends removes from its directory can then still be read.

    Args:
        shm_dir: The fleet's.
        connection: Its name.
        prefixes: Of the frames that are wanted.

    """

    def __init__(self, shm_dir: Path, connection: str, prefixes: tuple[bytes, ...]) -> None:
        self._shm_dir, self._connection, self._prefixes = shm_dir, connection, prefixes
        self._reader: JournalReader | None = None
        self._errors = 0

    def open(self) -> None:
        """Open the journal, or the one that has taken its place, if there is one."""
        if self._reader is not None and not self._reader.replaced():
            return
        try:
            fresh = JournalReader.open(self._shm_dir, self._connection)
        except FileNotFoundError:
            return
        except SegmentError:
            self._errors += 1
            return
        self.close()
        self._reader = fresh

    def search(self, look: Look) -> Found:
        """Return what the journal has of these numbers, without raising."""
        frames, oldest = self._frames(look.first, look.last)
        messages = (self._message(seq, frame) for seq, frame in frames)
        holes = holes_of((seq for seq, _frame in frames), look.first, look.last)
        return Found([message for message in messages if message is not None], holes, oldest)

    def last_seq(self) -> int:
        """Return the newest number of the journal that was opened last, 0 if none."""
        if self._reader is None:
            return 0
        try:
            return self._reader.last_seq
        except SegmentError:
            return 0

    def _frames(self, first: int, last: int) -> tuple[Frames, int]:
        """Return frames, and the oldest number that is kept where some are missing."""
        if self._reader is None:
            self.open()
        found = self._read(first, last)
        if len(found) > last - first:
            return found, 0
        if self._reader is not None and self._reader.replaced():
            self.open()
            found += self._read(found[-1][0] + 1 if found else first, last)
        return found, self._oldest()

    def _read(self, first: int, last: int) -> Frames:
        if self._reader is None:
            return []
        try:
            return self._reader.frames(first, last)
        except SegmentError:
            self._errors += 1
            self.close()
            return []

    def _oldest(self) -> int:
        with contextlib.suppress(SegmentError):
            return self._reader.first_seq if self._reader is not None else 0
        return 0

    def _message(self, seq: int, frame: bytes) -> Message | None:
        """Return the message of a frame, if it is one and wanted."""
        if not frame.startswith(self._prefixes):
            return None
        message = message_of(self._connection, frame, repaired=True)
        if message is None or message.seq != seq:
            self._errors += 1
            return None
        return message

    def take_errors(self) -> int:
        """Return how many journals and frames in them could not be read since the last call."""
        errors, self._errors = self._errors, 0
        return errors

    def close(self) -> None:
        """Unmap."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
