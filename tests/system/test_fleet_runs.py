"""A fleet as a user sees it: up, readable, and gone without a trace."""

import json
import signal

import pytest
from exchange import running_exchange
from fleet import Fleet, binance, running_fleet, wait_for
from listening import assert_gap_free, listening

pytestmark = pytest.mark.system

EVENT_KEYS = frozenset(
    ["seq", "time", "monotonic_ns", "fleet", "connection", "incarnation", "pid", "kind"]
    + ["cause", "detail", "delay_s"]
)


@pytest.fixture
def exchange():
    with running_exchange(rate=200) as running:
        yield running


def test_everything_a_user_reads_is_there(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a", "b")) as fleet:
        rows = fleet.wait_up()
        row = wait_for(
            lambda: (r := fleet.rows()["a"])["rtt_ms"]["count"] > 1 and r, "two round trips"
        )
        assert row["desired"] == "running"
        assert row["incarnation"] == 1
        assert row["messages"] > 0
        assert row["bytes"] > row["messages"]
        assert 0 < row["rtt_ms"]["p50"] <= row["rtt_ms"]["p99"] <= row["rtt_ms"]["max"]
        assert row["endpoint"] == f"ipc://{fleet.runtime_dir}/data/a.sock"
        assert row["last_exit"] is None
        assert rows["a"]["pid"] != rows["b"]["pid"]
        document = json.loads(fleet.command("status", "--json").stdout)
        assert document["schema"] == 1
        assert document["supervisor"] | {"tick_age_s": 0} == {
            "pid": fleet.process.pid,
            "alive": True,
            "epoch": 1,
            "tick_age_s": 0,
        }
        table = fleet.command("status", "--check").stdout
        assert "2 of 2 up" in table
        lines = fleet.command("tap", "a", "--count", "50", "--json").stdout.splitlines()
        tapped = [json.loads(line) for line in lines]
        assert [t["seq"] for t in tapped] == list(range(tapped[0]["seq"], tapped[0]["seq"] + 50))
        assert {t["missing"] for t in tapped} == {0}
        assert tapped[0]["topic"] == "data.a"
        assert "e" in json.loads(tapped[0]["payload"])


def test_an_orderly_end_leaves_nothing_behind(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        fleet.wait_up()
        assert fleet.stop() == 0
        assert fleet.shm_files() == []
        assert not fleet.runtime_dir.exists()
        assert fleet.pids() == []
    wait_for(lambda: not exchange.sessions(), "the exchange sees the socket go")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminate_and_hang_up_end_it_too(tmp_path, exchange, number):
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        fleet.wait_up()
        fleet.process.send_signal(number)
        assert fleet.process.wait(20) == 0
        assert fleet.pids() == []


def test_after_sigkill_of_everything_the_next_start_goes_on_and_its_end_leaves_nothing(
    tmp_path, exchange
):
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        fleet.wait_up()
        wait_for(lambda: fleet.rows()["a"]["messages"], "messages")
        before = fleet.rows()["a"]
        fleet.kill_everything()
        fleet.start()
        row = fleet.wait_up()["a"]
        assert row["incarnation"] == before["incarnation"] + 1
        assert row["messages"] >= before["messages"]
        assert fleet.status()["supervisor"]["epoch"] == 2
        assert fleet.stop() == 0
        assert fleet.shm_files() == []
        assert not fleet.runtime_dir.exists()


def test_workers_end_after_their_supervisor_if_they_shall_and_the_next_go_on(tmp_path, exchange):
    with running_fleet(tmp_path, 'orphans = "exit"\n' + binance(exchange, "a")) as fleet:
        old = fleet.wait_up()["a"]
        # Before the death: the orphan has five seconds, which a busy machine needs for a command.
        with listening([old["endpoint"]], [b"data.a\0"]) as listener:
            fleet.process.kill()
            fleet.process.wait()
            heard = len(listener.data())
            assert fleet.status()["supervisor"]["alive"] is False
            wait_for(lambda: len(listener.data()) > heard, "data of the orphan")
            assert fleet.command("status", "--check", check=False).returncode == 3
            wait_for(lambda: fleet.pids() == [], "its five seconds are over")
            fleet.start()
            row = fleet.wait_up("a")["a"]
            assert row["pid"] != old["pid"]
            wait_for(lambda: {m[1][3] for m in listener.data()} == {1, 2}, "both epochs heard")
            assert_gap_free_within_epochs(listener.data())
        assert len(exchange.sessions("a")) == 1


def assert_gap_free_within_epochs(messages):
    for epoch in {header[3] for _topic, header, _payload in messages}:
        assert_gap_free([m for m in messages if m[1][3] == epoch])


def test_a_second_run_is_refused_and_names_the_first(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        fleet.wait_up()
        second = fleet.command("run", str(fleet.file), check=False)
        assert second.returncode == 4
        assert f"pid {fleet.process.pid}" in second.stderr
        assert fleet.rows()["a"]["state"] == "up"


def test_another_fleet_in_the_same_runtime_directory_is_refused(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        fleet.wait_up()
        other = Fleet(tmp_path, binance(exchange, "b"), name="other")
        done = other.command("run", str(other.file), check=False)
        assert done.returncode == 4
        assert not (fleet.shm_base / "feedwarden-0" / "other").exists()
        fleet.file.write_text("")  # the second Fleet wrote over it; the running one does not care
        assert fleet.rows()["a"]["state"] == "up"


def test_events_tell_the_life_of_a_fleet_in_order(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        fleet.wait_up()
        with listening([f"ipc://{fleet.runtime_dir}/events.sock"]) as listener:
            fleet.command("restart", "a", "--wait", "15")
            wait_for(lambda: any(e["kind"] == "up" for e in listener.events("a")), "up")
            fleet.stop()
            wait_for(
                lambda: any(e["kind"] == "supervisor_down" for e in listener.events()), "the end"
            )
            events = listener.events()
        kinds = [e["kind"] for e in events if e["connection"] == "a"]
        assert kinds == ["down", "exit", "restart", "spawn", "ready", "up", "stop", "down", "exit"]
        assert [e["seq"] for e in events] == list(range(events[0]["seq"], events[-1]["seq"] + 1))
        assert {frozenset(e) - {"heard_ns"} for e in events} == {EVENT_KEYS}


def test_stop_start_and_kill_do_what_they_say(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a", "b")) as fleet:
        before = fleet.wait_up()
        fleet.command("stop", "a", "--wait", "15")
        row = fleet.rows()["a"]
        assert (row["state"], row["desired"], row["pid"]) == ("stopped", "stopped", None)
        assert fleet.command("status", "--check").returncode == 0, "stopped on purpose is fine"
        fleet.command("start", "a", "--wait", "15")
        assert fleet.rows()["a"]["incarnation"] == 2
        fleet.command("kill", "a", "--wait", "15")
        assert fleet.wait_up()["a"]["last_exit"]["cause"] == "operator"
        assert fleet.rows()["b"]["pid"] == before["b"]["pid"]
        fleet.command("stop", "*", "--wait", "15")
        assert {row["state"] for row in fleet.rows().values()} == {"stopped"}


def test_unknown_names_and_fleets_have_their_exit_codes(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "alpha")) as fleet:
        fleet.wait_up()
        wrong = fleet.command("stop", "alhpa", check=False)
        assert wrong.returncode == 2
        assert "did you mean alpha?" in wrong.stderr
        assert fleet.command("status", "--fleet", "nope", check=False).returncode == 6
        late = fleet.command("start", "alpha", "--wait", "0.01", check=False)
        assert late.returncode in (0, 7)
        fleet.command("shutdown", "--wait", "20")
        assert fleet.process.wait(10) == 0
        assert fleet.command("stop", "alpha", check=False).returncode == 6


def test_a_second_ctrl_c_kills_at_once(tmp_path, exchange):
    patient = "reconnect = { close_timeout = 60 }\nstop_timeout = 60\n"
    with running_fleet(tmp_path, binance(exchange, "a", extra=patient)) as fleet:
        fleet.wait_up()
        exchange.fault("half_open")  # nobody answers the close: an orderly end takes a minute
        fleet.process.send_signal(signal.SIGINT)
        wait_for(lambda: "stop connection=a" in fleet.said(), "the stop")
        fleet.process.send_signal(signal.SIGINT)
        assert fleet.process.wait(20) == 130
        assert fleet.pids() == []
        assert fleet.shm_files() == []
