"""A fleet that was checked is known again, whole, or is checked again."""

import os
from pathlib import Path

import pytest

from shm.directory import fleet_directory, make_private
from supervisor import checked
from supervisor.fleetfile import load

TOML = """
[fleet]
orphans = "keep"
[[connection]]
name = "a"
url = "wss://example.org/ws"
exchange = "binance_spot"
subscribe = ['{"method":"SUBSCRIBE"}']
headers = { "X-Key" = { env = "KEY" } }
[connection.heartbeat]
payload = '{"op":"ping"}'
use_ws_ping = false
use_application_ping = true
pong_matcher = "op == 'pong'"
[simulator]
port = 9999
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("FEEDWARDEN_SHM", str(tmp_path))
    path = tmp_path / "majors.toml"
    path.write_text(TOML)
    return path


@pytest.fixture
def kept(file):
    """A fleet that was kept, and where."""
    fleet = load(file)
    directory = fleet_directory(fleet.name)
    make_private(directory)
    checked.keep(fleet, checked.key_of(file), directory)
    return fleet, directory / checked.FILE_NAME


def recalled(file):
    return checked.recall(file, checked.key_of(file))


def test_what_is_recalled_is_what_was_checked(file, kept):
    fleet, path = kept
    assert recalled(file) == fleet
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_recalled_where_nothing_was_kept(file):
    assert recalled(file) is None


def test_a_file_that_cannot_be_read_is_not_known(tmp_path):
    assert checked.key_of(tmp_path / "missing") is None
    assert checked.recall(tmp_path / "missing", None) is None


def test_what_can_be_read_once_only_or_has_no_end_is_not_known(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert checked.key_of(tmp_path / "pipe") is None
    assert checked.key_of(Path("/dev/zero")) is None
    with (tmp_path / "large").open("wb") as file:
        file.truncate(checked.FILE_BYTES_MAX + 1)
    assert checked.key_of(tmp_path / "large") is None


def test_a_file_with_one_byte_changed_is_another(file, kept):
    file.write_text(TOML + "\n")
    assert recalled(file) is None


def test_a_file_that_is_written_to_while_it_is_checked_has_no_key(file):
    def slowly(path):
        fleet = load(path)
        path.write_text(TOML + "\n")
        return fleet

    assert checked.checking(file, load) == (load(file), checked.key_of(file))
    assert checked.checking(file, slowly)[1] is None


@pytest.mark.parametrize("variable", checked.VARIABLES[1:])
def test_whatever_directories_come_from_counts(file, kept, monkeypatch, variable):
    monkeypatch.setenv(variable, "/elsewhere")
    assert recalled(file) is None


def test_another_build_checks_anew(file, kept, monkeypatch):
    monkeypatch.setattr(checked, "program", lambda: "another")
    assert recalled(file) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        lambda data: data.replace(checked.MAGIC, b"x" * len(checked.MAGIC)),
        lambda data: os.urandom(len(data)),
    ],
)
def test_what_is_not_whole_is_not_believed(file, kept, spoil):
    _fleet, path = kept
    path.write_bytes(spoil(path.read_bytes()))
    assert recalled(file) is None


def test_what_others_may_read_or_a_link_is_not_believed(file, kept, tmp_path):
    _fleet, path = kept
    path.chmod(0o644)
    assert recalled(file) is None
    path.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").chmod(0o600)
    path.symlink_to(tmp_path / "elsewhere")
    assert recalled(file) is None


def test_a_cpu_that_may_not_be_used_any_more_is_checked_again(file, monkeypatch):
    cpu = min(os.sched_getaffinity(0))
    file.write_text(TOML.replace("[simulator]", f"[connection.process]\ncpu = {cpu}\n[simulator]"))
    fleet = load(file)
    make_private(fleet_directory(fleet.name))
    checked.keep(fleet, checked.key_of(file), fleet_directory(fleet.name))
    assert recalled(file) == fleet
    monkeypatch.setattr("worker.placement.is_usable", lambda cpu: False)
    assert recalled(file) is None


def test_only_what_is_ours_is_removed(file, kept):
    _fleet, path = kept
    checked.remove(path.parent)
    assert not path.exists()
    path.write_text("somebody's")
    checked.remove(path.parent)
    assert path.read_text() == "somebody's"
    checked.keep(_fleet, checked.key_of(file), path.parent / "missing")  # no room is no error
