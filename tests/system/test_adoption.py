"""A new supervisor goes on with what the last one left: wishes, changed files, builds, orphans.

Killed supervisors and tables that cannot be believed are faults: tests/faults/test_succession.py.
"""

import os
import shutil
import signal
import time

import pytest
from exchange import running_exchange
from fleet import binance, running_fleet, wait_for
from listening import listening
from succession import another_build, ids_of_sessions, processes, slay, zygotes

from shm.process import start_ticks
from supervisor.subscriber import Message, Subscriber

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

QUICK = "restart = { stable_after = 0 }\n"


@pytest.fixture
def exchange():
    with running_exchange(rate=200) as running:
        yield running


def test_what_an_operator_wants_and_how_a_life_stood_outlive_the_supervisor(tmp_path, exchange):
    loops = "restart = { initial_delay = 0.01, crash_loop = { deaths = 3, floor = 60 } }\n"
    toml = binance(exchange, "halted", "lively", extra=QUICK) + binance(
        exchange, "looping", extra=loops
    )
    with running_fleet(tmp_path, toml) as fleet:
        before = fleet.wait_up()
        fleet.command("stop", "halted", "--wait", "20")
        os.kill(before["lively"]["pid"], signal.SIGKILL)
        for _ in range(3):
            pid = wait_for(lambda: fleet.rows()["looping"]["pid"], "a process")
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda pid=pid: fleet.rows()["looping"]["pid"] != pid, "gone")
        wait_for(lambda: fleet.rows()["looping"]["state"] == "crash_loop", "crash_loop")
        before = fleet.wait_up("lively")
        slay(fleet)
        fleet.start()
        after = fleet.wait_up("lively")
        assert (after["halted"]["state"], after["halted"]["desired"]) == ("stopped", "stopped")
        assert after["looping"]["state"] == "crash_loop"
        assert 0 < after["looping"]["next_attempt_s"] <= before["looping"]["next_attempt_s"]
        assert after["lively"]["pid"] == before["lively"]["pid"]
        for name, restarts in (("lively", 1), ("looping", 3)):
            assert after[name]["restarts"] == restarts
            assert after[name]["last_exit"] == before[name]["last_exit"]
        # The end of the whole fleet is no wish of an operator's for one connection.
        fleet.command("start", "halted", "--wait", "20")


def test_the_next_run_is_that_of_a_file_that_has_changed(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "same", "gone", "other", "topic")) as fleet:
        before = fleet.wait_up()
        slay(fleet)
        other = "publish = { sndhwm = 999 }\n"
        text = fleet.file.read_text().split("[[connection]]")[0]
        text += binance(exchange, "same") + binance(exchange, "other", extra=other)
        text += binance(exchange, "topic").replace("btcusdt", "ethusdt") + binance(exchange, "new")
        fleet.file.write_text(text)
        fleet.start()
        after = fleet.wait_up("same", "new", "topic")
        assert set(after) == {"same", "other", "topic", "new"}
        assert after["same"]["pid"] == before["same"]["pid"]
        wait_for(lambda: fleet.wait_up()["other"]["incarnation"] == 2, "replaced")
        wait_for(lambda: not start_ticks(before["gone"]["pid"]), "nobody keeps it")
        wait_for(lambda: not exchange.sessions("gone"), "its session ends")
        assert after["topic"]["pid"] == before["topic"]["pid"]
        wait_for(lambda: "cause=subscription_changed" in fleet.said(), "told live")


def test_nothing_is_left_of_connections_that_left_the_file_between_two_runs(tmp_path, exchange):
    """Their workers live when the next run comes, and so does what a reload had left for them."""
    with running_fleet(tmp_path, binance(exchange, "stays", "gone")) as fleet:
        before = fleet.wait_up()
        with fleet.file.open("a") as file:
            file.write("stop_timeout = 4\n")  # of the last one
        assert "gone: stop_timeout (live)" in fleet.command("reload").stdout
        assert (fleet.shm_dir / "gone.spec").exists()
        slay(fleet)
        head = fleet.file.read_text().split("[[connection]]")[0]
        fleet.file.write_text(head + binance(exchange, "stays"))
        fleet.start()
        wait_for(lambda: not start_ticks(before["gone"]["pid"]), "nobody keeps it")
        assert fleet.stop() == 0
        assert fleet.shm_files() == []
        assert not fleet.runtime_dir.exists()


@pytest.mark.parametrize("lost", ["all of it", "an endpoint"])
def test_a_worker_whose_endpoint_is_gone_is_replaced_by_one_that_can_be_reached(
    tmp_path, exchange, monkeypatch, lost
):
    monkeypatch.setenv("FEEDWARDEN_SHM", str(tmp_path / "shm"))
    with running_fleet(tmp_path, binance(exchange, "a", "b", extra=QUICK)) as fleet:
        before = fleet.wait_up()
        if lost == "all of it":
            shutil.rmtree(fleet.runtime_dir)
        else:
            (fleet.runtime_dir / "data" / "a.sock").unlink()
        slay(fleet)
        fleet.start()
        wait_for(lambda: fleet.rows()["a"]["incarnation"] > before["a"]["incarnation"], "replaced")
        after = fleet.wait_up()
        assert (fleet.runtime_dir / "data" / "a.sock").is_socket()
        with Subscriber(fleet.name, "a") as subscriber:
            assert any(isinstance(item, Message) for item in subscriber)
        assert after["a"]["incarnation"] == before["a"]["incarnation"] + 1
        assert after["b"]["incarnation"] == 1 + (lost == "all of it")


def test_another_users_table_is_refused(tmp_path, exchange):
    if os.geteuid():
        pytest.skip("only root can give a file away")
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        before = fleet.wait_up()
        slay(fleet)
        table = fleet.shm_dir / "registry"
        os.chown(table, 1234, -1)
        refused = fleet.command("run", str(fleet.file), check=False)
        assert refused.returncode == 5
        assert "is user 1234's" in refused.stderr
        assert start_ticks(before["a"]["pid"])
        os.chown(table, 0, -1)
        fleet.start()
        assert processes(fleet.wait_up()) == processes(before)


# The fork helper ---------------------------------------------------------------------------------


def test_a_stopped_fork_helper_is_continued(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a", extra=QUICK)) as fleet:
        before = fleet.wait_up()
        (zygote,) = zygotes(fleet)
        os.kill(zygote, signal.SIGSTOP)
        slay(fleet)
        fleet.start()
        assert processes(fleet.wait_up()) == processes(before)
        assert zygotes(fleet) == [zygote]


def test_a_new_build_forks_from_a_helper_of_its_own(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a", "b", extra=QUICK)) as fleet:
        before = fleet.wait_up()
        (old,) = zygotes(fleet)
        fleet.command("shutdown", "--keep", "--wait", "20")
        assert fleet.process.wait(20) == 0
        assert fleet.status()["supervisor"]["alive"] is False
        fleet.environment["PYTHONPATH"] = another_build(tmp_path / "next")
        fleet.start()
        assert processes(fleet.wait_up()) == processes(before)
        assert set(zygotes(fleet)) > {old}
        # How a child of the old helper ended is still heard of, and its place is the new one's.
        os.kill(before["a"]["pid"], signal.SIGKILL)
        row = wait_for(lambda: (r := fleet.wait_up()["a"])["incarnation"] == 2 and r, "replaced")
        assert row["last_exit"]["signal"] == "SIGKILL"
        fleet.command("restart", "b", "--wait", "20")
        wait_for(lambda: old not in zygotes(fleet), "the old helper ends with its last child")
        assert fleet.stop() == 0
        assert fleet.shm_files() == []
        assert fleet.pids() == []


# Orphans -----------------------------------------------------------------------------------------


def with_orphans(toml, orphans):
    return f'orphans = "{orphans}"\n{toml}'


def test_orphans_that_shall_not_stay_end_by_themselves(tmp_path, exchange):
    toml = with_orphans(binance(exchange, "a", "b"), "exit")
    with running_fleet(tmp_path, toml) as fleet:
        endpoint = fleet.wait_up()["a"]["endpoint"]
        with listening([endpoint], [b"event."]) as listener:
            wait_for(lambda: listener.events("a"), "subscribed")  # pings are told there
            slay(fleet)
            told = wait_for(
                lambda: [e for e in listener.events("a") if e["kind"] == "orphaned"], "orphaned"
            )
            assert told[0]["delay_s"] == 5
        wait_for(lambda: fleet.pids() == [], "nobody is left")
        fleet.start()
        assert {row["incarnation"] for row in fleet.wait_up().values()} == {2}


def test_orphans_that_find_a_supervisor_in_time_stay(tmp_path, exchange):
    toml = with_orphans(binance(exchange, "a", "b"), "exit")
    with running_fleet(tmp_path, toml) as fleet:
        for _ in range(5):
            before = fleet.wait_up()
            slain_s = time.monotonic()
            slay(fleet)
            fleet.start()
            if time.monotonic() - slain_s < 4:
                break
        else:
            pytest.skip("this machine is too busy to start a supervisor within 4 s")
        time.sleep(6)
        assert processes(fleet.rows()) == processes(before)
        # The new one is who is lost now.
        slay(fleet)
        wait_for(lambda: fleet.pids() == [], "nobody is left")


def test_who_is_left_on_purpose_stays_whatever_was_configured(tmp_path, exchange):
    toml = with_orphans(binance(exchange, "a", "b"), "exit")
    with running_fleet(tmp_path, toml) as fleet:
        before = fleet.wait_up()
        sessions = ids_of_sessions(exchange)
        fleet.command("shutdown", "--keep", "--wait", "20")
        assert fleet.process.wait(20) == 0
        time.sleep(6)
        fleet.start()
        assert processes(fleet.wait_up()) == processes(before)
        assert ids_of_sessions(exchange) == sessions
        slay(fleet)
        wait_for(lambda: fleet.pids() == [], "what was configured holds for the next death")
