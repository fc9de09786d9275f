"""Fleetfile: from a fleet.toml to what is to be run, or to every fault in it at once.

Order: parse, merge (program default < ``[defaults]`` < profile < ``[[connection]]``, key by key),
check shape (``supervisor/fleet_model.py``), check relations, convert. Reads the file and nothing
else, unless functions are to be tried; whether the machine can carry the fleet is
``supervisor/check.py``.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from supervisor import fleet_model as model
from supervisor.checked import FILE_BYTES_MAX
from supervisor.errors import Fault, FleetFileError
from supervisor.exchange_spec import SimulatorSpec
from supervisor.fleet import Fleet
from supervisor.fleet_relations import (
    KeyPath,
    budget_relations,
    crowd_relations,
    fleet_relations,
    functions_of,
    relations,
    simulator_relations,
)
from supervisor.fleet_shape import shape_faults
from supervisor.fleet_spec import connection_spec, merge
from supervisor.fleet_units import SHOWN_MAX, shown
from supervisor.listener import PATH_BYTES_MAX
from supervisor.operator_functions import why_unusable
from supervisor.toml_positions import dotted, find, holds, line_numbers, line_of
from worker.endpoints import data_socket
from worker.profiles import PROFILES

T = TypeVar("T", bound=BaseModel)

DIGITS_MAX = 4300  # sys.set_int_max_str_digits
FUNCTION_HINT = (
    "workers import from the environment of run, never from the current folder: is its folder in "
    "PYTHONPATH, and the name right?"
)


def load(path: Path, *, known_functions: Collection[str] | None = None) -> Fleet:
    """
    Return the fleet of a file.

    Args:
        path: The file.
        known_functions: One that is not among them and cannot be loaded is a fault; ``None``:
            none is tried.

    Raises:
        FleetFileError: If anything is wrong with it; all faults are told at once.
        DirectoryRefused: If FEEDWARDEN_SHM names no directory.

    """
    text = _read(path)
    try:
        return _Reading(path, text, _parsed(path, text)).fleet(known_functions)
    except RecursionError:
        raise _refusal(path, 0, "is nested too deeply") from None


def _refusal(path: Path, line: int, message: str, hint: str = "") -> FleetFileError:
    return FleetFileError((Fault(str(path), line, "", message, hint),))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _refusal(path, 0, f"cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in the path
        raise _refusal(path, 0, "is no path") from None
    if len(raw) > FILE_BYTES_MAX:
        raise _refusal(path, 0, f"has more than {FILE_BYTES_MAX >> 20} MiB")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _refusal(path, line, f"is not UTF-8: byte {error.start} is invalid") from None
    if not text.strip():
        raise _refusal(path, 0, "is empty", "start from deploy/fleet.example.toml")
    return text


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        line = int(found[1]) if found else text.rstrip().count("\n") + 1
        raise _refusal(path, line, f"not valid TOML: {error}") from None
    except ValueError:  # Python's bound on the digits of an integer, which tomllib does not catch
        number = re.search(rf"[0-9](?:_?[0-9]){{{DIGITS_MAX}}}", text)
        line = text.count("\n", 0, number.start()) + 1 if number else 0
        raise _refusal(path, line, f"holds an integer of more than {DIGITS_MAX} digits") from None


class _Reading:
    """One file being read; gathers faults instead of stopping at the first."""

    def __init__(self, path: Path, text: str, raw: dict[str, Any]) -> None:
        self._path, self._raw = path, raw
        self._lines = line_numbers(text)
        self._faults: dict[tuple[int, str, str], Fault] = {}

    def fleet(self, known_functions: Collection[str] | None) -> Fleet:
        """Return the fleet, or raise with all faults."""
        merged = self._merged()
        document = self._validated(merged)
        name, runtime_dir = self._premises(merged)
        self._check_relations(merged, runtime_dir)
        if known_functions is not None:
            self._check_functions(merged, known_functions)
        if document is None or self._faults:
            faults = sorted(self._faults.values(), key=lambda fault: (fault.line, fault.key))
            raise FleetFileError(tuple(faults))
        return Fleet(
            name=name,
            file=self._path,
            runtime_dir=runtime_dir,
            connections=tuple(
                connection_spec(table, document.budget) for table in document.connection
            ),
            simulator=_simulator(document.simulator),
            orphans=document.fleet.orphans or "",
        )

    def _fault(self, path: KeyPath, message: str, hint: str = "") -> None:
        source = self._source(path)
        line = line_of(self._lines, source)
        fault = Fault(str(self._path), line, dotted(source), message, hint)
        self._faults[(line, fault.key, message)] = fault

    def _source(self, path: KeyPath) -> KeyPath:
        """Return where a key of a merged connection was written: in it, or in the defaults."""
        if path[:1] != ("connection",) or len(path) < 3:
            return path
        own = find(self._raw, path[:2])
        inner = path[2:]
        if holds(own, inner) or holds(_profile_of(own), inner):
            return path
        # Without [defaults] nothing stands in its place.
        return ("defaults", *inner) if holds(self._raw.get("defaults", {}), inner) else path

    # Merging ---------------------------------------------------------------------------------

    def _merged(self) -> dict[str, Any]:
        raw = dict(self._raw)
        connections, defaults = raw.get("connection"), raw.get("defaults", {})
        if not isinstance(connections, list) or not isinstance(defaults, dict):
            return raw
        merged = []
        for index, table in enumerate(connections):
            if isinstance(table, dict):
                self._check_profile(index, table.get("exchange"))
                merged.append(merge([defaults, _profile_of(table), table]))
            else:
                merged.append(table)
        return raw | {"connection": merged, "defaults": merge([defaults])}

    def _check_profile(self, index: int, name: object) -> None:
        if not isinstance(name, str) or name in PROFILES:
            return
        close = difflib.get_close_matches(name[:SHOWN_MAX], PROFILES, 1)
        hint = f'did you mean "{close[0]}"?' if close else f"known: {', '.join(PROFILES)}"
        self._fault(("connection", index, "exchange"), f"unknown profile {shown(name)}", hint)

    # Shape -----------------------------------------------------------------------------------

    def _validated(self, merged: dict[str, Any]) -> model.Document | None:
        try:
            return model.Document.model_validate(merged)
        except ValidationError as error:
            for path, message, hint in shape_faults(merged, error.errors(include_url=False)):
                self._fault(path, message, hint)
            return None

    # Relations -------------------------------------------------------------------------------

    def _premises(self, merged: dict[str, Any]) -> tuple[str, Path]:
        """Return the fleet's name and runtime directory, stand-ins if they cannot be told."""
        table = _valid(model.FleetTable, merged.get("fleet", {}))
        if table is None:
            return "x", Path("/x")
        for path, message in fleet_relations(table):
            self._fault(("fleet", *path), message)
        name = table.name or _name_of(self._path)
        if name is None:
            self._fault(
                ("fleet", "name"),
                f"the file's name {self._path.stem!r} is no fleet name",
                "set fleet.name: lower-case letters, digits and '-', at most 48",
            )
        elif table.name is None:
            for _path, message in fleet_relations(model.FleetTable(name=name)):
                self._fault(("fleet", "name"), f"the file's name: {message}", "set fleet.name")
        try:
            return name or "x", _runtime_dir(table.runtime_dir, name or "x")
        except (RuntimeError, ValueError, OSError) as error:  # ~ of nobody, no working directory
            self._fault(("fleet", "runtime_dir"), f"is no path: {error}")
            return name or "x", Path("/x")

    def _check_relations(self, merged: dict[str, Any], runtime_dir: Path) -> None:
        """Check every table that has its shape, whatever the others are like."""
        seen: dict[str, int] = {}
        budgets = merged.get("budget")
        found = {host: _valid(model.BudgetTable, raw) for host, raw in _items_of(budgets)}
        crowds = {host: budget for host, budget in found.items() if budget is not None}
        for index, raw in enumerate(_list_of(merged.get("connection"))):
            at: KeyPath = ("connection", index)
            table = _valid(model.ConnectionTable, raw)
            name = table.name if table is not None else find(raw, ("name",))
            if isinstance(name, str):
                if name in seen:
                    first = line_of(self._lines, ("connection", seen[name], "name"))
                    self._fault((*at, "name"), f"{shown(name)} is already used on line {first}")
                seen.setdefault(name, index)
            if table is not None:
                self._check_path(at, runtime_dir, table.name)
                for path, message in (*relations(table), *crowd_relations(table, crowds)):
                    self._fault(at + path, message)
        for host, _raw in _items_of(budgets):
            for _path, message in budget_relations(host):
                self._fault(("budget", host), message)
        simulator = _valid(model.SimulatorTable, merged.get("simulator"))
        if simulator is not None:
            for path, message in simulator_relations(simulator):
                self._fault(("simulator", *path), message)

    def _check_functions(self, merged: dict[str, Any], known: Collection[str]) -> None:
        """Check that the operator's functions can be loaded, of every table that has its shape."""
        named: list[tuple[KeyPath, tuple[str, bool]]] = []
        for index, raw in enumerate(_list_of(merged.get("connection"))):
            table = _valid(model.ConnectionTable, raw)
            if table is not None:
                functions = functions_of(table)
                named += [
                    (("connection", index, *path), one)
                    for path, one in functions
                    if one[0] not in known
                ]
        faults = why_unusable(one for _path, one in named)
        for path, one in named:
            if one in faults:
                self._fault(path, f"cannot be loaded: {faults[one]}", FUNCTION_HINT)

    def _check_path(self, at: KeyPath, runtime_dir: Path, name: str) -> None:
        length = len(os.fsencode(data_socket(runtime_dir, name)))
        if length > PATH_BYTES_MAX:
            self._fault(
                (*at, "name"),
                f"its socket's path under {shown(str(runtime_dir))} has {length} bytes, at "
                f"most {PATH_BYTES_MAX} are possible",
                "choose a shorter name or fleet.runtime_dir",
            )


def _profile_of(table: Any) -> dict[str, Any]:
    name = table.get("exchange") if isinstance(table, dict) else None
    return PROFILES[name].table if isinstance(name, str) and name in PROFILES else {}


def _list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _items_of(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _valid(table: type[T], value: Any) -> T | None:
    try:
        return table.model_validate(value)
    except ValidationError:
        return None


def _name_of(path: Path) -> str | None:
    return path.stem if re.fullmatch(r"[a-z0-9-]{1,48}", path.stem) else None


def _runtime_dir(configured: str | None, name: str) -> Path:
    """Raises RuntimeError for the ~ of a user that there is not."""
    if configured is not None:
        return Path(configured).expanduser().absolute()
    if runtime := os.environ.get("RUNTIME_DIRECTORY"):  # systemd.exec(5)
        return Path(runtime.split(":")[0]) / name
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "feedwarden" / name
    return Path(f"/tmp/feedwarden-{os.geteuid()}") / name


def _simulator(table: model.SimulatorTable | None) -> SimulatorSpec | None:
    if table is None:
        return None
    return SimulatorSpec(
        host=table.host,
        port=table.port,
        rate=table.rate,
        seed=table.seed,
        answer_delay_s=table.answer_delay / 1e9,
        shared=table.shared,
        max_age_s=table.max_age / 1e9,
        notice_s=table.notice / 1e9,
    )
