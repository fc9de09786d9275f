"""Tuning: what was asked of the system for a worker, and what came of it, for ``status`` to show.

A JSON file beside the segment carries it, so that it is read without the worker or the supervisor.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

log = logging.getLogger("worker")

FILE_BYTES_MAX = 64 * 1024


class Outcome(StrEnum):
    """What the system made of an option."""

    APPLIED = "applied"
    CAPPED = "capped"  # in force in part
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """
    One option of fleet.toml and what is in force, read back from the kernel.

    ``option`` is its path in the connection's table; ``wanted`` and ``got`` are in its units.
    ``error`` says why it is not fully applied.
    """

    option: str
    wanted: Any
    got: Any
    state: Outcome
    error: str = ""


def tried(call: Callable[..., object], *arguments: object) -> OSError | None:
    """Make a system call; return what the system had against it."""
    try:
        call(*arguments)
    except OSError as error:
        return error
    return None


def judged(option: str, wanted: Any, got: Any, error: OSError | None, short: str = "") -> Fact:
    """
    Return the fact of an option that the system was asked for.

    Args:
        option: Its path.
        wanted: As configured.
        got: As read back.
        error: What the system said, if it refused.
        short: Why it is in force in part, "" if it is not.

    """
    if error is not None:
        why = error.strerror or str(error)
        return Fact(option=option, wanted=wanted, got=got, state=Outcome.REFUSED, error=why)
    state = Outcome.CAPPED if short else Outcome.APPLIED
    return Fact(option=option, wanted=wanted, got=got, state=state, error=short)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """The file: whose facts, and the facts."""

    incarnation: int
    facts: tuple[Fact, ...] = field(default=())


class TuningFile:
    """
    The facts of one incarnation.

    Args:
        path: The file, of ``worker.endpoints.tuning_file``. Written only if there is a fact.
        incarnation: The worker's.

    """

    def __init__(self, path: Path, incarnation: int) -> None:
        self._path, self._incarnation = path, incarnation
        self._facts: dict[str, Fact] = {}

    def note(self, facts: Iterable[Fact]) -> tuple[Fact, ...]:
        """Write facts down, one an option; return those that are news and not applied."""
        news = [fact for fact in facts if self._facts.get(fact.option) != fact]
        if news:
            self._facts |= {fact.option: fact for fact in news}
            self._write()
        return tuple(fact for fact in news if fact.state is not Outcome.APPLIED)

    def _write(self) -> None:
        tuned = Tuned(incarnation=self._incarnation, facts=tuple(self._facts.values()))
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        try:
            fresh.touch(mode=0o600)
            fresh.write_bytes(msgspec.json.encode(tuned))
            fresh.rename(self._path)
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, error.strerror)
            with contextlib.suppress(OSError):
                fresh.unlink()


def read_tuning(path: Path) -> Tuned | None:
    """
    Return what a worker wrote; ``None`` if it wrote nothing.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not what a worker writes.

    """
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(FILE_BYTES_MAX), type=Tuned)
    except FileNotFoundError:
        return None
