"""Fleetfile: from a fleet.toml to what is to be run, or to every fault in it at once.

Order: parse, merge (program default < ``[defaults]`` < profile < ``[[connection]]``, key by key),
check shape (``supervisor/fleet_model.py``), check relations, convert. Reads the file and nothing
else; whether the machine can carry the fleet is ``supervisor/check.py``.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from supervisor import fleet_model as model
from supervisor.errors import FleetError
from supervisor.fleet_spec import connection_spec, is_function
from supervisor.listener import PATH_BYTES_MAX
from supervisor.toml_positions import line_numbers, line_of
from worker.profiles import PROFILES
from worker.spec import ConnectionSpec

KeyPath = tuple[str | int, ...]
PING_BODY_MAX = 125  # RFC 6455 section 5.5
RING_MIN, RING_MAX = 1024, 1 << 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a file. ``key`` is a dotted path, empty for the whole file."""

    file: str
    line: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: "
        key = f"{self.key}: " if self.key else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{key}{self.message}{hint}"


class FleetFileError(FleetError):
    """A fleet.toml that cannot be run; ``faults`` holds everything that is wrong with it."""

    exit_code = 5

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSpec:
    """The embedded exchange. ``rate``: messages a second per session."""

    host: str
    port: int
    rate: float
    seed: int
    answer_delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A validated fleet."""

    name: str
    file: Path
    runtime_dir: Path
    connections: tuple[ConnectionSpec, ...]
    simulator: SimulatorSpec | None


def load(path: Path) -> Fleet:
    """
    Return the fleet of a file.

    Raises:
        FleetFileError: If anything is wrong with it; all faults are told at once.

    """
    text = _read(path)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        line = int(found[1]) if found else len(text.splitlines()) or 1
        raise FleetFileError((Fault(str(path), line, "", f"not valid TOML: {error}"),)) from None
    return _Reading(path, text, raw).fleet()


def _read(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        fault = Fault(str(path), 1, "", f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        fault = Fault(str(path), 1, "", f"is not UTF-8: byte {error.start} is invalid")
    else:
        if text.strip():
            return text
        fault = Fault(str(path), 1, "", "is empty", "start from deploy/fleet.example.toml")
    raise FleetFileError((fault,))


class _Reading:
    """One file being read; gathers faults instead of stopping at the first."""

    def __init__(self, path: Path, text: str, raw: dict[str, Any]) -> None:
        self._path, self._raw = path, raw
        self._lines = line_numbers(text)
        self._faults: dict[tuple[int, str, str], Fault] = {}

    def fleet(self) -> Fleet:
        """Return the fleet, or raise with all faults."""
        merged = self._merged()
        document = self._validated(merged)
        if document is not None:
            fleet = self._checked(document)
            if not self._faults:
                return fleet
        raise FleetFileError(tuple(sorted(self._faults.values(), key=lambda f: (f.line, f.key))))

    def _fault(self, path: KeyPath, message: str, hint: str = "") -> None:
        source = self._source(path)
        key = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in source
        ).lstrip(".")
        line = line_of(self._lines, source)
        fault = Fault(str(self._path), line, key, message, hint)
        self._faults[(line, key, message)] = fault

    def _source(self, path: KeyPath) -> KeyPath:
        """Return where a key of a merged connection was written: in it, or in the defaults."""
        if path[:1] != ("connection",) or len(path) < 3 or path in self._lines:
            return path
        in_defaults = ("defaults", *path[2:])
        return in_defaults if in_defaults in self._lines else path

    # Merging ---------------------------------------------------------------------------------

    def _merged(self) -> dict[str, Any]:
        raw = dict(self._raw)
        connections, defaults = raw.get("connection"), raw.get("defaults", {})
        if not isinstance(connections, list) or not isinstance(defaults, dict):
            return raw
        defaults = _normal(defaults)
        merged = []
        for index, table in enumerate(connections):
            if not isinstance(table, dict):
                merged.append(table)
                continue
            profile = self._profile(index, table.get("exchange"))
            merged.append(_merge(_merge(defaults, profile), _normal(table)))
        return raw | {"connection": merged, "defaults": defaults}

    def _profile(self, index: int, name: object) -> dict[str, Any]:
        if not isinstance(name, str):
            return {}
        if name in PROFILES:
            return PROFILES[name].table
        close = difflib.get_close_matches(name, PROFILES, 1)
        hint = f'did you mean "{close[0]}"?' if close else f"known: {', '.join(PROFILES)}"
        self._fault(("connection", index, "exchange"), f"unknown profile {name!r}", hint)
        return {}

    # Shape -----------------------------------------------------------------------------------

    def _validated(self, merged: dict[str, Any]) -> model.Document | None:
        try:
            return model.Document.model_validate(merged)
        except ValidationError as error:
            for details in error.errors():
                self._tell(details)
            return None

    def _tell(self, details: ErrorDetails) -> None:
        path = _file_path(details["loc"])
        kind = details["type"]
        if kind == "literal_error" and details["loc"][-1] != path[-1]:
            return  # the other arm of "a table, or false"; the table's own faults say more
        if kind == "extra_forbidden":
            close = difflib.get_close_matches(str(path[-1]), _keys_beside(path), 1)
            hint = f'did you mean "{close[0]}"?' if close else ""
            self._fault(path, "unknown key", hint)
        elif kind == "missing":
            self._fault(path, "is missing")
        else:
            message = details["msg"].removeprefix("Value error, ")
            got = "" if kind == "value_error" else f", got {details['input']!r:.80}"
            self._fault(path, message[0].lower() + message[1:] + got)

    # Relations -------------------------------------------------------------------------------

    def _checked(self, document: model.Document) -> Fleet:
        name = document.fleet.name or _name_of(self._path)
        if name is None:
            self._fault(
                ("fleet", "name"),
                f"the file's name {self._path.stem!r} is no fleet name",
                "set fleet.name: lower-case letters, digits and '-', at most 48",
            )
        runtime_dir = _runtime_dir(document.fleet.runtime_dir, name or "x")
        seen: dict[str, int] = {}
        for index, table in enumerate(document.connection):
            at: KeyPath = ("connection", index)
            if table.name in seen:
                first = line_of(self._lines, ("connection", seen[table.name], "name"))
                self._fault((*at, "name"), f"{table.name!r} is already used on line {first}")
            seen.setdefault(table.name, index)
            self._check_path(at, runtime_dir, table.name)
            for path, message in _relations(table):
                self._fault(at + path, message)
        specs = () if self._faults else tuple(map(connection_spec, document.connection))
        return Fleet(
            name=name or "",
            file=self._path,
            runtime_dir=runtime_dir,
            connections=specs,
            simulator=_simulator(document.simulator),
        )

    def _check_path(self, at: KeyPath, runtime_dir: Path, name: str) -> None:
        length = len(os.fsencode(runtime_dir / "data" / f"{name}.sock"))
        if length > PATH_BYTES_MAX:
            self._fault(
                (*at, "name"),
                f"its socket's path under {runtime_dir} has {length} bytes, at most "
                f"{PATH_BYTES_MAX} are possible",
                "choose a shorter name or fleet.runtime_dir",
            )


def _relations(table: model.ConnectionTable) -> Iterator[tuple[KeyPath, str]]:
    yield from _url_faults(table.url)
    if isinstance(table.heartbeat, model.HeartbeatTable):
        for key, message in _heartbeat_faults(table.heartbeat):
            yield ("heartbeat", key), message
    for index, rule in enumerate(table.server_ping):
        if isinstance(rule.match, str) and (message := _jmespath_fault(rule.match)):
            yield ("server_ping", index, "match"), message
    if table.publish.key is not None and (message := _jmespath_fault(table.publish.key)):
        yield ("publish", "key"), message
    ring = table.publish.stats.ring
    if not RING_MIN <= ring <= RING_MAX or ring & (ring - 1):
        yield (
            ("publish", "stats", "ring"),
            f"must be a power of two of {RING_MIN} to {RING_MAX}, got {ring}",
        )
    if table.hang.timeout <= table.hang.warn_after:
        yield ("hang", "timeout"), "must be above hang.warn_after"
    for name, times in (("reconnect", table.reconnect), ("restart", table.restart)):
        if times.max_delay < times.initial_delay:
            yield (name, "max_delay"), f"must not be below {name}.initial_delay"
        if times.reset_after < times.stable_after:
            yield (name, "reset_after"), f"must not be below {name}.stable_after"


def _url_faults(url: str) -> Iterator[tuple[KeyPath, str]]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        yield ("url",), f"is not a URL: {error}"
        return
    if parts.scheme not in ("ws", "wss"):
        yield ("url",), f"must begin with ws:// or wss://, got {url!r:.80}"
    elif not parts.hostname or port == 0:
        yield ("url",), f"names no host to connect to, got {url!r:.80}"
    elif parts.fragment:
        yield ("url",), "must not have a fragment (RFC 6455 section 3)"
    elif not url.isascii() or any(character.isspace() for character in url):
        yield ("url",), "must be ASCII without spaces; write others as %XX"


def _heartbeat_faults(beat: model.HeartbeatTable) -> Iterator[tuple[str, str]]:
    application = beat.use_application_ping
    if application and beat.use_ws_ping:
        yield "use_application_ping", "excludes use_ws_ping; set use_ws_ping = false"
    if not application and not beat.use_ws_ping:
        yield "use_ws_ping", "one kind of ping must be on; heartbeat = false turns both off"
    if application and beat.payload is None:
        yield "payload", "is missing: an application ping must say what to send"
    if application and beat.pong_matcher is None:
        yield "pong_matcher", "is missing: an application ping must know its answer"
    if not application and beat.payload is not None:
        length = len(beat.payload.encode())
        if length > PING_BODY_MAX:
            yield "payload", f"a PING body has at most {PING_BODY_MAX} bytes, got {length}"
    if application and beat.pong_id is None and beat.timeout > beat.interval:
        yield (
            "timeout",
            "must not be above interval: without pong_id only one ping can be outstanding",
        )
    matcher = beat.pong_matcher
    is_expression = isinstance(matcher, str) and not is_function(matcher)
    if is_expression and (message := _jmespath_fault(str(matcher))):
        yield "pong_matcher", message
    if beat.pong_id is not None and (message := _jmespath_fault(beat.pong_id)):
        yield "pong_id", message


def _jmespath_fault(expression: str) -> str:
    try:
        jmespath.compile(expression)
    except JMESPathError as error:
        position = getattr(error, "lex_position", None)
        where = f" at position {position}" if position is not None else ""
        return f"is no JMESPath expression{where}: {str(error).splitlines()[0]}"
    return ""


def _normal(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table with a scalar heartbeat written out: the interval, and a timeout that fits."""
    beat = table.get("heartbeat")
    if isinstance(beat, bool) or not isinstance(beat, int | float):
        return table
    return table | {"heartbeat": {"interval": beat, "timeout": min(10, beat)}}


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        former = merged.get(key)
        # A matcher is one value though it may be written as a table.
        if isinstance(former, dict) and isinstance(value, dict) and key != "pong_matcher":
            merged[key] = _merge(former, value)
        else:
            merged[key] = value
    return merged


def _file_path(location: tuple[int | str, ...]) -> KeyPath:
    """Return a fault's path without the names pydantic adds for the arms of a union."""
    arms = {"HeartbeatTable", "CrashLoopTable", "TextMatch", "str", "literal[False]"}
    return tuple(part for part in location if part not in arms)


def _keys_beside(path: KeyPath) -> list[str]:
    """Return the keys that the table of a path knows."""
    here: Any = model.Document
    for part in path[:-1]:
        if isinstance(part, int):
            continue
        if not (isinstance(here, type) and issubclass(here, BaseModel)):
            return []
        field = here.model_fields.get(part)
        here = _table_of(field.annotation) if field is not None else None
    return list(here.model_fields) if here is not None else []


def _table_of(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _name_of(path: Path) -> str | None:
    return path.stem if re.fullmatch(r"[a-z0-9-]{1,48}", path.stem) else None


def _runtime_dir(configured: str | None, name: str) -> Path:
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
    )
