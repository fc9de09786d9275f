"""Segment locks: who owns a segment, found out without believing a file that is none of ours.

The owner holds flock(2) for life, so that any death of it lets go.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from pathlib import Path

from shm.errors import SegmentError, SegmentForeign, SegmentLocked, SegmentUnavailable
from shm.header import Header, unpacked
from shm.layout import HEADER, MAGIC
from shm.process import boot_id

LOCK_POLL_S = 0.02
PASSING = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOENT,
        errno.EAGAIN,
    }
)  # what the system refuses now and may grant later
TO_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not block us


def is_locked(path: Path, *, finished: bool = True) -> bool:
    """
    Return whether a segment's owner lives. A missing file has none.

    Args:
        path: The segment.
        finished: Whether it must be one already; its maker locks it before it is.

    Raises:
        SegmentForeign: If the file is not a segment.
        SegmentUnavailable: If nobody can tell for now.

    """
    try:
        descriptor = _open_ours(path, finished=finished)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Return whether a segment's owner lives; what is no segment, or cannot be read, has none."""
    try:
        return is_locked(path)
    except SegmentError:
        return False


def _open_ours(path: Path, *, finished: bool = True, access: int = os.O_RDONLY) -> int:
    """Open a regular file that carries our magic, or nothing at all: somebody may have cut it."""
    try:
        descriptor = os.open(path, access | TO_LOOK)
    except FileNotFoundError:
        raise
    except OSError as error:
        kind = SegmentUnavailable if error.errno in PASSING else SegmentForeign
        raise kind(path, f"cannot be opened: {error.strerror}") from error
    status = os.fstat(descriptor)
    regular = stat.S_ISREG(status.st_mode)
    magic = os.pread(descriptor, len(MAGIC), 0) if regular else b""
    empty = regular and status.st_size == 0 and status.st_uid == os.geteuid()
    if magic == MAGIC or empty or (regular and not finished):
        return descriptor
    os.close(descriptor)
    raise SegmentForeign(path, "is not a feedwarden segment; move it away")


def check_ours(path: Path) -> None:
    """
    Raise ``SegmentForeign`` if something that is no segment of ours stands at ``path``.

    A missing file is in nobody's way.
    """
    with contextlib.suppress(FileNotFoundError):
        os.close(_open_ours(path))


def holder(path: Path) -> Header | None:
    """Return who holds a segment of this boot, ``None`` if nobody does or its header is cut."""
    return _said(path, is_held=True)


def writer(path: Path) -> Header | None:
    """Return who wrote a segment of this boot, dead or alive; ``None`` if that cannot be read."""
    return _said(path, is_held=False)


def _said(path: Path, *, is_held: bool) -> Header | None:
    try:
        descriptor = _open_ours(path)
    except (FileNotFoundError, SegmentError):
        return None
    try:
        raw = os.pread(descriptor, HEADER.size, 0)
        if len(raw) < HEADER.size or (is_held and try_lock(descriptor)):
            return None
    finally:
        os.close(descriptor)
    header = unpacked(raw)
    return header if header.boot_id == boot_id() else None


def lock_predecessor(path: Path, timeout_ns: int, *, writable: bool = False) -> int | None:
    """
    Wait until nobody owns the segment at ``path``; return a descriptor that holds it, or ``None``.

    Whoever holds it may put a successor in its place; closing the descriptor lets go. The wait
    polls: a lock that is asked for and not obtained in time must not be obtained later.

    Raises:
        SegmentLocked: If its owner still lives after ``timeout_ns``.
        SegmentForeign: If the file is not a segment of ours.
        SegmentUnavailable: If it cannot be opened for now.

    """
    deadline_ns = time.monotonic_ns() + timeout_ns
    while True:
        try:
            descriptor = _open_ours(path, access=os.O_RDWR if writable else os.O_RDONLY)
        except FileNotFoundError:
            return None
        if try_lock(descriptor, fcntl.LOCK_EX):
            if leads_to(path, os.fstat(descriptor).st_ino):
                return descriptor
            os.close(descriptor)
            continue
        raw = os.pread(descriptor, HEADER.size, 0)
        os.close(descriptor)
        if time.monotonic_ns() >= deadline_ns:
            whole = len(raw) == HEADER.size
            raise SegmentLocked(path, unpacked(raw).pid if whole else 0)
        time.sleep(LOCK_POLL_S)


def try_lock(descriptor: int, how: int = fcntl.LOCK_SH) -> bool:
    """Lock without waiting; return whether nobody else has it."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def leads_to(path: Path, inode: int) -> bool:
    """Return whether a path is that of a file, as far as we may look."""
    try:
        return os.stat(path, follow_symlinks=False).st_ino == inode
    except OSError:
        return False
