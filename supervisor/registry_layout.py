"""The layout of the registry's file: the fleet's page, and a slot a connection.

Pure. The slot's record is ``supervisor/slot.py``'s.
"""

import struct

from shm.layout import HEADER_BYTES, layout_hash
from supervisor.slot import RECORD

# The fleet's page: words that are stored singly, and a text that is written once.
WORD_EPOCH, WORD_PID, WORD_START_TICKS, WORD_TICK_NS, WORD_SLOTS = range(5)
WORD_BYTES = 8
RUNTIME_DIR = struct.Struct("<256s")
RUNTIME_DIR_OFFSET = HEADER_BYTES + 64
SLOTS_OFFSET = HEADER_BYTES + 4096

# A slot: its version word, then the record. Its last word is stored by itself: up to which event
# of the worker the supervisor has heard.
SLOT_BYTES = 1024
HEARD_OFFSET = SLOT_BYTES - WORD_BYTES
assert WORD_BYTES + RECORD.size <= HEARD_OFFSET
LAYOUT_HASH = layout_hash(
    RUNTIME_DIR.format, RUNTIME_DIR_OFFSET, SLOTS_OFFSET, RECORD.format, SLOT_BYTES, HEARD_OFFSET
)


def fleet_words(whole: memoryview) -> "memoryview[int]":
    """Return the words of the fleet's page, by ``WORD_EPOCH`` and its like."""
    return whole[HEADER_BYTES:RUNTIME_DIR_OFFSET].cast("q")


def slot_words(whole: memoryview) -> "memoryview[int]":
    """Return the words of all slots, by ``version_at`` and ``heard_at``."""
    end = len(whole) // WORD_BYTES * WORD_BYTES  # a cast refuses anything but whole words
    return whole[SLOTS_OFFSET:end].cast("q")


def version_at(index: int) -> int:
    """Return where the version of a slot is among the words of all."""
    return index * SLOT_BYTES // WORD_BYTES


def heard_at(index: int) -> int:
    """Return where the number of the last event that was heard is, likewise."""
    return (index * SLOT_BYTES + HEARD_OFFSET) // WORD_BYTES


def record_at(index: int) -> slice:
    """Return where the record of a slot is in the file."""
    start = SLOTS_OFFSET + index * SLOT_BYTES + WORD_BYTES
    return slice(start, start + RECORD.size)
