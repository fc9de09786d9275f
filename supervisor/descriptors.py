"""Descriptors: as many as the system grants, a fleet that fits into them, and none missing.

At the limit everything fails at once (no pidfd, no memfd, no segment), and libzmq aborts the
process when accept(2) finds no descriptor. So the limit is raised at the start, a fleet that it
cannot carry is refused, and while we run ``free`` tells how near it is.
"""

import contextlib
import os
import resource
import sys

from supervisor.errors import FleetError
from supervisor.exit_codes import CONFIGURATION

SUPERVISOR_BASE, SUPERVISOR_EACH = 64, 6
ZYGOTE_BASE, ZYGOTE_EACH = 32, 3


class TooFewDescriptors(FleetError):
    """The limit of open files is too low for the fleet."""

    exit_code = CONFIGURATION

    def __init__(self, connections: int, needed: int, limit: int) -> None:
        super().__init__(connections, needed, limit)
        self.connections, self.needed, self.limit = connections, needed, limit

    def __str__(self) -> str:
        return (
            f"{self.connections} connections need about {self.needed} descriptors, the hard limit "
            f"is {self.limit}; raise it (ulimit -Hn, LimitNOFILE= of systemd) or run fewer"
        )


def fill_standard_streams() -> None:
    """
    Put /dev/null where stdin, stdout or stderr is closed, for us and for our children.

    The next file or socket that is opened would get its number, and what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
            os.set_inheritable(number, True)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def prepare(connections: int) -> None:
    """
    Raise the limit of open files to what is granted; children inherit it.

    Raises:
        TooFewDescriptors: If the fleet does not fit into it.

    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    refuse_too_many(connections)


def refuse_too_many(connections: int) -> None:
    """Raise ``TooFewDescriptors`` if a fleet does not fit into the limit in force."""
    needed = needed_by(connections)
    if limit() < needed:
        raise TooFewDescriptors(connections, needed, limit())


def needed_by(connections: int) -> int:
    """Return how many descriptors the hungriest of a fleet's processes needs, roughly."""
    return max(
        SUPERVISOR_BASE + SUPERVISOR_EACH * connections, ZYGOTE_BASE + ZYGOTE_EACH * connections
    )


def limit() -> int:
    """Return the limit in force."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def free() -> int:
    """Return how many descriptors may still be opened; 0 if not even that can be found out."""
    with contextlib.suppress(OSError):
        # Linux 6.2 tells their number as the size of the directory (proc_pid_fd(5)); others 0.
        if used := os.stat("/proc/self/fd").st_size:
            return limit() - used
    try:
        return limit() - len(os.listdir("/proc/self/fd")) + 1  # less the one that looks
    except OSError:
        return 0
