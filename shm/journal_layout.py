"""Layout of a journal: the last published frames of a connection as a ring of bytes.

Pure. Positions count bytes from the ring's beginning of time and only grow; the byte of a position
stands at ``position mod size``. docs/shm-layout.md describes it for other languages.
"""

import struct
from enum import IntEnum

from shm.layout import HEADER_BYTES, PAGE, WORD, layout_hash

SIZE_MIN, SIZE_MAX = 64 * 1024, 4 << 30


class JournalWord(IntEnum):
    """Words of the page behind the header: index of an aligned 8-byte word, a cache line each."""

    INTENT = 0  # position up to which the ring may be overwritten already
    PUBLISH = 8  # position up to which records are whole
    LAST_SEQ = 16  # sequence number of a record that is at most UNTOLD_MAX older than the newest
    SKIPPED = 24  # frames too long to be kept


# Plain integers: members of an IntEnum cost 20 ns each on the hot path.
INTENT, PUBLISH = int(JournalWord.INTENT), int(JournalWord.PUBLISH)
LAST_SEQ, SKIPPED = int(JournalWord.LAST_SEQ), int(JournalWord.SKIPPED)


# A record: length of the frame, low half of its sequence number, the frame, padded to eight bytes.
# Padding has a length with the top bit, which counts its head too, and no frame.
HEAD = struct.Struct("<II")
PADDING = 0x8000_0000
ALIGN = 8
UNTOLD_MAX = 1 << 16  # what one read from the exchange can bring
RESERVE_BYTES, RESERVE_SHARE = 64 * 1024, 16  # announced at once: so much, or a part of the ring
FRAME_SHARE = 4  # a frame longer than this part of the ring is not kept
INDEX_BYTES = 128  # of the ring, for each slot of the index

JOURNAL_HASH = layout_hash(
    "journal",
    [(word.name, word.value) for word in JournalWord],
    (HEAD.format, PADDING, ALIGN, INDEX_BYTES, UNTOLD_MAX),
)


def index_slots(size: int) -> int:
    """Return how many sequence numbers the index of a ring of ``size`` bytes holds."""
    return size // INDEX_BYTES


def ring_offset(size: int) -> int:
    """Return where the ring begins in the file: behind header, words and index."""
    return HEADER_BYTES + PAGE + index_slots(size) * WORD


def journal_bytes(size: int) -> int:
    """Return the size of the file of a ring of ``size`` bytes; 0 of none."""
    return ring_offset(size) + size if size else 0


def ring_size(total_bytes: int) -> int:
    """
    Return the size of the ring in a file of ``total_bytes``.

    Raises:
        ValueError: If no ring has such a file.

    """
    size = (total_bytes - HEADER_BYTES - PAGE) * INDEX_BYTES // (INDEX_BYTES + WORD)
    if size % PAGE or not SIZE_MIN <= size <= SIZE_MAX or journal_bytes(size) != total_bytes:
        raise ValueError(f"no journal has {total_bytes} bytes")
    return size


def whole_pages(size: int) -> int:
    """Return ``size`` rounded up to whole pages: what a ring is made of."""
    return -(-size // PAGE) * PAGE
