"""Check: what the machine must be able to carry, and how faults are told."""

import json
import os
import subprocess
import sys

import pytest
from fleet import wait_for

from shm.process import start_ticks
from supervisor import capacity, check, launch, operator_functions
from supervisor.errors import FleetFileError, VariableRefused
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


# Functions of the operator's -------------------------------------------------------------------

FUNCTIONS = """
[[connection]]
name = "{name}"
url = "ws://127.0.0.1:1/"
{keys}
"""
MATCHER = (
    "heartbeat = {{ use_ws_ping = false, use_application_ping = true, payload = 'ping', "
    'pong_matcher = "{}" }}'
)
DESK = """
import os, sys, threading, time
print("hello")
threading.Thread(target=time.sleep, args=(600,)).start()
def good(given): return True
async def late(given): return True
number = 7
"""


@pytest.fixture
def desk(tmp_path):
    """A folder of an operator's modules."""
    folder = tmp_path / "desk"
    folder.mkdir()
    (folder / "desk.py").write_text(DESK)
    (folder / "ends.py").write_text("import os; os._exit(3)")
    (folder / "leaves.py").write_text("raise SystemExit('done')")
    (folder / "broken.py").write_text("def good(given):\n    return True)\n")
    return folder


def written(path, **logins):
    keys = {name: f'login = "{login}"' for name, login in logins.items()}
    path.write_text("".join(FUNCTIONS.format(name=n, keys=k) for n, k in keys.items()))


def test_functions_that_cannot_be_loaded_are_faults_each_with_its_line(desk, file):
    names = {
        "good": "desk:good",
        "typo": "desk:god",
        "nothere": "deks:good",
        "number": "desk:number",
        "ends": "ends:good",
        "leaves": "leaves:good",
        "broken": "broken:good",
        "again": "desk:good",
    }
    written(file, **names)
    with file.open("a") as more:
        for name, function in (("late", "desk:late"), ("prompt", "desk:good")):
            more.write(FUNCTIONS.format(name=name, keys=MATCHER.format(function)))
    done = supervisor("check", file, "--json", PYTHONPATH=str(desk))
    assert done.returncode == 5
    faults = {fault["key"]: fault for fault in json.loads(done.stdout)["faults"]}
    told = {
        "connection[1].login": "AttributeError: module 'desk' has no attribute 'god'",
        "connection[2].login": "ModuleNotFoundError: No module named 'deks'",
        "connection[3].login": "is a int, not a function",
        "connection[4].login": "ended the process: code 3",
        "connection[5].login": "SystemExit: done",
        "connection[6].login": "SyntaxError: unmatched ')' (broken.py, line 2)",
        "connection[8].heartbeat.pong_matcher": "is a coroutine function",
    }
    assert faults.keys() == told.keys()
    for key, words in told.items():
        assert words in faults[key]["message"]
        assert "PYTHONPATH" in faults[key]["hint"]
    lines = file.read_text().splitlines()
    assert all("desk" in lines[fault["line"] - 1] or "good" in lines[fault["line"] - 1]
               for fault in faults.values())  # fmt: skip
    written(file, good="desk:good")
    assert supervisor("check", file, PYTHONPATH=str(desk)).returncode == 0
    assert supervisor("check", file).returncode == 5


def test_what_takes_long_to_load_is_no_fault_and_leaves_nothing_behind(desk, file, monkeypatch):
    monkeypatch.setattr(operator_functions, "PATIENCE_S", 4.0)
    monkeypatch.setenv("PYTHONPATH", str(desk))
    marker = desk / "pid"
    (desk / "slow.py").write_text(
        f"import os, time, subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(marker)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\ntime.sleep(600)\n"
    )
    written(file, typo="desk:god", slow="slow:login")
    with pytest.raises(FleetFileError) as refused:
        load(file, known_functions=())
    assert [fault.key for fault in refused.value.faults] == ["connection[0].login"]
    wait_for(
        lambda: not any(start_ticks(int(pid)) for pid in marker.read_text().split()), "all gone"
    )
