"""Linux calls that Python does not wrap: prctl(2), adjtimex(2); signals and groups of processes."""

import contextlib
import ctypes
import fcntl
import os
import signal
import struct

PR_SET_CHILD_SUBREAPER = 36
CLOCK_UNSYNCHRONISED = 0x40  # STA_UNSYNC
# struct timex up to its status on 64-bit machines: modes, offset, freq, maxerror, esterror, status.
TIMEX, TIMEX_BYTES = struct.Struct("Ixxxxqqqqi"), 256

# struct pidfd_info as of its first version: mask, cgroup, eleven ids, exit code.
PIDFD_INFO, PIDFD_INFO_EXIT = struct.Struct("QQ11Ii"), 1 << 3
PIDFD_GET_INFO = 3 << 30 | PIDFD_INFO.size << 16 | 0xFF << 8 | 11  # _IOWR

_libc = ctypes.CDLL(None, use_errno=True)


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


def ended_how(pidfd: int) -> tuple[int | None, str | None]:
    """
    Return exit code or name of signal of a dead process that is nobody's child of ours.

    Both are ``None`` before Linux 6.15 and as long as its parent has not reaped it
    (PIDFD_GET_INFO of pidfd_open(2)).
    """
    buffer = bytearray(PIDFD_INFO.size)
    PIDFD_INFO.pack_into(buffer, 0, PIDFD_INFO_EXIT, *[0] * 13)
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, buffer)
    except OSError:
        return None, None
    found = PIDFD_INFO.unpack(buffer)
    if not found[0] & PIDFD_INFO_EXIT:
        return None, None
    code = os.waitstatus_to_exitcode(found[-1] & 0xFFFF)
    return (code, None) if code >= 0 else (None, signal_name(-code))


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
