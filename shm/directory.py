"""Where segments live, and who may put them there.

``/dev/shm/feedwarden-<uid>/<fleet>/``, both 0700. The environment variable FEEDWARDEN_SHM names
another base than ``/dev/shm``, for hosts where that is too small.
"""

import os
import stat
from pathlib import Path

from shm.errors import DirectoryRefused

BASE_VARIABLE = "FEEDWARDEN_SHM"
PREFIX = "feedwarden-"
BUDGET_DIRECTORY = "budget"  # beside the fleets: connects to exchanges, counted for all of them


def base_directory() -> Path:
    """
    Return the directory that holds every user's.

    Raises:
        DirectoryRefused: If FEEDWARDEN_SHM names none.

    """
    base = Path(os.environ.get(BASE_VARIABLE) or "/dev/shm")
    if not base.is_dir():
        raise DirectoryRefused(base, f"it is no directory; {BASE_VARIABLE} must name one")
    return base


def user_directory() -> Path:
    """Return our own user's directory."""
    return base_directory() / f"{PREFIX}{os.geteuid()}"


def fleet_directory(fleet: str) -> Path:
    """Return our own directory of a fleet."""
    return user_directory() / fleet


def fleet_directories() -> list[Path]:
    """Return the fleet directories of every user that can be read, our own first."""
    mine = user_directory()
    users = sorted(base_directory().glob(f"{PREFIX}*"), key=lambda path: (path != mine, path))
    found: list[Path] = []
    for user in users:
        try:
            found += sorted(path for path in user.iterdir() if path.is_dir())
        except (PermissionError, FileNotFoundError, NotADirectoryError):
            continue
    return found


def find_fleet(fleet: str) -> Path:
    """
    Return the directory of a fleet, our own user's before another's.

    Raises:
        FileNotFoundError: If nobody's readable directory has it.

    """
    found = fleet_directories()
    for directory in found:
        if directory.name == fleet:
            return directory
    names = ", ".join(sorted({path.name for path in found} - {BUDGET_DIRECTORY})) or "none"
    where = f"{base_directory()}/{PREFIX}*"
    raise FileNotFoundError(f"no fleet {fleet!r} below {where}; there are: {names}")


def make_private(path: Path) -> None:
    """
    Create a directory 0700, and a missing parent likewise, or accept one that is private and ours.

    Raises:
        DirectoryRefused: If it is a symbolic link, no directory, somebody else's, or writable by
            others: whoever can write there can put a segment or socket of theirs under our name.

    """
    for directory in (path.parent, path):
        if directory == path or not directory.exists():
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            except FileExistsError:
                raise DirectoryRefused(directory, "is in the way and no directory") from None
            except OSError as error:
                raise DirectoryRefused(directory, f"cannot be created: {error.strerror}") from error
    for directory in (path, *(p for p in path.parents if p.name.startswith(PREFIX))):
        _require_private(directory)


def _require_private(directory: Path) -> None:
    status = directory.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise DirectoryRefused(directory, "is a symbolic link")
    if status.st_uid != os.geteuid():
        raise DirectoryRefused(directory, f"belongs to uid {status.st_uid}, not to us")
    if status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        raise DirectoryRefused(directory, f"is writable by others (mode {mode:04o}); chmod 0700 it")
