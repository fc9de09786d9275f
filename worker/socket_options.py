"""Socket options: what fleet.toml asks of a TCP socket, and what the kernel made of it."""

import socket
from pathlib import Path

from worker.spec import SocketSpec
from worker.tuning import Fact, judged, tried

SO_BUSY_POLL = 46  # asm-generic/socket.h, which x86-64 and arm64 use
BUSY_POLL = Path("/proc/sys/net/core/busy_poll")
QUICK = (socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def apply(connection: socket.socket, spec: SocketSpec) -> tuple[Fact, ...]:
    """
    Set what is asked for, and return what is in force.

    Before connect(2), since a buffer decides on the window scale that SYN offers (tcp(7)).
    TCP_NODELAY is not asked for: it is always on.
    """
    facts = []
    for option, number, size, limit in (
        ("receive_buffer", socket.SO_RCVBUF, spec.receive_buffer, "rmem_max"),
        ("send_buffer", socket.SO_SNDBUF, spec.send_buffer, "wmem_max"),
    ):
        if size:
            facts.append(_buffer(connection, option, number, size, limit))
    if spec.busy_poll_us:
        facts.append(_busy_poll(connection, spec.busy_poll_us))
    if spec.quickack:
        error = tried(connection.setsockopt, *QUICK)
        got = bool(connection.getsockopt(*QUICK[:2]))
        facts.append(judged("socket.quickack", True, got, error))
    return tuple(facts)


def _buffer(connection: socket.socket, option: str, number: int, size: int, limit: str) -> Fact:
    error = tried(connection.setsockopt, socket.SOL_SOCKET, number, size)
    # The kernel doubles what is set, for its own bookkeeping, and returns the doubled value.
    got = connection.getsockopt(socket.SOL_SOCKET, number) // 2
    short = f"net.core.{limit} allows {got}" if got < size else ""
    return judged(f"socket.{option}", size, got, error, short)


def _busy_poll(connection: socket.socket, wanted_us: int) -> Fact:
    error = tried(connection.setsockopt, socket.SOL_SOCKET, SO_BUSY_POLL, wanted_us)
    got = connection.getsockopt(socket.SOL_SOCKET, SO_BUSY_POLL)
    short = "" if _epoll_polls() else "reads poll, waiting does not: net.core.busy_poll is 0"
    return judged("socket.busy_poll", wanted_us, got, error, short)


def _epoll_polls() -> bool:
    """Return whether epoll_wait(2), which the loop waits in, polls devices at all."""
    try:
        return BUSY_POLL.read_text().strip() != "0"
    except OSError:
        return True  # not to be known
