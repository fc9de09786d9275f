"""Shape: what pydantic finds wrong with the tables of a fleet.toml, in an operator's words."""

import difflib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from supervisor import fleet_model as model
from supervisor.fleet_relations import KeyPath
from supervisor.fleet_units import SHOWN_MAX, shown
from supervisor.toml_positions import find

# What pydantic calls the arms of a union, and what an operator calls them.
ARMS = {
    "HeartbeatTable": "a table",
    "CrashLoopTable": "a table",
    "TextMatch": "a table {text = ...}",
    "SecretTable": "a table {env = ...}, {file = ...} or {credential = ...}",
    "str": "text",
    "literal[False]": "false",
}
TABLE_WANTED = ("model_type", "model_attributes_type", "dict_type")


def shape_faults(
    merged: dict[str, Any], errors: list[ErrorDetails]
) -> Iterator[tuple[KeyPath, str, str]]:
    """Yield path, message and hint of every fault that pydantic found in a merged file."""
    misfits: dict[KeyPath, list[str]] = {}
    for details in errors:
        path, arm = _file_path(merged, details["loc"])
        if arm and arm == details["loc"][-1]:
            misfits.setdefault(path, []).append(ARMS[arm])
        else:
            yield (path, *_in_words(path, details))
    for path, wanted in misfits.items():
        value = find(merged, path)
        if not isinstance(value, dict):  # of a table, its own faults say more
            if path[-1:] == ("heartbeat",):  # the merge takes these for its interval
                wanted = [*wanted, "its interval (seconds, or text with a unit)"]
            words = " or ".join(dict.fromkeys(wanted))
            yield path, f"must be {words}, got {shown(value)}", ""


def _in_words(path: KeyPath, details: ErrorDetails) -> tuple[str, str]:
    """Return message and hint of one fault."""
    kind, value = details["type"], shown(details["input"])
    if kind == "extra_forbidden":
        wrong = str(path[-1])[:SHOWN_MAX]
        close = difflib.get_close_matches(wrong, _keys_beside(path), 1)
        return "unknown key", f'did you mean "{close[0]}"?' if close else ""
    if kind == "missing":
        return "is missing", ""
    if kind in TABLE_WANTED:
        return f"must be a table, got {value}", ""
    message = details["msg"].removeprefix("Value error, ")
    got = "" if kind == "value_error" else f", got {value}"
    return message[0].lower() + message[1:] + got, ""


def _file_path(merged: Any, location: tuple[int | str, ...]) -> tuple[KeyPath, str]:
    """Return a fault's path in the file, and the arm of a union that pydantic put into it last."""
    path: KeyPath = ()
    arm, here = "", merged
    for part in location:
        if part in ARMS and not (isinstance(here, dict) and part in here):
            arm = str(part)
            continue
        path += (part,)
        here = find(here, (part,))
    return path, arm


def _keys_beside(path: KeyPath) -> list[str]:
    """Return the keys that the table of a path knows."""
    here: type[BaseModel] | None = model.Document
    parts = (part for part in path[:-1] if isinstance(part, str))
    for part in parts:
        field = here.model_fields.get(part) if here is not None else None
        if field is None:
            return []
        here = _table_of(field.annotation)
        if getattr(field.annotation, "__origin__", None) is dict:
            next(parts, None)  # a key that the operator chose
    return list(here.model_fields) if here is not None else []


def _table_of(annotation: Any) -> type[BaseModel] | None:
    """Return the table that an annotation allows, alone, in a union, a list or a dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_table_of(argument) for argument in getattr(annotation, "__args__", ()))
    return next((table for table in inner if table is not None), None)
