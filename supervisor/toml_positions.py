"""On which line a key of a TOML document stands.

``tomllib`` says that only of a document it cannot parse. Statements are found by asking it: lines
are taken together until they parse, so strings and arrays over several lines need no grammar here.
"""

import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]


def line_numbers(text: str) -> dict[Path, int]:
    """Return the line, counted from 1, of every table and key path of a valid document."""
    found: dict[Path, int] = {}
    table: Path = ()
    counts: dict[Path, int] = {}
    for line, statement in _statements(text):
        if statement.lstrip().startswith("["):
            table = _table_path(statement, counts)
            found.setdefault(table, line)
        else:
            for path in _paths(tomllib.loads(statement)):
                found.setdefault(table + path, line)
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    pending: list[str] = []
    start = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not pending:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            start = number
        pending.append(line)
        statement = "\n".join(pending)
        try:
            tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        yield start, statement
        pending.clear()


def _table_path(header: str, counts: dict[Path, int]) -> Path:
    """Return where a ``[table]`` or ``[[array]]`` header leads, array items by their number."""
    path: Path = ()
    value: Any = tomllib.loads(header)
    while isinstance(value, dict) and value:
        ((key, value),) = value.items()
        path += (key,)
        if isinstance(value, list):
            counts[path] = counts.get(path, -1) + 1
            value = value[0]
        if path in counts:
            path += (counts[path],)
    return path


def _paths(value: Any) -> Iterator[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (key,)
        if isinstance(inner, dict | list):
            yield from ((key, *rest) for rest in _paths(inner))


def line_of(found: dict[Path, int], path: Path) -> int:
    """Return the line of a path, else of the nearest table or key around it."""
    for length in range(len(path), 0, -1):
        if path[:length] in found:
            return found[path[:length]]
    return 1
