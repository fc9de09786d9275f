"""Reload: what a changed fleet.toml asks of a running fleet, connection by connection.

Pure. What a key costs is said by ``worker/respec.py``; here it becomes a step for each connection
that differs, and the keys get the names that they have in the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from worker.respec import changed_keys
from worker.spec import ConnectionSpec

# Fields of a specification that have another name in fleet.toml. Besides, "_ns" is dropped.
KEYS = {
    "subscribe.messages": "subscribe",
    "subscribe.topics": "topics",
    "subscribe.template": "subscribe_template",
    "subscribe.cancel_template": "unsubscribe_template",
    "subscribe.topics_per_message": "topics_per_message",
    "subscribe.ready": "ready",
    "subscribe.ack": "ack",
    "tls_ca": "tls.ca",
    "source_address": "socket.source_address",
    "socket.busy_poll_us": "socket.busy_poll",
    "process.priority": "process.scheduler",
    "publish.ring": "publish.stats.ring",
    "publish.journal": "publish.journal.size",
    "heartbeat.application": "heartbeat.use_application_ping",
}


class Doing(StrEnum):
    """What becomes of a connection."""

    START = "start"  # it is new in the file
    STOP = "stop"  # it is gone from it
    LIVE = "live"
    RECONNECT = "reconnect"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Step:
    """
    One connection that differs.

    ``keys`` changed, as fleet.toml calls them; ``spec`` is the one wanted, ``None`` if none is.
    """

    name: str
    doing: Doing
    keys: tuple[str, ...]
    spec: ConnectionSpec | None

    def __str__(self) -> str:
        match self.doing:
            case Doing.START:
                return f"{self.name}: new, is started"
            case Doing.STOP:
                return f"{self.name}: gone, is stopped"
            case Doing.LIVE:
                return f"{self.name}: {', '.join(self.keys)} (live)"
            case Doing.RECONNECT:
                return f"{self.name}: {', '.join(self.keys)} (new session)"
            case Doing.RESTART:
                return f"{self.name}: {', '.join(self.keys)} (new process)"


@dataclass(frozen=True, slots=True)
class Plan:
    """A step for each connection that differs, in order of names."""

    steps: tuple[Step, ...]

    def of(self, *doings: Doing) -> list[Step]:
        """Return the steps of these kinds."""
        return [step for step in self.steps if step.doing in doings]

    def specs(self, *doings: Doing) -> list[ConnectionSpec]:
        """Return what the steps of these kinds lead to."""
        return [step.spec for step in self.of(*doings) if step.spec is not None]

    def lines(self) -> list[str]:
        """Return what is done, a line a connection."""
        return [str(step) for step in self.steps] or ["nothing has changed"]

    def rows(self) -> list[dict[str, Any]]:
        """Return the same for ``--json``."""
        return [
            {"connection": step.name, "action": step.doing.value, "keys": list(step.keys)}
            for step in self.steps
        ]

    def summary(self) -> dict[str, list[str]]:
        """Return the names by what is done, for the fleet's event."""
        named = {doing.value: [step.name for step in self.of(doing)] for doing in Doing}
        return {doing: names for doing, names in named.items() if names}


def plan(former: Mapping[str, ConnectionSpec], wanted: Mapping[str, ConnectionSpec]) -> Plan:
    """
    Return what must be done to get from one set of connections to another.

    Args:
        former: As kept now, by name.
        wanted: As in the file, by name.

    """
    steps = []
    for name in sorted(former.keys() | wanted.keys()):
        old, new = former.get(name), wanted.get(name)
        if new is None:
            steps.append(Step(name, Doing.STOP, (), None))
        elif old is None:
            steps.append(Step(name, Doing.START, (), new))
        elif changed := changed_keys(old, new):
            doing = Doing[max(changed.values()).name]
            steps.append(Step(name, doing, tuple(sorted(map(key_of, changed))), new))
    return Plan(tuple(steps))


def needs_new_run(former: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """
    Return why a fleet cannot become another without a new run, a line a reason.

    Args:
        former: What the fleet as a whole is told, by key.
        wanted: The same as in the file now.

    """
    return [
        f"fleet.{key} is {_shown(wanted[key])} now, it was {_shown(former[key])}"
        if key != "simulator"
        else "[simulator] has changed"
        for key in former
        if former[key] != wanted[key]
    ]


def _shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def key_of(field: str) -> str:
    """Return what fleet.toml calls a field of a specification."""
    return KEYS.get(field, field.removesuffix("_ns"))
