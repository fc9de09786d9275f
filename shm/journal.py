"""Journal: the last published frames of a connection, for whoever missed some. The writer's side.

A record is announced by the intent word, stored in one slice, and published by the publish word; a
reader copies a record and believes it if the intent has not come around to it meanwhile. One thread
of one process writes: whoever holds the connection's stats segment.

The file outlives its writer. The next incarnation goes on in it: what its predecessor announced and
did not publish is covered by padding, and those positions are never written again.
"""

import os
from pathlib import Path

from shm import segment
from shm.errors import SegmentForeign, SegmentTruncated, SegmentVersion
from shm.journal_layout import (
    ALIGN,
    FRAME_SHARE,
    HEAD,
    JOURNAL_HASH,
    PADDING,
    SIZE_MAX,
    SIZE_MIN,
    JournalWord,
    index_slots,
    journal_bytes,
    ring_offset,
)
from shm.layout import HEADER_BYTES, PAGE, WORD, SegmentKind
from shm.ordering import register_writer

SUFFIX = ".journal"
LOCK_TIMEOUT_NS = 1_000_000_000  # its former writer has died: what may hold it still is going
LOW_HALF = 0xFFFF_FFFF
WORD_MAX = 1 << 62  # beyond it a word is garbage
# Plain integers: members of an IntEnum cost 20 ns each on the hot path.
INTENT, PUBLISH = int(JournalWord.INTENT), int(JournalWord.PUBLISH)
LAST_SEQ, SKIPPED = int(JournalWord.LAST_SEQ), int(JournalWord.SKIPPED)


def journal_path(directory: Path, connection: str) -> Path:
    """Return where a connection's journal is."""
    return directory / f"{connection}{SUFFIX}"


class Journal:
    """
    The ring of one connection, locked for life.

    Args:
        owned: Its file.
        size: Bytes of the ring.

    """

    def __init__(self, owned: segment.Segment, size: int) -> None:
        self._segment, self._size = owned, size
        self._memory, self._start = owned.memory, ring_offset(size)
        whole = memoryview(owned.memory)
        self._words = whole[HEADER_BYTES : HEADER_BYTES + PAGE].cast("q")
        self._index = whole[HEADER_BYTES + PAGE : self._start].cast("q")
        whole.release()
        self._slots = index_slots(size)
        self._frame_max = size // FRAME_SHARE
        self._position = self._words[PUBLISH]

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
        held = segment.lock_predecessor(path, LOCK_TIMEOUT_NS, writable=True)
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
            owned = segment.map_writable(path, held, SegmentKind.JOURNAL, JOURNAL_HASH)
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
        )
        try:
            segment.publish(owned, temporary)
        except BaseException:
            owned.close()
            temporary.unlink(missing_ok=True)
            raise
        return cls(owned, size)

    def _plausible(self) -> bool:
        intent, publish = self._words[INTENT], self._words[PUBLISH]
        room = self._size - publish % self._size
        return 0 <= publish <= intent <= min(publish + room, WORD_MAX) and not (
            intent % ALIGN or publish % ALIGN or not 0 <= self._words[LAST_SEQ] <= WORD_MAX
        )

    def _cover_unfinished(self) -> None:
        register_writer()
        unfinished = self._words[INTENT] - self._position
        if unfinished:  # one record, half there or not at all: it lies in one piece
            self._pad(unfinished)

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._segment.path

    @property
    def frames_skipped(self) -> int:
        """How many frames were too long to be kept, ever."""
        return self._words[SKIPPED]

    def last_seq(self) -> int:
        """
        Return the newest sequence number kept, 0 if none.

        A writer that was killed may have published one record more than it said.
        """
        last = self._words[LAST_SEQ]
        position = self._index[(last + 1) % self._slots]
        if max(0, self._position - self._size) <= position < self._position:
            start = self._start + position % self._size
            head = self._memory[start : start + HEAD.size]
            length, low = HEAD.unpack(head)
            if low == (last + 1) & LOW_HALF and length <= self._frame_max:
                return last + 1
        return last

    def append(self, seq: int, frame: bytes) -> None:
        """Keep one frame, or count it if it is too long."""
        length = len(frame)
        if length > self._frame_max:
            self._words[SKIPPED] += 1
            return
        position = self._position
        offset = position % self._size
        # Its head and what fills it up to eight bytes.
        following = position + ((length + 15) & -8)
        if offset + following - position > self._size:
            self._pad(self._size - offset)
            self.append(seq, frame)
            return
        words, start = self._words, self._start + offset
        words[INTENT] = following
        self._memory[start : start + 8 + length] = HEAD.pack(length, seq & LOW_HALF) + frame
        self._index[seq % self._slots] = position
        words[PUBLISH] = self._position = following
        words[LAST_SEQ] = seq

    def _pad(self, length: int) -> None:
        position = self._position
        start = self._start + position % self._size
        self._words[INTENT] = following = position + length
        self._memory[start : start + HEAD.size] = HEAD.pack(PADDING | length, 0)
        self._words[PUBLISH] = self._position = following

    def close(self) -> None:
        """Let go of the file; it stays for readers and for the next incarnation."""
        self._words.release()
        self._index.release()
        self._segment.close()


assert HEAD.size == ALIGN == WORD
