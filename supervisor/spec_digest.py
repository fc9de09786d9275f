"""Spec digest: a specification in 16 bytes, as the fleet's table holds what a process was given.

Pure. It tells a supervisor whether a worker that it adopts does what the file says now.
"""

import hashlib
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from worker.respec import Change, changed_keys
from worker.spec import ConnectionSpec

HALF = 8


def digest(spec: ConnectionSpec) -> bytes:
    """
    Return what tells specifications apart: in its first half only by what needs a new process.

    What stands at its default does not count, so that a build with a key more does not take every
    worker of the one before it for changed.
    """
    given = changed_keys(ConnectionSpec(name="", url=""), spec)
    parts: tuple[list[object], list[object]] = ([], [])
    for path, cost in given.items():
        parts[cost is not Change.RESTART].append((path, _differing(_value(spec, path))))
    return b"".join(hashlib.sha256(repr(part).encode()).digest()[:HALF] for part in parts)


def cost(given: bytes, wanted: bytes) -> Change:
    """
    Return what it takes to get from one digest to another.

    ``Change.LIVE`` stands for whatever needs no new process: the worker itself knows what it takes.
    """
    if given == wanted:
        return Change.NONE
    return Change.LIVE if given[:HALF] == wanted[:HALF] else Change.RESTART


def _value(spec: ConnectionSpec, path: str) -> object:
    value: object = spec
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _differing(value: object) -> object:
    """Return a record as what differs from its defaults, by name."""
    if isinstance(value, tuple):
        return [_differing(part) for part in value]
    if not is_dataclass(value):
        return value
    return [
        (field.name, _differing(found))
        for field in fields(value)
        if (found := getattr(value, field.name)) != _default(field)
    ]


def _default(field: "Field[Any]") -> object:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default
