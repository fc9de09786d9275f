"""Placement: which CPUs a worker's threads run on, and how urgently.

Threads are placed by their ids and never by options of the ZeroMQ context: libzmq (4.3.5) ends the
process where the system refuses one of those. What a thread does not say for itself it inherits
from the one that made it (sched(7)), which is the loop's here.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from worker.spec import ProcessSpec
from worker.tuning import Fact, judged, tried

AUTOGROUP = Path("/proc/self/autogroup")
PENDING = "counts within its own session until the system lets us set the session's"


class Placement:
    """
    The threads of this process.

    Args:
        spec: What is wanted of them.

    Attributes:
        facts: What came of it so far.
        unfinished: Whether the system asked to try ``settle`` again later.

    """

    def __init__(self, spec: ProcessSpec) -> None:
        self._spec = spec
        self.facts: list[Fact] = []
        self.unfinished = False
        self._inherited = os.sched_getaffinity(0)
        self._before: set[int] = set()

    def pin_loop(self) -> None:
        """
        Pin the calling thread, which will be the loop's.

        Before memory is touched, so that it is taken from that CPU's node.
        """
        if self._spec.cpu:
            self.facts.append(_pin("process.cpu", self._spec.cpu, [0]))

    def prioritise(self) -> None:
        """Give the calling thread its urgency; the threads it makes inherit it."""
        self._before = _threads()
        if self._spec.priority is not None:
            self.facts.append(_schedule(self._spec.priority))
        self._nice()

    def place_endpoint(self) -> None:
        """
        Place the threads that were made since ``prioritise``: ZeroMQ's.

        They do not follow the loop to its CPU. Whatever is made from now on, such as the threads
        that resolve names, has no realtime priority: it may block, or never yield.
        """
        threads = _threads() - self._before
        if self._spec.zmq_cpu:
            self.facts.append(_pin("process.zmq_cpu", self._spec.zmq_cpu, threads))
        elif self._spec.cpu:
            for thread in threads:
                tried(os.sched_setaffinity, thread, self._inherited)
        if self._spec.priority:
            policy = os.sched_getscheduler(0) | os.SCHED_RESET_ON_FORK
            if policy & os.SCHED_FIFO:
                tried(os.sched_setscheduler, 0, policy, os.sched_getparam(0))

    def settle(self) -> list[Fact]:
        """Try again what the system asked to try later; return its facts."""
        self.facts.clear()
        self._nice()
        return self.facts

    def _nice(self) -> None:
        nice = self._spec.nice
        if nice is None:
            return
        error = tried(os.setpriority, os.PRIO_PROCESS, 0, nice)
        refusal = None if error is not None else _nice_of_session(nice)
        self.unfinished = refusal is not None and refusal.errno == errno.EAGAIN
        short = f"counts within its own session only: {refusal.strerror}" if refusal else ""
        if self.unfinished:
            short = PENDING
        if os.sched_getscheduler(0) & os.SCHED_FIFO:
            short = "does not count for realtime threads (sched(7))"
        got = os.getpriority(os.PRIO_PROCESS, 0)
        self.facts.append(judged("process.nice", nice, got, error, short))


def is_usable(cpu: int) -> bool:
    """
    Return whether a thread of ours may run on a CPU.

    The kernel is asked, by moving there and back: an affinity mask does not show CPUs that
    ``isolcpus=`` keeps free for those who ask, and /sys does not show what a cpuset withholds.
    """
    before = os.sched_getaffinity(0)
    if cpu in before:
        return True
    if tried(os.sched_setaffinity, 0, {cpu}) is not None:
        return False
    os.sched_setaffinity(0, before)
    return True


def _pin(option: str, wanted: tuple[int, ...], threads: Iterable[int]) -> Fact:
    error, got = None, set(wanted)
    for thread in threads:
        error = tried(os.sched_setaffinity, thread, wanted) or error
        found = os.sched_getaffinity(thread)
        got = found if found != set(wanted) else got
    missing = sorted(set(wanted) - got)
    short = f"not to be had: {', '.join(map(str, missing))}" if missing else ""
    return judged(option, list(wanted), sorted(got), error, short)


def _schedule(priority: int) -> Fact:
    policy = os.SCHED_FIFO if priority else os.SCHED_OTHER
    error = tried(os.sched_setscheduler, 0, policy, os.sched_param(priority))
    return judged("process.scheduler", _scheduler_name(policy, priority), scheduler_of(0), error)


def scheduler_of(thread: int) -> str:
    """Return the scheduler of a thread as fleet.toml spells it, 0 for the calling one."""
    policy = os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK
    return _scheduler_name(policy, os.sched_getparam(thread).sched_priority)


def _scheduler_name(policy: int, priority: int) -> str:
    names = {os.SCHED_OTHER: "other", os.SCHED_FIFO: "fifo", os.SCHED_RR: "rr"}
    names |= {os.SCHED_BATCH: "batch", os.SCHED_IDLE: "idle"}
    name = names.get(policy, f"policy {policy}")
    return f"{name}:{priority}" if priority else name


def _nice_of_session(nice: int) -> OSError | None:
    """
    Give the session a nice value too, if the kernel groups by session.

    Every worker leads a session of its own, and with autogrouping nice values count within one
    (sched(7)): without this the option would do nothing.
    """
    if not AUTOGROUP.exists():
        return None
    return tried(_write, AUTOGROUP, str(nice).encode())


def _write(path: Path, value: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value)
    finally:
        os.close(descriptor)


def _threads() -> set[int]:
    return {int(entry) for entry in os.listdir("/proc/self/task")}
