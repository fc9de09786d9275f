"""Faults 3, 4, 5, 17 and 18: processes that stand still or do not obey."""

import os
import signal
import threading
import time

import pytest
from exchange import running_exchange
from faulty import assert_nothing_left, faulty_fleet, feeds, names, witnessed
from fleet import wait_for

from worker.endpoints import stack_file

pytestmark = pytest.mark.system

HANG = "hang = { warn_after = 1, timeout = 3 }\n"
PATIENT = "hang = { warn_after = 30, timeout = 60 }\n"


@pytest.fixture
def exchange():
    with running_exchange(rate=50) as running:
        yield running


def assert_hang_was_told(witness, name):
    """Hung, killed with its stacks, gone, replaced: in this order, each once."""
    (died,) = witness.wait("exit", name)
    assert died["cause"] == "hang"
    assert died["detail"] in ({"signal": "SIGABRT"}, {"signal": "SIGKILL"})
    witness.wait("up", name)
    kinds = [kind for kind in witness.kinds(name) if kind in ("hung", "kill", "exit", "spawn")]
    assert [kind for n, kind in enumerate(kinds) if kind not in kinds[:n]] == [
        "hung", "kill", "exit", "spawn",
    ]  # fmt: skip
    assert witness.of("kill", name)[0]["detail"]["signal"] == "SIGABRT"
    assert witness.of("hung", name)[0]["detail"]["age_s"] < 3


def test_f03_a_stopped_worker_is_hung_then_replaced_and_nobody_else(tmp_path, exchange):
    with faulty_fleet(tmp_path, feeds(exchange, "a", "b", extra=HANG)) as fleet:
        before = fleet.wait_up()
        with witnessed(fleet) as witness:
            os.kill(before["a"]["pid"], signal.SIGSTOP)
            witness.wait("hung", "a")
            wait_for(lambda: fleet.rows()["a"]["state"] in ("hung", "stopping"), "status tells it")
            assert_hang_was_told(witness, "a")
        assert "Aborted" in stack_file(fleet.runtime_dir, "a").read_text()
        assert fleet.pid("b") == before["b"]["pid"]


@pytest.mark.parametrize("blocked", ["sleep 1000", "spin"])
def test_f04_a_loop_that_stands_is_hung_though_threads_or_c_code_go_on(tmp_path, exchange, blocked):
    with faulty_fleet(tmp_path, feeds(exchange, "a", "b", extra=HANG)) as fleet:
        before = fleet.wait_up()
        with witnessed(fleet) as witness:
            fleet.order("a", blocked, once=True)
            exchange.fault("reset", tag="a")
            witness.wait("hung", "a")
            assert_hang_was_told(witness, "a")
        stacks = stack_file(fleet.runtime_dir, "a").read_text()
        assert "injected.py" in stacks, "down to who blocks"
        assert fleet.pid("b") == before["b"]["pid"]


def test_f05_a_stopped_supervisor_kills_nobody_when_it_goes_on(tmp_path, exchange):
    with faulty_fleet(tmp_path, feeds(exchange, *names(4), extra=HANG)) as fleet:
        before = fleet.wait_up()
        fleet.wait_scanned()
        with witnessed(fleet) as witness:
            fleet.process.send_signal(signal.SIGSTOP)
            time.sleep(7)  # more than twice the hang timeout
            fleet.process.send_signal(signal.SIGCONT)
            (stall,) = witness.wait("host_stall")
            assert stall["detail"]["late_s"] > 5
            time.sleep(1)
            assert [witness.of(kind) for kind in ("kill", "exit")] == [[], []]
        assert fleet.pids_of_workers() == {n: r["pid"] for n, r in before.items()}


def test_f05_a_machine_that_stood_as_a_whole_kills_nobody(tmp_path, exchange):
    with faulty_fleet(tmp_path, feeds(exchange, *names(4), extra=HANG)) as fleet:
        before = fleet.wait_up()
        fleet.wait_scanned()
        everybody = [fleet.process.pid, *(row["pid"] for row in before.values())]
        with witnessed(fleet) as witness:
            for pid in everybody:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(7)
            for pid in everybody:
                os.kill(pid, signal.SIGCONT)
            witness.wait("host_stall")
            time.sleep(2)
            assert witness.of("exit") == []
        assert fleet.pids_of_workers() == {n: r["pid"] for n, r in before.items()}


def test_f17_workers_deaf_to_sigterm_are_killed_and_the_end_waits_for_the_slowest_only(
    tmp_path, exchange
):
    everybody = names(12)
    toml = feeds(exchange, *everybody, extra=PATIENT + "stop_timeout = 2\n")
    with faulty_fleet(tmp_path, toml) as fleet:
        fleet.wait_up()
        with witnessed(fleet) as witness:
            for name in everybody:
                fleet.order(name, "sleep 1000", once=True)
            exchange.fault("reset")
            wait_for(lambda: not list(fleet.orders.glob("*.once")), "everybody stands")
            fleet.tell("stop", "c0")
            (killed,) = witness.wait("kill", "c0")
            assert (killed["cause"], killed["detail"]["signal"]) == ("stop_timeout", "SIGKILL")
            (died,) = witness.wait("exit", "c0")
            assert died["cause"] == "stop_timeout"
            began = time.monotonic()
            fleet.process.send_signal(signal.SIGTERM)
            assert fleet.process.wait(60) == 0
        assert time.monotonic() - began < 2 * 11, "all at once, not one after another"
        assert_nothing_left(fleet)


def test_f18_a_stop_while_waiting_ends_the_waiting(tmp_path, exchange):
    slow = "restart = { initial_delay = 60, max_delay = 60 }\n"
    with faulty_fleet(tmp_path, feeds(exchange, "a", extra=slow)) as fleet:
        fleet.wait_up()
        os.kill(fleet.pid("a"), signal.SIGKILL)
        wait_for(lambda: fleet.rows()["a"]["state"] == "backoff", "waiting")
        assert fleet.tell("stop", "a").error == ""
        wait_for(lambda: fleet.rows()["a"]["state"] == "stopped", "stopped")
        assert fleet.tell("start", "a").error == ""
        fleet.wait_up()


def test_f18_a_restart_while_starting_gives_one_fresh_process(tmp_path, exchange):
    with faulty_fleet(tmp_path, feeds(exchange, "a")) as fleet:
        fleet.wait_up()
        with witnessed(fleet) as witness:
            os.kill(fleet.pid("a"), signal.SIGKILL)
            witness.wait("exit", "a")
            fleet.tell("restart", "a")
            fleet.wait_up()
            wait_for(lambda: len(witness.of("spawn")) - len(witness.of("exit")) == 0, "one left")
        assert len(exchange.sessions("a")) == 1


def test_f18_a_hundred_orders_at_once_leave_the_last_intent(tmp_path, exchange):
    with faulty_fleet(tmp_path, feeds(exchange, "a", "b")) as fleet:
        fleet.wait_up()
        most = []
        with witnessed(fleet) as witness:
            threads = [
                threading.Thread(target=lambda: most.append(fleet.tell("restart", "a").error))
                for _ in range(100)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert most == [""] * 100
            fleet.tell("stop", "a")
            wait_for(lambda: fleet.rows()["a"]["state"] == "stopped", "the last intent")
            wait_for(
                lambda: len(witness.of("exit", "a")) == len(witness.of("spawn", "a")) + 1,
                "as many deaths as births",
            )
        fleet.tell("start", "a")
        fleet.wait_up()
        wait_for(lambda: len(exchange.sessions("a")) == 1, "one session")
        assert fleet.rows()["b"]["restarts"] == 0
        assert "Traceback" not in fleet.said()
