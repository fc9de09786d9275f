"""Listening Unix sockets that are never stolen from and never steal.

libzmq's own ``ipc://`` bind unlinks whatever stands at the path, a foreign regular file included.
Here the socket is bound beside the path and renamed over it, and only over a socket.
"""

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from supervisor.errors import RuntimeDirectoryRefused

# Subscribers of a worker that is away wait in this queue (128 of them were seen to come back
# within 4 ms; with a queue of 4 it took 44 ms).
BACKLOG = 128
OF_THE_SYSTEM = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
PATH_BYTES_MAX = 107  # sun_path of unix(7), less the final NUL


def listen(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """
    Return a socket of ``kind`` bound at ``path``, mode 0600, listening unless it is a datagram one.

    A socket file of an earlier life is replaced, atomically: a connect never finds nothing. The
    caller holds the fleet's lock, so nobody else listens there.

    Raises:
        RuntimeDirectoryRefused: If something that is no socket stands at ``path``, or nobody could
            connect to it because it is too long.
        OSError: If the system has no socket or descriptor to give.

    """
    length = len(os.fsencode(path))
    if length > PATH_BYTES_MAX:
        raise RuntimeDirectoryRefused(
            path,
            f"it has {length} bytes, a socket's path at most {PATH_BYTES_MAX}",
            "choose a shorter fleet.runtime_dir",
        )
    check_replaceable(path)
    beside = path.with_name(f".{os.getpid()}")  # short: it must fit where the path fits
    try:
        beside.unlink(missing_ok=True)
        return _bind(path, beside, kind)
    except OSError as error:
        if error.errno in OF_THE_SYSTEM:
            raise
        mend = "mend that, or choose another fleet.runtime_dir"
        raise RuntimeDirectoryRefused(path, f"cannot bind: {error.strerror}", mend) from error


def _bind(path: Path, beside: Path, kind: int) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        bound.bind(str(beside))
        beside.chmod(0o600)
        if kind != socket.SOCK_DGRAM:
            bound.listen(BACKLOG)
        beside.rename(path)
    except OSError:
        bound.close()
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    return bound


def check_replaceable(path: Path) -> None:
    """Raise ``RuntimeDirectoryRefused`` if something that is no socket stands at ``path``."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise RuntimeDirectoryRefused(
            path, "it is not a socket, so it is not ours", "move it away or set fleet.runtime_dir"
        )
