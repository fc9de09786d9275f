"""Tuning: what is asked of the kernel, what it says, and how that is written down."""

import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from worker import socket_options
from worker.placement import Placement, is_usable, scheduler_of
from worker.spec import ProcessSpec, SocketSpec
from worker.tuning import Fact, Outcome, TuningFile, judged, read_tuning, tried

MINE = os.sched_getaffinity(0)
NO_CPU = 8191


@pytest.fixture
def in_thread():
    """Run a function in a thread, which is what its placing is of and which ends with it."""

    def in_thread(function):
        result = []
        thread = threading.Thread(target=lambda: result.append(function()))
        thread.start()
        thread.join()
        return result[0]

    return in_thread


# Facts -----------------------------------------------------------------------------------------


def test_a_fact_is_applied_capped_or_refused():
    refusal = PermissionError(errno.EPERM, "Operation not permitted")
    assert judged("a", 1, 1, None).state is Outcome.APPLIED
    assert judged("a", 2, 1, None, "one only") == Fact(
        option="a", wanted=2, got=1, state=Outcome.CAPPED, error="one only"
    )
    assert judged("a", 2, 1, refusal, "one only").error == "Operation not permitted"
    assert judged("a", 2, 1, refusal).state is Outcome.REFUSED


def test_only_what_the_system_says_is_caught():
    assert tried(os.stat, "/nowhere-at-all").errno == errno.ENOENT
    assert tried(os.stat, "/") is None
    with pytest.raises(TypeError):
        tried(os.stat)


def test_the_file_holds_the_latest_fact_of_each_option(tmp_path):
    path = tmp_path / "a.tuning"
    file = TuningFile(path, 7)
    assert file.note([]) == ()
    assert read_tuning(path) is None, "nothing wanted, nothing written"
    good, bad = judged("a", 1, 1, None), judged("b", 1, 0, None, "half")
    assert file.note([good, bad]) == (bad,)
    assert file.note([good, bad]) == (), "no news"
    mended = judged("b", 1, 1, None)
    assert file.note([mended]) == ()
    tuned = read_tuning(path)
    assert tuned.incarnation == 7
    assert tuned.facts == (good, mended)
    assert os.listdir(tmp_path) == ["a.tuning"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_stops_nobody(tmp_path):
    bad = judged("b", 1, 0, None, "half")
    assert TuningFile(tmp_path / "nowhere" / "a.tuning", 1).note([bad]) == (bad,)


# Threads ---------------------------------------------------------------------------------------


def test_a_loop_is_pinned_and_threads_made_for_the_endpoint_are_not(in_thread):
    cpu = max(MINE)

    def place():
        placement = Placement(ProcessSpec(cpu=(cpu,)))
        placement.pin_loop()
        placement.prioritise()
        over = threading.Event()
        other = threading.Thread(target=over.wait)
        other.start()
        placement.place_endpoint()
        found = os.sched_getaffinity(0), os.sched_getaffinity(other.native_id), placement.facts
        over.set()
        other.join()
        return found

    mine, others, facts = in_thread(place)
    assert mine == {cpu}
    assert others == MINE
    assert facts == [judged("process.cpu", [cpu], [cpu], None)]


def test_a_cpu_that_there_is_not_is_refused_or_left_out(in_thread):
    def pinned_to(*cpus):
        placement = Placement(ProcessSpec(cpu=cpus))
        placement.pin_loop()
        (fact,) = placement.facts
        return fact

    refused = in_thread(lambda: pinned_to(NO_CPU))
    assert refused.state is Outcome.REFUSED
    assert refused.got == sorted(MINE)
    capped = in_thread(lambda: pinned_to(min(MINE), NO_CPU))
    assert capped.state is Outcome.CAPPED
    assert capped.got == [min(MINE)]
    assert str(NO_CPU) in capped.error


def test_whether_a_cpu_is_usable_is_asked_without_a_trace(in_thread):
    def ask():
        os.sched_setaffinity(0, {min(MINE)})
        found = [cpu for cpu in (*sorted(MINE), NO_CPU) if is_usable(cpu)]
        return found, os.sched_getaffinity(0)

    # The others of the machine are hidden from a mask, as isolcpus= hides them, and can be had.
    assert in_thread(ask) == (sorted(MINE), {min(MINE)})


def test_what_is_not_set_is_left_as_it_was(in_thread):
    def place():
        before = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0), scheduler_of(0)
        placement = Placement(ProcessSpec())
        placement.pin_loop()
        placement.prioritise()
        placement.place_endpoint()
        after = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0), scheduler_of(0)
        return before == after, placement.facts, placement.unfinished

    assert in_thread(place) == (True, [], False)


# Sockets ---------------------------------------------------------------------------------------


@pytest.fixture
def connection():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        yield made


def test_nothing_is_set_that_was_not_asked_for(connection):
    before = connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert socket_options.apply(connection, SocketSpec()) == ()
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == before


def test_buffers_are_told_in_the_units_they_were_asked_in(connection):
    facts = socket_options.apply(connection, SocketSpec(receive_buffer=50_000, send_buffer=60_000))
    assert facts == (
        judged("socket.receive_buffer", 50_000, 50_000, None),
        judged("socket.send_buffer", 60_000, 60_000, None),
    )
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 100_000


def test_a_buffer_above_the_systems_limit_is_capped(connection):
    limit = int(Path("/proc/sys/net/core/wmem_max").read_text())
    (fact,) = socket_options.apply(connection, SocketSpec(send_buffer=limit + 1))
    assert (fact.state, fact.got) == (Outcome.CAPPED, limit)
    assert fact.error == f"net.core.wmem_max allows {limit}"


def test_quick_acknowledging_is_on_when_asked_for(connection):
    assert socket_options.apply(connection, SocketSpec(quickack=True)) == (
        judged("socket.quickack", True, True, None),
    )
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1
