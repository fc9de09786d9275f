"""What the kernel says of another process: its threads, and its TCP socket."""

import contextlib
import ctypes
import os
import socket
from dataclasses import dataclass
from pathlib import Path

PIDFD_GETFD = 438  # pidfd_getfd(2), the same number everywhere
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Thread:
    name: str
    cpus: set
    nice: int
    policy: int
    priority: int


def threads_of(pid):
    """The threads of a process, its first one under the name ``main``."""
    found = []
    for entry in os.listdir(f"/proc/{pid}/task"):
        tid = int(entry)
        name = Path(f"/proc/{pid}/task/{tid}/comm").read_text().strip()
        found.append(
            Thread(
                name="main" if tid == pid else name,
                cpus=os.sched_getaffinity(tid),
                nice=os.getpriority(os.PRIO_PROCESS, tid),
                policy=os.sched_getscheduler(tid),
                priority=os.sched_getparam(tid).sched_priority,
            )
        )
    return found


@contextlib.contextmanager
def tcp_socket_of(pid):
    """A duplicate of the only TCP socket of a process of ours."""
    handle = os.pidfd_open(pid)
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            copy = _libc.syscall(PIDFD_GETFD, handle, int(entry), 0)
            assert copy >= 0, os.strerror(ctypes.get_errno())
            try:
                found = socket.socket(fileno=copy)
            except OSError:  # no socket
                os.close(copy)
                continue
            with found:
                if found.family == socket.AF_INET and found.type == socket.SOCK_STREAM:
                    yield found
                    return
    finally:
        os.close(handle)
    raise AssertionError(f"process {pid} has no TCP socket")
