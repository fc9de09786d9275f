"""Program: which build of feedwarden this is, to tell a fork helper or a file of another one.

A fork shares what its helper imported, so a helper of another build must not be used for new
workers. Sources are told apart by name, size and time of change: reading them would cost more than
what is saved.
"""

import hashlib
import os
import sys
from functools import cache
from pathlib import Path

PACKAGES = ("shm", "worker", "supervisor")


@cache
def program() -> str:
    """Return a digest of the sources as first seen on disk, and of the interpreter; hexadecimal."""
    return _digest()


def is_on_disk() -> bool:
    """Return whether the sources are still those of ``program``: whether more may be imported."""
    try:
        return _digest() == program()
    except OSError:
        return False


def _digest() -> str:
    digest = hashlib.sha256(sys.version.encode())
    home = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
        with os.scandir(home / package) as entries:
            sources = sorted(
                (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
                for entry in entries
                if entry.name.endswith(".py")
            )
        digest.update(repr((package, sources)).encode())
    return digest.hexdigest()[:32]
