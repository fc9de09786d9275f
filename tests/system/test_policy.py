"""What becomes of workers that die, do not start, or are told to: with real processes."""

import fcntl
import os
import signal
import time

import pytest
from exchange import running_exchange
from fleet import binance, running_fleet, wait_for
from listening import listening

from supervisor.control import Order, send_order
from supervisor.pace import BURST

pytestmark = pytest.mark.system


@pytest.fixture
def exchange():
    with running_exchange(rate=20) as running:
        yield running


def events_endpoint(fleet):
    return f"ipc://{fleet.runtime_dir}/events.sock"


def test_many_that_die_at_once_come_back_in_turn_and_one_storm_is_told(tmp_path, exchange):
    names = [f"a{number}" for number in range(12)]
    at_once = "restart = { stable_after = 0 }\n"
    with running_fleet(tmp_path, binance(exchange, *names, extra=at_once)) as fleet:
        before = fleet.wait_up()
        with listening([events_endpoint(fleet)]) as listener:
            for row in before.values():
                os.kill(row["pid"], signal.SIGKILL)
            wait_for(
                lambda: (
                    {e["connection"] for e in listener.events() if e["kind"] == "up"} == set(names)
                ),
                "all up again",
            )
            wait_for(lambda: [e for e in listener.events() if e["kind"] == "storm"], "a storm told")
            events = listener.events()
        storms = [e for e in events if e["kind"] == "storm"]
        assert len(storms) == 1
        assert storms[0]["connection"] is None
        waited = [e for e in events if e["kind"] == "backoff"]
        assert {e["cause"] for e in waited} == {"storm"}
        assert 0 < len(waited) <= len(names) - BURST
        assert sum(e["kind"] == "spawn" for e in events) == len(names)
        after = fleet.wait_up()
        assert all(row["restarts"] == 1 for row in after.values())


def exits_of(listener):
    return [e for e in listener.events("a") if e["kind"] == "exit"]


def test_a_worker_that_never_serves_is_ended_after_ready_timeout_with_its_stack(
    tmp_path, exchange, monkeypatch
):
    """Its login module takes for ever to load: the loop turned once, and nobody is served."""
    (tmp_path / "slow_operator.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    slow = 'login = "slow_operator:login"\nready_timeout = 2\n'
    toml = binance(exchange, "a", extra=slow) + binance(exchange, "b")
    with running_fleet(tmp_path, toml) as fleet:
        stacks = fleet.runtime_dir / "a.stack"
        with listening([events_endpoint(fleet)]) as listener:
            wait_for(lambda: len(exits_of(listener)) > 1, "its end, and another try's")
            assert {e["cause"] for e in exits_of(listener)} == {"ready_timeout"}
        wait_for(lambda: "slow_operator.py" in stacks.read_text(), "where it stood")
        fleet.wait_up("b")


def test_a_worker_whose_loop_never_turns_is_ended_after_start_timeout(tmp_path, exchange):
    """Somebody holds its segment, for which a new worker waits before anything else."""
    toml = binance(exchange, "a", extra="start_timeout = 1\n")
    with running_fleet(tmp_path, toml) as fleet:
        fleet.wait_up()
        fleet.command("stop", "a", "--wait", "20", "--fleet", fleet.name)
        with (
            listening([events_endpoint(fleet)]) as listener,
            next(fleet.shm_base.rglob("a.stats")).open("rb") as segment,
        ):
            fcntl.flock(segment, fcntl.LOCK_EX)
            fleet.command("start", "a", "--fleet", fleet.name)
            wait_for(lambda: "start_timeout" in {e["cause"] for e in exits_of(listener)}, "its end")
        fleet.wait_up()


def test_a_worker_that_holds_too_much_is_replaced_as_planned(tmp_path, exchange, monkeypatch):
    leaky = """
from worker import Login
held = []
def login(context):
    held.append(bytearray(b"x") * (200 << 20))
    return Login()
"""
    (tmp_path / "leaky_operator.py").write_text(leaky)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    limits = 'login = "leaky_operator:login"\nprocess = { memory_hard = "128MiB" }\n'
    soft = 'process = { memory_soft = "1MiB" }\n'
    toml = binance(exchange, "a", extra=limits) + binance(exchange, "b", extra=soft)
    with running_fleet(tmp_path, toml) as fleet, listening([events_endpoint(fleet)]) as listener:
        wait_for(lambda: exits_of(listener), "its end", 60)
        wait_for(lambda: [e for e in listener.events("b") if e["kind"] == "memory"], "soft", 60)
        told = next(e for e in listener.events("a") if e["kind"] == "memory")
        assert told["detail"]["limit"] == "memory_hard"
        assert told["detail"]["held"] > told["detail"]["allowed"] == 128 << 20
        assert exits_of(listener)[0]["cause"] == "memory"
        assert fleet.rows()["a"]["restarts"] == 0
        assert fleet.rows()["b"]["incarnation"] == 1
        assert sum(e["kind"] == "memory" for e in listener.events("b")) == 1


DYING = """
import os
def login(context):
    os._exit(3)
"""


def test_orders_are_answered_while_a_fleet_crash_loops(tmp_path, exchange, monkeypatch):
    """Within 50 ms on a machine of its own; here a hundred times in a row, with a wide margin."""
    (tmp_path / "dying_operator.py").write_text(DYING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = [f"a{number}" for number in range(12)]
    hasty = 'login = "dying_operator:login"\nrestart = { stable_after = 0, crash_loop = false }\n'
    toml = binance(exchange, *names, extra=hasty) + binance(exchange, "b")
    with running_fleet(tmp_path, toml) as fleet:
        fleet.wait_up("b")
        wait_for(lambda: fleet.rows()["a0"]["restarts"] > 2, "a loop")
        waited_s = []
        for number in range(100):
            verb = ("start", "stop")[number % 2]
            asked = time.monotonic()
            reply = send_order(fleet.runtime_dir / "control.sock", Order(verb, ("b",)), 20)
            waited_s.append(time.monotonic() - asked)
            assert reply is not None
            assert not reply.error
        assert sorted(waited_s)[len(waited_s) // 2] < 1.0
        fleet.command("start", "b", "--wait", "60")
        fleet.command("stop", "a*", "--wait", "60")
        assert {row["state"] for name, row in fleet.rows().items() if name != "b"} == {"stopped"}


def test_a_rolling_restart_renews_one_at_a_time_and_leaves_what_is_stopped(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a", "b", "c")) as fleet:
        fleet.wait_up()
        fleet.command("stop", "b", "--wait", "20")
        before = fleet.rows()
        with listening([events_endpoint(fleet)]) as listener:
            done = fleet.command("restart", "*", "--rolling", "--wait", "60")
            wait_for(
                lambda: [e for e in listener.events("c") if e["kind"] == "up"], "the last one up"
            )
            told = [
                (e["connection"], e["kind"])
                for e in listener.events()
                if e["kind"] in ("exit", "up")
            ]
        assert told == [("a", "exit"), ("a", "up"), ("c", "exit"), ("c", "up")]
        assert "b: stopped" in done.stderr
        rows = fleet.rows()
        assert rows["b"]["state"] == "stopped"
        for name in ("a", "c"):
            assert rows[name]["incarnation"] == before[name]["incarnation"] + 1


def test_a_rolling_restart_ends_at_the_one_that_does_not_come_up(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a", "b")) as fleet:
        before = fleet.wait_up()
        exchange.fault("refuse", tag="a")
        done = fleet.command("restart", "a", "b", "--rolling", "--wait", "3", check=False)
        assert done.returncode == 7
        assert "a did not come up" in done.stderr
        assert "not restarted: b" in done.stderr
        assert fleet.rows()["b"]["pid"] == before["b"]["pid"]


def test_what_an_operator_stopped_stays_stopped_for_the_next_supervisor(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a", "b")) as fleet:
        fleet.wait_up()
        fleet.command("stop", "b", "--wait", "20")
        fleet.process.kill()
        fleet.process.wait()
        fleet.start()
        fleet.wait_up("a")
        assert fleet.rows()["b"]["desired"] == "stopped"
        assert fleet.rows()["b"]["state"] == "stopped"
        fleet.command("reload")
        assert fleet.rows()["b"]["state"] == "stopped"
        fleet.command("start", "b", "--wait", "60")
