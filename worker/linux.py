"""Linux calls that Python does not wrap: prctl(2); names of signals."""

import ctypes
import signal

PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def set_process_name(name: str) -> None:
    """Name the calling thread, and so the process in ``ps -o comm`` and ``top``: 15 bytes."""
    _libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def become_subreaper() -> None:
    """Become the new parent of descendants whose parent dies (PR_SET_CHILD_SUBREAPER)."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def signal_name(number: int) -> str:
    """Return the name of a signal; ``SIG40`` for one between SIGRTMIN and SIGRTMAX (signal(7))."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
