"""Dumps of workers that were aborted: whose they are, and that they stay bounded."""

import pytest

from supervisor.ownership import is_stack
from supervisor.stacks import BOUND_BYTES, KEPT_BYTES, Stacks, announce, last


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.stack"


def dump(path, text):
    with path.open("a") as file:
        file.write(text)


def test_the_last_dump_is_told_with_whose_it_is(path):
    for number in (1, 2):
        announce(path, incarnation=number, pid=10 * number)
        dump(path, f"Fatal Python error: Aborted\nstack {number}\n")
    found = last(path)
    assert found.head.endswith("incarnation 2 pid 20")
    assert found.text == "Fatal Python error: Aborted\nstack 2"


def test_a_worker_that_wrote_nothing_leaves_an_empty_dump(path):
    announce(path, incarnation=1, pid=2)
    assert last(path).text == ""


def test_a_dump_that_nobody_announced_is_told_all_the_same(path):
    dump(path, "Fatal Python error: Segmentation fault\n")
    assert last(path) == Stacks("", "Fatal Python error: Segmentation fault")


def test_no_file_is_no_dump(path):
    assert last(path) is None
    path.write_text("")
    assert last(path) is None


def test_the_file_stays_bounded_under_a_writer_that_has_it_open(path):
    with path.open("ab", buffering=0) as worker:
        for number in range(20):
            announce(path, incarnation=number, pid=1)
            worker.write(b"x" * 30_000 + b"\n")
            assert path.stat().st_size < BOUND_BYTES + 30_200
            assert is_stack(path), "the next run takes it for what it is"
    assert last(path).head.endswith("incarnation 19 pid 1")
    assert path.stat().st_size > KEPT_BYTES


def test_what_is_no_file_of_ours_is_left_alone(path, tmp_path):
    other = tmp_path / "other"
    other.write_text("precious")
    path.symlink_to(other)
    announce(path, incarnation=1, pid=2)
    assert other.read_text() == "precious"
    assert last(path) is None
