"""Process name: what a process is called in ``ps -o comm`` and ``top``, a worker above all."""

import ctypes
from pathlib import Path

PR_SET_NAME = 15  # prctl(2)
NAME_BYTES_MAX = 15

_libc = ctypes.CDLL(None, use_errno=True)


def worker_name(connection: str) -> str:
    """Return the process name of a connection's worker."""
    return f"fw-{connection}"[:NAME_BYTES_MAX]


def process_name(pid: int) -> str:
    """Return the name of a process, "" if there is none."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return ""


def set_process_name(name: str) -> None:
    """Name the calling thread, and so the process: 15 bytes of it."""
    _libc.prctl(PR_SET_NAME, name.encode()[:NAME_BYTES_MAX], 0, 0, 0)
