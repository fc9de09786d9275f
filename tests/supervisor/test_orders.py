"""Orders: what is asked, what is answered, and when it counts as done."""

import signal

import pytest
from exchange import running_exchange
from fleet import binance, running_fleet, wait_for
from slots import slot

from supervisor import orders
from supervisor.errors import NoSuchFleet, NoSuchSignal
from supervisor.orders import full_signal_name
from supervisor.status import Status


@pytest.mark.parametrize("wanted", ["SIGSTOP", "sigstop", "stop", "STOP", "19"])
def test_a_signal_has_many_names(wanted):
    assert full_signal_name(wanted) == "SIGSTOP"


@pytest.mark.parametrize("wanted", ["", "SIG", "bogus", "0", "-9", "9.0", "999"])
def test_what_is_no_signal_is_refused(wanted):
    with pytest.raises(NoSuchSignal):
        full_signal_name(wanted)


@pytest.fixture
def pending(monkeypatch, tmp_path):
    """Return a function: which names an order still waits for, given the fleet's rows."""

    def pending(verb, before, *rows, whole=True):
        def gather(_directory):
            if rows == ("ended",):
                raise NoSuchFleet("f", ())
            return Status({"connections": list(rows)}, all_up=False)

        monkeypatch.setattr(orders, "gather", gather)
        monkeypatch.setattr(orders, "is_supervised", lambda _directory: rows != ("ended",))
        monkeypatch.setattr(orders, "_is_whole", lambda _directory: whole)
        return orders._pending(verb, tmp_path, {"a": before})

    return pending


def row(state="up", pid=7, incarnation=3, name="a"):
    return {"name": name, "state": state, "pid": pid, "incarnation": incarnation}


def test_when_an_order_has_come_true(pending):
    assert pending("start", slot(), row("connecting")) == ["a"]
    assert pending("start", slot(), row("up")) == []
    assert pending("stop", slot(), row("stopping")) == ["a"]
    assert pending("stop", slot(), row("stopped")) == []
    assert pending("restart", slot(), row("up")) == ["a"]
    assert pending("restart", slot(), row("up", pid=8, incarnation=4)) == []
    assert pending("restart", slot(), row("starting", pid=8, incarnation=4)) == ["a"]
    assert pending("kill", slot(), row("up")) == ["a"]
    assert pending("kill", slot(), row("backoff", pid=None)) == []
    assert pending("kill", slot(pid=0), row("backoff", pid=None)) == []


def test_a_fleet_that_ended_did_what_it_was_told(pending):
    assert pending("shutdown", slot(), "ended") == []
    assert pending("shutdown", slot(), row()) != []


def test_a_connection_that_left_the_fleet_is_stopped_and_nobody_waits_for_its_start(pending):
    assert pending("stop", slot(), row(name="other")) == []
    assert pending("kill", slot(), row(name="other")) == []
    for verb in ("start", "restart"):
        with pytest.raises(orders.Left, match=r"a$"):
            pending(verb, slot(), row(name="other"))
        assert pending(verb, slot(), row(name="other"), whole=False) == ["a"]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with (
        running_exchange(rate=20) as exchange,
        running_fleet(tmp_path_factory.mktemp("fleet"), binance(exchange, "a", "b")) as running,
    ):
        running.wait_up()
        yield running


@pytest.mark.system
def test_a_kill_without_a_process_says_so_and_is_no_error(fleet):
    fleet.command("stop", "b", "--wait", "20")
    done = fleet.command("kill", "*", "--wait", "20")
    assert done.stderr == "b: no process, nothing to kill\n"
    assert fleet.rows()["b"]["state"] == "stopped"
    fleet.command("restart", "b", "--wait", "20")  # starts what is stopped, too
    assert fleet.rows()["b"]["state"] == "up"


@pytest.mark.system
def test_restarts_counts_unexpected_deaths_only(fleet):
    fleet.wait_up()
    before = fleet.rows()["a"]["restarts"]
    fleet.command("restart", "a", "--wait", "20")
    assert fleet.rows()["a"]["restarts"] == before


@pytest.mark.system
def test_usage_is_exit_2_and_a_missing_fleet_exit_6(fleet):
    for arguments in (["kill", "a", "--signal", "bogus"], ["stop", "zzz"], ["stop"],
                      ["stop", "a", "--wait", "nan"], ["stop", "a", "--wait", "-1"]):  # fmt: skip
        done = fleet.command(*arguments, check=False)
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr
    assert fleet.command("stop", "a", "--fleet", "other", check=False).returncode == 6


@pytest.mark.system
def test_a_hung_supervisor_times_out_and_fails_the_check(fleet):
    fleet.wait_up()
    fleet.process.send_signal(signal.SIGSTOP)
    try:
        wait_for(lambda: fleet.command("status", "--check", check=False).returncode == 3, "exit 3")
        assert "HUNG" in fleet.command("status").stdout
        assert fleet.command("stop", "a", check=False).returncode == 7
    finally:
        fleet.process.send_signal(signal.SIGCONT)
    wait_for(lambda: fleet.command("status", "--check", check=False).returncode in (0, 3), "back")
