"""Journal ring: records copied out of a mapped journal, found whole or not at all.

What ``JournalReader`` and ``Follower`` stand on. A copy is believed only if the writer has not
announced since that it may overwrite it; nothing that memory says of positions
(``shm/journal_layout.py``) is taken for granted.
"""

from pathlib import Path

from shm import segment
from shm.errors import SegmentTruncated
from shm.journal_layout import (
    ALIGN,
    HEAD,
    INTENT,
    LAST_SEQ,
    PADDING,
    PUBLISH,
    SKIPPED,
    UNTOLD_MAX,
    index_slots,
    ring_offset,
    ring_size,
)
from shm.layout import HEADER_BYTES, LOW_HALF, PAGE
from shm.ordering import order_point

CHUNK = 256 * 1024  # copied at once; the less, the later a writer can come around to it
FRAME_GUESS = 2048

Frames = list[tuple[int, bytes]]


class JournalRing:
    """
    The ring of one mapped journal.

    Args:
        mapped: The file; closed with this.

    Attributes:
        size: Bytes of the ring.
        words: By ``shm.journal_layout.JournalWord``.
        bad_records: Records that were not what they must be: memory is corrupt.

    Raises:
        ValueError: If no ring has a file of that size.

    """

    def __init__(self, mapped: segment.Segment) -> None:
        self._segment, self._memory = mapped, mapped.memory
        self.size = ring_size(mapped.header.total_bytes)
        self._start, self._slots = ring_offset(self.size), index_slots(self.size)
        whole = memoryview(mapped.memory)
        self.words = whole[HEADER_BYTES : HEADER_BYTES + PAGE].cast("q")
        self._index = whole[HEADER_BYTES + PAGE : self._start].cast("q")
        whole.release()
        self.bad_records = 0

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._segment.path

    @property
    def frames_skipped(self) -> int:
        """How many frames were too long to be kept."""
        return self.words[SKIPPED]

    def last_seq(self) -> int:
        """Return the newest sequence number kept, 0 if none."""
        last: int = self.words[LAST_SEQ]
        while self._position_of(last + 1) is not None:  # told later than published
            last += 1
        return last

    def first_seq(self) -> int:
        """Return the oldest sequence number kept, 0 if none; the whole index is searched."""
        position = self.oldest_position(0)
        head = self._head(position) if position is not None else None
        return 0 if head is None else self._whole_seq(head[1])

    def records(self) -> list[tuple[int, int, int]]:
        """Return sequence number, position and bytes of every frame in the index, oldest first."""
        publish, oldest = self.words[PUBLISH], self._oldest()
        found = []
        # A set: slots that no number has used yet are zero, which is the first record's position.
        positions = {at & -ALIGN for at in self._index.tolist() if oldest <= at < publish}
        for position in sorted(positions):
            head = self._head(position)
            if head is not None and not head[0] & PADDING:
                found.append((self._whole_seq(head[1]), position, head[0]))
        return found

    def published(self) -> int:
        """Return where whole records end; a multiple of ``ALIGN``, whatever memory says."""
        published: int = self.words[PUBLISH] & -ALIGN
        return published

    def require_whole(self) -> None:
        """
        Raise before memory is touched that somebody may have cut off.

        Raises:
            SegmentTruncated: If somebody did.

        """
        if self._segment.truncated():  # reading on would be SIGBUS
            raise SegmentTruncated(self._segment.path, "was cut while it was read")

    def position_from(self, first: int, last: int) -> int | None:
        """Return where the first record of a range stands that is still there."""
        position = self._position_of(first)
        if position is None:
            oldest = self.oldest_position(0)
            head = None if oldest is None else self._head(oldest)
            if head is not None and (seq := self._whole_seq(head[1])) >= first:
                return oldest if seq <= last else None
            newest = self.last_seq()
            for seq in range(max(first + 1, newest - self._slots), min(last, newest) + 1):
                # The first ones were too long to be kept.
                if (position := self._position_of(seq)) is not None:
                    break
        return position

    def oldest_position(self, reserve: int) -> int | None:
        """Return the first record in the index that stands ``reserve`` bytes before the writer."""
        positions: list[int] = self._index.tolist()
        publish, oldest = self.published(), self._oldest() + reserve
        position: int = min((at for at in positions if oldest <= at < publish), default=publish)
        position &= -ALIGN
        end = min(publish, position + self.size)  # a lap, should memory be corrupt
        while position < end:
            head = self._head(position)
            if head is None or not head[0] & PADDING:
                return position
            # A killed writer's unfinished record, covered; of no length if memory is corrupt.
            position += max(head[0] & ~PADDING & -ALIGN, HEAD.size)
        return None

    def walk(self, position: int, first: int, last: int, found: Frames) -> int | None:
        """
        Add the records from a position to ``found``.

        Returns:
            The position where to go on, ``None`` if the writer has come around.

        """
        size, publish = self.size, self.published()
        order_point()
        newest = self.words[LAST_SEQ] + UNTOLD_MAX  # at least: nothing published has a higher one
        wanted_bytes = min(CHUNK, (last - first + 1) * FRAME_GUESS)
        while position < publish:
            in_one_piece = min(size - position % size, publish - position)
            chunk = self._copy(position, min(in_one_piece, wanted_bytes))
            if chunk is None:
                return None
            at, wanted_bytes = 0, CHUNK
            while at < len(chunk):
                length, low = HEAD.unpack_from(chunk, at)
                padding = bool(length & PADDING)
                whole: int = (length & ~PADDING if padding else length + 15) & -ALIGN
                if not HEAD.size <= whole <= in_one_piece - at:
                    self.bad_records += 1
                    return publish  # nothing behind it can be found
                if at + whole > len(chunk):
                    wanted_bytes = max(whole, CHUNK)
                    break
                seq = newest - (newest - low & LOW_HALF)
                if not padding and seq > last:
                    return position + at
                if not padding and seq >= first:
                    found.append((seq, chunk[at + HEAD.size : at + HEAD.size + length]))
                    if seq == last:
                        return position + at + whole
                    first = seq + 1  # numbers only grow, or memory is corrupt
                at += whole
            position += at
        return position

    def replaced(self) -> bool:
        """Return whether another file has taken its place, or none."""
        return self._segment.replaced()

    def close(self) -> None:
        """Unmap."""
        self.words.release()
        self._index.release()
        self._segment.close()

    # Inside ----------------------------------------------------------------------------------

    def _oldest(self) -> int:
        """Return the position before which memory may be overwritten."""
        order_point()
        return max(0, self.words[INTENT] - self.size)

    def _copy(self, position: int, length: int) -> bytes | None:
        """Return bytes that lie in one piece, ``None`` if they may be torn."""
        self.require_whole()
        start = self._start + position % self.size
        copied = self._memory[start : start + length]
        return copied if position >= self._oldest() else None

    def _head(self, position: int) -> tuple[int, int] | None:
        raw = self._copy(position, HEAD.size)
        return None if raw is None else HEAD.unpack(raw)

    def _whole_seq(self, low: int) -> int:
        """Return the sequence number near the newest one whose low half this is."""
        newest = self.words[LAST_SEQ] + UNTOLD_MAX  # at the most
        return newest - ((newest - low) & LOW_HALF)

    def _position_of(self, seq: int) -> int | None:
        """Return where a record stands, by the index."""
        position = self._index[seq % self._slots]
        if not self._oldest() <= position < self.words[PUBLISH] or position % ALIGN:
            return None
        head = self._head(position)
        return position if head is not None and head[1] == seq & LOW_HALF else None
