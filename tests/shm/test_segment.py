"""Segments appear whole, are checked before they are believed, and have one owner."""

import os
import subprocess
import sys
import time

import pytest

from shm import segment
from shm.errors import (
    SegmentError,
    SegmentForeign,
    SegmentLocked,
    SegmentSpace,
    SegmentTruncated,
    SegmentUnavailable,
    SegmentVersion,
)
from shm.header import INCARNATION_MAX
from shm.layout import HEADER, HEADER_BYTES, MAGIC, PAGE, SegmentKind
from shm.process import boot_id
from shm.segment_lock import is_locked, lock_predecessor

KIND, HASH, SIZE = SegmentKind.STATS, 42, 4 * PAGE


def make(path, incarnation=1):
    owned, temporary = segment.create(path, KIND, SIZE, HASH, name="a", incarnation=incarnation)
    segment.publish(owned, temporary)
    return owned


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.stats"


def test_a_segment_says_whose_it_is(path):
    owned = make(path, incarnation=7)
    seen = segment.open_readonly(path, KIND, HASH)
    assert seen.header.name == "a"
    assert seen.header.incarnation == 7
    assert seen.header.pid == os.getpid()
    assert seen.header.boot_id == boot_id()
    assert seen.locked()
    owned.close()
    assert not seen.locked()
    seen.close()


def test_until_published_there_is_nothing_at_the_path(path):
    owned, temporary = segment.create(path, KIND, SIZE, HASH, name="a", incarnation=1)
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        segment.open_readonly(path, KIND, HASH)
    assert temporary.exists()
    owned.close()


def test_a_reader_sees_that_a_segment_was_replaced_or_removed(path):
    first = make(path)
    seen = segment.open_readonly(path, KIND, HASH)
    assert not seen.replaced()
    first.close()
    make(path, 2).close()
    assert seen.replaced()
    path.unlink()
    assert seen.replaced()
    seen.close()


@pytest.mark.parametrize("length", [0, 1, 7, 8, 100, HEADER.size, HEADER_BYTES - 1, SIZE - 1])
def test_a_file_cut_short_is_a_named_error_and_never_a_crash(path, length):
    make(path).close()
    os.truncate(path, length)
    with pytest.raises((SegmentForeign, SegmentTruncated)):
        segment.open_readonly(path, KIND, HASH)


def test_a_flipped_byte_where_it_matters_is_refused_and_elsewhere_no_crash(path):
    make(path).close()
    good = path.read_bytes()
    refused = set()
    for position in range(HEADER.size):
        spoiled = bytearray(good)
        spoiled[position] ^= 0xFF
        path.write_bytes(spoiled)
        try:
            segment.open_readonly(path, KIND, HASH).close()
        except SegmentError:
            refused.add(position)
    # magic, major; layout hash, total bytes, endian tag, kind; incarnation beyond any that is lived
    assert refused == {*range(10), *range(16, 44), *range(85, 88)}


def test_another_layout_or_version_is_told_apart_from_a_foreign_file(path):
    make(path).close()
    with pytest.raises(SegmentVersion, match="another byte layout"):
        segment.open_readonly(path, KIND, HASH + 1)
    with pytest.raises(SegmentForeign, match="kind 1"):
        segment.open_readonly(path, SegmentKind.REGISTRY, HASH)
    spoiled = bytearray(path.read_bytes())
    spoiled[len(MAGIC)] = 9
    path.write_bytes(spoiled)
    with pytest.raises(SegmentVersion, match=r"version 9\.0, this program reads 1\.x"):
        segment.open_readonly(path, KIND, HASH)


def test_links_directories_and_devices_are_not_followed(path, tmp_path):
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SegmentError):
        segment.open_readonly(path, KIND, HASH)
    path.unlink()
    path.mkdir()
    with pytest.raises(SegmentError):
        segment.open_readonly(path, KIND, HASH)
    path.rmdir()
    path.symlink_to("/dev/zero")
    with pytest.raises(SegmentError):
        lock_predecessor(path, 0)


def test_a_successor_waits_for_the_lock_and_says_who_holds_it(path):
    owned = make(path)
    with pytest.raises(SegmentLocked, match=f"in use by pid {os.getpid()}"):
        lock_predecessor(path, 30_000_000)
    owned.close()
    held = lock_predecessor(path, 0)
    assert held is not None
    os.close(held)


def test_a_foreign_file_is_refused_and_left(path):
    path.write_bytes(b"precious")
    with pytest.raises(SegmentForeign):
        lock_predecessor(path, 0)
    with pytest.raises(SegmentForeign):
        is_locked(path)
    assert path.read_bytes() == b"precious"


def test_the_lock_falls_with_its_owner_however_it_dies(path):
    script = (
        "import time; from pathlib import Path; from shm import segment;"
        "from shm.layout import SegmentKind;"
        f"o, t = segment.create(Path({str(path)!r}), SegmentKind.STATS, {SIZE}, {HASH}, name='a',"
        " incarnation=1); segment.publish(o, t); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"up\n"
        assert is_locked(path)
        owner.kill()
        owner.wait()
        deadline = time.monotonic() + 10
        while is_locked(path) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_locked(path)


def test_no_room_is_an_error_with_figures_and_leaves_nothing(path):
    """posix_fallocate really fails: a file system has no room for an exbibyte."""
    with pytest.raises(SegmentSpace):
        segment.create(path, KIND, 1 << 60, HASH, name="a", incarnation=1)
    assert list(path.parent.iterdir()) == []


def test_readers_coming_and_going_leave_the_segment(path):
    owned = make(path)
    script = (
        "from pathlib import Path; from shm import segment; from shm.layout import SegmentKind;"
        f"s = segment.open_readonly(Path({str(path)!r}), SegmentKind.STATS, {HASH}); s.close()"
    )
    for _ in range(5):
        subprocess.run([sys.executable, "-c", script], check=True)
    assert not owned.replaced()
    owned.close()


@pytest.mark.parametrize("kind", ["fifo", "directory", "text"])
def test_what_is_no_segment_is_refused_without_waiting(path, kind):
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_text("precious")
    for look in (
        lambda: segment.open_readonly(path, KIND, HASH),
        lambda: lock_predecessor(path, 0),
        lambda: is_locked(path),
    ):
        with pytest.raises(SegmentError):
            look()


def test_a_missing_directory_is_worth_another_try(tmp_path):
    with pytest.raises(SegmentUnavailable):
        segment.create(tmp_path / "gone" / "a", KIND, SIZE, HASH, name="a", incarnation=1)


@pytest.mark.parametrize("incarnation", [0, INCARNATION_MAX + 1, 2**64 - 1])
def test_an_incarnation_that_nobody_lives_to_see_is_not_believed(path, incarnation):
    make(path, incarnation).close()
    with pytest.raises(SegmentVersion, match="incarnation"):
        segment.open_readonly(path, KIND, HASH)


def test_a_file_shorter_than_its_layout_is_not_mapped(path):
    make(path).close()
    with pytest.raises(SegmentTruncated):
        segment.open_readonly(path, KIND, HASH, SIZE + 1)


def test_a_segment_that_was_cut_is_told_and_mended_by_its_owner(path):
    owned = make(path, 3)
    assert not owned.truncated()
    os.truncate(path, 0)
    assert owned.truncated()
    owned.mend()
    seen = segment.open_readonly(path, KIND, HASH)
    assert seen.header.incarnation == 3
    seen.close()
    owned.close()
