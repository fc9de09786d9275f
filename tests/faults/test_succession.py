"""Faults 6, 7, 9 to 11, 22 and 23: the supervisor ends, and the next one finds what it left."""

import os
import signal
import time

import pytest
from exchange import running_exchange
from faulty import (
    FULL,
    assert_nothing_left,
    descriptors,
    faulty_fleet,
    feeds,
    names,
    witnessed,
    zygote_of,
)
from fleet import PATIENCE_S, wait_for
from following import Follower
from listening import listening
from succession import (
    SPOILT,
    Stranger,
    another_build,
    forge,
    hand_over,
    ids_of_sessions,
    processes,
    slay,
    zygotes,
)

from shm.process import start_ticks

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

AT_ONCE = "restart = { stable_after = 0, crash_loop = false }\n"


@pytest.fixture
def exchange(tmp_path, monkeypatch):
    with running_exchange(rate=200) as running:
        # Subscribers of this process shall find the fleet; the exchange is none of it.
        monkeypatch.setenv("FEEDWARDEN_SHM", str(tmp_path / "shm"))
        yield running


# Killed ----------------------------------------------------------------------------------------


def kill_and_adopt(fleet, exchange, *, helper):
    """Kill the supervisor under load; check that the next run goes on and nothing is lost."""
    before, sessions = fleet.wait_up(), ids_of_sessions(exchange)
    epoch, (zygote,) = fleet.status()["supervisor"]["epoch"], zygotes(fleet)
    events = [f"ipc://{fleet.runtime_dir}/events.sock"]
    with Follower(fleet, tuple(before)) as follower, listening(events) as listener:
        fleet.tell("kill", *["a"] * 100, signal="SIGCONT")  # harmless, and each is an event
        wait_for(lambda: len(listener.events("a")) >= 100, "a hundred events")
        slay(fleet, *([zygote] if helper else []))
        status = fleet.status()
        assert status["supervisor"]["alive"] is False
        assert processes({row["name"]: row for row in status["connections"]}) == processes(before)
        follower.wait_more(100)
        fleet.start()
        after = fleet.wait_up()
        assert processes(after) == processes(before)
        assert fleet.status()["supervisor"]["epoch"] == epoch + 1
        for name, row in before.items():
            assert f"adopted connection={name} pid={row['pid']}" in fleet.said()
        assert fleet.said().count("adopted connection=") == len(before)
        heard = len(listener.events())

        def told_anew():
            fleet.tell("kill", "a", signal="SIGCONT")
            return listener.events()[heard:]

        assert wait_for(told_anew, "events of the next supervisor")[0]["seq"] < 100
        follower.wait_more(100)
        follower.assert_nothing_lost()
    assert ids_of_sessions(exchange) == sessions
    assert (zygotes(fleet) == [zygote]) is not helper
    return before


def assert_kept_like_a_child(fleet, name, *, cause_known):
    """Kill what was adopted: it is replaced like what was forked."""
    with witnessed(fleet) as witness:
        os.kill(fleet.pid(name), signal.SIGKILL)
        (died,) = witness.wait("exit", name)
        assert died["cause"] in ({"signal"} if cause_known else {"signal", "unknown"})
        witness.wait("up", name)
    row = fleet.wait_up()[name]
    assert (row["incarnation"], row["restarts"]) == (2, 1)
    with listening([row["endpoint"]], [b"data."]) as listener:
        wait_for(listener.data, "data of the replacement")


def assert_a_life_after_death(folder, exchange, *, helper):
    """Kill the supervisor, and its helper or not; all is adopted, and ends as ever."""
    with faulty_fleet(folder, feeds(exchange, "a", "b", extra=AT_ONCE)) as fleet:
        kill_and_adopt(fleet, exchange, helper=helper)
        assert_kept_like_a_child(fleet, "a", cause_known=not helper)
        assert fleet.stop() == 0
        assert_nothing_left(fleet)


def test_f06_a_killed_supervisor_costs_no_message_and_the_next_run_adopts(tmp_path, exchange):
    assert_a_life_after_death(tmp_path, exchange, helper=False)


def test_f07_who_died_while_nobody_looked_is_replaced_with_its_cause_and_the_others_adopted(
    tmp_path, exchange
):
    everybody = names(50 if FULL else 8)
    dead, living = everybody[:3], everybody[3:]
    with faulty_fleet(tmp_path, feeds(exchange, *everybody, extra=AT_ONCE)) as fleet:
        before = fleet.wait_up(timeout_s=60)
        with Follower(fleet, living) as follower:
            slay(fleet, *(before[name]["pid"] for name in dead))
            fleet.start()
            wait_for(lambda: all(fleet.rows()[n]["incarnation"] == 2 for n in dead), "replaced")
            after = fleet.wait_up(timeout_s=60)
            follower.wait_more(100)
            follower.assert_nothing_lost()
        assert {n: after[n]["pid"] for n in living} == {n: before[n]["pid"] for n in living}
        assert fleet.said().count("adopted connection=") == len(living)
        for name in dead:
            assert after[name]["restarts"] == 1
            assert after[name]["last_exit"]["signal"] == "SIGKILL", "the fork helper remembers"
            assert fleet.said().count(f"exit connection={name} ") == 1


def test_f09_supervisor_and_fork_helper_killed_together_cost_no_message_either(tmp_path, exchange):
    assert_a_life_after_death(tmp_path, exchange, helper=True)


# A table that cannot be believed ---------------------------------------------------------------


@pytest.mark.parametrize("ticks", ["the worker's", "the stranger's"])
@pytest.mark.parametrize("worker", ["living", "dead"])
def test_f10_a_strangers_pid_in_the_table_is_never_signalled(tmp_path, exchange, worker, ticks):
    toml = feeds(exchange, "a", "b", extra=AT_ONCE)
    with faulty_fleet(tmp_path, toml) as fleet, Stranger() as stranger:
        before = fleet.wait_up()
        slay(fleet, *([before["a"]["pid"]] if worker == "dead" else []))
        forged = {"start_ticks": start_ticks(stranger.pid)} if ticks == "the stranger's" else {}
        forge(fleet, "a", pid=stranger.pid, **forged)
        fleet.start()
        incarnation = 2 if worker == "dead" else 1
        wait_for(lambda: fleet.wait_up()["a"]["incarnation"] == incarnation, "kept")
        after = fleet.wait_up()
        assert after["a"]["pid"] != stranger.pid
        assert after["b"]["pid"] == before["b"]["pid"]
        assert (after["a"]["pid"] == before["a"]["pid"]) is (worker == "living")
        fleet.tell("restart", "a")
        wait_for(lambda: fleet.wait_up()["a"]["incarnation"] == incarnation + 1, "replaced")
        assert fleet.stop() == 0
        stranger.assert_left_alone()
        assert_nothing_left(fleet)


@pytest.mark.parametrize("how", SPOILT)
def test_f11_without_a_table_workers_are_known_by_their_segments_and_no_pid_in_it_is_signalled(
    tmp_path, exchange, how
):
    toml = feeds(exchange, "a", "b", extra=AT_ONCE)
    with faulty_fleet(tmp_path, toml) as fleet, Stranger() as stranger:
        before, sessions = fleet.wait_up(), ids_of_sessions(exchange)
        epoch = fleet.status()["supervisor"]["epoch"]
        slay(fleet)
        for name in before:
            forge(fleet, name, pid=stranger.pid, start_ticks=start_ticks(stranger.pid))
        SPOILT[how](fleet.shm_dir / "registry")
        fleet.start()
        assert processes(fleet.wait_up()) == processes(before)
        assert ids_of_sessions(exchange) == sessions
        assert fleet.status()["supervisor"]["epoch"] > epoch
        os.kill(before["a"]["pid"], signal.SIGKILL)
        wait_for(lambda: fleet.wait_up()["a"]["incarnation"] == 2, "kept like any other")
        assert fleet.stop() == 0
        stranger.assert_left_alone()
        assert_nothing_left(fleet)


# Another build ---------------------------------------------------------------------------------


def test_f22_twenty_hand_overs_to_the_next_run_under_load_cost_nothing(tmp_path, exchange):
    everybody, times = names(4), 20
    with faulty_fleet(tmp_path, feeds(exchange, *everybody, extra=AT_ONCE)) as fleet:
        before, sessions = fleet.wait_up(), ids_of_sessions(exchange)
        helper = zygote_of(fleet)
        with Follower(fleet, everybody) as follower:

            def held():
                """Descriptors by process; the supervisor is another one each time."""
                kept = [helper, *(row["pid"] for row in before.values())]
                return [descriptors(pid) for pid in (*kept, fleet.process.pid)]

            for count in range(times):
                hand_over(fleet)
                assert processes(fleet.wait_up()) == processes(before)
                if count == 1:  # by now everything has been used once
                    time.sleep(1)  # orphans look for their new supervisor four times a second
                    held_before, files_before = held(), fleet.shm_files()
            follower.wait_more(100)
            follower.assert_nothing_lost()
            wait_for(
                lambda: all(now <= then for now, then in zip(held(), held_before, strict=True)),
                "no more descriptors",
            )
        assert fleet.shm_files() == files_before
        assert ids_of_sessions(exchange) == sessions
        assert zygotes(fleet) == [helper]
        assert fleet.said().count("adopted connection=") == times * len(everybody)
        assert fleet.stop() == 0
        assert_nothing_left(fleet)


@pytest.mark.parametrize("broken", [{"supervisor": "arbiter.py"}, {"worker": "runner.py"}])
def test_f23_a_build_that_fails_at_import_touches_no_worker_and_the_next_good_run_adopts(
    tmp_path, exchange, broken
):
    with faulty_fleet(tmp_path, feeds(exchange, "a", "b", extra=AT_ONCE)) as fleet:
        before, sessions = fleet.wait_up(), ids_of_sessions(exchange)
        path = fleet.environment["PYTHONPATH"]
        bad = another_build(tmp_path / "bad", **broken)
        with Follower(fleet, tuple(before)) as follower:
            assert fleet.tell("shutdown", keep=True).error == ""
            assert fleet.process.wait(PATIENCE_S) == 0
            fleet.environment["PYTHONPATH"] = os.pathsep.join([bad, path])
            fleet.launch()
            assert fleet.process.wait(PATIENCE_S) not in (0, None)
            assert "a slip of the pen" in fleet.said()
            follower.wait_more(100)
            assert processes(fleet.rows()) == processes(before)
            good = another_build(tmp_path / "good")
            fleet.environment["PYTHONPATH"] = os.pathsep.join([good, path])
            fleet.start()
            assert processes(fleet.wait_up()) == processes(before)
            follower.wait_more(100)
            follower.assert_nothing_lost()
        assert ids_of_sessions(exchange) == sessions
        assert_kept_like_a_child(fleet, "a", cause_known=True)
        assert fleet.stop() == 0
        assert_nothing_left(fleet)
