"""Linux calls that Python does not wrap: prctl(2), adjtimex(2); signals and groups of processes."""

import contextlib
import ctypes
import os
import signal
import struct
from pathlib import Path

PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
CLOCK_UNSYNCHRONISED = 0x40  # STA_UNSYNC
# struct timex up to its status on 64-bit machines: modes, offset, freq, maxerror, esterror, status.
TIMEX, TIMEX_BYTES = struct.Struct("Ixxxxqqqqi"), 256

_libc = ctypes.CDLL(None, use_errno=True)


NAME_BYTES_MAX = 15


def worker_name(connection: str) -> str:
    """Return the process name of a connection's worker."""
    return f"fw-{connection}"[:NAME_BYTES_MAX]


def process_name(pid: int) -> str:
    """Return the name of a process as ``ps -o comm`` shows it, "" if there is none."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return ""


def set_process_name(name: str) -> None:
    """Name the calling thread, and so the process in ``ps -o comm`` and ``top``: 15 bytes."""
    _libc.prctl(PR_SET_NAME, name.encode()[:NAME_BYTES_MAX], 0, 0, 0)


def become_subreaper() -> None:
    """Become the new parent of descendants whose parent dies (PR_SET_CHILD_SUBREAPER)."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def clock_state() -> tuple[int, int]:
    """
    Return the status bits of the wall clock and its largest error in microseconds (adjtimex(2)).

    Raises:
        OSError: If the system does not tell.

    """
    buffer = ctypes.create_string_buffer(TIMEX_BYTES)
    if _libc.adjtimex(buffer) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    _modes, _offset, _frequency, error_us, _estimate, status = TIMEX.unpack_from(buffer.raw)
    return status, error_us


def kill_group(pid: int) -> None:
    """
    SIGKILL what a dead process has left of its group: what it had started and did not wait for.

    Call it before the process is reaped: until then nobody else can have its number.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def signal_name(number: int) -> str:
    """Return the name of a signal; ``SIG40`` for one between SIGRTMIN and SIGRTMAX (signal(7))."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
