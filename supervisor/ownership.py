"""Ownership: what at a path is ours, so that nothing else is ever replaced or removed.

A registry or segment shows its magic. A socket is ours to replace if it has the name of one of
ours and nobody answers there, or a process of this fleet's earlier life does. A stack file is what
faulthandler and ``supervisor/stacks.py`` wrote, or empty.
"""

import errno
import os
import socket
import stat
import struct
from collections.abc import Collection
from pathlib import Path

from supervisor import stacks
from supervisor.errors import RuntimeDirectoryRefused

MOVE = "move it away or set fleet.runtime_dir"
STACKS_BEGIN = (
    stacks.HEAD.encode(),
    b"Fatal Python error",
    b"Current thread",
    b"Thread 0x",
    b"Timeout (",
)
NOBODY = {errno.ECONNREFUSED, errno.ENOENT}
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED of unix(7)


def peer_pid(link: socket.socket) -> int:
    """Return the process at the other end of a Unix socket, 0 if that is not known."""
    return peer(link)[0]


def peer(link: socket.socket) -> tuple[int, int]:
    """Return process and user at the other end of a Unix socket, 0 and -1 if not known."""
    try:
        raw = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    except OSError:
        return 0, -1
    pid, uid, _gid = CREDENTIALS.unpack(raw)
    return pid, uid


def answering(path: Path, kind: int) -> int | None:
    """
    Return the process that serves a socket's path, 0 if it is not known which; ``None``: nobody.

    Raises:
        OSError: If that cannot be found out.

    """
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno in NOBODY:
                return None
            if error.errno in (errno.EAGAIN, errno.EPROTOTYPE):  # a full queue; another kind
                return 0
            raise
        return peer_pid(probe)


def check_socket(path: Path, kind: int, ours: Collection[int] = ()) -> None:
    """
    Raise ``RuntimeDirectoryRefused`` unless a socket of ours may be put at ``path``.

    Args:
        path: Where.
        kind: ``socket.SOCK_STREAM`` and so on.
        ours: Processes of this fleet's earlier life.

    """
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISSOCK(mode):
            raise RuntimeDirectoryRefused(path, "it is not a socket, so it is not ours", MOVE)
        pid = answering(path, kind)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RuntimeDirectoryRefused(
            path, f"cannot be looked at: {error.strerror}", MOVE
        ) from None
    if pid is not None and pid not in ours:
        who = f"process {pid}" if pid else "another process"
        raise RuntimeDirectoryRefused(path, f"{who} listens there", MOVE)


def remove_socket(path: Path, kind: int, ours: Collection[int] = ()) -> None:
    """Remove a socket on which nobody listens, or only these processes; leave anything else."""
    try:
        check_socket(path, kind, ours)
        path.unlink(missing_ok=True)
    except (RuntimeDirectoryRefused, OSError):
        return


def is_stack(path: Path) -> bool:
    """
    Return whether a stack file of ours is at ``path``.

    Raises:
        OSError: If there is nothing, or it cannot be looked at.

    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        return False
    if not status.st_size:
        return True
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, 64, 0).lstrip(b"\n").startswith(STACKS_BEGIN)
    finally:
        os.close(descriptor)


def check_stack(path: Path) -> None:
    """Raise ``RuntimeDirectoryRefused`` if something is at ``path`` that no worker wrote."""
    try:
        if is_stack(path):
            return
    except FileNotFoundError:
        return
    except OSError as error:
        raise RuntimeDirectoryRefused(
            path, f"cannot be looked at: {error.strerror}", MOVE
        ) from None
    raise RuntimeDirectoryRefused(path, "it is not a stack file of ours", MOVE)


def remove_stack(path: Path) -> None:
    """Remove a stack file of ours; leave anything else."""
    try:
        if is_stack(path):
            path.unlink(missing_ok=True)
    except OSError:
        return


def check_private_directory(path: Path) -> None:
    """Raise ``RuntimeDirectoryRefused`` unless ``path`` is free or a directory of ours, 0700."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode):
        raise RuntimeDirectoryRefused(path, "it is no directory", MOVE)
    if status.st_uid != os.geteuid() or mode & 0o077:
        why = f"it is not private to us (uid {status.st_uid}, mode {mode:04o})"
        raise RuntimeDirectoryRefused(path, why, f"chmod 0700 it, or {MOVE}")
