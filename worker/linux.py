"""Linux calls that Python does not wrap: prctl(2), and process identity from proc(5)."""

import ctypes
import signal
from pathlib import Path

PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
STAT_START_TIME = 22  # field of /proc/<pid>/stat, counted from 1 (proc(5))

_libc = ctypes.CDLL(None, use_errno=True)


def set_process_name(name: str) -> None:
    """Name the calling thread, and so the process in ``ps -o comm`` and ``top``: 15 bytes."""
    _libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def become_subreaper() -> None:
    """Become the new parent of descendants whose parent dies (PR_SET_CHILD_SUBREAPER)."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start_ticks(pid: int) -> int:
    """
    Return the start time of a process in clock ticks since boot; 0 if it is gone or a zombie.

    With the pid it names a process without confusing it with a later one of the same number.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The command name stands in parentheses and may hold anything, spaces and ')' included.
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return 0
    return int(fields[STAT_START_TIME - 3])


def signal_name(number: int) -> str:
    """Return the name of a signal; ``SIG40`` for one between SIGRTMIN and SIGRTMAX (signal(7))."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
