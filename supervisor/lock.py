"""Lock: the file that says whose a directory is, and what its owner had made when it died.

The lock is flock(2) on it: the kernel drops it on any death. What stands in it is for the next
owner: that the directory was ours to create, which connections and which fork helpers there were.
"""

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from shm.directory import make_private, user_directory
from supervisor.errors import AlreadyRunning, RuntimeDirectoryRefused

LOCK = "feedwarden.lock"
LOCK_BYTES_MAX = 1 << 20


class Lock:
    """
    A held lock.

    Attributes:
        directory: What it locks.
        kept: Whether it is let go as by death: everything stays for the next owner.
        former: What an owner that did not end orderly had noted; empty after an orderly end.

    """

    def __init__(self, directory: Path, descriptor: int, former: dict[str, object]) -> None:
        self.directory, self.former = directory, former
        self._descriptor = descriptor
        self._said: dict[str, object] = {}
        self.kept = False

    def note(self, **facts: object) -> None:
        """
        Write facts for the next owner beside those noted before.

        Raises:
            OSError: If the file system is full.

        """
        self._said |= facts
        # Padded, not truncated first: a crash in between must not leave an empty record.
        data = json.dumps(self._said).encode()
        size = os.fstat(self._descriptor).st_size
        os.pwrite(self._descriptor, data.ljust(size), 0)

    def refresh(self) -> None:
        """Keep it young: what is old in /tmp is removed there (tmpfiles.d(5))."""
        os.utime(self._descriptor)

    def former_pairs(self, key: str) -> list[tuple[int, int]]:
        """Return the noted processes of a key, each pid and start ticks."""
        noted = self.former.get(key)
        pairs = noted if isinstance(noted, list) else []
        return [
            (pair[0], pair[1])
            for pair in pairs
            if isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair)
        ]

    def former_names(self) -> list[str]:
        """Return the connections of the former owner."""
        noted = self.former.get("names")
        return [n for n in noted if isinstance(n, str)] if isinstance(noted, list) else []


@contextlib.contextmanager
def locked(directory: Path, fleet: str) -> Iterator[Lock]:
    """
    Hold ``directory``, created 0700 if need be; afterwards remove it if it was created for a fleet.

    Raises:
        AlreadyRunning: If somebody else holds it.
        RuntimeDirectoryRefused: If the lock file is not a regular file of ours.
        DirectoryRefused: If the directory is not ours.

    """
    while True:
        created = not directory.exists()
        parent_created = created and not directory.parent.exists()
        make_private(directory)
        path = directory / LOCK
        descriptor = _open_lock(path)
        if descriptor is not None and _take(descriptor, path, fleet):
            break
    lock = Lock(directory, descriptor, _read_lock(descriptor))
    try:
        created = created or lock.former.get("created") is True
        parent_created = parent_created or lock.former.get("parent_created") is True
        lock.note(**lock.former)  # until we are through with it, for our own death
        lock.note(pid=os.getpid(), created=created, parent_created=parent_created)
        yield lock
    finally:
        if not lock.kept:
            path.unlink(missing_ok=True)
        if created and not lock.kept:
            _remove_empty(
                directory, parent_too=parent_created or directory.parent == user_directory()
            )
        os.close(descriptor)


def _open_lock(path: Path) -> int | None:
    wanted = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, wanted, 0o600)
    except FileNotFoundError:  # the last owner removed the directory this moment
        return None
    except OSError as error:
        raise RuntimeDirectoryRefused(
            path, f"the lock file cannot be opened ({error.strerror})", "move it away"
        ) from error
    status = os.fstat(descriptor)
    ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
    if not ours or (status.st_size and not _read_lock(descriptor)):
        os.close(descriptor)
        raise RuntimeDirectoryRefused(path, "it is not a lock file of ours", "move it away")
    return descriptor


def _take(descriptor: int, path: Path, fleet: str) -> bool:
    """Return whether the file that is now locked is still the one at the path."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _read_lock(descriptor).get("pid")
        os.close(descriptor)
        raise AlreadyRunning(fleet, path, pid if isinstance(pid, int) else 0) from None
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False)):
            return True
    os.close(descriptor)
    return False


def _read_lock(descriptor: int) -> dict[str, object]:
    """Return what the owner wrote; nothing if it died before it wrote, or the file is not ours."""
    try:
        content = json.loads(os.pread(descriptor, LOCK_BYTES_MAX, 0))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _remove_empty(directory: Path, *, parent_too: bool) -> None:
    """Remove a directory, and its parent if that was made for a fleet, each only if empty."""
    with contextlib.suppress(OSError):
        directory.rmdir()
        if parent_too:
            directory.parent.rmdir()
