"""Registry: the fleet's table in shared memory, one slot a connection, written by the supervisor.

What ``status`` reads, so that it answers when the supervisor is dead or hung. The fields of a slot
must agree with each other: the writer makes the slot's version odd, stores the slot in one slice
and makes the version even again; a reader takes a copy made between two equal, even versions.
"""

import contextlib
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shm import segment
from shm.errors import SegmentError, SegmentTruncated
from shm.layout import FLAG_KEEP, HEADER_BYTES, SegmentKind, layout_hash
from shm.ordering import order_point, register_writer
from shm.process import start_ticks
from shm.segment_lock import lock_predecessor
from supervisor.slot import RECORD, ExitRecord, Slot, pack, unpack
from worker.endpoints import TABLE

__all__ = ["FILE_NAME", "ExitRecord", "Former", "Registry", "RegistryView", "Slot", "SlotWriter"]

FILE_NAME = TABLE

# The fleet's page: words that are stored singly, and a text that is written once.
WORD_EPOCH, WORD_PID, WORD_START_TICKS, WORD_TICK_NS, WORD_SLOTS = range(5)
RUNTIME_DIR = struct.Struct("<256s")
RUNTIME_DIR_OFFSET = HEADER_BYTES + 64
SLOTS_OFFSET = HEADER_BYTES + 4096

# A slot: its version word, then the record. Its last word is stored by itself: up to which event
# of the worker the supervisor has heard.
SLOT_BYTES = 1024
VERSION_BYTES = 8
EVENTS_OFFSET = SLOT_BYTES - VERSION_BYTES
assert VERSION_BYTES + RECORD.size <= EVENTS_OFFSET
LAYOUT_HASH = layout_hash(
    RUNTIME_DIR.format, RUNTIME_DIR_OFFSET, SLOTS_OFFSET, RECORD.format, SLOT_BYTES, EVENTS_OFFSET
)
READ_ATTEMPTS = 1000
LOCK_NS = 1_000_000_000  # a killed owner lets go of its files one after the other


@dataclass(frozen=True, slots=True)
class Former:
    """A slot as an earlier supervisor left it. ``heard``: the last event it had read."""

    slot: Slot
    heard: int


def _words_end(whole: memoryview) -> int:
    """Return where the last whole word ends: a cast refuses anything else."""
    return len(whole) // VERSION_BYTES * VERSION_BYTES


class Registry:
    """
    The writer's side; one per running supervisor.

    Connections come and go by a table written anew and renamed over the present one, so that who
    opens it sees either all of the one or all of the other.

    Attributes:
        epoch: Number of this supervisor, one more than its predecessor's.

    """

    def __init__(self, owned: segment.Segment, runtime_dir: Path, names: Sequence[str]) -> None:
        self.epoch = owned.header.incarnation
        self._runtime_dir = runtime_dir
        self._packed: dict[str, bytes] = {}  # every slot as last stored
        self._heard: dict[str, int] = {}
        self._use(owned, names)
        self._describe()

    def _use(self, owned: segment.Segment, names: Sequence[str]) -> None:
        self._segment, self._memory = owned, owned.memory
        self._slots = {name: index for index, name in enumerate(names)}
        whole = memoryview(owned.memory)
        self._words = whole[HEADER_BYTES : HEADER_BYTES + 64].cast("q")
        self._versions = whole[SLOTS_OFFSET : _words_end(whole)].cast("q")
        whole.release()

    @classmethod
    def create(
        cls,
        shm_dir: Path,
        fleet: str,
        runtime_dir: Path,
        names: Sequence[str],
        *,
        former: Mapping[str, Former] | None = None,
        after: int = 0,
        keep: bool = False,
    ) -> "Registry":
        """
        Put a fresh table in the place of an earlier supervisor's.

        Args:
            shm_dir: The fleet's directory.
            fleet: Its name.
            runtime_dir: Where its sockets are.
            names: The connections, a slot each, in order.
            former: Slots to begin with, by name: they are there as soon as the table is.
            after: The epoch is later than this, and than that of the table that is replaced.
            keep: What workers do that lose us (``shm.layout.FLAG_KEEP``).

        Raises:
            SegmentForeign: If the path holds something that is not ours.
            SegmentLocked: If its owner lives.
            SegmentSpace: If the file system is too full.

        """
        path = shm_dir / FILE_NAME
        held = lock_predecessor(path, LOCK_NS)
        epoch = after + 1
        if held is not None:
            os.close(held)  # the fleet's lock, which we hold, keeps everybody else away
            with contextlib.suppress(SegmentError), RegistryView.open(shm_dir) as view:
                epoch = max(epoch, view.epoch + 1)
        flags = register_writer() | keep * FLAG_KEEP
        owned, temporary = _make(path, fleet, epoch, len(names), flags)
        registry = cls(owned, runtime_dir, names)
        try:
            for name in names:
                if former and name in former:
                    writer = registry.slot_writer(name)
                    writer(former[name].slot)
                    writer.heard(former[name].heard)
            segment.publish(owned, temporary)
        except BaseException:
            registry.close()
            temporary.unlink(missing_ok=True)
            raise
        return registry

    def renew(self, names: Sequence[str]) -> None:
        """
        Have a slot for each of these names and no other; what is known of those that stay stays.

        Raises:
            SegmentSpace: If the file system is too full; then the table is as before.
            SegmentError: If it cannot be written for another reason; likewise.

        """
        if list(names) == list(self._slots):
            return
        former, slots, tick_ns = self._segment, list(self._slots), self._words[WORD_TICK_NS]
        header = former.header
        owned, temporary = _make(former.path, header.name, self.epoch, len(names), header.flags)
        self._release()
        self._use(owned, names)
        try:
            self._describe()
            self._words[WORD_TICK_NS] = tick_ns
            segment.publish(owned, temporary)
        except BaseException:
            self.close()
            temporary.unlink(missing_ok=True)
            self._use(former, slots)
            raise
        former.close()
        for known in (self._packed, self._heard):
            for name in known.keys() - self._slots.keys():
                del known[name]

    def mend(self) -> None:
        """
        Write the table anew if somebody cut its file.

        Touching what was cut off would be SIGBUS, so this comes before every store.
        """
        if not self._segment.truncated():
            return
        self._segment.mend()
        self._describe()

    def _describe(self) -> None:
        """Write all that is known."""
        words = self._words
        words[WORD_EPOCH], words[WORD_PID] = self.epoch, os.getpid()
        words[WORD_START_TICKS] = start_ticks(os.getpid())
        words[WORD_SLOTS] = len(self._slots)
        packed = RUNTIME_DIR.pack(os.fsencode(self._runtime_dir))
        self._memory[RUNTIME_DIR_OFFSET : RUNTIME_DIR_OFFSET + RUNTIME_DIR.size] = packed
        for name in self._slots.keys() & self._packed.keys():
            self._store(self._slots[name], self._packed[name])
        for name in self._slots.keys() & self._heard.keys():
            self._store_heard(self._slots[name], self._heard[name])

    def slot_writer(self, name: str) -> "SlotWriter":
        """Return what stores a connection's slot, for as long as it has one."""
        return SlotWriter(self, name)

    def store(self, name: str, slot: Slot) -> None:
        """Store a slot whole."""
        self.mend()
        self._packed[name] = packed = pack(slot)
        self._store(self._slots[name], packed)

    def store_heard(self, name: str, seq: int) -> None:
        """Store up to which event of a connection's worker has been read."""
        self.mend()
        self._heard[name] = seq
        self._store_heard(self._slots[name], seq)

    def _store_heard(self, index: int, seq: int) -> None:
        self._versions[(index * SLOT_BYTES + EVENTS_OFFSET) // VERSION_BYTES] = seq

    def let_live(self) -> None:
        """Have the workers live on when we end, whatever was configured."""
        self.mend()
        self._segment.set_flags(self._segment.header.flags | FLAG_KEEP)

    def _store(self, index: int, packed: bytes) -> None:
        version_index = index * SLOT_BYTES // VERSION_BYTES
        start = SLOTS_OFFSET + index * SLOT_BYTES + VERSION_BYTES
        version = self._versions[version_index]
        self._versions[version_index] = version + 1
        self._memory[start : start + RECORD.size] = packed
        self._versions[version_index] = version + 2

    def tick(self, now_ns: int) -> None:
        """Stamp that the supervisor's loop turns; CLOCK_MONOTONIC. First ``mend`` what was cut."""
        self._words[WORD_TICK_NS] = now_ns

    def close(self) -> None:
        """Let go of the file; who owns the directory removes it."""
        self._release()
        self._segment.close()

    def _release(self) -> None:
        self._words.release()
        self._versions.release()


def _make(
    path: Path, fleet: str, epoch: int, slots: int, flags: int
) -> tuple[segment.Segment, Path]:
    return segment.create(
        path,
        SegmentKind.REGISTRY,
        SLOTS_OFFSET + SLOT_BYTES * slots,
        LAYOUT_HASH,
        name=fleet,
        incarnation=epoch,
        flags=flags,
    )


class SlotWriter:
    """Stores one slot of a table."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry, self._name = registry, name

    def __call__(self, slot: Slot) -> None:
        """Store what the supervisor knows of the connection."""
        self._registry.store(self._name, slot)

    def heard(self, seq: int) -> None:
        """Store up to which event of the worker has been read."""
        self._registry.store_heard(self._name, seq)


class RegistryView:
    """A read-only look at a fleet's table; a context manager."""

    def __init__(self, mapped: segment.Segment) -> None:
        self._segment = mapped
        self.fleet = mapped.header.name
        self.epoch = mapped.header.incarnation
        self.boot_id = mapped.header.boot_id
        whole = memoryview(mapped.memory)
        self._words = whole[HEADER_BYTES : HEADER_BYTES + 64].cast("q")
        self._versions = whole[SLOTS_OFFSET : _words_end(whole)].cast("q")
        whole.release()
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
        path = shm_dir / FILE_NAME
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
                    heard = self._versions[(index * SLOT_BYTES + EVENTS_OFFSET) // VERSION_BYTES]
                    found[slot.name] = Former(slot, heard)
        return found

    def _slot(self, index: int) -> Slot | None:
        version_index = index * SLOT_BYTES // VERSION_BYTES
        start = SLOTS_OFFSET + index * SLOT_BYTES + VERSION_BYTES
        self.require_whole()
        for _ in range(READ_ATTEMPTS):
            before = self._versions[version_index]
            order_point()
            record = self._segment.memory[start : start + RECORD.size]
            order_point()
            if before == self._versions[version_index] and not before & 1:
                return unpack(record) if before else None
        # The writer died or was stopped within a store: what is there is told, torn as it may be,
        # unless it was the slot's first.
        return unpack(record) if before > 1 else None

    def close(self) -> None:
        """Unmap."""
        self._words.release()
        self._versions.release()
        self._segment.close()

    def __enter__(self) -> "RegistryView":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
