"""What an operator wants of CPUs, urgency and sockets: in force as the kernel tells it, or refused
and shown."""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest
import without_privileges
from exchange import running_exchange
from fleet import binance, running_fleet, wait_for
from other_process import tcp_socket_of, threads_of

pytestmark = pytest.mark.system

UNPRIVILEGED = (sys.executable, without_privileges.__file__)
FIRST, LAST = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
KIB = 1024
QUICKACK = (socket.IPPROTO_TCP, socket.TCP_QUICKACK)


@pytest.fixture
def exchange():
    with running_exchange(rate=50) as running:
        yield running


def may_be_realtime():
    """Whether a thread of ours may run with SCHED_FIFO."""
    said = []

    def try_it():
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            said.append(True)

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    return bool(said)


def states(row):
    return {option: fact["state"] for option, fact in row["tuning"].items()}


def worker_of(fleet, *, facts):
    """The row of ``a`` once it is up and as many options were told."""
    fleet.wait_up()
    return wait_for(
        lambda: (row := fleet.rows()["a"]) and len(row["tuning"]) >= facts and row, "its tuning"
    )


def test_what_the_system_grants_is_in_force_in_every_thread_and_socket(tmp_path, exchange):
    wishes = (
        f"process = {{ cpu = {LAST}, zmq_cpu = [{FIRST}], nice = 5 }}\n"
        'socket = { receive_buffer = "64KiB", send_buffer = 50000, quickack = true }\n'
    )
    with running_fleet(tmp_path, binance(exchange, "a", extra=wishes)) as fleet:
        row = worker_of(fleet, facts=6)
        # Autogroups take a nice value of all users together ten times a second at most.
        row = wait_for(
            lambda: (r := fleet.rows()["a"]) and set(states(r).values()) == {"applied"} and r,
            "everything applied",
        )
        assert row["tuning"]["process.cpu"] == {
            "wanted": [LAST],
            "got": [LAST],
            "state": "applied",
            "error": "",
        }
        by_name = {thread.name: thread for thread in threads_of(row["pid"])}
        assert by_name["main"].cpus == {LAST}
        zmq = [thread for name, thread in by_name.items() if name.startswith("ZMQbg")]
        assert len(zmq) == 2
        assert all(thread.cpus == {FIRST} for thread in zmq)
        assert {thread.nice for thread in by_name.values()} == {5}
        autogroup = Path(f"/proc/{row['pid']}/autogroup")
        assert not autogroup.exists() or autogroup.read_text().split()[-1] == "5"
        with tcp_socket_of(row["pid"]) as seen:
            assert seen.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 64 * KIB
            assert seen.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 50_000
            assert seen.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            # A ping makes the kernel forget it: it is there again after the next message.
            wait_for(lambda: fleet.rows()["a"]["pings"] > 2, "pings")
            wait_for(lambda: seen.getsockopt(*QUICKACK), "acknowledging at once, again")
        assert "applied" not in fleet.command("status").stdout  # what is as it should be is no note
        assert fleet.stop() == 0
        assert fleet.shm_files() == []


def test_zeromq_does_not_follow_a_pinned_loop_and_a_successor_is_pinned_too(tmp_path, exchange):
    wishes = f"process = {{ cpu = {LAST} }}\n"
    with running_fleet(tmp_path, binance(exchange, "a", extra=wishes)) as fleet:
        first = worker_of(fleet, facts=1)
        fleet.command("kill", "a", "--wait", "20")
        fleet.wait_up()
        row = wait_for(
            lambda: (
                (r := fleet.rows()["a"])["pid"] not in (None, first["pid"]) and r["tuning"] and r
            ),
            "a successor",
        )
        for thread in threads_of(row["pid"]):
            wanted = {LAST} if thread.name == "main" else os.sched_getaffinity(0)
            assert thread.cpus == wanted, thread


def test_what_the_system_refuses_is_shown_and_the_worker_runs_on(tmp_path, exchange):
    wishes = (
        'process = { nice = -5, scheduler = "fifo:10" }\n'
        'socket = { receive_buffer = "500MiB", busy_poll = 50 }\n'
    )
    with running_fleet(
        tmp_path, binance(exchange, "a", extra=wishes), prefix=UNPRIVILEGED
    ) as fleet:
        row = worker_of(fleet, facts=4)
        assert row["state"] == "up"
        told = states(row)
        assert told == {
            "process.nice": "refused",
            "process.scheduler": "refused",
            "socket.receive_buffer": "capped",
            "socket.busy_poll": told["socket.busy_poll"],  # kernels differ in who may
        }
        tuning = row["tuning"]
        assert tuning["process.scheduler"] == {
            "wanted": "fifo:10",
            "got": "other",
            "state": "refused",
            "error": "Operation not permitted",
        }
        rmem_max = int(Path("/proc/sys/net/core/rmem_max").read_text())
        assert tuning["socket.receive_buffer"]["got"] == rmem_max
        assert tuning["socket.receive_buffer"]["error"] == f"net.core.rmem_max allows {rmem_max}"
        assert {thread.policy for thread in threads_of(row["pid"])} == {os.SCHED_OTHER}
        table = fleet.command("status").stdout
        assert "process.scheduler refused: Operation not permitted" in table
        assert f"socket.receive_buffer capped: net.core.rmem_max allows {rmem_max}" in table
        assert "cause=tuning error=process.scheduler: Operation not permitted" in fleet.said()
        # Nobody's help is needed to read it. Stopped, the worker does not end as orphans do.
        os.kill(row["pid"], signal.SIGSTOP)
        fleet.process.send_signal(signal.SIGKILL)
        fleet.process.wait()
        assert fleet.rows()["a"]["tuning"] == tuning


def test_realtime_is_for_the_loop_and_zeromq_alone(tmp_path, exchange):
    if not may_be_realtime():
        pytest.skip("not allowed to be realtime here: needs CAP_SYS_NICE or RLIMIT_RTPRIO")
    wishes = 'process = { scheduler = "fifo:7", nice = 3 }\n'
    toml = binance(exchange, "a", extra=wishes).replace("127.0.0.1", "localhost")
    with running_fleet(tmp_path, toml) as fleet:
        row = worker_of(fleet, facts=2)
        assert row["tuning"]["process.scheduler"]["got"] == "fifo:7"
        assert row["tuning"]["process.nice"]["state"] == "capped"
        threads = threads_of(row["pid"])
        for thread in threads:
            is_ours = thread.name == "main" or thread.name.startswith("ZMQbg")
            policy = thread.policy & ~os.SCHED_RESET_ON_FORK
            assert policy == (os.SCHED_FIFO if is_ours else os.SCHED_OTHER), thread
            assert thread.priority == (7 if is_ours else 0)
        assert len(threads) >= 3


def test_check_names_a_cpu_that_there_is_not(tmp_path, exchange):
    fleet_toml = tmp_path / "f.toml"
    fleet_toml.write_text(binance(exchange, "a", extra="[connection.process]\ncpu = [0, 8000]\n"))
    with running_fleet(tmp_path, binance(exchange, "b")) as fleet:
        done = fleet.command("check", str(fleet_toml), "--json", check=False)
    assert done.returncode == 5
    (fault,) = json.loads(done.stdout)["faults"]
    assert fault["key"] == "connection[0].process.cpu"
    assert "8000" in fault["message"]
