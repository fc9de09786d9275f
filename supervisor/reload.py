"""Reload: what a changed fleet.toml asks of a running fleet, and whether that can be done live.

Pure. Nothing is applied unless everything can be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from supervisor.errors import FleetError
from worker.spec import ConnectionSpec


class ReloadRefused(FleetError):
    """A change that needs more than a reload; ``reasons`` has a line for each."""

    exit_code = 5

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        return "nothing was changed, since a new run is needed for: " + "; ".join(self.reasons)


@dataclass(frozen=True, slots=True)
class Plan:
    """Connections whose subscription changes, with their new specification."""

    resubscribed: tuple[ConnectionSpec, ...]

    def lines(self) -> list[str]:
        """Return what will be done, a line a connection."""
        if not self.resubscribed:
            return ["nothing has changed"]
        return [f"{spec.name}: subscription changed" for spec in self.resubscribed]


def plan(
    former: Mapping[str, ConnectionSpec], wanted: Mapping[str, ConnectionSpec], moved: Path | None
) -> Plan:
    """
    Return what must be done to get from one set of connections to another.

    Args:
        former: As running, by name.
        wanted: As in the file now, by name.
        moved: The runtime directory of the file, if it is another than the running fleet's.

    Raises:
        ReloadRefused: If anything but subscriptions has changed.

    """
    reasons = [] if moved is None else [f"fleet.runtime_dir is now {moved}"]
    reasons += [f"{name} is new" for name in wanted.keys() - former.keys()]
    reasons += [f"{name} is gone" for name in former.keys() - wanted.keys()]
    resubscribed = []
    for name in former.keys() & wanted.keys():
        old, new = former[name], wanted[name]
        changed = _changed_keys(replace(old, subscribe=new.subscribe), new)
        if changed:
            reasons.append(f"{name}: {', '.join(changed)} changed")
        elif old.subscribe != new.subscribe:
            resubscribed.append(new)
    if reasons:
        raise ReloadRefused(tuple(sorted(reasons)))
    return Plan(tuple(sorted(resubscribed, key=lambda spec: spec.name)))


def _changed_keys(old: ConnectionSpec, new: ConnectionSpec) -> list[str]:
    names = (field.name for field in fields(ConnectionSpec))
    return [name.removesuffix("_ns") for name in names if getattr(old, name) != getattr(new, name)]
