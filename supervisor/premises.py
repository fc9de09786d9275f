"""Premises: the two directories of a running fleet, who may use them, and leaving them as found.

``shm_dir`` is named by the fleet alone and ``runtime_dir`` by the configuration, so both carry a
lock: one against a second ``run`` of the fleet, one against another fleet told to use the same
runtime directory. Everything below is ours only while both are held.
"""

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from shm.directory import fleet_directory, make_private
from shm.errors import DirectoryRefused, SegmentError
from shm.segment import is_locked
from shm.stats import SUFFIX as STATS_SUFFIX
from supervisor.errors import AlreadyRunning, RuntimeDirectoryRefused
from supervisor.fleetfile import Fleet
from supervisor.registry import FILE_NAME as REGISTRY_FILE

LOCK = "feedwarden.lock"
STACK_SUFFIX = ".stack"
LOCK_BYTES_MAX = 4096
DATA = "data"
SOCKETS = ("events.sock", "control.sock", "wake.sock", "zygote.sock")


class Premises:
    """
    The locked directories of a fleet; a context manager that cleans up when the fleet has ended.

    Args:
        fleet: Gives the name and the runtime directory.

    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet.name
        self.runtime_dir = fleet.runtime_dir
        self.shm_dir = fleet_directory(fleet.name)
        self._names = tuple(connection.name for connection in fleet.connections)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Premises":
        """
        Create the directories where missing, lock them, sweep what an earlier life left.

        Raises:
            AlreadyRunning: If another process holds a lock; the text names it.
            RuntimeDirectoryRefused: If a directory or lock file is not ours to use.

        """
        try:
            self._stack.enter_context(locked(self.shm_dir, self.fleet))
            self._stack.callback(self._clear_shm)
            self._stack.enter_context(locked(self.runtime_dir, self.fleet))
            self._stack.callback(self._clear_runtime)
            (self.runtime_dir / DATA).mkdir(mode=0o700, exist_ok=True)
            self._sweep()
        except DirectoryRefused as error:
            self._stack.close()
            raise RuntimeDirectoryRefused(
                error.path, error.why, "remove it, or choose another fleet.runtime_dir"
            ) from error
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    @property
    def events_socket(self) -> Path:
        """The fleet's event endpoint."""
        return self.runtime_dir / "events.sock"

    @property
    def control_socket(self) -> Path:
        """Where the command line sends its orders."""
        return self.runtime_dir / "control.sock"

    @property
    def wake_socket(self) -> Path:
        """Where workers say that they have written an event."""
        return self.runtime_dir / "wake.sock"

    @property
    def zygote_socket(self) -> Path:
        """Where the zygote is reached."""
        return self.runtime_dir / "zygote.sock"

    def data_socket(self, name: str) -> Path:
        """The data endpoint of a connection."""
        return self.runtime_dir / DATA / f"{name}.sock"

    def _sweep(self) -> None:
        """Remove segments of connections that are no longer configured, unless still in use."""
        for path in self.shm_dir.glob(f"*{STATS_SUFFIX}"):
            if path.name.removesuffix(STATS_SUFFIX) not in self._names:
                self._remove_segment(path)

    def _remove_segment(self, path: Path) -> None:
        with contextlib.suppress(SegmentError, FileNotFoundError):  # foreign: left alone
            if not is_locked(path):
                path.unlink()

    def _clear_shm(self) -> None:
        for path in self.shm_dir.glob(f"*{STATS_SUFFIX}"):
            self._remove_segment(path)
        (self.shm_dir / REGISTRY_FILE).unlink(missing_ok=True)

    def _clear_runtime(self) -> None:
        data = self.runtime_dir / DATA
        for path in [*(self.runtime_dir / name for name in SOCKETS), *data.glob("*.sock")]:
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(path.lstat().st_mode):
                    path.unlink()
        for name in self._names:
            (self.runtime_dir / f"{name}{STACK_SUFFIX}").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something of somebody else's is in it
            data.rmdir()


@contextlib.contextmanager
def locked(directory: Path, fleet: str) -> Iterator[None]:
    """
    Hold ``directory``, created 0700 if need be; afterwards remove it if it was created for a fleet.

    The lock is flock(2) on a file in it: the kernel drops it on any death. The file remembers that
    the directory was ours to create, so that the start after a crash still ends in removal.

    Raises:
        AlreadyRunning: If somebody else holds it.
        RuntimeDirectoryRefused: If the lock file is not a regular file of ours.
        DirectoryRefused: If the directory is not ours.

    """
    while True:
        created = not directory.exists()
        make_private(directory)
        path = directory / LOCK
        descriptor = _open_lock(path)
        if descriptor is not None and _take(descriptor, path, fleet):
            break
    content = _read_lock(descriptor)
    try:
        created = created or content.get("created") is True
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "created": created}).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        if created:
            _remove_empty(directory)
        os.close(descriptor)


def _open_lock(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
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
        pid = _holder(descriptor)
        os.close(descriptor)
        raise AlreadyRunning(fleet, path, pid) from None
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False)):
            return True
    os.close(descriptor)
    return False


def _holder(descriptor: int) -> int:
    pid = _read_lock(descriptor).get("pid")
    return pid if isinstance(pid, int) else 0


def _read_lock(descriptor: int) -> dict[str, object]:
    """Return what the owner wrote; nothing if it died before it wrote, or the file is not ours."""
    try:
        content = json.loads(os.pread(descriptor, LOCK_BYTES_MAX, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _remove_empty(directory: Path) -> None:
    """Remove a directory and its ``feedwarden*`` parent, each only if empty."""
    with contextlib.suppress(OSError):
        directory.rmdir()
        if directory.parent.name.startswith("feedwarden"):
            directory.parent.rmdir()
