"""Faults 1, 2, 8, 28, 29 and 31: processes that die."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from exchange import running_exchange
from faulty import (
    FULL,
    assert_nothing_left,
    descriptors,
    faulty_fleet,
    feeds,
    is_alive,
    name_of,
    names,
    resident_kib,
    witnessed,
    zygote_of,
)
from fleet import wait_for
from listening import assert_gap_free, listening

pytestmark = pytest.mark.system

AT_ONCE = "restart = { stable_after = 0, crash_loop = false }\n"


@pytest.fixture
def exchange():
    with running_exchange(rate=50) as running:
        yield running


def test_f01_a_worker_killed_again_and_again_is_replaced_and_the_others_show_no_gap(
    tmp_path, exchange
):
    kills, others = (100, names(50)[1:]) if FULL else (10, names(5)[1:])
    with faulty_fleet(tmp_path, feeds(exchange, "c0", *others, extra=AT_ONCE)) as fleet:
        before = fleet.wait_up(timeout_s=60)
        endpoints = [before[name]["endpoint"] for name in others]
        with witnessed(fleet) as witness, listening(endpoints) as listener:
            for count in range(1, kills + 1):
                os.kill(fleet.pid("c0"), signal.SIGKILL)
                witness.wait("up", "c0", count)
            assert len(witness.of("exit")) == kills
            assert {event["cause"] for event in witness.of("exit")} == {"signal"}
            for name in others:
                assert_gap_free([m for m in listener.data() if m[0] == f"data.{name}"])
        after = fleet.rows()
        assert after["c0"]["restarts"] == kills
        assert all(after[name]["pid"] == before[name]["pid"] for name in others)


def test_f02_a_whole_fleet_killed_at_once_is_back_and_no_name_runs_twice(tmp_path, exchange):
    everybody = names(50 if FULL else 20)
    with faulty_fleet(tmp_path, feeds(exchange, *everybody, extra=AT_ONCE)) as fleet:
        before = fleet.wait_up(timeout_s=60)
        with witnessed(fleet) as witness:
            for row in before.values():
                os.kill(row["pid"], signal.SIGKILL)
            wait_for(lambda: len(witness.of("up")) >= len(everybody), "all up again", 60)
            assert sorted(e["connection"] for e in witness.of("exit")) == sorted(everybody)
            assert sorted(e["connection"] for e in witness.of("spawn")) == sorted(everybody)
        fleet.wait_up(timeout_s=60)
        workers = [pid for pid in fleet.pids() if name_of(pid).startswith("fw:")]
        assert len(workers) <= len(everybody)
        tags = sorted(session["tag"] for session in exchange.sessions())
        assert tags == sorted(everybody)


def test_f08_a_dead_fork_helper_takes_no_worker_along_and_the_next_restart_works(
    tmp_path, exchange
):
    with faulty_fleet(tmp_path, feeds(exchange, "a", "b", extra=AT_ONCE)) as fleet:
        before = fleet.wait_up()
        helper = zygote_of(fleet)
        endpoint = before["a"]["endpoint"]
        with witnessed(fleet) as witness, listening([endpoint], [b"data.a\0"]) as listener:
            os.kill(helper, signal.SIGKILL)
            wait_for(lambda: "a new fork helper is started" in fleet.said(), "another helper")
            wait_for(lambda: len(listener.data()) > 50, "data")
            assert_gap_free(listener.data())
            assert witness.of("exit") == []
            assert fleet.pids_of_workers() == {n: r["pid"] for n, r in before.items()}
            os.kill(before["a"]["pid"], signal.SIGKILL)
            (died,) = witness.wait("exit", "a")
            assert died["detail"] == {"signal": "SIGKILL"}, "reaped by the supervisor itself"
            witness.wait("up", "a")
        row = fleet.wait_up()["a"]
        with listening([row["endpoint"]], [b"data.a\0"]) as listener:
            wait_for(listener.data, "data on the new listener")
        assert fleet.stop() == 0
        assert_nothing_left(fleet)


@pytest.mark.parametrize("helper", ["living", "dead"])
def test_f28_what_a_dead_worker_had_started_dies_with_it(tmp_path, exchange, helper):
    with faulty_fleet(tmp_path, feeds(exchange, "a", "b", extra=AT_ONCE)) as fleet:
        fleet.order("a", "spawn 1000", once=True)
        fleet.wait_up()
        exchange.fault("reset", tag="a")  # it dials anew, and obeys

        def sleepers():
            return [pid for pid in fleet.pids() if name_of(pid) == "sleep"]

        wait_for(sleepers, "a grandchild")
        if helper == "dead":
            os.kill(zygote_of(fleet), signal.SIGKILL)
        with witnessed(fleet) as witness:
            os.kill(fleet.pid("a"), signal.SIGKILL)
            witness.wait("up", "a")
        wait_for(lambda: not sleepers(), "no grandchild")
        assert fleet.rows()["b"]["restarts"] == 0


def test_f29_many_deaths_leave_the_supervisor_as_it_was(tmp_path, exchange):
    cycles = 1000 if FULL else 40
    with faulty_fleet(tmp_path, feeds(exchange, "a", "b", extra=AT_ONCE)) as fleet:
        fleet.wait_up()
        supervisor = fleet.process.pid
        with witnessed(fleet) as witness:
            for count in range(1, cycles + 1):
                if count == cycles // 4:  # by now everything has been used once
                    before = descriptors(supervisor), fleet.shm_files()
                    helper_before = descriptors(zygote_of(fleet))
                    memory_before = resident_kib(supervisor)
                os.kill(fleet.pid("a"), signal.SIGKILL)
                witness.wait("ready", "a", count)
                wait_for(lambda: fleet.rows()["a"]["state"] != "starting", "running")
        fleet.wait_up()
        wait_for(lambda: descriptors(supervisor) <= before[0], "no more descriptors")
        assert fleet.shm_files() == before[1]
        assert descriptors(zygote_of(fleet)) <= helper_before
        assert resident_kib(supervisor) - memory_before < 4096
        assert [pid for pid in fleet.pids() if not is_alive(pid)] == [], "no zombies"
        assert fleet.stop() == 0
        assert_nothing_left(fleet)


def test_f31_workers_do_not_die_with_the_thread_that_had_them_started(tmp_path, exchange):
    """PR_SET_PDEATHSIG is of the thread that forked; nothing of ours relies on it."""
    with faulty_fleet(tmp_path, feeds(exchange, "a")) as fleet:
        fleet.wait_up()
        assert fleet.stop() == 0
        thread = threading.Thread(target=fleet.start)
        thread.start()
        thread.join()
        pid = fleet.wait_up()["a"]["pid"]
        time.sleep(1)
        assert fleet.pid("a") == pid
        assert fleet.rows()["a"]["restarts"] == 0


def test_f12_a_second_run_is_refused_and_steals_no_socket(tmp_path, exchange):
    with faulty_fleet(tmp_path, feeds(exchange, "a")) as fleet:
        row = fleet.wait_up()["a"]
        endpoints = [row["endpoint"]]
        with witnessed(fleet) as witness, listening(endpoints, [b"data.a\0"]) as listener:
            second = subprocess.run(
                [sys.executable, "-P", "-m", "supervisor", "run", str(fleet.file)],
                check=False,
                env=fleet.environment,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert second.returncode == 4
            assert str(fleet.process.pid) in second.stderr
            seen = len(listener.data())
            wait_for(lambda: len(listener.data()) > seen + 20, "data goes on")
            assert_gap_free(listener.data())
            assert fleet.tell("restart", "a").error == ""
            witness.wait("up", "a")
