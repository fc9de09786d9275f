"""What becomes of workers that die, do not start, or are told to: with real processes."""

import fcntl
import os
import signal

import pytest
from exchange import running_exchange
from fleet import binance, running_fleet, wait_for
from listening import listening

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
