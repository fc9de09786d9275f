"""Budget: how often, and how many at once, all processes of a user dial one exchange host.

Exchanges count connection attempts by address, not by process, and answer too many with a ban. So
the count is kept where all processes see it: one small file for a host, guarded by flock(2). No
daemon, hence none that can die. The bucket is a GCRA, whose whole state is one number: the
theoretical arrival time (TAT), when the bucket would be full again, in ns of CLOCK_MONOTONIC.
That clock starts anew with each boot, so the file names the boot that wrote it.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from shm.directory import make_private
from shm.errors import DirectoryRefused
from shm.process import boot_id

STATE = struct.Struct("<8s16sqI28x")  # magic, boot id, TAT in ns, CRC-32 of all before it
MAGIC = b"FWBUDGT1"
CRC_OFFSET = 32
STUCK_PERIODS = 60  # a TAT further ahead than this was not written by us
RESERVABLE_PERIODS = STUCK_PERIODS - 1  # one less, for ``now_ns`` of two processes may be swapped
LOCK_POLL_S = 0.001
LOCK_PATIENCE_S = 0.5  # a holder needs microseconds; one that is stopped must not stop our loop


class BudgetUnusable(OSError):
    """A budget that cannot be kept. ``path`` names the file or directory, ``mend`` the remedy."""

    def __init__(self, path: Path, why: str, mend: str) -> None:
        super().__init__(f"{path}: {why}; {mend}")
        self.path, self.why, self.mend = path, why, mend


class ConnectBudget:
    """
    The budget of one exchange host.

    Make it in the process that uses it: a child forked while a lease is held would hold it too.

    Args:
        directory: Where the files are; made 0700 if missing.
        host: The exchange host. Case and a trailing dot do not matter.
        connects: How many dials at once, and per ``per_ns``. All users of a host should agree.
        per_ns: The period in nanoseconds.
        concurrent: How many leases may be held at once; 0 is no limit.

    Attributes:
        reserved: Whether the last ``take`` reserved a token.

    Raises:
        ValueError: If a number is out of range.
        BudgetUnusable: If the directory cannot be made, or is not safely ours.

    """

    def __init__(
        self, directory: Path, host: str, *, connects: int, per_ns: int, concurrent: int = 0
    ) -> None:
        if connects < 1 or per_ns < 1 or concurrent < 0:
            raise ValueError("connects and per_ns must be at least 1, concurrent at least 0")
        try:
            make_private(directory)
        except DirectoryRefused as error:
            raise BudgetUnusable(error.path, error.why, "name another directory") from error
        except OSError as error:  # a parent that cannot be searched
            raise BudgetUnusable(directory, str(error), "name another directory") from error
        self._path = directory / file_name(host)
        # Rounded up: the exchange's limit is not to be exceeded by a fraction of a nanosecond.
        self._interval_ns = -(-per_ns // connects)
        self._tolerance_ns = (connects - 1) * self._interval_ns
        self._per_ns, self._concurrent = per_ns, concurrent
        self._slot = -1
        self.reserved = False

    def take(self, now_ns: int) -> int:
        """
        Reserve the next token; return how many ns to wait before dialling, 0 for now.

        The reservation is kept whether it is used or not. When 59 periods are reserved ahead, no
        more are, and ``reserved`` is false: whoever is told to wait that long must ask again.

        Args:
            now_ns: CLOCK_MONOTONIC in ns.

        Raises:
            BudgetUnusable: If the file cannot be opened, locked or written.

        """
        with self._locked_state() as descriptor:
            stored_ns = _read(descriptor)
            if stored_ns > now_ns + STUCK_PERIODS * self._per_ns:
                stored_ns = 0
            tat_ns = max(stored_ns, now_ns)
            next_ns = tat_ns + self._interval_ns
            self.reserved = next_ns <= now_ns + RESERVABLE_PERIODS * self._per_ns
            if self.reserved:
                self._write(descriptor, next_ns)
        return max(0, tat_ns - self._tolerance_ns - now_ns)

    def lease(self) -> bool:
        """
        Return whether one of the ``concurrent`` slots is ours; take one if none is yet.

        The kernel frees it when this process dies, however it dies.

        Raises:
            BudgetUnusable: If a slot file cannot be opened or locked.

        """
        if self._concurrent == 0 or self._slot != -1:
            return True
        for number in range(self._concurrent):
            path = self._path.with_name(f"{self._path.name}.slot{number}")
            descriptor = _open(path)
            try:
                locked = _try_lock(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            if locked:
                self._slot = descriptor
                return True
            os.close(descriptor)
        return False

    def release(self) -> None:
        """Give the slot back, if one is held."""
        if self._slot != -1:
            os.close(self._slot)
            self._slot = -1

    @contextlib.contextmanager
    def _locked_state(self) -> Iterator[int]:
        descriptor = _open(self._path)
        try:
            deadline_s = time.monotonic() + LOCK_PATIENCE_S
            while not _try_lock(self._path, descriptor):
                if time.monotonic() > deadline_s:
                    why = f"locked by another process for {LOCK_PATIENCE_S:g} s"
                    raise BudgetUnusable(self._path, why, "find and end it with lslocks(8)")
                time.sleep(LOCK_POLL_S)
            yield descriptor
        finally:
            os.close(descriptor)  # and with it the lock

    def _write(self, descriptor: int, tat_ns: int) -> None:
        head = STATE.pack(MAGIC, boot_id(), tat_ns, 0)[:CRC_OFFSET]
        raw = (head + struct.pack("<I", zlib.crc32(head))).ljust(STATE.size, b"\0")
        try:
            os.pwrite(descriptor, raw, 0)
            if os.fstat(descriptor).st_size != STATE.size:
                os.ftruncate(descriptor, STATE.size)
        except OSError as error:
            mend = "free space there" if error.errno == errno.ENOSPC else "name another directory"
            why = f"cannot be written: {error.strerror}"
            raise BudgetUnusable(self._path, why, mend) from error


def file_name(host: str) -> str:
    """Return the name of a host's file: readable, and of two hosts never the same, nor a path."""
    canonical = host.lower().rstrip(".")
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"budget-{re.sub('[^a-z0-9.-]', '_', canonical)[:64]}-{digest}"


def _read(descriptor: int) -> int:
    """Return the TAT in ns; 0, a full bucket, if the file holds none of this boot."""
    raw = os.pread(descriptor, STATE.size + 1, 0)
    if len(raw) != STATE.size:
        return 0
    magic, boot, tat_ns, crc = STATE.unpack(raw)
    if magic != MAGIC or boot != boot_id() or crc != zlib.crc32(raw[:CRC_OFFSET]):
        return 0
    return int(tat_ns)


def _open(path: Path) -> int:
    # O_NONBLOCK: a FIFO put in its place must not stop us.
    wanted = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, wanted, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BudgetUnusable(path, "is a symbolic link", "remove it") from error
        why = f"cannot be opened: {error.strerror}"
        raise BudgetUnusable(path, why, "remove it, or make it writable to us") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        os.close(descriptor)
        raise BudgetUnusable(path, "is no regular file of ours", "remove it")
    return descriptor


def _try_lock(path: Path, descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # ENOLCK, or a file system without locks
        why = f"cannot be locked: {error.strerror}"
        raise BudgetUnusable(path, why, "name a directory on a local file system") from error
    return True
