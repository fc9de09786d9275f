"""Whether files of a directory were cut, asked of the kernel."""

import mmap
import os

import pytest

from supervisor.file_watch import FileWatch


@pytest.fixture
def watch(tmp_path):
    (tmp_path / "a").write_bytes(bytes(8192))
    found = FileWatch(tmp_path)
    yield found
    found.close()


def test_a_directory_at_rest_is_not_disturbed(watch):
    assert not watch.disturbed()
    assert not watch.disturbed()


def test_a_cut_is_told_once(watch, tmp_path):
    os.truncate(tmp_path / "a", 0)
    assert watch.disturbed()
    assert not watch.disturbed()


def test_writing_by_mapping_is_not_told(watch, tmp_path):
    with (tmp_path / "a").open("r+b") as file, mmap.mmap(file.fileno(), 8192) as memory:
        memory[:4] = b"abcd"
        memory.flush()
    assert not watch.disturbed()


def test_reading_and_renaming_are_not_told(watch, tmp_path):
    (tmp_path / "a").read_bytes()
    (tmp_path / "a").rename(tmp_path / "b")
    assert not watch.disturbed()


def test_a_cut_under_a_new_name_is_told(watch, tmp_path):
    (tmp_path / "a").rename(tmp_path / "b")
    os.truncate(tmp_path / "b", 100)
    assert watch.disturbed()


def test_a_directory_that_is_gone_is_always_disturbed(watch, tmp_path):
    (tmp_path / "a").unlink()
    tmp_path.rmdir()
    assert watch.disturbed()
    assert watch.disturbed()


def test_what_cannot_be_watched_is_always_disturbed(tmp_path):
    watch = FileWatch(tmp_path / "none")
    assert watch.disturbed()
    assert watch.disturbed()
    watch.close()


def test_as_many_changes_as_the_kernel_keeps_are_one_disturbance(watch, tmp_path):
    names = [tmp_path / f"{number:0200d}" for number in range(2)]
    for name in names:
        name.write_bytes(bytes(8))
    for _ in range(2000):
        for name in names:  # in turns, for the kernel merges equal ones
            os.truncate(name, 4)
    while watch.disturbed():
        pass
    assert not watch.disturbed()
