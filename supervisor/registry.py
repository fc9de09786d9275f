"""Registry: the fleet's table in shared memory, one slot a connection, written by the supervisor.

What ``status`` reads, so that it answers when the supervisor is dead or hung. The fields of a slot
must agree with each other: the writer makes the slot's version odd, stores the slot in one slice
and makes the version even again; a reader takes a copy made between two equal, even versions.
"""

import contextlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shm import segment
from shm.errors import SegmentError, SegmentTruncated
from shm.layout import HEADER_BYTES, SegmentKind, layout_hash
from shm.ordering import order_point, register_writer
from shm.process import start_ticks
from supervisor.restart import State
from worker.announcement import Announcement, EventKind

FILE_NAME = "registry"

# The fleet's page: words that are stored singly, and a text that is written once.
WORD_EPOCH, WORD_PID, WORD_START_TICKS, WORD_TICK_NS, WORD_SLOTS = range(5)
RUNTIME_DIR = struct.Struct("<256s")
RUNTIME_DIR_OFFSET = HEADER_BYTES + 64
SLOTS_OFFSET = HEADER_BYTES + 4096

# A slot: its version word, then the record. Texts are padded with NUL.
RECORD = struct.Struct("<48s32sQQQqqBBBx24s16s")
SLOT_BYTES = 256
VERSION_BYTES = 8
assert VERSION_BYTES + RECORD.size <= SLOT_BYTES
LAYOUT_HASH = layout_hash(
    RUNTIME_DIR.format, RUNTIME_DIR_OFFSET, SLOTS_OFFSET, RECORD.format, SLOT_BYTES
)
READ_ATTEMPTS = 1000


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """The last death of a worker. ``wall_ns`` is CLOCK_REALTIME."""

    announcement: Announcement
    wall_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """
    One connection as the supervisor sees it.

    ``pid`` is 0 without a process, ``next_attempt_ns`` (CLOCK_MONOTONIC) 0 without a plan.
    """

    name: str
    exchange: str
    pid: int
    incarnation: int
    state: State
    wanted: bool
    hung: bool
    crash_loop: bool
    restarts: int
    next_attempt_ns: int
    last_exit: ExitRecord | None


def pack(slot: Slot) -> bytes:
    """Return the record of a slot."""
    cause, code, signal, has_code, wall_ns = b"", 0, b"", False, 0
    if slot.last_exit is not None:
        said = slot.last_exit.announcement
        cause, wall_ns = said.cause.encode(), slot.last_exit.wall_ns
        has_code = "code" in said.detail
        code = said.detail.get("code", 0)
        signal = said.detail.get("signal", "").encode()
    flags = slot.wanted | slot.hung << 1 | slot.crash_loop << 2 | has_code << 3
    return RECORD.pack(
        slot.name.encode(),
        slot.exchange.encode(),
        slot.pid,
        slot.incarnation,
        slot.restarts,
        slot.next_attempt_ns,
        wall_ns,
        slot.state.value,
        flags,
        code & 0xFF,
        cause,
        signal,
    )


def unpack(record: bytes) -> Slot:
    """Return the slot of a record."""
    (name, exchange, pid, incarnation, restarts, next_attempt_ns, wall_ns, state, flags, code,
     cause, signal) = RECORD.unpack(record)  # fmt: skip
    last_exit = None
    if wall_ns:
        detail: dict[str, object] = {}
        if flags & 8:
            detail["code"] = code
        if signal.rstrip(b"\0"):
            detail["signal"] = _text(signal)
        said = Announcement(kind=EventKind.EXIT, cause=_text(cause), detail=detail)
        last_exit = ExitRecord(said, wall_ns)
    return Slot(
        name=_text(name),
        exchange=_text(exchange),
        pid=pid,
        incarnation=incarnation,
        state=State(state),
        wanted=bool(flags & 1),
        hung=bool(flags & 2),
        crash_loop=bool(flags & 4),
        restarts=restarts,
        next_attempt_ns=next_attempt_ns,
        last_exit=last_exit,
    )


def _words_end(whole: memoryview) -> int:
    """Return where the last whole word ends: a cast refuses anything else."""
    return len(whole) // VERSION_BYTES * VERSION_BYTES


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("utf-8", "replace")


class Registry:
    """
    The writer's side; one per running supervisor.

    Attributes:
        epoch: Number of this supervisor, one more than its predecessor's.

    """

    def __init__(self, owned: segment.Segment) -> None:
        self._segment = owned
        self._memory = owned.memory
        self.epoch = owned.header.incarnation
        self._packed: dict[int, bytes] = {}  # every slot as last stored
        whole = memoryview(owned.memory)
        self._words = whole[HEADER_BYTES : HEADER_BYTES + 64].cast("q")
        self._versions = whole[SLOTS_OFFSET : _words_end(whole)].cast("q")
        whole.release()

    @classmethod
    def create(cls, shm_dir: Path, fleet: str, runtime_dir: Path, names: list[str]) -> "Registry":
        """
        Put a fresh table in the place of an earlier supervisor's.

        Raises:
            SegmentForeign: If the path holds something that is not ours.
            SegmentSpace: If the file system is too full.

        """
        path = shm_dir / FILE_NAME
        held = segment.lock_predecessor(path, 0)
        epoch = 1
        if held is not None:
            os.close(held)  # the fleet's lock, which we hold, keeps everybody else away
            with contextlib.suppress(SegmentError), RegistryView.open(shm_dir) as former:
                epoch = former.epoch + 1
        total = SLOTS_OFFSET + SLOT_BYTES * len(names)
        owned, temporary = segment.create(
            path,
            SegmentKind.REGISTRY,
            total,
            LAYOUT_HASH,
            name=fleet,
            incarnation=epoch,
            flags=register_writer(),
        )
        registry = cls(owned)
        registry._describe(runtime_dir, names)
        try:
            segment.publish(owned, temporary)
        except BaseException:
            registry.close()
            temporary.unlink(missing_ok=True)
            raise
        return registry

    def _mend(self) -> None:
        """
        Write the table anew if somebody cut its file.

        Touching what was cut off would be SIGBUS, so this comes before every store.
        """
        if not self._segment.truncated():
            return
        self._segment.mend()
        self._describe(*self._described)
        for index, packed in self._packed.items():
            self._store(index, packed)

    def _describe(self, runtime_dir: Path, names: list[str]) -> None:
        self._described = runtime_dir, names
        words = self._words
        words[WORD_EPOCH], words[WORD_PID] = self.epoch, os.getpid()
        words[WORD_START_TICKS] = start_ticks(os.getpid())
        words[WORD_SLOTS] = len(names)
        packed = RUNTIME_DIR.pack(os.fsencode(runtime_dir))
        self._memory[RUNTIME_DIR_OFFSET : RUNTIME_DIR_OFFSET + RUNTIME_DIR.size] = packed

    def slot_writer(self, index: int) -> Callable[[Slot], None]:
        """Return the function that stores slot ``index``."""

        def write(slot: Slot) -> None:
            self._mend()
            self._packed[index] = packed = pack(slot)
            self._store(index, packed)

        return write

    def _store(self, index: int, packed: bytes) -> None:
        version_index = index * SLOT_BYTES // VERSION_BYTES
        start = SLOTS_OFFSET + index * SLOT_BYTES + VERSION_BYTES
        version = self._versions[version_index]
        self._versions[version_index] = version + 1
        self._memory[start : start + RECORD.size] = packed
        self._versions[version_index] = version + 2

    def tick(self, now_ns: int) -> None:
        """Stamp that the supervisor's loop turns; CLOCK_MONOTONIC."""
        self._mend()
        self._words[WORD_TICK_NS] = now_ns

    def close(self) -> None:
        """Let go of the file; who owns the directory removes it."""
        self._words.release()
        self._versions.release()
        self._segment.close()


class RegistryView:
    """A read-only look at a fleet's table; a context manager."""

    def __init__(self, mapped: segment.Segment) -> None:
        self._segment = mapped
        self.fleet = mapped.header.name
        self.epoch = mapped.header.incarnation
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

    @property
    def tick_ns(self) -> int:
        """When the supervisor's loop last turned, CLOCK_MONOTONIC; 0 before its first scan."""
        return self._words[WORD_TICK_NS]

    @property
    def slot_count(self) -> int:
        """How many slots it has; while the fleet starts, not all of them are written."""
        return self._words[WORD_SLOTS]

    def supervisor_alive(self) -> bool:
        """Return whether the process that wrote the table exists. It may be stopped or hung."""
        ticks = start_ticks(self.supervisor_pid)
        return ticks != 0 and ticks == self._words[WORD_START_TICKS]

    def slots(self) -> list[Slot]:
        """Return every slot that was ever written, each whole."""
        found = (self._slot(index) for index in range(self._words[WORD_SLOTS]))
        return [slot for slot in found if slot is not None]

    def _slot(self, index: int) -> Slot | None:
        version_index = index * SLOT_BYTES // VERSION_BYTES
        start = SLOTS_OFFSET + index * SLOT_BYTES + VERSION_BYTES
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
