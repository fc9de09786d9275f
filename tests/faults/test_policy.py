"""Faults 13 to 16 and 19 to 21: workers that die again and again or for good; changed files."""

import itertools
import os
import signal
import time

import pytest
from exchange import running_exchange
from faulty import FULL, faulty_fleet, feeds, names, witnessed
from fleet import wait_for
from following import Follower

pytestmark = pytest.mark.system


@pytest.fixture
def exchange():
    with running_exchange(rate=50) as running:
        yield running


def test_f13_a_crash_loop_follows_the_table_then_the_floor_and_disturbs_nobody(tmp_path, exchange):
    loop = "crash_loop = { deaths = 5, floor = 2 }"
    loop = f"restart = {{ initial_delay = 0.2, max_delay = 0.8, {loop} }}\n"
    with faulty_fleet(tmp_path, feeds(exchange, "a", "b", extra=loop)) as fleet:
        before = fleet.wait_up()
        with witnessed(fleet) as witness:
            fleet.order("a", "exit 1")
            os.kill(fleet.pid("a"), signal.SIGKILL)
            (flagged,) = witness.wait("crash_loop", "a")
            assert flagged["detail"]["deaths"] == 5
            waits = witness.wait("backoff", "a", 7, timeout_s=60)
            delays = [event["delay_s"] for event in waits]
            for delay, plain in zip(delays[:4], (0.2, 0.4, 0.8, 0.8), strict=True):
                assert plain * 0.749 < delay < plain * 1.251, delays
            assert all(delay >= 2 for delay in delays[4:]), delays
            births = [event["monotonic_ns"] for event in witness.of("spawn", "a")]
            for born, delay in zip(itertools.pairwise(births[:6]), delays[1:], strict=False):
                assert (born[1] - born[0]) / 1e9 > delay - 0.05, "never earlier than told"
            for _ in range(5):
                assert fleet.tell("start", "b").error == ""
            row = wait_for(
                lambda: (r := fleet.rows()["a"])["state"] == "crash_loop" and r, "the state"
            )
            assert row["next_attempt_s"] <= 2.5
            assert fleet.command("status", "--check", check=False).returncode == 3
        assert fleet.pid("b") == before["b"]["pid"]


def test_f14_deaths_just_past_stable_are_replaced_at_once_until_they_are_a_loop(tmp_path, exchange):
    loop = (
        "restart = { stable_after = 0.3, crash_loop = { deaths = 5, within = 120, floor = 5 } }\n"
    )
    with faulty_fleet(tmp_path, feeds(exchange, "a", extra=loop)) as fleet:
        fleet.wait_up()
        with witnessed(fleet) as witness:
            for count in range(1, 5):
                time.sleep(0.6)
                os.kill(fleet.pid("a"), signal.SIGKILL)
                witness.wait("up", "a", count)
                fleet.wait_up()
            assert witness.of("backoff", "a") == []
            time.sleep(0.6)
            os.kill(fleet.pid("a"), signal.SIGKILL)
            witness.wait("crash_loop", "a")
            (wait,) = witness.wait("backoff", "a")
            assert wait["delay_s"] >= 5
            witness.wait("up", "a", 5)


@pytest.mark.parametrize(("code", "cause"), [(77, "credentials"), (78, "configuration")])
def test_f15_a_permanent_exit_is_not_tried_again_until_somebody_orders_it(
    tmp_path, exchange, code, cause
):
    with faulty_fleet(tmp_path, feeds(exchange, "a", "b")) as fleet:
        fleet.wait_up()
        with witnessed(fleet) as witness:
            fleet.order("a", f"exit {code}", once=True)
            os.kill(fleet.pid("a"), signal.SIGKILL)
            (failed,) = witness.wait("failed", "a")
            assert failed["cause"] == cause
            assert len(witness.of("spawn", "a")) == 1
            wait_for(lambda: fleet.rows()["a"]["state"] == "failed", "failed")
            assert fleet.command("status", "--check", check=False).returncode == 3
            time.sleep(1)
            assert len(witness.of("spawn", "a")) == 1
            fleet.tell("start", "a")
            fleet.wait_up()


def test_f16_an_error_in_what_the_operator_wrote_does_not_spin(tmp_path, exchange):
    toml = feeds(exchange, "a", "b").replace("injected:fault", "no_such_module:fault", 1)
    with faulty_fleet(tmp_path, toml) as fleet:
        fleet.wait_up("b")
        row = wait_for(lambda: (r := fleet.rows()["a"])["state"] == "failed" and r, "failed")
        assert row["last_exit"]["code"] == 78
        assert "no_such_module" in fleet.said()
        restarts = row["restarts"]
        time.sleep(1)
        assert fleet.rows()["a"]["restarts"] == restarts


def test_f19_what_was_stopped_by_hand_stays_stopped_through_a_reload(tmp_path, exchange):
    with faulty_fleet(tmp_path, feeds(exchange, "a", "b")) as fleet:
        before = fleet.wait_up()
        fleet.tell("stop", "a")
        wait_for(lambda: fleet.rows()["a"]["state"] == "stopped", "stopped")
        text = fleet.file.read_text()
        fleet.file.write_text(text.replace("btcusdt@trade", "ethusdt@trade"))
        fleet.command("reload")
        time.sleep(1)
        rows = fleet.rows()
        assert (rows["a"]["state"], rows["a"]["desired"]) == ("stopped", "stopped")
        assert rows["b"]["pid"] == before["b"]["pid"]


def test_f20_a_bad_file_changes_nothing_and_is_told_with_line_and_key(tmp_path, exchange):
    with faulty_fleet(tmp_path, feeds(exchange, "a", "b")) as fleet:
        before = fleet.wait_up()
        text = fleet.file.read_text()
        changed = text.replace("btcusdt@trade", "ethusdt@trade") + "colour = 'red'\n"
        fleet.file.write_text(changed)
        done = fleet.command("reload", check=False)
        assert done.returncode == 5
        line = len(changed.splitlines())
        assert f"fleet.toml:{line}: connection[1].colour" in done.stdout + done.stderr
        time.sleep(0.5)
        assert fleet.pids_of_workers() == {n: r["pid"] for n, r in before.items()}
        assert all(row["reconnects"] == 0 for row in fleet.rows().values())


def test_f21_a_reload_that_changes_one_of_many_touches_no_other(tmp_path, exchange, monkeypatch):
    changed, *others = names(50 if FULL else 20)
    rest = feeds(exchange, *others)
    with faulty_fleet(tmp_path, feeds(exchange, changed) + rest) as fleet:
        before = fleet.wait_up(timeout_s=60)
        sessions = {session["tag"]: session["id"] for session in exchange.sessions()}
        monkeypatch.setenv("FEEDWARDEN_SHM", str(fleet.shm_base))
        with Follower(fleet, others) as follower:
            head = fleet.file.read_text().split("[[connection]]")[0]
            longer = 'publish = { journal = { size = "1MiB" } }\n'  # takes a new process
            fleet.file.write_text(head + feeds(exchange, changed, extra=longer) + rest)
            (change,) = fleet.tell("reload").document["changes"]
            assert (change["connection"], change["action"]) == (changed, "restart")
            wait_for(lambda: fleet.rows()[changed]["incarnation"] == 2, "replaced")
            after = fleet.wait_up(timeout_s=60)
            follower.wait_more(100)
            follower.assert_nothing_lost()
        for key in ("pid", "incarnation", "reconnects"):
            assert {n: after[n][key] for n in others} == {n: before[n][key] for n in others}
        now = {session["tag"]: session["id"] for session in exchange.sessions()}
        assert now.keys() == sessions.keys()
        assert [name for name in now if now[name] != sessions[name]] == [changed]
