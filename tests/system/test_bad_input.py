"""What is refused, with what words, and that nothing was half started or touched."""

import os
import subprocess
import sys

import pytest
from fleet import Fleet

pytestmark = pytest.mark.system

GOOD = '[[connection]]\nname = "a"\nurl = "ws://127.0.0.1:1/"\n'


def refused(fleet, code):
    done = fleet.command("run", str(fleet.file), check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "READY" not in done.stderr
    assert fleet.pids() == []
    return done.stderr


@pytest.fixture
def fleet(tmp_path):
    return Fleet(tmp_path, GOOD)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("version = = 1", "not valid TOML"),
        ("version = 1\n", "connection: is missing"),
        (GOOD + "colour = 'red'\n", "fleet.toml:4: connection[0].colour: unknown key"),
        (GOOD + "[connection.hearbeat]\n", 'did you mean "heartbeat"?'),
        (GOOD + GOOD, "is already used on line 2"),
        (GOOD.replace("ws:", "http:"), "must begin with ws:// or wss://"),
        (GOOD.replace('"a"', '"A B"'), "fleet.toml:2: connection[0].name"),
        (GOOD + "heartbeat = { interval = -1 }\n", "a duration above zero"),
        (GOOD + "exchange = 'binance_sport'\n", 'did you mean "binance_spot"?'),
    ],
)
def test_a_faulty_file_is_exit_5_with_its_line(fleet, text, words):
    fleet.file.write_text(text)
    assert words in refused(fleet, 5)
    assert not fleet.runtime_dir.exists()
    assert fleet.shm_files() == []


def test_a_missing_file_is_exit_5(fleet):
    fleet.file.unlink()
    assert "cannot be read: No such file or directory" in refused(fleet, 5)


def test_a_runtime_path_that_is_too_long_for_sockets_is_refused_before_anything(tmp_path):
    fleet = Fleet(tmp_path, GOOD)
    text = fleet.file.read_text().replace("/run", "/" + "r" * 90)
    fleet.file.write_text(text)
    assert "at most 107 are possible" in refused(fleet, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fleet.toml", "shm"]


def test_a_directory_that_others_can_write_is_refused(fleet):
    fleet.runtime_dir.mkdir()
    fleet.runtime_dir.chmod(0o777)
    assert "is writable by others" in refused(fleet, 5)
    assert list(fleet.runtime_dir.iterdir()) == []


def test_a_symbolic_link_for_a_directory_is_refused(fleet, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    fleet.runtime_dir.symlink_to(elsewhere)
    assert "is a symbolic link" in refused(fleet, 5)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("name", ["events.sock", "control.sock", "data/a.sock", "feedwarden.lock"])
def test_a_foreign_file_in_the_way_is_left_as_it_is(fleet, name):
    (fleet.runtime_dir / "data").mkdir(parents=True, mode=0o700)
    fleet.runtime_dir.chmod(0o700)
    foreign = fleet.runtime_dir / name
    foreign.write_text("precious")
    assert str(foreign) in refused(fleet, 5)
    assert foreign.read_text() == "precious"


def test_a_foreign_file_for_a_segment_is_left_as_it_is(tmp_path):
    fleet = Fleet(tmp_path, GOOD)
    directory = fleet.shm_base / f"feedwarden-{os.geteuid()}" / "t"
    directory.mkdir(parents=True, mode=0o700)
    directory.parent.chmod(0o700)
    (directory / "a.stats").write_text("precious")
    assert "is not a feedwarden segment; move it away\n" in refused(fleet, 5)
    assert (directory / "a.stats").read_text() == "precious"


def test_a_full_shared_memory_is_refused_with_how_many_would_fit(tmp_path):
    """On a small tmpfs of its own, in a mount namespace of its own."""
    fleet = Fleet(tmp_path, "".join(GOOD.replace('"a"', f'"c{n}"') for n in range(4)))
    script = (
        f"mount -t tmpfs -o size=25m tmpfs {fleet.shm_base} && "
        f"exec {sys.executable} -P -m supervisor check {fleet.file}"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        check=False,
        env=fleet.environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    if "Operation not permitted" in done.stderr or "must be superuser" in done.stderr:
        pytest.skip("mount namespaces need root")
    assert done.returncode == 5, done.stderr
    assert "2 of 4 connections would fit" in done.stderr


def test_supervisord_beside_us_is_refused_with_one_sentence(tmp_path):
    site = tmp_path / "site" / "supervisor-4.3.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: supervisor\nVersion: 4.3.0\n")
    fleet = Fleet(tmp_path, GOOD)
    fleet.environment["PYTHONPATH"] = str(site.parent)
    assert "supervisord" in refused(fleet, 5)
    assert fleet.shm_files() == []
