"""Registry view: the reader's side of the fleet's table (``supervisor/registry.py``).

It believes nothing that it finds: a table may be cut, garbage, or of a writer that died within a
store.
"""

import contextlib
import os
import struct
from pathlib import Path

from shm import segment
from shm.errors import SegmentTruncated
from shm.layout import SegmentKind
from shm.ordering import order_point
from shm.process import start_ticks
from supervisor.registry_layout import (
    LAYOUT_HASH,
    RUNTIME_DIR,
    RUNTIME_DIR_OFFSET,
    SLOT_BYTES,
    SLOTS_OFFSET,
    WORD_PID,
    WORD_SLOTS,
    WORD_START_TICKS,
    WORD_TICK_NS,
    fleet_words,
    heard_at,
    record_at,
    slot_words,
    version_at,
)
from supervisor.slot import Former, Slot, unpack
from worker.endpoints import table_file

READ_ATTEMPTS = 1000


class RegistryView:
    """A read-only look at a fleet's table; a context manager."""

    def __init__(self, mapped: segment.Segment) -> None:
        self._segment = mapped
        self.fleet = mapped.header.name
        self.epoch = mapped.header.incarnation
        self.boot_id = mapped.header.boot_id
        with memoryview(mapped.memory) as whole:
            self._words, self._slot_words = fleet_words(whole), slot_words(whole)
        self.supervisor_pid = self._words[WORD_PID]
        raw = mapped.memory[RUNTIME_DIR_OFFSET : RUNTIME_DIR_OFFSET + RUNTIME_DIR.size]
        self.runtime_dir = Path(os.fsdecode(raw.rstrip(b"\0")))

    @classmethod
    def open(cls, shm_dir: Path) -> "RegistryView":
        """
        Map the table of the fleet of ``shm_dir``.

        Raises:
            FileNotFoundError: If the fleet has none (any more).
            SegmentError: As ``shm.segment.open_readonly``.

        """
        path = table_file(shm_dir)
        mapped = segment.open_readonly(path, SegmentKind.REGISTRY, LAYOUT_HASH, SLOTS_OFFSET)
        view = cls(mapped)
        slots = view._words[WORD_SLOTS]
        if not 0 <= slots <= (mapped.header.total_bytes - SLOTS_OFFSET) // SLOT_BYTES:
            view.close()
            raise SegmentTruncated(path, f"has no room for the {slots} slots that it tells of")
        return view

    def require_whole(self) -> None:
        """
        Raise before memory is touched that somebody may have cut off; whatever reads does it.

        Raises:
            SegmentTruncated: If it was.

        """
        if self._segment.truncated():
            raise SegmentTruncated(self._segment.path, "was cut while it was read")

    @property
    def tick_ns(self) -> int:
        """When the supervisor's loop last turned, CLOCK_MONOTONIC; 0 before its first scan."""
        self.require_whole()
        return self._words[WORD_TICK_NS]

    @property
    def slot_count(self) -> int:
        """How many slots it has; while the fleet starts, not all of them are written."""
        self.require_whole()
        return self._words[WORD_SLOTS]

    def supervisor_alive(self) -> bool:
        """Return whether the process that wrote the table exists. It may be stopped or hung."""
        ticks = start_ticks(self.supervisor_pid)
        self.require_whole()
        return ticks != 0 and ticks == self._words[WORD_START_TICKS]

    def slots(self) -> list[Slot]:
        """Return every slot that was ever written, each whole."""
        found = (self._slot(index) for index in range(self.slot_count))
        return [slot for slot in found if slot is not None]

    def former(self) -> dict[str, Former]:
        """Return what a successor goes on with, by name; slots of garbage are left out."""
        found = {}
        for index in range(self._words[WORD_SLOTS]):
            with contextlib.suppress(ValueError, IndexError, OverflowError, struct.error):
                slot = self._slot(index)
                if slot is not None:
                    heard = self._slot_words[heard_at(index)]
                    found[slot.name] = Former(slot, heard)
        return found

    def _slot(self, index: int) -> Slot | None:
        version, place = version_at(index), record_at(index)
        self.require_whole()
        for _ in range(READ_ATTEMPTS):
            before = self._slot_words[version]
            order_point()
            record = self._segment.memory[place]
            order_point()
            if before == self._slot_words[version] and not before & 1:
                return unpack(record) if before else None
        # The writer died or was stopped within a store: what is there is told, torn as it may be,
        # unless it was the slot's first.
        return unpack(record) if before > 1 else None

    def close(self) -> None:
        """Unmap."""
        self._words.release()
        self._slot_words.release()
        self._segment.close()

    def __enter__(self) -> "RegistryView":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
