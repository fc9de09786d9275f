"""Where a key of a TOML document stands: on which line, and what it holds.

``tomllib`` tells lines only of a document it cannot parse. A document it could parse is cut into
statements here, by the few tokens that can hide a line end, and each statement is parsed alone.
Linear in the length of the text.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]
# No key of fleet.toml lies deeper; what does is unknown anyhow and gets the line of its table.
# Paths of any length would make a key of n dots cost n squared.
DEPTH_MAX = 10
PART_SHOWN_MAX = 80

# What can hide a line end, a bracket or a "#", and what these are when nothing hides them. The
# document is valid, so strings end. Possessive: a string costs no memory for going back.
_TOKEN = re.compile(
    r'"""[^"\\]*+(?:(?:\\[\s\S]|"{1,2}+(?!"))[^"\\]*+)*+"{3,5}'
    r"|'''[^']*+(?:'{1,2}+(?!')[^']*+)*+'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*+"'
    r"|'[^'\n]*+'"
    r"|#[^\n]*+"
    r"|[\[{\]}\n]"
)


def line_numbers(text: str) -> dict[Path, int]:
    """
    Return the line, counted from 1, of every table and key path of a valid document.

    Raises:
        RecursionError: If a value is nested too deeply.

    """
    found: dict[Path, int] = {}
    table: Path = ()
    counts: dict[Path, int] = {}
    for line, statement in _statements(text.replace("\r\n", "\n")):
        if statement.startswith("["):
            table = _table_path(statement, counts)
            found.setdefault(table, line)
        else:
            for path in _paths(tomllib.loads(statement), DEPTH_MAX - len(table)):
                found.setdefault(table + path, line)
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each key with its value, and each table header, with the line it begins on."""
    line, start, depth = 1, 0, 0
    ends = (*_TOKEN.finditer(text), None)
    begun_line = line
    for token in ends:
        what = "\n" if token is None else token[0]
        if what in ("[", "{"):
            depth += 1
        elif what in ("]", "}"):
            depth -= 1
        elif what == "\n" and depth <= 0:
            end = len(text) if token is None else token.start()
            statement = text[start:end].strip(" \t\n")
            if statement and not statement.startswith("#"):
                yield begun_line, statement
            start = end + 1
            begun_line = line + 1
        line += what.count("\n")


def _table_path(header: str, counts: dict[Path, int]) -> Path:
    """Return where a ``[table]`` or ``[[array]]`` header leads, array items by their number."""
    path: Path = ()
    value: Any = tomllib.loads(header)
    while isinstance(value, dict) and value and len(path) < DEPTH_MAX:
        ((key, value),) = value.items()
        path += (key,)
        if isinstance(value, list):
            counts[path] = counts.get(path, -1) + 1
            value = value[0]
        if path in counts:
            path += (counts[path],)
    return path


def _paths(value: Any, depth: int) -> Iterator[Path]:
    """Yield the path of everything in a value, down to a depth."""
    if depth <= 0:
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (key,)
        if isinstance(inner, dict | list):
            yield from ((key, *rest) for rest in _paths(inner, depth - 1))


def line_of(found: dict[Path, int], path: Path) -> int:
    """Return the line of a path, else of the nearest table or key around it, 0 if there is none."""
    for length in range(min(len(path), DEPTH_MAX + 1), 0, -1):
        if path[:length] in found:
            return found[path[:length]]
    return 0


def find(value: Any, path: Path) -> Any:
    """Return what a path leads to, ``None`` if nothing."""
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value


def holds(value: Any, path: Path) -> bool:
    """Return whether a path leads to something, or to what stands in its place."""
    for part in path:
        if isinstance(value, dict):
            if part not in value:
                return False
            value = value[part]
        elif isinstance(value, list):
            return True
        else:
            return value is not False  # a number for the heartbeat's interval and timeout
    return True


def dotted(path: Path) -> str:
    """Return a path as an operator would write it, keys shortened that are none of ours."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part[:PART_SHOWN_MAX]}" for part in path)
    return "".join(parts).lstrip(".")
