"""The directories of a fleet: one holder, foreign things untouched, left as found."""

import os
import socket
from pathlib import Path

import pytest

from shm.directory import user_directory
from shm.journal import Journal, journal_path
from shm.stats import StatsWriter
from supervisor.errors import AlreadyRunning, RuntimeDirectoryRefused
from supervisor.fleetfile import load
from supervisor.lock import LOCK
from supervisor.premises import Premises

WITHOUT_A_JOURNAL = """
[[connection]]
name = "b"
url = "ws://127.0.0.1:1/"
publish = { journal = { size = 0 } }
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return a function that makes the premises of a fleet."""
    monkeypatch.setenv("FEEDWARDEN_SHM", str(tmp_path / "shm"))
    (tmp_path / "shm").mkdir()

    def premises(name="f", runtime_dir="run", more=""):
        path = tmp_path / "fleet.toml"
        path.write_text(
            f'version = 1\n[fleet]\nname = "{name}"\nruntime_dir = "{tmp_path / runtime_dir}"\n'
            '[[connection]]\nname = "a"\nurl = "ws://127.0.0.1:1/"\n' + more
        )
        return Premises(load(path))

    return premises


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def test_what_the_next_life_needs_does_not_grow_old(make, tmp_path):
    """A folder below /tmp is cleaned of files that nobody has touched for days."""
    with make() as premises:
        lock = premises.runtime_dir / LOCK
        os.utime(lock, (1, 1))
        premises.refresh()
        assert lock.stat().st_mtime > 1
        assert lock.stat().st_atime > 1


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


def test_a_journal_is_kept_for_the_next_life_of_its_connection_and_for_no_other(make):
    def journal(name):
        return journal_path(premises.shm_dir, name)

    premises = make()
    names = ("a", "b", "gone")
    with premises:
        left = (premises.shm_dir / LOCK).read_bytes()
        for name in names:
            Journal.take_over(premises.shm_dir, name, size=1 << 16, incarnation=1).close()
        kept = {name: journal(name).read_bytes() for name in names}
    assert not user_directory().exists(), "an orderly end removes all"
    premises.shm_dir.mkdir(mode=0o700, parents=True)
    premises.shm_dir.parent.chmod(0o700)
    (premises.shm_dir / LOCK).write_bytes(left)
    for name, data in kept.items():
        journal(name).write_bytes(data)
    with make(more=WITHOUT_A_JOURNAL):
        assert [journal(name).exists() for name in names] == [True, False, False]
    assert not user_directory().exists()


def test_what_is_not_ours_in_them_is_left_alone(make):
    premises = make()
    premises.shm_dir.mkdir(mode=0o700, parents=True)
    premises.shm_dir.parent.chmod(0o700)
    premises.runtime_dir.mkdir(mode=0o700)
    (premises.shm_dir / "b.stats").write_text("mine")
    (premises.runtime_dir / "notes").write_text("mine")
    (premises.runtime_dir / "b.stack").write_text("mine")
    (premises.runtime_dir / "data").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(premises.runtime_dir / "data" / "b.sock"))
    with premises:
        pass
    assert everything(premises.shm_dir) == ["b.stats"]
    assert everything(premises.runtime_dir) == ["b.stack", "data", "data/b.sock", "notes"]
    (premises.runtime_dir / "data" / "b.sock").unlink()
    with premises:
        pass
    assert (premises.runtime_dir / "data").is_dir(), "it was there before"


def in_the_way(path, kind):
    """Put something that is not ours at a path; return what must be closed."""
    match kind:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link":
            (path.parent / "precious").write_text("precious")
            path.symlink_to(path.parent / "precious")


@pytest.mark.parametrize("kind", ["file", "directory", "fifo", "link"])
@pytest.mark.parametrize(
    "where",
    [
        "shm/registry",
        "shm/a.stats",
        "shm/a.journal",
        "run/a.stack",
        "run/events.sock",
        "run/control.sock",
        "run/wake.sock",
        "run/zygote.sock",
        "run/data",
        "run/data/a.sock",
        "run/feedwarden.lock",
    ],
)
def test_what_stands_in_our_way_and_is_not_ours_is_refused_and_left(make, where, kind):
    premises = make()
    if (where, kind) == ("run/data", "directory"):
        pytest.skip("that is what it shall be")
    for folder in (premises.shm_dir, premises.runtime_dir):
        folder.mkdir(mode=0o700, parents=True)
    premises.shm_dir.parent.chmod(0o700)
    root, name = where.split("/", 1)
    folder = premises.shm_dir if root == "shm" else premises.runtime_dir
    (folder / name).parent.mkdir(mode=0o700, exist_ok=True)
    in_the_way(folder / name, kind)
    before = everything(folder)
    with pytest.raises(RuntimeDirectoryRefused) as refused:
        premises.__enter__()
    assert refused.value.exit_code == 5
    assert everything(folder) == before


@pytest.mark.parametrize("name", ["events.sock", "data/a.sock"])
def test_a_socket_on_which_somebody_answers_is_refused(make, name):
    premises = make()
    (premises.runtime_dir / "data").mkdir(mode=0o700, parents=True)
    premises.runtime_dir.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(premises.runtime_dir / name))
        foreign.listen()
        with pytest.raises(RuntimeDirectoryRefused, match=f"process {os.getpid()} listens"):
            premises.__enter__()
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(premises.runtime_dir / name))
    with premises:  # nobody answers: a socket of an earlier life
        pass
    assert not (premises.runtime_dir / name).exists()


def test_a_data_directory_that_others_may_read_is_refused(make):
    premises = make()
    (premises.runtime_dir / "data").mkdir(parents=True)
    premises.runtime_dir.chmod(0o700)
    (premises.runtime_dir / "data").chmod(0o755)
    with pytest.raises(RuntimeDirectoryRefused, match="chmod 0700"):
        premises.__enter__()


def test_a_stack_file_that_faulthandler_wrote_is_ours(make):
    premises = make()
    premises.runtime_dir.mkdir(mode=0o700)
    (premises.runtime_dir / "a.stack").write_text("Fatal Python error: Aborted\n")
    with premises:
        pass
    assert everything(premises.runtime_dir) == []


def test_leftovers_of_connections_that_are_configured_no_more_are_removed(make):
    premises = make()
    premises.runtime_dir.mkdir(mode=0o700)
    (premises.runtime_dir / LOCK).write_text('{"names": ["gone"], "data_created": true}')
    (premises.runtime_dir / "gone.stack").touch()
    (premises.runtime_dir / "data").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(premises.runtime_dir / "data" / "gone.sock"))
    with premises:
        assert not (premises.runtime_dir / "gone.stack").exists()
    assert everything(premises.runtime_dir) == []


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
