"""Status: what it makes of shared memory, sound or not, and how that looks on a terminal."""

import functools
import json
import os
import re
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slots import slot

from shm.directory import make_private, user_directory
from shm.errors import SegmentError
from shm.layout import Word
from shm.stats import StatsWriter, stats_path
from supervisor import screens
from supervisor.errors import NoSuchConnection, NoSuchFleet
from supervisor.registry import Registry
from supervisor.registry_layout import WORD_PID, WORD_SLOTS
from supervisor.restart_state import State
from supervisor.slot import ExitRecord
from supervisor.status import gather
from worker.announcement import Announcement, Cause, EventKind
from worker.endpoints import tuning_file
from worker.session import State as SessionState
from worker.tuning import Fact, Outcome, TuningFile

INCARNATION = 3
SECOND_NS = 10**9


class Table:
    """A fleet in shared memory of which this process is the supervisor and every worker."""

    def __init__(self, names):
        self.directory = user_directory() / "f"
        make_private(self.directory)
        self.registry = Registry.create(self.directory, "f", self.directory, names)
        self.names, self.workers = names, {}
        self.tick(0)

    def tick(self, age_s):
        self.registry.tick(time.monotonic_ns() - int(age_s * SECOND_NS))

    def slot(self, name, **keys):
        keys = {"pid": os.getpid(), "incarnation": INCARNATION} | keys
        self.registry.slot_writer(name)(slot(name=name, **keys))

    def worker(self, name):
        made = StatsWriter.create(self.directory, name, incarnation=INCARNATION, ring_slots=1024)
        self.workers[name] = made
        now_ns = time.monotonic_ns()
        made.words[Word.SERVING_NS] = made.words[Word.UP_SINCE_NS] = now_ns
        made.words[Word.SESSION_STATE] = SessionState.UP.value
        self.stamp(name, 0)

    def stamp(self, name, age_s):
        stamp_ns = time.monotonic_ns() - int(age_s * SECOND_NS)
        self.workers[name].words[Word.LIVENESS_NS] = stamp_ns

    def rows(self):
        return {row["name"]: row for row in self.status().document["connections"]}

    def status(self):
        return gather(self.directory)

    def command(self, *arguments):
        """The verb status on it, in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "supervisor", "status", *arguments],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done

    def close(self):
        for worker in self.workers.values():
            worker.close()
        self.registry.close()


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setenv("FEEDWARDEN_SHM", str(tmp_path))
    made = Table(["a", "b"])
    for name in made.names:
        made.slot(name)
        made.worker(name)
    yield made
    made.close()


def test_a_fleet_that_is_well_is_up(table):
    status = table.status()
    assert status.all_up
    assert {row["state"] for row in status.document["connections"]} == {"up"}
    assert {row["note"] for row in status.document["connections"]} == {None}
    for stamp in (table.tick, *(functools.partial(table.stamp, name) for name in "ab")):
        stamp(-60)  # the command may be slow to start
    assert table.command("--check").returncode == 0


def test_a_stopped_connection_does_not_spoil_the_check(table):
    table.slot("a", pid=0, state=State.STOPPED, wanted=False)
    assert table.rows()["a"]["state"] == "stopped"
    assert table.status().all_up
    table.slot("b", pid=0, state=State.BACKOFF)
    assert not table.status().all_up


# What cannot be trusted ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"precious", b"\0" * 4096, b"FEEDWARD" + b"\xff" * 8000], ids=range(4)
)
def test_a_row_of_an_unreadable_segment_tells_so_and_keeps_the_supervisors_word(table, content):
    stats_path(table.directory, "a").unlink()
    stats_path(table.directory, "a").write_bytes(content)
    row = table.rows()["a"]
    assert row["state"] == "connecting"
    assert row["pid"] == os.getpid()
    assert row["messages"] == 0
    assert "its segment cannot be read" in row["note"]
    assert table.rows()["b"]["state"] == "up"
    done = table.command("--check")
    assert done.returncode == 3
    assert "its segment cannot be read" in done.stdout


def test_a_running_worker_without_a_segment_is_noted(table):
    stats_path(table.directory, "a").unlink()
    assert table.rows()["a"]["note"] == "has no segment"
    table.slot("a", state=State.STARTING)
    assert table.rows()["a"]["note"] is None


def fact(state, error=""):
    return Fact(option="process.nice", wanted=-5, got=0, state=state, error=error)


def test_what_became_of_options_is_shown_and_noted_if_it_is_less_than_wanted(table):
    path = tuning_file(table.directory, "a")
    assert table.rows()["a"]["tuning"] == {}
    TuningFile(path, INCARNATION).note([fact(Outcome.REFUSED, "not permitted")])
    expected = {"wanted": -5, "got": 0, "state": "refused", "error": "not permitted"}
    assert table.rows()["a"]["tuning"] == {"process.nice": expected}
    lines = screens.status_lines(gather(table.directory).document, None, colour=False)
    assert any("process.nice refused: not permitted" in line for line in lines)
    TuningFile(path, INCARNATION).note([fact(Outcome.APPLIED)])
    lines = screens.status_lines(gather(table.directory).document, None, colour=False)
    assert not any("process.nice" in line for line in lines)


def test_the_options_of_a_former_worker_say_nothing_of_this_one(table):
    TuningFile(tuning_file(table.directory, "a"), INCARNATION - 1).note(
        [fact(Outcome.REFUSED, "x")]
    )
    assert table.rows()["a"]["tuning"] == {}


@pytest.mark.parametrize("content", [b"", b"{", b'{"incarnation":"x"}', b"\xff"])
def test_options_that_cannot_be_read_are_a_note_of_their_row(table, content):
    tuning_file(table.directory, "a").write_bytes(content)
    row = table.rows()["a"]
    assert row["state"] == "up"
    assert "its tuning cannot be read" in row["note"]


def test_an_impossible_session_state_is_a_note_of_its_row(table):
    table.workers["a"].words[Word.SESSION_STATE] = 99
    row = table.rows()["a"]
    assert "99" in row["note"]
    assert row["state"] == "connecting"


def test_an_impossible_state_in_the_registry_is_a_named_error(table):
    memory = table.registry._memory
    at = memory.find(b"a".ljust(48, b"\0"))
    whole = memory[at : at + 200]
    memory[at : at + 200] = whole.replace(bytes([State.RUNNING.value]), b"\xee")
    with pytest.raises(SegmentError, match="no supervisor writes"):
        table.status()
    done = table.command()
    assert done.returncode == 1
    assert "registry" in done.stderr


def test_an_impossible_number_of_slots_is_a_named_error(table):
    table.registry._words[WORD_SLOTS] = 2**60
    with pytest.raises(SegmentError):
        table.status()


def test_a_time_and_a_pid_that_are_none_are_left_out(table):
    said = Announcement(kind=EventKind.EXIT, cause=Cause.CRASH, detail={"code": 1})
    table.slot("a", pid=2**62, last_exit=ExitRecord(said, 2**62))
    row = table.rows()["a"]
    assert row["rss_mib"] is None
    assert row["last_exit"]["cause"] == "crash"


def test_a_fleet_that_ended_and_a_name_that_is_none_are_errors(table):
    with pytest.raises(NoSuchConnection):
        gather(table.directory, ["zzz"])
    (table.directory / "registry").unlink()
    with pytest.raises(NoSuchFleet):
        table.status()


# Signs of life ---------------------------------------------------------------------------------


def test_a_hung_supervisor_fails_the_check_though_everything_looks_up(table):
    table.tick(1.0)
    assert table.status().all_up
    table.tick(3.0)
    status = table.status()
    assert not status.all_up
    assert {row["state"] for row in status.document["connections"]} == {"up"}
    done = table.command("--check")
    assert done.returncode == 3
    assert "HUNG" in done.stdout.splitlines()[0]
    assert table.command().returncode == 0


def test_a_worker_that_gives_no_sign_fails_the_check(table):
    table.stamp("a", 3)
    assert table.rows()["a"]["state"] == "up", "its supervisor is there to call it hung"
    assert table.command("--check").returncode == 3


def test_a_worker_that_gives_no_sign_is_hung_if_its_supervisor_cannot_say_so(table):
    table.stamp("a", 3)
    table.tick(3)
    rows = table.rows()
    assert (rows["a"]["state"], rows["b"]["state"]) == ("hung", "up")
    assert table.status().document["connections"][0]["name"] == "a"


def test_the_stamp_of_a_former_worker_says_nothing_of_this_one(table):
    table.stamp("a", 3)
    table.slot("a", incarnation=INCARNATION + 1, state=State.STARTING)
    table.tick(3)
    assert table.rows()["a"]["state"] == "starting"


def test_without_a_supervisor_a_worker_that_died_is_failed_and_one_that_lives_is_up(table):
    with subprocess.Popen(["true"]) as dead:
        pass
    table.registry._words[WORD_PID] = dead.pid
    table.workers.pop("b").close()
    status = table.status()
    rows = {row["name"]: row for row in status.document["connections"]}
    assert (rows["a"]["state"], rows["b"]["state"]) == ("up", "failed")
    assert (rows["a"]["pid"], rows["b"]["pid"]) == (os.getpid(), None)
    assert not status.all_up
    assert "DEAD" in table.command().stdout.splitlines()[0]


def test_a_session_that_is_not_up_has_no_uptime_and_a_stopped_one_no_memory(table):
    row = table.rows()["a"]
    assert row["uptime_s"] >= 0
    assert row["rss_mib"] > 0
    table.workers["a"].words[Word.SESSION_STATE] = SessionState.WAITING.value
    row = table.rows()["a"]
    assert (row["state"], row["uptime_s"]) == ("connecting", None)
    table.slot("a", pid=0, state=State.STOPPED, wanted=False)
    assert table.rows()["a"]["rss_mib"] is None


# Tables ----------------------------------------------------------------------------------------


def lines(table, width=None, colour=False):
    return screens.status_lines(table.status().document, width, colour=colour)


def test_a_table_has_a_title_headings_and_a_line_a_connection(table):
    title, headings, *rows = lines(table)
    assert title == f"f: 2 of 2 up, supervisor {os.getpid()}"
    assert headings.split()[:3] == ["CONNECTION", "STATE", "PID"]
    assert [row.split()[:3] for row in rows] == [
        [name, "up", str(os.getpid())] for name in ("a", "b")
    ]


@given(st.integers(1, 200))
def test_a_narrow_terminal_loses_columns_and_never_the_state(width):
    document = json.loads(DOCUMENT)
    _title, *rows = screens.status_lines(document, width, colour=False)
    fitting = max(map(len, rows)) <= width
    assert fitting or rows[0].split() == ["CONNECTION", "STATE", "NOTE"]
    assert "crash_loop" in rows[1]
    assert "next try in 3.0 s" in rows[1]


DOCUMENT = """{"fleet": "f", "supervisor": {"pid": 1, "alive": true, "tick_age_s": 0.1},
"connections": [{"name": "a-connection", "state": "crash_loop", "desired": "running", "pid": null,
"uptime_s": null, "restarts": 12, "messages": 1234567, "last_message_age_s": 3.2,
"rtt_ms": {"p50": 0.5, "p99": 12.5}, "next_attempt_s": 3.0, "last_exit": null, "tuning": {},
"note": null}]}"""


def test_colours_paint_the_state_and_nothing_else():
    document = json.loads(DOCUMENT)
    painted, plain = (
        screens.status_lines(document, None, colour=colour) for colour in (True, False)
    )
    assert "\x1b[1;31mcrash_loop\x1b[0m" in painted[2]
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in painted] == plain


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "12ms"), (9.94, "9.9s"), (240, "4m"), (7200, "2h"), (86400 * 9, "9d")],
)
def test_an_age_reads_well(seconds, text):
    assert screens.age(seconds) == text


@given(st.text(), st.text())
def test_what_an_exchange_said_cannot_command_the_terminal(cause, value):
    event = {
        "connection": "a", "fleet": "f", "time": "now", "kind": "down", "cause": cause,
        "detail": {"reason": value + "\x1b[2J\x9b2J\r\n"}, "delay_s": None,
    }  # fmt: skip
    line = screens.event_line(event)
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in line)
