"""The directories of a fleet: one holder, foreign things untouched, left as found."""

import os
import socket
from pathlib import Path

import pytest

from shm.directory import user_directory
from shm.stats import StatsWriter
from supervisor.errors import AlreadyRunning, RuntimeDirectoryRefused
from supervisor.fleetfile import load
from supervisor.premises import LOCK, Premises


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return a function that makes the premises of a fleet."""
    monkeypatch.setenv("FEEDWARDEN_SHM", str(tmp_path / "shm"))
    (tmp_path / "shm").mkdir()

    def premises(name="f", runtime_dir="run"):
        path = tmp_path / "fleet.toml"
        path.write_text(
            f'version = 1\n[fleet]\nname = "{name}"\nruntime_dir = "{tmp_path / runtime_dir}"\n'
            '[[connection]]\nname = "a"\nurl = "ws://127.0.0.1:1/"\n'
        )
        return Premises(load(path))

    return premises


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def test_what_was_made_is_removed_and_what_was_there_stays(make, tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)
    before = everything(tmp_path)
    with make() as premises:
        assert stat_mode(premises.shm_dir) == stat_mode(premises.runtime_dir) == 0o700
        StatsWriter.create(premises.shm_dir, "a", incarnation=1, ring_slots=1024).close()
        (premises.runtime_dir / "a.stack").touch()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(premises.data_socket("a")))
    assert everything(tmp_path) == sorted([*before, "fleet.toml"])


def stat_mode(path):
    return path.stat().st_mode & 0o777


def test_a_second_run_of_the_fleet_is_refused_and_the_holder_named(make):
    with make(), pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
        make().__enter__()


def test_another_fleet_in_the_same_runtime_directory_is_refused(make):
    with make("one"), pytest.raises(AlreadyRunning):
        make("two").__enter__()
    assert not user_directory().exists(), "the refused one left nothing in shared memory"


def test_a_directory_made_by_a_life_that_was_killed_is_removed_by_the_next(make, tmp_path):
    premises = make()
    with premises:
        left = (premises.shm_dir / LOCK).read_bytes()
        assert b'"created": true' in left
    premises.shm_dir.mkdir(mode=0o700, parents=True)
    premises.shm_dir.parent.chmod(0o700)
    (premises.shm_dir / LOCK).write_bytes(left)
    StatsWriter.create(premises.shm_dir, "gone", incarnation=1, ring_slots=1024).close()
    with make() as again:
        assert not (again.shm_dir / "gone.stats").exists(), "no longer configured"
    assert not user_directory().exists()


def test_what_is_not_ours_in_them_is_left_alone(make):
    premises = make()
    premises.shm_dir.mkdir(mode=0o700, parents=True)
    premises.shm_dir.parent.chmod(0o700)
    premises.runtime_dir.mkdir(mode=0o700)
    (premises.shm_dir / "b.stats").write_text("mine")
    (premises.runtime_dir / "events.sock").write_text("no socket")
    (premises.runtime_dir / "notes").write_text("mine")
    with premises:
        pass
    assert everything(premises.shm_dir) == ["b.stats"]
    assert everything(premises.runtime_dir) == ["events.sock", "notes"]


def test_a_lock_file_that_is_no_lock_of_ours_is_refused(make):
    premises = make()
    premises.runtime_dir.mkdir(mode=0o700)
    (premises.runtime_dir / LOCK).write_text("my diary")
    with pytest.raises(RuntimeDirectoryRefused, match="move it away"):
        premises.__enter__()
    assert (premises.runtime_dir / LOCK).read_text() == "my diary"


def test_a_runtime_directory_that_others_may_write_or_a_link_is_refused(make, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    with pytest.raises(RuntimeDirectoryRefused, match=r"fleet\.runtime_dir"):
        make().__enter__()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RuntimeDirectoryRefused):
        make(runtime_dir="link").__enter__()
    assert everything(tmp_path / "elsewhere") == []


def test_a_segment_still_in_use_survives_the_sweep(make):
    premises = make()
    premises.shm_dir.mkdir(mode=0o700, parents=True)
    premises.shm_dir.parent.chmod(0o700)
    living = StatsWriter.create(premises.shm_dir, "b", incarnation=1, ring_slots=1024)
    with premises:
        assert (premises.shm_dir / "b.stats").exists()
    assert (premises.shm_dir / "b.stats").exists()
    living.close()
