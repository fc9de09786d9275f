"""Checked: the fleet of a file that was found good, kept so that a ``run`` can do without a check.

Checking takes a third of a second, nearly all of it for importing what checks, and a supervisor
that is started again after its death shall be back before anybody misses it. What is kept is keyed
by everything that the check looks at; it is believed whole or not at all.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from shm.directory import user_directory
from shm.errors import DirectoryRefused
from supervisor.exchange_spec import SimulatorSpec
from supervisor.fleet import Fleet, Orphans
from supervisor.program import program
from worker.spec import ConnectionSpec

FILE_NAME = "checked"
MAGIC = b"feedwarden checked fleet\n"
DIGEST_BYTES = 32
BYTES_MAX = 64 * 1024 * 1024
FILE_BYTES_MAX = 16 * 1024 * 1024
# What a fleet's directories and paths with ~ come from.
VARIABLES = ("FEEDWARDEN_SHM", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "HOME")


class _Kept(msgspec.Struct):
    name: str
    runtime_dir: str
    connections: tuple[ConnectionSpec, ...]
    simulator: SimulatorSpec | None
    orphans: Orphans


_decoder = msgspec.msgpack.Decoder(_Kept)


def key_of(path: Path) -> bytes | None:
    """
    Return what tells a file and who checks it from all others; ``None`` if it is not read.

    Only what can be read twice is: not a pipe, such as a shell's ``<(...)``.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > FILE_BYTES_MAX:
            return None
        text = path.read_bytes()
        about = [program(), str(path.absolute()), os.getcwd(), str(os.geteuid())]
    except (OSError, ValueError):
        return None
    about += [os.environ.get(name, "\0") for name in VARIABLES]
    return hashlib.sha256(repr(about).encode() + hashlib.sha256(text).digest()).digest()


def checking(path: Path, load: Callable[[Path], Fleet]) -> tuple[Fleet, bytes | None]:
    """
    Return the fleet of a file, and its key; ``None`` if the file was written to meanwhile.

    Raises:
        FleetError: As ``load`` does, which checks the file.

    """
    key = key_of(path)
    fleet = load(path)
    return fleet, key if key == key_of(path) else None


def recall(path: Path, key: bytes | None) -> Fleet | None:
    """Return the fleet that was kept under a key, if one was and it still is what was written."""
    if key is None:
        return None
    with contextlib.suppress(OSError, DirectoryRefused):
        for directory in user_directory().iterdir():
            body = _body(directory / FILE_NAME, key)
            if body is not None:
                return _fleet(path, body)
    return None


def _body(kept: Path, key: bytes) -> bytes | None:
    try:
        wanted = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(kept, wanted)
    except OSError:  # most directories have none
        return None
    try:
        status = os.fstat(descriptor)
        private = stat.S_ISREG(status.st_mode) and not stat.S_IMODE(status.st_mode) & 0o077
        if not private or status.st_uid != os.geteuid() or status.st_size > BYTES_MAX:
            return None
        content = os.pread(descriptor, status.st_size, 0)
    finally:
        os.close(descriptor)
    head = len(MAGIC) + len(key)
    body = content[head + DIGEST_BYTES :]
    whole = content[: head + DIGEST_BYTES] == MAGIC + key + hashlib.sha256(body).digest()
    return body if whole else None


def _fleet(path: Path, body: bytes) -> Fleet | None:
    try:
        kept = _decoder.decode(body)
    except msgspec.MsgspecError:
        return None
    cpus = {cpu for c in kept.connections for cpu in (*c.process.cpu, *c.process.zmq_cpu)}
    if cpus:  # a cpuset may have become another
        from worker.placement import is_usable

        if not all(is_usable(cpu) for cpu in cpus):
            return None
    return Fleet(
        name=kept.name,
        file=path,
        runtime_dir=Path(kept.runtime_dir),
        connections=kept.connections,
        simulator=kept.simulator,
        orphans=kept.orphans,
    )


def keep(fleet: Fleet, key: bytes | None, shm_dir: Path) -> None:
    """Write a checked fleet down. That there is no room for it is no error."""
    if key is None:
        return
    kept = _Kept(
        fleet.name, str(fleet.runtime_dir), fleet.connections, fleet.simulator, fleet.orphans
    )
    body = msgspec.msgpack.encode(kept)
    fresh = shm_dir / f".{FILE_NAME}.{os.getpid()}.tmp"
    try:
        wanted = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(fresh, wanted, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(MAGIC + key + hashlib.sha256(body).digest() + body)
            fresh.rename(shm_dir / FILE_NAME)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
    except OSError:
        return


def remove(shm_dir: Path) -> None:
    """Remove what was kept; leave anything else of that name."""
    path = shm_dir / FILE_NAME
    with contextlib.suppress(OSError):
        if stat.S_ISREG(path.lstat().st_mode) and path.read_bytes()[: len(MAGIC)] == MAGIC:
            path.unlink()
