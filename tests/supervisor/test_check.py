"""Check: what the machine must be able to carry, and how faults are told."""

import json
import os
import subprocess
import sys

import pytest

from supervisor import capacity, check, launch
from supervisor.errors import VariableRefused
from supervisor.fleetfile import load

MINIMAL = '[[connection]]\nname = "a"\nurl = "ws://127.0.0.1:1/"\n'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "majors.toml"
    path.write_text(MINIMAL)
    return path


def supervisor(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "supervisor", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )
    assert "Traceback" not in done.stderr
    return done


def said_as_json(capsys, path):
    code = check.check(path, as_json=True)
    return code, json.loads(capsys.readouterr().out)


# Memory ----------------------------------------------------------------------------------------


@pytest.fixture
def cgroup(tmp_path):
    """Return a function that makes a cgroup tree and yields our limits in it."""

    def cgroup(mine, **limits):
        root = tmp_path / "cgroup"
        for path, text in limits.items():
            directory = root / path.replace("__", "/")
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "memory.max").write_text(text + "\n")
        ours = tmp_path / "self"
        ours.write_text(mine)
        found = capacity.memory_limits(root, ours)
        return [(str(path.relative_to(root).parent), limit) for path, limit in found]

    return cgroup


def test_the_limits_around_us_count_as_well_as_our_own(cgroup):
    assert cgroup("1:memory:/x\n0::/a/b\n", a="4096", a__b="max", c="1") == [("a", 4096)]
    assert cgroup("0::/a/b\n", a="4096", a__b="1024") == [("a/b", 1024), ("a", 4096)]


@pytest.mark.parametrize("mine", ["", "1:memory:/a\n", "0::/elsewhere\n", "0::/../a\n", "0::/\n"])
def test_without_a_limit_of_version_2_there_is_none(cgroup, mine):
    assert cgroup(mine, c="1") == []


def test_a_machine_without_cgroups_has_no_limit(tmp_path):
    assert list(capacity.memory_limits(tmp_path, tmp_path / "missing")) == []


def test_a_fleet_beyond_the_limit_of_its_cgroup_is_refused_with_its_file(
    file, monkeypatch, capsys, tmp_path
):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(capacity, "memory_limits", lambda: [(limit, 1 << 20)])
    fleet = load(file)
    with pytest.raises(capacity.TooLarge, match="allows 1,048,576 bytes") as caught:
        capacity.refuse_if_too_large(fleet)
    assert caught.value.exit_code == 5
    assert str(limit) in str(caught.value)
    code, document = said_as_json(capsys, file)
    assert (code, document["ok"]) == (5, False)
    assert [fault["line"] for fault in document["faults"]] == [0]
    monkeypatch.setattr(capacity, "memory_limits", lambda: [(limit, 1 << 40)])
    capacity.refuse_if_too_large(fleet)


def test_what_would_fit_is_counted(file, monkeypatch):
    file.write_text("".join(MINIMAL.replace('"a"', f'"c{n}"') for n in range(4)))
    fleet = load(file)
    one = check.plan(fleet)["connections"][0]["segment_bytes"]
    # A worker that is replaced has two segments: room for three is a fleet of two.
    monkeypatch.setattr(capacity, "memory_limits", lambda: [(file, 3 * one)])
    with pytest.raises(capacity.TooLarge, match="2 of 4 connections would fit"):
        capacity.refuse_if_too_large(fleet)


# Environment -----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_missing_directory_for_shared_memory_is_exit_5(file, tmp_path, verb):
    done = supervisor(verb, file, FEEDWARDEN_SHM=str(tmp_path / "missing"))
    assert done.returncode == 5
    assert "FEEDWARDEN_SHM must name" in done.stderr


def test_a_missing_directory_for_shared_memory_is_a_fault_in_json(file, tmp_path):
    done = supervisor("check", file, "--json", FEEDWARDEN_SHM=str(tmp_path / "missing"))
    assert done.returncode == 5
    (fault,) = json.loads(done.stdout)["faults"]
    assert (fault["line"], fault["key"]) == (0, "")


def test_a_log_level_that_is_none_is_exit_5(file, monkeypatch):
    done = supervisor("run", file, FEEDWARDEN_LOG_LEVEL="bogus")
    assert done.returncode == 5
    assert "FEEDWARDEN_LOG_LEVEL='bogus': name one of DEBUG, INFO" in done.stderr
    monkeypatch.setenv("FEEDWARDEN_LOG_LEVEL", "5")
    with pytest.raises(VariableRefused):
        launch.log_level()
    for written, level in (("debug", "DEBUG"), ("", "INFO"), ("Warning", "WARNING")):
        monkeypatch.setenv("FEEDWARDEN_LOG_LEVEL", written)
        assert launch.log_level() == level


# Telling ---------------------------------------------------------------------------------------


def test_a_missing_file_has_no_line_on_stderr_and_0_in_json(tmp_path, capsys):
    path = tmp_path / "missing.toml"
    assert check.check(path, as_json=False) == 5
    assert capsys.readouterr().err == f"{path}: cannot be read: No such file or directory\n"
    _code, document = said_as_json(capsys, path)
    assert document["faults"][0]["line"] == 0


def test_a_plan_counts_topics_and_messages(file, capsys):
    file.write_text(MINIMAL + "topics = ['x', 'y']\nsubscribe_template = '${topics}'\n")
    code, document = said_as_json(capsys, file)
    assert (code, document["connections"][0]["subscriptions"]) == (0, 2)


def test_a_plan_for_people_names_every_connection(file, capsys):
    assert check.check(file, as_json=False) == 0
    said = capsys.readouterr().out
    assert "OK: fleet majors, 1 connections" in said
    assert "ws://127.0.0.1:1/" in said
