"""What goes wrong, and that it goes wrong for one connection only."""

import os
import signal
import time

import pytest
from exchange import running_exchange
from fleet import binance, running_fleet, wait_for
from listening import assert_gap_free, listening

pytestmark = pytest.mark.system


@pytest.fixture
def exchange():
    with running_exchange(rate=200) as running:
        yield running


def events_endpoint(fleet):
    return f"ipc://{fleet.runtime_dir}/events.sock"


def test_a_killed_worker_is_replaced_at_once_and_nobody_else_notices(tmp_path, exchange):
    quick = "restart = { stable_after = 1 }\n"
    with running_fleet(tmp_path, binance(exchange, "a", "b", extra=quick)) as fleet:
        before = fleet.wait_up()
        endpoints = [before["a"]["endpoint"], before["b"]["endpoint"]]
        with listening([events_endpoint(fleet)]) as bus, listening(endpoints) as listener:
            time.sleep(1.5)
            killed_ns = time.monotonic_ns()
            os.kill(before["a"]["pid"], signal.SIGKILL)
            wait_for(lambda: any(e["kind"] == "up" for e in on_the_bus(bus)), "up again")
            events = on_the_bus(bus)
            assert [e["kind"] for e in events] == ["exit", "restart", "spawn", "ready", "up"]
            assert events[0]["detail"] == {"signal": "SIGKILL"}
            assert events[-1]["heard_ns"] - killed_ns < 10e9, "500 ms, and a busy machine"
            wait_for(
                lambda: {m[1][3] for m in listener.data() if m[0] == "data.a"} == {1, 2},
                "data of the new epoch",
            )
            wait_for(lambda: any(m[0] == "data.b" for m in listener.data()), "data of the other")
            data = listener.data()
        rows = fleet.rows()
        assert rows["a"]["restarts"] == 1
        assert rows["a"]["last_exit"]["signal"] == "SIGKILL"
        assert rows["b"]["pid"] == before["b"]["pid"]
        assert_gap_free([m for m in data if m[0] == "data.b"])
        first, second = (
            [m[1] for m in data if m[0] == "data.a" and m[1][3] == epoch] for epoch in (1, 2)
        )
        # What the killed process had handed to ZeroMQ and not written yet is lost, its numbers
        # are not used again.
        assert second[0][4] > first[-1][4]
        assert second[0][2] & 4, "flagged as the first of its epoch"
        assert second[0][5] == 1, "topic seq starts anew"


def on_the_bus(bus):
    """The supervisor's events on connection a, in its order. It relays no pings."""
    return bus.events("a")


def test_a_stopped_worker_is_hung_then_replaced_with_its_stack_kept(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a", "b")) as fleet:
        before = fleet.wait_up()
        with listening([events_endpoint(fleet)]) as listener:
            stopped_ns = time.monotonic_ns()
            os.kill(before["a"]["pid"], signal.SIGSTOP)
            hung = wait_for(
                lambda: next((e for e in listener.events("a") if e["kind"] == "hung"), None),
                "hung",
            )
            assert 0.9e9 < hung["heard_ns"] - stopped_ns < 4e9
            assert fleet.rows()["a"]["state"] == "hung"
            wait_for(lambda: any(e["kind"] == "up" for e in listener.events("a")), "replaced")
            kinds = [e["kind"] for e in listener.events("a")]
            assert kinds[:2] == ["hung", "kill"]
            exit_event = next(e for e in listener.events("a") if e["kind"] == "exit")
            assert exit_event["cause"] == "hang"
        assert fleet.rows()["b"]["pid"] == before["b"]["pid"]


@pytest.mark.parametrize("blocker", ["mute_pongs", "late_pongs", "wrong_pongs"])
def test_a_session_without_pongs_is_closed_and_dialled_again(tmp_path, exchange, blocker):
    with running_fleet(tmp_path, binance(exchange, "a", "b")) as fleet:
        fleet.wait_up()
        exchange.fault(blocker, tag="a", delay=30)
        wait_for(lambda: fleet.rows()["a"]["timeouts"] >= 2, "two timeouts")
        assert len(exchange.sessions("a")) <= 1
        exchange.command("clear")
        fleet.wait_up()
        rows = fleet.rows()
        assert rows["b"]["timeouts"] == 0
        assert rows["b"]["reconnects"] == 0
        assert rows["a"]["restarts"] == 0, "the process lives through all of it"


def test_twenty_deaths_of_sessions_leak_nothing(tmp_path, exchange):
    impatient = """
reconnect = { initial_delay = 0.001, max_delay = 0.01 }
"""
    toml = binance(exchange, "a", extra=impatient).replace(
        "interval = 0.5, timeout = 0.4", "interval = 0.1, timeout = 0.1, first = 0.05"
    )
    with running_fleet(tmp_path, toml) as fleet:
        pid = fleet.wait_up()["a"]["pid"]
        before = len(os.listdir(f"/proc/{pid}/fd"))
        exchange.fault("mute_pongs")
        most = 0

        def twenty():
            nonlocal most
            most = max(most, len(exchange.sessions("a")))
            return fleet.rows()["a"]["timeouts"] >= 20

        wait_for(twenty, "20 timeouts", 60)
        assert most <= 1, "one socket at a time"
        exchange.command("clear")
        fleet.wait_up()
        assert fleet.rows()["a"]["pid"] == pid
        assert len(os.listdir(f"/proc/{pid}/fd")) <= before


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ({"kind": "garbage"}, "protocol_error"),
        ({"kind": "oversize", "mib": 32}, "oversize"),
        ({"kind": "reset"}, "reset"),
        ({"kind": "close", "code": 1012, "reason": "maintenance"}, "peer_closed"),
    ],
)
def test_what_ends_one_session_disturbs_no_other(tmp_path, exchange, fault, cause):
    with running_fleet(tmp_path, binance(exchange, "a", "b")) as fleet:
        before = fleet.wait_up()
        with listening([events_endpoint(fleet), before["b"]["endpoint"]]) as listener:
            exchange.command("fault", tag="a", **fault)
            down = wait_for(
                lambda: next((e for e in listener.events("a") if e["kind"] == "down"), None),
                "down",
            )
            assert down["cause"] == cause
            wait_for(lambda: any(e["kind"] == "up" for e in listener.events("a")), "up again")
            fleet.wait_up()
            assert_gap_free([m for m in listener.data() if m[0] == "data.b"])
        rows = fleet.rows()
        assert {name: row["pid"] for name, row in rows.items()} == {
            name: row["pid"] for name, row in before.items()
        }
        assert rows["b"]["reconnects"] == 0


def test_a_bomb_is_published_as_it_came_and_inflated_by_nobody(tmp_path, exchange):
    extra = "decode = 'gzip'\nserver_ping = [{ match = 'ping', reply = 'x' }]\n"
    # Patient: the exchange is deaf while it builds the bomb.
    toml = binance(exchange, "a", extra=extra).replace("timeout = 0.4", "timeout = 20")
    with running_fleet(tmp_path, toml.replace("interval = 0.5", "interval = 20")) as fleet:
        row = fleet.wait_up()["a"]
        with listening([row["endpoint"]], [b"data.a\0"]) as listener:
            exchange.fault("gzip_bomb", mib=256)
            wait_for(lambda: any(m[2][:2] == b"\x1f\x8b" for m in listener.data()), "the bomb")
            assert_gap_free(listener.data())
        rows = fleet.rows()
        assert rows["a"]["reconnects"] == 0
        assert rows["a"]["rss_mib"] < 200


def test_refusals_are_retried_with_backoff_and_told(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a", "b")) as fleet:
        before = fleet.wait_up()
        exchange.fault("refuse", tag="a", status=503)
        exchange.fault("reset", tag="a")
        wait_for(lambda: "status=503" in fleet.said(), "the refusal in the log")
        assert fleet.rows()["a"]["state"] == "connecting"
        exchange.command("clear")
        fleet.wait_up()
        assert fleet.rows()["b"]["pid"] == before["b"]["pid"]


def test_an_unreachable_exchange_does_not_keep_the_fleet_from_starting(tmp_path, exchange):
    toml = binance(exchange, "a") + binance(exchange, "b").replace(str(exchange.port), "1")
    with running_fleet(tmp_path, toml) as fleet:
        fleet.wait_up("a")
        wait_for(lambda: fleet.rows()["b"]["state"] == "connecting", "b serves without a session")
        wait_for(lambda: "cause=connect_refused" in fleet.said(), "its dial refused")


def test_a_crash_loop_is_flagged_and_does_not_slow_the_commands(tmp_path, exchange):
    eager = "restart = { initial_delay = 0.01, crash_loop = { deaths = 3, floor = 30 } }\n"
    with running_fleet(tmp_path, binance(exchange, "a", "b", extra=eager)) as fleet:
        fleet.wait_up()
        for _ in range(3):
            pid = wait_for(lambda: fleet.rows()["a"]["pid"], "a process")
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda pid=pid: fleet.rows()["a"]["pid"] != pid, "gone")
        row = wait_for(
            lambda: (r := fleet.rows()["a"])["state"] == "crash_loop" and r, "crash_loop"
        )
        assert 0 < row["next_attempt_s"] <= 30 * 1.25, "the floor, spread upwards"
        fleet.command("start", "a", "--wait", "15")
        assert fleet.rows()["a"]["state"] == "up"
