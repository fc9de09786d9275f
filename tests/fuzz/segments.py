"""Targets: a worker's segment and the fleet's table, cut, damaged or of another version."""

import contextlib
import logging
from pathlib import Path

from slots import slot

from fuzz.damage import DamagedFile
from fuzz.target import Target, named
from shm.errors import SegmentError, SegmentForeign
from shm.layout import HEADER, HEADER_BYTES, SAMPLE_SLOTS_MIN, Histogram, Word, stats_layout
from shm.reader import Reader
from shm.stats import StatsWriter, stats_path
from shm.view import StatsView
from supervisor.errors import NoSuchFleet
from supervisor.fleets import is_supervised, opened, slots_of
from supervisor.heads import WorkerWords
from supervisor.registry import Registry
from supervisor.registry_layout import SLOT_BYTES, SLOTS_OFFSET
from supervisor.restart_state import State
from supervisor.slot import ExitRecord, Slot
from supervisor.status import gather
from supervisor.worker_memory import WorkerMemory
from worker.announcement import Announcement, Cause, EventKind
from worker.endpoints import TABLE

PLAN = stats_layout(SAMPLE_SLOTS_MIN)
STATS_SPOTS = (
    (0, HEADER.size),
    (PLAN.hot.offset, PLAN.hot.offset + 8 * (max(Word) + 1)),
    (PLAN.events.offset, PLAN.events.end),
    (PLAN.samples.offset, PLAN.samples.end),
)


def written(folder):
    """Write a segment with something of everything; return its bytes."""
    writer = StatsWriter.create(folder, "a", incarnation=3, ring_slots=SAMPLE_SLOTS_MIN)
    for number in range(1, SAMPLE_SLOTS_MIN + 100):
        writer.record(1, number, number * 1000, exchange_ns=number)
    for number in range(300):
        writer.event(EventKind.UP, number, number, b'{"cause":"","detail":{}}')
    writer.words[Word.SEQ] = 4711
    writer.close()
    return stats_path(folder, "a").read_bytes()


def numbered(samples):
    """Assert that what was accepted carries ascending numbers."""
    seqs = samples["seq"].tolist()
    assert seqs == sorted(set(seqs))


class StatsSegment(Target):
    """Whatever the file is: a named error, or numbers."""

    def __init__(self, folder):
        super().__init__(folder)
        logging.getLogger("supervisor").setLevel(logging.ERROR)
        self._file = DamagedFile(stats_path(folder, "a"), written(folder), STATS_SPOTS)

    def run(self, rng):
        self._file.damage(rng)
        memory, words = WorkerMemory(self.folder, "a"), WorkerWords(self.folder, "a")
        heard = []
        try:
            words.remap()
            with Reader(self.folder, "a") as reader:
                for _ in range(4):
                    self._explore(rng, reader)
                    if rng.random() < 0.3:
                        self._file.disturb(rng)
            return "read"
        except SegmentError as error:
            return named(error)
        finally:
            memory.listen(heard.append)
            memory.stamp_ns(rng.choice((3, 4)))
            words.head(rng.choice((0, 1)), rng.choice((0, 1)))
            words.dead()
            memory.close()
            words.close()

    def _explore(self, rng, reader):
        match rng.randrange(6):
            case 0:
                numbered(reader.samples())
            case 1:
                name = rng.choice([kind.name.lower() for kind in Histogram])
                since = rng.choice((None, reader.histogram(name)))
                reader.percentiles(name, (0, 50, 99, 100), since)
            case 2:
                assert all(count >= 0 for count in reader.counters().values())
            case 3:
                assert isinstance(reader.seq + reader.epoch, int)
                reader.refresh()
            case 4 | 5:
                with StatsView.open(self.folder, "a") as view:
                    after = rng.choice((0, 250, 1 << 62, -(1 << 62)))
                    records, _lapped = view.events(after, 256)
                    assert len(records) <= 256
                    assert isinstance(view.locked() | view.replaced(), bool)


class SuccessorStats(Target):
    """The next incarnation goes on from it or begins anew, and what it then writes is read."""

    def __init__(self, folder):
        super().__init__(folder)
        self._file = DamagedFile(stats_path(folder, "a"), written(folder), STATS_SPOTS)

    def run(self, rng):
        self._file.damage(rng)
        try:
            writer = StatsWriter.create(
                self.folder, "a", incarnation=4, ring_slots=SAMPLE_SLOTS_MIN, lock_timeout_ns=0
            )
        except (SegmentError, ValueError) as error:  # ValueError: incarnations would go back
            return named(error)
        try:
            assert writer.words[Word.SEQ] >= 0
            for number in range(1, rng.randrange(2, 50)):
                writer.record(1, number, 7777)
            with Reader(self.folder, "a") as reader:
                assert reader.samples()["value_ns"][-1] == 7777
                assert reader.seq == writer.words[Word.SEQ]
            return "went on" if writer.words[Word.SEQ] else "began anew"
        finally:
            writer.close()


class RegistryTable(Target):
    """Whatever the file is: a named error, or slots; and a new supervisor begins a fresh one."""

    def __init__(self, folder):
        self._dir = folder / "feedwarden-0" / "t"
        self._dir.mkdir(parents=True, mode=0o700)
        super().__init__(self._dir)
        self._create([f"c{number}" for number in range(4)])
        spots = (
            (0, HEADER.size),
            (HEADER_BYTES, HEADER_BYTES + 64),
            (SLOTS_OFFSET, SLOTS_OFFSET + 4 * SLOT_BYTES),
            (SLOTS_OFFSET, SLOTS_OFFSET + 4 * SLOT_BYTES),
        )
        path = self._dir / TABLE
        self._file = DamagedFile(path, path.read_bytes(), spots)

    def _create(self, names):
        registry = Registry.create(self._dir, "t", Path("/nowhere"), names)
        death = Announcement(kind=EventKind.EXIT, cause=Cause.CRASH, detail={"code": 1})
        for name in names:
            registry.slot_writer(name)(
                slot(name=name, pid=0, state=State.BACKOFF, last_exit=ExitRecord(death, 5))
            )
        epoch = registry.epoch
        registry.close()
        return epoch

    def run(self, rng):
        self._file.damage(rng)
        try:
            return self._read(rng)
        except (SegmentError, NoSuchFleet) as error:
            return named(error)
        finally:
            if rng.random() < 0.2:
                with contextlib.suppress(SegmentForeign):
                    assert self._create(["a"]) >= 1

    def _read(self, rng):
        is_supervised(self._dir)
        with opened(self._dir) as view:
            for _ in range(3):
                slots = slots_of(view, self._dir)
                assert all(isinstance(slot, Slot) for slot in slots)
                view.supervisor_alive()
                if rng.random() < 0.4:
                    self._file.disturb(rng)
        gather(self._dir)
        return "read"
