"""Journal: the last published frames of a connection, for whoever missed some. The writer's side.

A record is stored in one slice where the intent word has announced that something will be, and
published by the publish word; a reader copies a record and believes it if the intent has not come
around to it meanwhile. One thread of one process writes: whoever holds the connection's stats
segment. Room for many records is announced at once: a store less for each.

The file outlives its writer. The next incarnation goes on in it: what its predecessor announced and
did not publish is covered by padding, and those positions are never written again.
"""

import os
import threading
from pathlib import Path

from shm import segment
from shm.errors import SegmentForeign, SegmentTruncated, SegmentVersion
from shm.journal_layout import (
    ALIGN,
    FRAME_SHARE,
    HEAD,
    INTENT,
    JOURNAL_HASH,
    LAST_SEQ,
    PADDING,
    PUBLISH,
    RESERVE_BYTES,
    RESERVE_SHARE,
    SIZE_MAX,
    SIZE_MIN,
    SKIPPED,
    index_slots,
    journal_bytes,
    ring_offset,
)
from shm.layout import HEADER_BYTES, LOW_HALF, PAGE, WORD, WORD_MAX, SegmentKind
from shm.ordering import register_writer
from shm.segment_lock import lock_predecessor

SUFFIX = ".journal"
LOCK_TIMEOUT_NS = 1_000_000_000  # its former writer has died: what may hold it still is going
# Mapped at the start: header and words. The ring is, as far as it is announced: to map 8 MiB takes
# 2 ms, a tenth of what it takes to replace a worker.
TOUCHED_BYTES = HEADER_BYTES + PAGE
# glibc copies what is longer than a part of the cache with stores that pass earlier ones (at the
# least 768 KiB on machines of ours): from here on the intent is made visible first.
FENCED_BYTES = 64 * 1024


def journal_path(directory: Path, connection: str) -> Path:
    """Return where a connection's journal is."""
    return directory / f"{connection}{SUFFIX}"


class Journal:
    """
    The ring of one connection, locked for life.

    ``append`` keeps one frame. The hot path (``worker/stream.py``) does the same by itself for
    frames of at most ``quick_max`` bytes that end before ``quick_end``.

    Attributes:
        memory: The file.
        words: By ``shm.journal_layout.JournalWord``.
        index: Positions by sequence number modulo ``slots``.
        position: Where the next record begins, counted from the ring's beginning of time.
        at: The same as an offset into ``memory``.
        quick_end: Offset up to which room is announced.
        size: Bytes of the ring.

    """

    __slots__ = (
        "_end",
        "_fence",
        "_frame_max",
        "_reserve",
        "_segment",
        "_start",
        "_untouched",
        "at",
        "index",
        "memory",
        "position",
        "quick_end",
        "quick_max",
        "size",
        "slots",
        "words",
    )

    def __init__(self, owned: segment.Segment, size: int) -> None:
        """Take a file of ours with a ring of ``size`` bytes, as its last writer left it."""
        self._segment, self.size = owned, size
        self.memory, self._start = owned.memory, ring_offset(size)
        whole = memoryview(owned.memory)
        self.words = whole[HEADER_BYTES : HEADER_BYTES + PAGE].cast("q")
        self.index = whole[HEADER_BYTES + PAGE : self._start].cast("q")
        whole.release()
        self.slots, self._end = index_slots(size), self._start + size
        self._reserve = min(RESERVE_BYTES, size // RESERVE_SHARE)
        self._frame_max = size // FRAME_SHARE
        self.quick_max = min(self._frame_max, FENCED_BYTES)
        self._fence = threading.Lock()  # its atomic operations order stores, on x86-64
        self.position = self.words[PUBLISH]
        self.at = self.quick_end = self._start + self.position % size
        self._untouched = size  # bytes of the ring that we have not been through yet

    @classmethod
    def take_over(
        cls, directory: Path, connection: str, *, size: int, incarnation: int
    ) -> "Journal":
        """
        Go on in the connection's journal; make it if there is none of this size and layout.

        Args:
            directory: The fleet's.
            connection: Its name; the caller holds its stats segment.
            size: Bytes of the ring, whole pages.
            incarnation: Ours.

        Raises:
            SegmentForeign: If the path holds something that is not ours.
            SegmentLocked: If somebody else writes it.
            SegmentSpace: If the file system is too full.
            SegmentUnavailable: If the system cannot give it for now.
            ValueError: If the size is impossible.

        """
        if size % PAGE or not SIZE_MIN <= size <= SIZE_MAX:
            raise ValueError(
                f"a journal has {SIZE_MIN:,} to {SIZE_MAX:,} bytes in whole pages, got {size:,}"
            )
        path = journal_path(directory, connection)
        held = lock_predecessor(path, LOCK_TIMEOUT_NS, writable=True)
        if held is None:
            return cls._made(path, connection, size, incarnation)
        try:
            former = cls._former(path, held, size)
            return former or cls._made(path, connection, size, incarnation)
        finally:
            os.close(held)

    @classmethod
    def _former(cls, path: Path, held: int, size: int) -> "Journal | None":
        """Return the journal that we hold, ``None`` if it is of no use to us."""
        try:
            owned = segment.map_writable(
                path, held, SegmentKind.JOURNAL, JOURNAL_HASH, TOUCHED_BYTES
            )
        except (SegmentVersion, SegmentTruncated, SegmentForeign):
            return None  # it was locked as ours, and somebody has written into it
        if owned.header.total_bytes != journal_bytes(size):
            owned.close()
            return None
        journal = cls(owned, size)
        if journal._plausible():
            journal._cover_unfinished()
            return journal
        journal.close()
        return None

    @classmethod
    def _made(cls, path: Path, connection: str, size: int, incarnation: int) -> "Journal":
        owned, temporary = segment.create(
            path,
            SegmentKind.JOURNAL,
            journal_bytes(size),
            JOURNAL_HASH,
            name=connection,
            incarnation=incarnation,
            flags=register_writer(),
            touched=TOUCHED_BYTES,
        )
        try:
            segment.publish(owned, temporary)
        except BaseException:
            owned.close()
            temporary.unlink(missing_ok=True)
            raise
        return cls(owned, size)

    def _plausible(self) -> bool:
        """Return whether this is what a writer leaves that was ended at any instruction."""
        intent, publish = self.words[INTENT], self.words[PUBLISH]
        last, room = self.words[LAST_SEQ], self.size - publish % self.size
        if intent % ALIGN or publish % ALIGN or not 0 <= last < WORD_MAX:
            return False
        if not 0 <= publish <= intent <= min(publish + room, WORD_MAX):
            return False
        return not last or self._holds(last)

    def _holds(self, seq: int) -> bool:
        """Return whether the index leads to a published record of this number."""
        position = self.index[seq % self.slots]
        if position % ALIGN or not max(0, self.position - self.size) <= position < self.position:
            return False
        start = self._start + position % self.size
        length, low = HEAD.unpack(self.memory[start : start + HEAD.size])
        fits = start + HEAD.size + length <= self._end and length <= self._frame_max
        return fits and bool(low == seq & LOW_HALF)

    def _cover_unfinished(self) -> None:
        register_writer()
        unfinished = self.words[INTENT] - self.position
        if unfinished:  # one record, half there, and room for others: it lies in one piece
            self._pad(unfinished)
        self.words[LAST_SEQ] = self.last_seq()

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._segment.path

    @property
    def frames_skipped(self) -> int:
        """How many frames were too long to be kept, ever."""
        return self.words[SKIPPED]

    def last_seq(self) -> int:
        """
        Return the newest sequence number kept, 0 if none.

        A writer that was killed has published more than it said.
        """
        last = self.words[LAST_SEQ]
        while self._holds(last + 1):
            last += 1
        return last

    def append(self, seq: int, frame: bytes) -> bool:
        """Keep one frame; return whether, for what is over a quarter of the ring is not kept."""
        length = len(frame)
        if length > self._frame_max:
            self.words[SKIPPED] += 1
            return False
        if self.at + HEAD.size + length > self._end:
            self._pad(self._end - self.at)
        position, at = self.position, self.at
        # Its head and what fills it up to eight bytes.
        following = position + (length + 15 & -8)
        self._announce(following)
        if length > FENCED_BYTES:
            with self._fence:
                pass
        self.memory[at : at + HEAD.size + length] = HEAD.pack(length, seq & LOW_HALF) + frame
        self.index[seq % self.slots] = position
        self._publish(following)
        self.words[LAST_SEQ] = seq
        return True

    def _announce(self, following: int) -> None:
        """Announce a record that ends at a position, and some room behind it."""
        lap_ends = self.position - self.at + self._end
        announced = min(following + self._reserve, lap_ends)
        if announced > self.words[INTENT]:  # it never goes back
            self.words[INTENT] = announced
        room = announced - self.position
        self.quick_end = self.at + room
        if self._untouched > 0:
            segment.touch(self.memory, self.at, room)
            self._untouched -= room

    def tell(self, seq: int) -> None:
        """Show the newest sequence number, at the least once in ``UNTOLD_MAX`` records."""
        self.words[LAST_SEQ] = seq

    def _pad(self, length: int) -> None:
        following = self.position + length
        if following > self.words[INTENT]:
            self.words[INTENT] = following
        if length:
            self.memory[self.at : self.at + HEAD.size] = HEAD.pack(PADDING | length, 0)
        self._publish(following)

    def _publish(self, following: int) -> None:
        self.words[PUBLISH] = self.position = following
        if following % self.size == 0:  # the next lap
            self.quick_end = self._start
        self.at = self._start + following % self.size

    def close(self) -> None:
        """Let go of the file; it stays for readers and for the next incarnation."""
        self.words.release()
        self.index.release()
        self._segment.close()


assert HEAD.size == ALIGN == WORD
