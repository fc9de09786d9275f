"""Stacks: what a worker that had to be aborted was doing, kept in a bounded file of its own.

A worker opens the file when it starts and has ``faulthandler`` write into it on SIGABRT; before
that signal the supervisor writes a line there that says whose stacks follow.
"""

import contextlib
import logging
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

log = logging.getLogger("supervisor.stacks")

HEAD = "=== "
KEPT_BYTES = 32 * 1024
BOUND_BYTES = 64 * 1024  # beyond it, all but the last KEPT_BYTES are dropped
NO_FOLLOW = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Stacks:
    """The last dump: ``head`` says when, of which process and why; ``text`` is faulthandler's."""

    head: str
    text: str


def announce(path: Path, *, incarnation: int, pid: int) -> None:
    """Write whose stacks follow, and drop what is too old; a file that cannot be had is logged."""
    try:
        _announce(path, f"incarnation {incarnation} pid {pid}")
    except OSError as error:
        log.warning("no line before the stacks: %s", error)


def _announce(path: Path, whose: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | NO_FOLLOW, 0o600)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is no regular file")
        size = status.st_size
        if size > BOUND_BYTES:
            kept = os.pread(descriptor, KEPT_BYTES, size - KEPT_BYTES)
            os.ftruncate(descriptor, 0)  # the worker appends, so it goes on behind what is kept
            os.write(descriptor, f"{HEAD}what was before is dropped\n".encode() + kept)
        os.write(descriptor, f"\n{HEAD}{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {whose}\n".encode())
    finally:
        os.close(descriptor)


def last(path: Path) -> Stacks | None:
    """Return the last dump of a file, ``None`` if there is none that can be read."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | NO_FOLLOW)
        try:
            size = os.fstat(descriptor).st_size
            raw = os.pread(descriptor, BOUND_BYTES, max(0, size - BOUND_BYTES))
        finally:
            os.close(descriptor)
        _before, found, rest = raw.decode("utf-8", "replace").rpartition(f"\n{HEAD}")
        if not found:
            return Stacks("", rest.strip("\n")) if raw.strip() else None
        head, _newline, text = rest.partition("\n")
        return Stacks(head, text.strip("\n"))
    return None
