"""The fleet's table: what is written is read, whole, by whoever looks."""

import os
import subprocess
import sys
import textwrap
import time

import pytest
from slots import slot

from shm.errors import SegmentError, SegmentForeign, SegmentTruncated
from supervisor.registry import Registry
from supervisor.registry_layout import WORD_SLOTS
from supervisor.registry_view import RegistryView
from supervisor.restart_state import State
from supervisor.slot import ExitRecord, pack, unpack
from worker.announcement import Announcement, Cause, EventKind


def death(**detail):
    return ExitRecord(Announcement(kind=EventKind.EXIT, cause=Cause.CRASH, detail=detail), 12)


@pytest.mark.parametrize(
    "seen",
    [
        slot(),
        slot(name="x" * 48, exchange="y" * 32, wanted=False, hung=True, crash_loop=True),
        slot(state=State.BACKOFF, pid=0, next_attempt_ns=10**18),
        slot(last_exit=death(code=0)),
        slot(last_exit=death(code=255)),
        slot(last_exit=death(signal="SIGKILL")),
        slot(last_exit=death()),
    ],
)
def test_a_slot_is_read_as_it_was_written(seen):
    assert unpack(pack(seen)) == seen


def test_a_reader_sees_each_slot_that_was_written_and_only_those(tmp_path):
    registry = Registry.create(tmp_path, "f", tmp_path / "run", ["a", "b"])
    with RegistryView.open(tmp_path) as view:
        assert view.slots() == []
        registry.slot_writer("b")(slot(name="b"))
        assert [seen.name for seen in view.slots()] == ["b"]
        registry.slot_writer("a")(slot(restarts=9))
        assert [seen.restarts for seen in view.slots()] == [9, 0]
        assert (view.fleet, view.runtime_dir, view.tick_ns) == ("f", tmp_path / "run", 0)
        registry.tick(5)
        assert view.tick_ns == 5
        assert view.supervisor_alive()
    registry.close()


def test_a_writer_that_died_within_its_first_store_left_no_slot(tmp_path):
    registry = Registry.create(tmp_path, "f", tmp_path, ["a"])
    with RegistryView.open(tmp_path) as view:
        registry._slot_words[0] = 1
        assert view.slots() == []
        registry._slot_words[0] = 2
        registry.slot_writer("a")(slot())
        registry._slot_words[0] += 1
        assert view.slots() == [slot()], "a later one is told as it stands"
    registry.close()


def test_a_successor_begins_with_what_stood_there(tmp_path):
    registry = Registry.create(tmp_path, "f", tmp_path, ["a", "b"])
    registry.slot_writer("a")(slot(name="a", restarts=4))
    registry.slot_writer("a").heard(77)
    registry.slot_writer("b")(slot(name="b"))
    registry.close()
    with RegistryView.open(tmp_path) as view:
        former = view.former()
    assert (former["a"].slot.restarts, former["a"].heard) == (4, 77)
    registry = Registry.create(tmp_path, "f", tmp_path, ["c", "a"], former=former, after=9)
    with RegistryView.open(tmp_path) as view:
        assert view.epoch == 10
        assert [seen.name for seen in view.slots()] == ["a"], "c was never written, b is no more"
        assert view.former()["a"] == former["a"]
    registry.close()


def test_a_slot_of_garbage_is_no_successors(tmp_path):
    registry = Registry.create(tmp_path, "f", tmp_path, ["a", "b"])
    for name in "ab":
        registry.slot_writer(name)(slot(name=name))
    data = (tmp_path / "registry").read_bytes()
    state = data.rindex(slot().state.value.to_bytes(1, "little") + b"\x01", 0, len(data))
    with (tmp_path / "registry").open("r+b") as file:
        file.seek(state)
        file.write(b"\xff")
    with RegistryView.open(tmp_path) as view:
        assert list(view.former()) == ["a"]
    registry.close()


def test_each_supervisor_has_the_next_epoch(tmp_path):
    for epoch in (1, 2, 3):
        registry = Registry.create(tmp_path, "f", tmp_path, ["a"])
        assert registry.epoch == epoch
        registry.close()


def test_a_file_that_is_no_table_is_left_alone(tmp_path):
    (tmp_path / "registry").write_text("mine")
    with pytest.raises(SegmentForeign, match="move it away"):
        Registry.create(tmp_path, "f", tmp_path, ["a"])
    assert (tmp_path / "registry").read_text() == "mine"


def test_a_table_that_was_cut_is_written_anew(tmp_path):
    registry = Registry.create(tmp_path, "f", tmp_path, ["a", "b"])
    registry.slot_writer("a")(slot(name="a"))
    (tmp_path / "registry").write_bytes(b"")
    registry.slot_writer("b")(slot(name="b"))
    with RegistryView.open(tmp_path) as view:
        assert [seen.name for seen in view.slots()] == ["a", "b"]
        assert view.supervisor_alive()
    registry.close()


def test_a_table_written_anew_keeps_what_is_known_of_those_that_stay(tmp_path):
    registry = Registry.create(tmp_path, "f", tmp_path / "run", ["a", "b"])
    registry.slot_writer("a")(slot(restarts=1))
    write_b = registry.slot_writer("b")
    write_b(slot(name="b", restarts=2))
    registry.tick(5)
    with RegistryView.open(tmp_path) as former:
        registry.renew(["c", "b", "d"])
        assert [seen.name for seen in former.slots()] == ["a", "b"], "who looks keeps what it sees"
    with RegistryView.open(tmp_path) as view:
        assert (view.slots(), view.slot_count) == ([slot(name="b", restarts=2)], 3)
        assert (view.epoch, view.tick_ns, view.runtime_dir) == (1, 5, tmp_path / "run")
        write_b(slot(name="b", restarts=3))
        registry.slot_writer("c")(slot(name="c"))
        assert [(seen.name, seen.restarts) for seen in view.slots()] == [("c", 0), ("b", 3)]
    assert [path.name for path in tmp_path.iterdir()] == ["registry"]
    registry.close()


def test_a_table_that_cannot_be_written_anew_stays_as_it_was(tmp_path):
    registry = Registry.create(tmp_path, "f", tmp_path, ["a"])
    registry.slot_writer("a")(slot(restarts=1))
    (tmp_path / f".registry.{os.getpid()}.tmp").mkdir()
    with pytest.raises(SegmentError):
        registry.renew(["a", "b"])
    registry.slot_writer("a")(slot(restarts=2))
    with RegistryView.open(tmp_path) as view:
        assert view.slots() == [slot(restarts=2)]
    registry.close()


def test_a_table_that_tells_of_more_slots_than_it_holds_is_refused(tmp_path):
    registry = Registry.create(tmp_path, "f", tmp_path, ["a"])
    registry._words[WORD_SLOTS] = 2**40
    with pytest.raises(SegmentTruncated):
        RegistryView.open(tmp_path)
    registry.close()


WRITER = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, "tests/support")
    from pathlib import Path
    from supervisor.registry import Registry
    from slots import slot
    registry = Registry.create(Path(sys.argv[1]), "f", Path(sys.argv[1]), ["a"])
    write = registry.slot_writer("a")
    number = 0
    write(slot(pid=0, restarts=0, incarnation=0))
    print("up", flush=True)
    while True:
        number += 1
        write(slot(pid=number, restarts=number, incarnation=number))
    """
)


def test_fields_of_a_slot_always_agree(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout.readline() == b"up\n"
            with RegistryView.open(tmp_path) as view:
                numbers, deadline = set(), time.monotonic() + 60
                while len(numbers) < 500 and time.monotonic() < deadline:
                    (seen,) = view.slots()
                    assert seen.pid == seen.restarts == seen.incarnation
                    numbers.add(seen.pid)
            assert len(numbers) == 500, "the writer did write meanwhile"
        finally:
            writer.kill()
