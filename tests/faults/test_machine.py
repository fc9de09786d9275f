"""Faults 24 to 27, 30, 32 and 33: a machine that is full, slow, or tells another time."""

import contextlib
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
import zmq
from cgroup import memory_cgroup
from exchange import running_exchange
from faulty import (
    FaultyFleet,
    assert_nothing_left,
    faulty_fleet,
    feeds,
    lowest_free_descriptor,
    names,
    resident_kib,
    shows_all,
    witnessed,
    zygote_of,
)
from fleet import wait_for
from listening import assert_gap_free, listening

pytestmark = pytest.mark.system

SUPPORT = Path(__file__).parent.parent / "support"
AT_ONCE = "restart = { stable_after = 0, crash_loop = false }\n"


@pytest.fixture
def exchange():
    with running_exchange(rate=50) as running:
        yield running


# Full ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_tmpfs(path, size):
    path.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a tmpfs needs root: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_f24_a_full_shared_memory_is_a_backoff_with_its_cause_until_there_is_room(
    tmp_path, exchange
):
    with small_tmpfs(tmp_path / "shm", "80m"):
        toml = feeds(exchange, "a", "b", extra="restart = { max_delay = 1, crash_loop = false }\n")
        with faulty_fleet(tmp_path, toml) as fleet:
            before = fleet.wait_up()
            ballast = fleet.shm_base / "ballast"
            with witnessed(fleet) as witness:
                with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(65536))
                os.kill(before["a"]["pid"], signal.SIGKILL)
                witness.wait("backoff", "a", 2)
                causes = {event["cause"] for event in witness.of("exit", "a")[1:]}
                assert causes == {"exit"}
                codes = [event["detail"].get("code") for event in witness.of("exit", "a")[1:]]
                assert set(codes) == {75}, "temporary"
                assert "free some or run fewer connections" in fleet.said()
                assert fleet.rows()["b"]["pid"] == before["b"]["pid"]
                ballast.unlink()
            fleet.wait_up()
            assert fleet.stop() == 0


def test_f24_a_shared_memory_that_is_nearly_full_keeps_no_supervisor_from_its_workers(
    tmp_path, exchange
):
    """There is room for its table, and none for a second segment of anybody's."""
    with (
        small_tmpfs(tmp_path / "shm", "80m"),
        faulty_fleet(tmp_path, feeds(exchange, "a", "b")) as fleet,
    ):
        before = fleet.wait_up()
        with (fleet.shm_base / "ballast").open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(65536))
            file.truncate(file.tell() - (1 << 18))
        fleet.process.kill()
        fleet.process.wait()
        fleet.start()
        assert {n: row["pid"] for n, row in fleet.wait_up().items()} == {
            n: row["pid"] for n, row in before.items()
        }


def test_f24_no_process_to_be_had_is_a_backoff_with_its_cause(tmp_path, exchange):
    """RLIMIT_NPROC does not bind root, so the fork helper runs out of descriptors instead."""
    with faulty_fleet(tmp_path, feeds(exchange, "a", "b", extra=AT_ONCE)) as fleet:
        before = fleet.wait_up()
        helper = zygote_of(fleet)
        if os.geteuid() == 0:
            what, taken = resource.RLIMIT_NOFILE, lowest_free_descriptor(helper)
        else:
            what, taken = resource.RLIMIT_NPROC, 1
        usual = resource.prlimit(helper, what)
        with witnessed(fleet) as witness:
            resource.prlimit(helper, what, (taken, usual[1]))
            os.kill(before["a"]["pid"], signal.SIGKILL)
            waiting = witness.wait("backoff", "a")
            assert waiting[0]["cause"] == "spawn_failed"
            assert fleet.tell("start", "b").error == ""
            resource.prlimit(helper, what, usual)
            witness.wait("up", "a")
        assert fleet.pid("b") == before["b"]["pid"]


def test_f25_memory_that_runs_out_takes_the_hog_alone_and_is_told_as_the_cause(tmp_path, exchange):
    with memory_cgroup(f"feedwarden-test-{os.getpid()}") as cgroup:
        toml = feeds(exchange, "a", "b", extra=AT_ONCE)
        with faulty_fleet(tmp_path, toml, prefix=cgroup.prefix) as fleet:
            before = fleet.wait_up()
            cgroup.leave_room(96 << 20)
            with witnessed(fleet) as witness, listening([before["b"]["endpoint"]]) as listener:
                fleet.order("a", "allocate 512", once=True)
                exchange.fault("reset", tag="a")  # it dials anew, and obeys
                (died,) = witness.wait("exit", "a")
                assert (died["cause"], died["detail"]) == ("oom", {"signal": "SIGKILL"})
                witness.wait("up", "a")
                assert fleet.wait_up()["a"]["last_exit"]["cause"] == "oom"
                os.kill(fleet.pid("a"), signal.SIGKILL)  # this one was not the kernel
                assert witness.wait("exit", "a", 2)[-1]["cause"] == "signal"
                witness.wait("up", "a", 2)
                assert witness.of("exit", "b") == []
                assert_gap_free([m for m in listener.data() if m[0] == "data.b"])
            assert fleet.pid("b") == before["b"]["pid"]
            assert fleet.process.poll() is None
            assert fleet.stop() == 0
            assert_nothing_left(fleet)


# Clocks ----------------------------------------------------------------------------------------


def test_f26_a_wall_clock_that_jumps_by_an_hour_changes_nothing(tmp_path, exchange):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler for the preloaded clock")
    library, offset = tmp_path / "wall_clock.so", tmp_path / "offset"
    source = str(SUPPORT / "wall_clock.c")
    command = ["cc", "-shared", "-fPIC", "-o", str(library), source, "-ldl"]
    subprocess.run(command, check=True)
    fleet = FaultyFleet(tmp_path, feeds(exchange, "a", "b", extra="heartbeat.interval = 1\n"))
    toml = fleet.file.read_text().replace("heartbeat.interval = 1\n", "")
    fleet.file.write_text(toml.replace("interval = 10, timeout = 10", "interval = 1, timeout = 1"))
    fleet.environment |= {"LD_PRELOAD": str(library), "WALL_CLOCK": str(offset)}
    offset.write_text("0")
    try:
        before = fleet.start().wait_up()
        with witnessed(fleet) as witness, listening([before["a"]["endpoint"]]) as listener:
            for jump in (3600, -3600, 0):
                offset.write_text(str(jump))
                seen = len(witness.of("kill"))
                fleet.tell("kill", "b", signal="SIGCONT")  # harmless, and told with the time
                told = datetime.fromisoformat(witness.wait("kill", "b", seen + 1)[-1]["time"])
                assert abs(told.timestamp() - time.time() - jump) < 60, "the clock did jump"
                pongs = fleet.rows()["a"]["pongs"]
                wait_for(lambda n=pongs: fleet.rows()["a"]["pongs"] >= n + 2, "two pings")
            assert witness.of("exit") == witness.of("down") == witness.of("hung") == []
            assert_gap_free([m for m in listener.data() if m[0] == "data.a"])
        after = fleet.rows()
        assert {n: r["pid"] for n, r in after.items()} == {n: r["pid"] for n, r in before.items()}
        assert all(row["timeouts"] == row["reconnects"] == 0 for row in after.values())
        assert all(row["rtt_ms"]["max"] < 60_000 for row in after.values())
    finally:
        fleet.kill_everything()


# Subscribers -----------------------------------------------------------------------------------


def test_f27_an_event_subscriber_that_never_reads_costs_the_supervisor_little(tmp_path, exchange):
    orders, batch = 12_000, 200
    with faulty_fleet(tmp_path, feeds(exchange, "a")) as fleet:
        fleet.wait_up()
        before = resident_kib(fleet.process.pid)
        with contextlib.ExitStack() as stack:
            context = stack.enter_context(zmq.Context())
            deaf = stack.enter_context(context.socket(zmq.SUB))
            for option, value in ((zmq.RCVHWM, 1), (zmq.RCVBUF, 4096), (zmq.LINGER, 0)):
                deaf.setsockopt(option, value)
            deaf.subscribe("event.")
            deaf.connect(f"ipc://{fleet.runtime_dir}/events.sock")
            events = [f"ipc://{fleet.runtime_dir}/events.sock"]
            listener = stack.enter_context(listening(events))
            for _ in range(orders // batch):
                assert fleet.tell("kill", *["a"] * batch, signal="SIGCONT").error == ""
            wait_for(lambda: len(listener.frames) >= orders, "all events", 60)
            seqs = [event["seq"] for event in listener.events()]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
            assert resident_kib(fleet.process.pid) - before < 64 * 1024
        assert fleet.rows()["a"]["restarts"] == 0
        assert fleet.stop() == 0


# Signals ---------------------------------------------------------------------------------------


class Terminal:
    """``run`` in the foreground of a terminal of its own."""

    def __init__(self, fleet):
        self.fleet = fleet
        pid, self.master = pty.fork()
        if pid == 0:
            command = [sys.executable, "-P", "-m", "supervisor", "run", str(fleet.file)]
            os.execve(sys.executable, command, fleet.environment)
        self.pid = pid

    def ends(self, timeout_s=30):
        """Wait for its end, reading what it says; return its exit code."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                os.set_blocking(self.master, False)
                os.read(self.master, 65536)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        raise AssertionError(f"not ended within {timeout_s} s")


@pytest.mark.parametrize("how", ["once", "twice", "hang-up"])
def test_f30_a_terminal_ends_the_fleet_orderly_or_at_once_and_leaves_no_orphan(
    tmp_path, exchange, how
):
    stubborn = "stop_timeout = 30\nhang = { warn_after = 30, timeout = 60 }\n"
    fleet = FaultyFleet(tmp_path, feeds(exchange, "a", "b", extra=stubborn))
    terminal = Terminal(fleet)
    try:
        fleet.log.touch()
        wait_for(lambda: shows_all(fleet, 2), "a table")
        fleet.wait_up()
        if how == "twice":
            fleet.order("a", "sleep 1000", once=True)
            exchange.fault("reset", tag="a")
            wait_for(lambda: not list(fleet.orders.glob("*.once")), "a stands")
            os.write(terminal.master, b"\x03")
            wait_for(lambda: fleet.rows()["b"]["state"] == "stopped", "b went orderly")
            os.write(terminal.master, b"\x03")
            assert terminal.ends() == 130
        elif how == "once":
            os.write(terminal.master, b"\x03")
            assert terminal.ends() == 0
        else:
            os.close(terminal.master)
            assert os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1]) == 0
        assert_nothing_left(fleet)
    finally:
        fleet.kill_everything()


def test_f32_a_fork_helper_with_a_stray_thread_refuses_to_fork_and_names_it():
    program = """
import sys, threading, time
from supervisor.zygote_child import refuse_threads
from worker.process_name import set_process_name
def stray():
    set_process_name("stray")
    ready.set()
    time.sleep(60)
refuse_threads()
ready = threading.Event()
threading.Thread(target=stray, daemon=True).start()
ready.wait()
try:
    refuse_threads()
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert "refused to fork with 2 threads" in done.stdout
    assert "stray" in done.stdout


def test_f33_a_storm_of_signals_leaves_a_consistent_fleet_and_an_orderly_end(tmp_path, exchange):
    with faulty_fleet(tmp_path, feeds(exchange, *names(3))) as fleet:
        before = fleet.wait_up()
        harmless = (signal.SIGCHLD, signal.SIGCONT, signal.SIGWINCH, signal.SIGURG)
        everybody = [fleet.process.pid, zygote_of(fleet), *(r["pid"] for r in before.values())]
        until = time.monotonic() + 2
        while time.monotonic() < until:
            for number in harmless:
                for pid in everybody:
                    os.kill(pid, number)
            time.sleep(0.004)
        fleet.wait_up()
        assert fleet.pids_of_workers() == {n: r["pid"] for n, r in before.items()}
        assert all(row["reconnects"] == 0 for row in fleet.rows().values())
        while fleet.process.poll() is None:
            for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM):
                fleet.process.send_signal(number)
            time.sleep(0.001)
        assert fleet.process.returncode == 0
        assert_nothing_left(fleet)
