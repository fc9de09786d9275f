"""Segments: files in shared memory with a header that says what they are and who writes them.

Knows nothing of what a segment holds. A segment appears complete or not at all: it is written
under a temporary name and renamed, the magic last. Space is reserved with posix_fallocate(3), for
a sparse file on a full tmpfs is a SIGBUS on first touch. ``multiprocessing.shared_memory`` is not
used: before Python 3.13 it deletes segments that others still use.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import time
from dataclasses import replace
from pathlib import Path

from shm.errors import SegmentError, SegmentSpace, SegmentTruncated, SegmentUnavailable
from shm.header import Header, checked, packed
from shm.layout import HEADER, HEADER_BYTES, MAGIC, PAGE, SegmentKind
from shm.process import boot_id, start_ticks
from shm.segment_lock import PASSING, TO_LOOK, leads_to, try_lock

MADV_POPULATE_WRITE = 23  # Linux 5.14; where it is missing every page is touched instead


class Segment:
    """
    A mapped segment. ``memory`` is the whole file, header included.

    Close every memoryview made of ``memory`` before ``close``.
    """

    def __init__(self, path: Path, descriptor: int, memory: mmap.mmap, header: Header) -> None:
        self.path, self.memory, self.header = path, memory, header
        self._descriptor = descriptor
        self.inode = os.fstat(descriptor).st_ino

    def replaced(self) -> bool:
        """Return whether the path now leads to another file, or to none."""
        return not leads_to(self.path, self.inode)

    def truncated(self) -> bool:
        """Return whether somebody cut the file: touching the memory beyond its end is SIGBUS."""
        return os.fstat(self._descriptor).st_size < self.header.total_bytes

    def mend(self) -> None:
        """
        Give a segment of ours that was cut its size and header back; the rest of it is zeros.

        Raises:
            OSError: If there is no room for it.

        """
        os.posix_fallocate(self._descriptor, 0, self.header.total_bytes)
        _write_header(self)

    def set_flags(self, flags: int) -> None:
        """Change the flags of a segment of ours."""
        self.header = replace(self.header, flags=flags)
        _write_header(self)

    def locked(self) -> bool:
        """
        Return whether the owner holds it: false as soon as it has died, however it died.

        Nobody is taken for dead while the system refuses to tell.
        """
        # A second open file description of the same inode: ours would not conflict with itself.
        try:
            descriptor = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return True
        try:
            return not try_lock(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Unmap and let go of the lock, if it is ours; a second call does nothing."""
        if self._descriptor == -1:
            return
        with contextlib.suppress(BufferError):  # an array of a reader still looks at it
            self.memory.close()
        os.close(self._descriptor)
        self._descriptor = -1


def create(
    path: Path,
    kind: SegmentKind,
    total_bytes: int,
    layout_hash: int,
    *,
    name: str,
    incarnation: int,
    flags: int = 0,
    touched: int | None = None,
) -> tuple[Segment, Path]:
    """
    Return a locked, writable segment, and the temporary path that it still has.

    Its pages exist, and the first ``touched`` bytes (default: all) are mapped already. Fill it,
    then ``publish`` it.

    Raises:
        SegmentSpace: If the file system is too full.
        SegmentUnavailable: If the system refuses it for now.
        SegmentError: If the file cannot be created.

    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        descriptor, memory = _make(temporary, total_bytes, touched)
    except OSError as error:
        raise _creation_error(path, total_bytes, error) from error
    header = Header(
        kind=int(kind),
        flags=flags,
        layout_hash=layout_hash,
        total_bytes=total_bytes,
        boot_id=boot_id(),
        pid=os.getpid(),
        start_ticks=start_ticks(os.getpid()),
        incarnation=incarnation,
        created_wall_ns=time.time_ns(),
        created_monotonic_ns=time.monotonic_ns(),
        name=name,
    )
    return Segment(path, descriptor, memory, header), temporary


def _make(temporary: Path, total_bytes: int, touched: int | None) -> tuple[int, mmap.mmap]:
    wanted = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, wanted, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.posix_fallocate(descriptor, 0, total_bytes)
        memory = mmap.mmap(descriptor, total_bytes)
        touch(memory, 0, total_bytes if touched is None else touched)
    except BaseException:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)
        raise
    return descriptor, memory


def _creation_error(path: Path, total_bytes: int, error: OSError) -> SegmentError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        with contextlib.suppress(OSError):
            space = os.statvfs(path.parent)
            return SegmentSpace(path, total_bytes, space.f_bavail * space.f_frsize)
    kind = SegmentUnavailable if error.errno in PASSING else SegmentError
    return kind(path, f"cannot be created: {error.strerror}")


def publish(segment: Segment, temporary: Path) -> None:
    """
    Write the header, its magic last, and move the segment to its path, over any predecessor.

    Raises:
        SegmentUnavailable: If the directory has gone.

    """
    _write_header(segment)
    try:
        temporary.rename(segment.path)
    except OSError as error:
        raise _creation_error(segment.path, segment.header.total_bytes, error) from error


def _write_header(segment: Segment) -> None:
    raw = packed(segment.header)
    segment.memory[len(MAGIC) : HEADER.size] = raw[len(MAGIC) :]
    segment.memory[: len(MAGIC)] = raw[: len(MAGIC)]


def open_readonly(
    path: Path, kind: SegmentKind, layout_hash: int, smallest: int = HEADER_BYTES
) -> Segment:
    """
    Return a segment mapped for reading, every claim of its header checked first.

    Args:
        path: Where it is.
        kind: What it must hold.
        layout_hash: Of the layout that it must have.
        smallest: Bytes without which its layout cannot be read.

    Raises:
        FileNotFoundError: If there is none.
        SegmentForeign: If it is not a segment of ours, or of another kind.
        SegmentVersion: If its layout or incarnation is not this program's.
        SegmentTruncated: If the file is shorter than it says, or than its layout is.
        SegmentUnavailable: If the system refuses it for now.
        SegmentError: If it cannot be opened.

    """
    try:
        descriptor = os.open(path, TO_LOOK)
    except FileNotFoundError:
        raise
    except OSError as error:
        kind_of_error = SegmentUnavailable if error.errno in PASSING else SegmentError
        raise kind_of_error(path, f"cannot be opened: {error.strerror}") from error
    try:
        header = _checked_header(path, descriptor, kind, layout_hash)
        if header.total_bytes < smallest:
            raise SegmentTruncated(path, f"has {header.total_bytes} of at least {smallest} bytes")
        memory = _mapped(path, descriptor, header.total_bytes, mmap.PROT_READ)
        return Segment(path, descriptor, memory, header)
    except BaseException:
        os.close(descriptor)
        raise


def map_writable(
    path: Path, held: int, kind: SegmentKind, layout_hash: int, touched: int
) -> Segment:
    """
    Return a segment mapped for writing, to go on in where its last owner stopped.

    Args:
        path: Where it is.
        held: A descriptor of ``lock_predecessor``; the lock goes over to the segment and lasts as
            long as either.
        kind: What it must hold.
        layout_hash: Of the layout that it must have.
        touched: How many of its first bytes shall be mapped at once.

    Raises:
        SegmentForeign: If it is not a segment of ours, or of another kind.
        SegmentVersion: If its layout or incarnation is not this program's.
        SegmentTruncated: If the file is shorter than it says.
        SegmentUnavailable: If the system refuses it for now.

    """
    descriptor = os.dup(held)
    try:
        header = _checked_header(path, descriptor, kind, layout_hash)
        memory = _mapped(path, descriptor, header.total_bytes, mmap.PROT_READ | mmap.PROT_WRITE)
        touch(memory, 0, min(touched, header.total_bytes))
        return Segment(path, descriptor, memory, header)
    except BaseException:
        os.close(descriptor)
        raise


def _mapped(path: Path, descriptor: int, total_bytes: int, protection: int) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, total_bytes, prot=protection)
    except ValueError as error:  # somebody cut it since we looked
        raise SegmentTruncated(path, f"has not {total_bytes} bytes any more") from error
    except OSError as error:  # no memory, or no descriptor: a mapping has one of its own
        raise SegmentUnavailable(path, f"cannot be mapped: {error.strerror}") from error


def _checked_header(path: Path, descriptor: int, kind: SegmentKind, layout_hash: int) -> Header:
    status = os.fstat(descriptor)
    raw = os.pread(descriptor, HEADER.size, 0) if stat.S_ISREG(status.st_mode) else b""
    return checked(path, raw, status.st_size, kind, layout_hash)


def touch(memory: mmap.mmap, start: int, length: int) -> None:
    """
    Have the pages of a part mapped before they are written to one by one.

    A first write costs a microsecond a page, at worst a millisecond; in one go it costs half.
    """
    begin, end = start // PAGE * PAGE, min(start + length, len(memory))
    if begin >= end:
        return
    try:
        memory.madvise(MADV_POPULATE_WRITE, begin, end - begin)
    except OSError:
        for offset in range(begin, end, PAGE):
            memory[offset] = memory[offset]  # what is there stays
