"""Registry: the fleet's table in shared memory, one slot a connection, written by the supervisor.

What ``status`` reads, so that it answers when the supervisor is dead or hung. The fields of a slot
must agree with each other: the writer makes the slot's version odd, stores the slot in one slice
and makes the version even again; a reader (``supervisor/registry_view.py``) takes a copy made
between two equal, even versions.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from shm import segment
from shm.errors import SegmentError
from shm.layout import FLAG_KEEP, SegmentKind
from shm.ordering import register_writer
from shm.process import start_ticks
from shm.segment_lock import lock_predecessor
from supervisor.registry_layout import (
    LAYOUT_HASH,
    RUNTIME_DIR,
    RUNTIME_DIR_OFFSET,
    SLOT_BYTES,
    SLOTS_OFFSET,
    WORD_EPOCH,
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
from supervisor.registry_view import RegistryView
from supervisor.slot import Former, Slot, pack
from worker.endpoints import table_file

LOCK_NS = 1_000_000_000  # a killed owner lets go of its files one after the other


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
        with memoryview(owned.memory) as whole:
            self._words, self._slot_words = fleet_words(whole), slot_words(whole)

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
        path = table_file(shm_dir)
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
            for name, left in (former or {}).items():
                if name in names:
                    registry.store(name, left.slot)
                    registry.store_heard(name, left.heard)
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
        self._slot_words[heard_at(index)] = seq

    def let_live(self) -> None:
        """Have the workers live on when we end, whatever was configured."""
        self.mend()
        self._segment.set_flags(self._segment.header.flags | FLAG_KEEP)

    def _store(self, index: int, packed: bytes) -> None:
        at = version_at(index)
        version = self._slot_words[at]
        self._slot_words[at] = version + 1
        self._memory[record_at(index)] = packed
        self._slot_words[at] = version + 2

    def tick(self, now_ns: int) -> None:
        """Stamp that the supervisor's loop turns; CLOCK_MONOTONIC. First ``mend`` what was cut."""
        self._words[WORD_TICK_NS] = now_ns

    def close(self) -> None:
        """Let go of the file; who owns the directory removes it."""
        self._release()
        self._segment.close()

    def _release(self) -> None:
        self._words.release()
        self._slot_words.release()


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
