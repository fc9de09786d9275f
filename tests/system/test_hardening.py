"""Attacks on the supervisor's core: what is broken, stopped, full or foreign ends nothing else."""

import contextlib
import functools
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from exchange import running_exchange
from faulty import faulty_fleet, feeds
from fleet import Fleet, binance, running_fleet, wait_for

from shm import layout

pytestmark = pytest.mark.system

IDLE = '[[connection]]\nname = "{name}"\nurl = "ws://127.0.0.1:1/"\n'


@pytest.fixture(scope="module")
def exchange():
    with running_exchange() as found:
        yield found


def name_of(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def zygote_of(fleet):
    return next(pid for pid in fleet.pids() if name_of(pid) == "fw-zygote")


def nothing_left(fleet):
    left = [str(path) for path in fleet.runtime_dir.rglob("*")]
    return not (fleet.pids() or fleet.shm_files() or left)


def assert_nothing_left(fleet):
    wait_for(lambda: not fleet.pids(), f"no process: {fleet.pids()}", 3)
    assert nothing_left(fleet), (fleet.shm_files(), list(fleet.runtime_dir.rglob("*")))


def run_process(fleet, *, prefix="", stderr=None):
    """Start ``run`` without waiting for READY."""
    with fleet.log.open("ab") as log:
        out = log if stderr is None else stderr
        command = [sys.executable, "-P", "-m", "supervisor", "run", str(fleet.file)]
        if prefix:
            command = ["bash", "-c", f'{prefix}; exec "$@"', "bash", *command]
        fleet.process = subprocess.Popen(
            command,
            env=fleet.environment,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return fleet.process


@contextlib.contextmanager
def some_fleet(folder, toml, name="t"):
    fleet = Fleet(folder, toml, name)
    try:
        yield fleet
    finally:
        fleet.kill_everything()


def registry_shows(fleet, count):
    with contextlib.suppress(AssertionError, ValueError):
        return len(fleet.rows()) == count
    return False


# Signals and the end -------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_at_any_moment_of_the_start_leaves_nothing(tmp_path, number):
    for index, said in enumerate(("feedwarden.lock", "registry", "a.stats", "control.sock")):
        folder = tmp_path / str(index)
        folder.mkdir()
        with some_fleet(folder, "".join(IDLE.format(name=n) for n in "abcdef")) as fleet:
            process = run_process(fleet)
            wait_for(lambda: any(folder.rglob(said)), said)  # noqa: B023
            process.send_signal(number)
            assert process.wait(15) == 0, fleet.said()
            assert "Traceback" not in fleet.said()
            assert_nothing_left(fleet)


def test_a_supervisor_that_stands_before_its_first_look_is_seen_to_stand(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        fleet.process.send_signal(signal.SIGSTOP)  # its first look is a quarter of a second away
        try:
            wait_for(
                lambda: (fleet.status()["supervisor"]["tick_age_s"] or 0) > 2, "a sign grows old"
            )
            assert fleet.command("status", "--check", check=False).returncode == 3
        finally:
            fleet.process.send_signal(signal.SIGCONT)


def test_a_signal_that_means_something_to_other_daemons_only_ends_nothing(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        before = fleet.wait_up()["a"]["pid"]
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            fleet.process.send_signal(number)
        fleet.command("restart", "a", "--wait", "40")
        assert fleet.rows()["a"]["pid"] != before
        assert fleet.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_repeated_until_the_end_changes_nothing(tmp_path, number):
    with running_fleet(tmp_path, IDLE.format(name="a") + IDLE.format(name="b")) as fleet:
        while fleet.process.poll() is None:
            fleet.process.send_signal(number)
            time.sleep(0.004)
        assert fleet.process.returncode == 0
        assert_nothing_left(fleet)


def test_a_stopped_fork_helper_does_not_hold_up_the_end(tmp_path, exchange):
    toml = binance(exchange, "a", "b", extra='start_timeout = "2s"\n')
    with running_fleet(tmp_path, toml) as fleet:
        rows = fleet.wait_up()
        os.kill(zygote_of(fleet), signal.SIGSTOP)
        os.kill(rows["a"]["pid"], signal.SIGKILL)
        rows = wait_for(
            lambda: (r := fleet.rows())["a"]["state"] == "up" and r["a"]["pid"] != rows["a"]["pid"],
            "a is forked all the same",
        )
        os.kill(zygote_of(fleet), signal.SIGSTOP)
        os.kill(fleet.rows()["b"]["pid"], signal.SIGKILL)
        time.sleep(0.3)
        fleet.process.send_signal(signal.SIGTERM)
        assert fleet.process.wait(15) == 0
        assert_nothing_left(fleet)


def test_a_stopped_fork_helper_goes_on_when_it_is_needed(tmp_path, exchange):
    """It is not waited for until it is given up and another one started."""
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        former = fleet.wait_up()["a"]["pid"]
        helper = zygote_of(fleet)
        os.kill(helper, signal.SIGSTOP)
        os.kill(former, signal.SIGKILL)
        wait_for(lambda: fleet.rows()["a"]["pid"] not in (former, None), "replaced")
        fleet.wait_up()
        assert zygote_of(fleet) == helper
        os.kill(helper, signal.SIGSTOP)
        fleet.file.write_text(fleet.file.read_text() + binance(exchange, "b"))
        fleet.command("reload", "--wait", "40")
        assert fleet.rows()["b"]["state"] == "up"
        assert zygote_of(fleet) == helper


def test_a_second_ctrl_c_ends_at_once_whatever_is_stopped(tmp_path, exchange):
    patient = 'stop_timeout = "60s"\n'
    with faulty_fleet(tmp_path, feeds(exchange, "a", "b", "c", extra=patient)) as fleet:
        rows = fleet.wait_up()
        fleet.order("a", "sleep 600", once=True)  # deaf to SIGTERM
        os.kill(rows["a"]["pid"], signal.SIGKILL)
        wait_for(lambda: not (fleet.orders / "a.once").exists(), "its loop stands")
        fleet.process.send_signal(signal.SIGINT)
        wait_for(lambda: "stopping signal=SIGINT" in fleet.said(), "heard")
        os.kill(zygote_of(fleet), signal.SIGSTOP)
        fleet.process.send_signal(signal.SIGINT)
        assert fleet.process.wait(20) == 130, "half a second, and a busy machine"
        assert_nothing_left(fleet)


def test_of_what_a_killed_supervisor_left_stopped_the_worker_is_replaced(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a", "b")) as fleet:
        rows = fleet.wait_up()
        stopped, helper = rows["a"]["pid"], zygote_of(fleet)
        os.kill(stopped, signal.SIGSTOP)
        os.kill(helper, signal.SIGSTOP)
        fleet.process.kill()
        fleet.process.wait()
        fleet.start()
        wait_for(lambda: fleet.rows()["a"]["pid"] not in (stopped, None), "the hung one replaced")
        fleet.wait_up()
        assert zygote_of(fleet) == helper, "continued and gone on with"
        assert fleet.stop() == 0
        assert_nothing_left(fleet)


# Stderr ----------------------------------------------------------------------------------------


def test_supervision_goes_on_when_nobody_reads_its_stderr(tmp_path, exchange):
    toml = binance(exchange, "a", "b", "c")
    with some_fleet(tmp_path, toml) as fleet:
        reading, writing = os.pipe()
        try:
            os.set_blocking(writing, False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writing, b"x" * 4096)
            os.set_blocking(writing, True)
            process = run_process(fleet, stderr=writing)
            wait_for(lambda: registry_shows(fleet, 3), "a table")
            for _ in range(3):
                fleet.command("restart", "a", "b", "c", "--wait", "10")
            assert fleet.status()["supervisor"]["tick_age_s"] < 2
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
            assert_nothing_left(fleet)
        finally:
            os.close(reading)
            os.close(writing)


@pytest.mark.parametrize("how", ["broken", "closed", "full"])
def test_supervision_goes_on_without_a_stderr(tmp_path, exchange, how):
    with some_fleet(tmp_path, binance(exchange, "a")) as fleet:
        reading, writing = os.pipe()
        os.close(reading)
        closing = {"broken": "", "closed": "exec >&- 2>&-", "full": "exec >/dev/full 2>&1"}[how]
        process = run_process(fleet, prefix=closing, stderr=writing)
        os.close(writing)
        wait_for(lambda: registry_shows(fleet, 1), "a table")
        fleet.command("restart", "a", "--wait", "10")
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert_nothing_left(fleet)


# Descriptors -----------------------------------------------------------------------------------


def test_a_limit_that_cannot_carry_the_fleet_is_refused(tmp_path):
    with some_fleet(tmp_path, "".join(IDLE.format(name=n) for n in "abcdefgh")) as fleet:
        for limit in (24, 48, 100):
            assert run_process(fleet, prefix=f"ulimit -n {limit}").wait(15) == 5
        assert "hard limit is 48; raise it" in fleet.said()
        assert "Traceback" not in fleet.said()
        assert_nothing_left(fleet)


def test_the_soft_limit_is_raised(tmp_path):
    with some_fleet(tmp_path, IDLE.format(name="a")) as fleet:
        process = run_process(fleet, prefix="ulimit -S -n 64")
        wait_for(lambda: registry_shows(fleet, 1), "a table")
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        assert soft == hard


@pytest.mark.parametrize("whose", ["supervisor", "zygote"])
def test_deaths_without_a_free_descriptor_are_replaced_later(tmp_path, exchange, whose):
    with running_fleet(tmp_path, binance(exchange, "a", "b", "c")) as fleet:
        rows = fleet.wait_up()
        pid = fleet.process.pid if whose == "supervisor" else zygote_of(fleet)
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        taken = max(int(n) for n in os.listdir(f"/proc/{pid}/fd")) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (taken, before[1]))
        for name in ("a", "b"):
            os.kill(rows[name]["pid"], signal.SIGKILL)
        time.sleep(1)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        wait_for(lambda: all(r["state"] == "up" for r in fleet.rows().values()), "all up again")
        assert fleet.stop() == 0
        assert_nothing_left(fleet)


@pytest.mark.parametrize("endpoint", ["events.sock", "control.sock"])
def test_mute_connects_up_to_the_limit_do_not_end_the_supervision(tmp_path, exchange, endpoint):
    with some_fleet(tmp_path, binance(exchange, "a")) as fleet:
        process = run_process(fleet, prefix="ulimit -n 300")
        wait_for(lambda: registry_shows(fleet, 1), "a table")
        with contextlib.ExitStack() as stack:
            wait_for((fleet.runtime_dir / "control.sock").exists, "the last endpoint")
            fleet.wait_up()
            for _ in range(500):
                caller = stack.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    caller.connect(str(fleet.runtime_dir / endpoint))
                # A burst within one turn of the loop cannot be stopped: libzmq accepts by itself.
                time.sleep(0.002)
            time.sleep(1)
            assert process.poll() is None, fleet.said()
            assert f"{endpoint} shut" in fleet.said()
        fleet.command("restart", "a", "--wait", "15")
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert_nothing_left(fleet)


# The fork helper's door and the orders -----------------------------------------------------------


def test_the_fork_helper_listens_to_its_parent_alone(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        rows, helper = fleet.wait_up(), zygote_of(fleet)
        for message in (b"\xff garbage", b"", None):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
                caller.connect(str(fleet.runtime_dir / "zygote.sock"))
                with contextlib.suppress(OSError):
                    if message is not None:
                        caller.send(message)
                time.sleep(0.1)
        os.kill(rows["a"]["pid"], signal.SIGKILL)
        wait_for(lambda: fleet.rows()["a"]["pid"] not in (0, None, rows["a"]["pid"]), "replaced")
        assert zygote_of(fleet) == helper


def test_workers_ignore_sigpipe(tmp_path):
    with running_fleet(tmp_path, IDLE.format(name="a")) as fleet:
        pid = wait_for(lambda: fleet.rows()["a"]["pid"], "a worker")
        status = Path(f"/proc/{pid}/status").read_text()
        ignored = int(status.split("SigIgn:")[1].split()[0], 16)
        assert ignored & 1 << signal.SIGPIPE - 1


# Segments ----------------------------------------------------------------------------------------


def test_a_segment_that_is_cut_while_mapped_ends_only_its_worker(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a", "b")) as fleet:
        fleet.wait_up()
        os.truncate(next(fleet.shm_base.rglob("a.stats")), 0)
        wait_for(lambda: fleet.rows()["a"]["restarts"] >= 1, "the worker's death")
        rows = fleet.wait_up()
        assert rows["b"]["restarts"] == 0
        os.truncate(next(fleet.shm_base.rglob("registry")), 0)
        rows = wait_for(lambda: registry_shows(fleet, 2) and fleet.rows(), "the table again")
        assert fleet.stop() == 0
        assert_nothing_left(fleet)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("incarnation", 2**64 - 1),
        ("incarnation", 2**62),
        ("total_bytes", layout.HEADER_BYTES),
        ("total_bytes", layout.stats_bytes(1024) - 4096),
        ("layout_hash", 7),
    ],
)
def test_a_header_of_an_earlier_life_that_is_garbage_is_begun_anew(
    tmp_path, exchange, field, value
):
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        fleet.wait_up()
        fleet.kill_everything()
        path = next(fleet.shm_base.rglob("a.stats"))
        data = bytearray(path.read_bytes())
        values = list(layout.HEADER.unpack(data[: layout.HEADER.size]))
        values[layout.HEADER_FIELDS.index(field)] = value
        data[: layout.HEADER.size] = layout.HEADER.pack(*values)
        path.write_bytes(data)
        fleet.start()
        fleet.wait_up()
        assert fleet.stop() == 0
        assert_nothing_left(fleet)


def test_garbage_in_the_event_ring_disturbs_nobody(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a", "b")) as fleet:
        fleet.wait_up()
        plan = layout.stats_layout(layout.SAMPLE_SLOTS_MIN)
        with next(fleet.shm_base.rglob("a.stats")).open("r+b") as file:
            file.seek(plan.events.offset)
            file.write(os.urandom(plan.events.end - plan.events.offset))
            for word in (layout.Word.EVENT_INTENT, layout.Word.EVENT_PUBLISH):
                file.seek(plan.hot.offset + 8 * int(word))
                file.write(struct.pack("q", 5000))
        time.sleep(1)
        os.kill(fleet.rows()["b"]["pid"], signal.SIGKILL)
        wait_for(lambda: fleet.rows()["b"]["restarts"] == 1, "b replaced")
        assert fleet.stop() == 0
        assert "Traceback" not in fleet.said()


# The simulated exchange --------------------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_dead_simulator_is_started_again(tmp_path):
    port = free_port()
    toml = f"[simulator]\nport = {port}\n" + IDLE.format(name="a").replace(
        "127.0.0.1:1/", f"127.0.0.1:{port}/binance"
    )
    with running_fleet(tmp_path, toml) as fleet:
        fleet.wait_up()
        child = next(
            pid
            for pid in fleet.pids()
            if b"supervisor.simulator" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: "simulated exchange is started again" in fleet.said(), "started again")
        fleet.wait_up()
        assert fleet.stop() == 0
        assert_nothing_left(fleet)


def test_a_stop_while_the_program_is_still_being_loaded_is_an_orderly_end(tmp_path, exchange):
    fleet = Fleet(tmp_path, binance(exchange, "a"))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        for delay_s in (0.08, 0.15, 0.25, 0.35):
            with fleet.log.open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "supervisor", "run", str(fleet.file)],
                    env=fleet.environment,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                )
            wait_for(functools.partial(caught, process.pid), "the program's own handlers")
            time.sleep(delay_s)
            process.send_signal(number)
            assert process.wait(20) == 0, (number, delay_s, fleet.said())
    assert "Traceback" not in fleet.said()
    assert_nothing_left(fleet)


def caught(pid):
    """Return whether a process has a handler for SIGTERM (SigCgt of proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(status.split("SigCgt:")[1].split()[0], 16)
    return bool(mask & 1 << (signal.SIGTERM - 1))
