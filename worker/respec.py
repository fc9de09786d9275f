"""Respec: what it takes to get from one specification of a connection to another.

Pure. The supervisor plans a reload by it, and the worker does by it what it is told; so what a key
costs stands here once. docs/fleet-toml.md shows it for every key, and a test compares the two.
"""

from dataclasses import fields, is_dataclass
from enum import IntEnum

from worker.spec import ConnectionSpec


class Change(IntEnum):
    """What a changed key costs, the dearest last."""

    NONE = 0
    LIVE = 1  # nothing: who uses it goes on with it
    RECONNECT = 2  # a new session of the same process
    RESTART = 3  # a new process


# By key, or by table for all keys of it that do not stand alone.
COSTS: dict[str, Change] = {
    "url": Change.RECONNECT,
    "exchange": Change.LIVE,
    "subscribe": Change.LIVE,
    # What answers look like is compiled with everything else that the dialect looks for.
    "subscribe.ready": Change.RECONNECT,
    "subscribe.ack": Change.RECONNECT,
    "headers": Change.RECONNECT,
    "subprotocols": Change.RECONNECT,
    "engine": Change.RESTART,
    "compression": Change.RESTART,  # it chooses the engine
    "decode": Change.RECONNECT,
    "server_ping": Change.RECONNECT,
    "server_heartbeat": Change.RECONNECT,
    "notice": Change.RECONNECT,
    "rotate": Change.LIVE,
    "legs": Change.RECONNECT,
    "leg2": Change.RECONNECT,
    "dedup": Change.RECONNECT,
    "tls_ca": Change.RECONNECT,
    "proxy": Change.RECONNECT,
    "source_address": Change.RECONNECT,
    "socket": Change.RECONNECT,
    "process": Change.RESTART,
    "login": Change.RESTART,  # so that its module is read again, too
    "secrets": Change.RECONNECT,
    "outbound": Change.RECONNECT,
    "budget": Change.LIVE,  # from the next dial on, or all sessions of a host would end at once
    "liveness": Change.LIVE,
    "heartbeat": Change.RECONNECT,
    "reconnect": Change.LIVE,  # from the next dial on
    "restart": Change.LIVE,  # the supervisor's, as are the next ones
    "hang": Change.LIVE,
    "publish": Change.RESTART,
    "limits": Change.RECONNECT,
    "stop_timeout_ns": Change.LIVE,
    "start_timeout_ns": Change.LIVE,
    "ready_timeout_ns": Change.LIVE,
}


def changed_keys(former: ConnectionSpec, wanted: ConnectionSpec) -> dict[str, Change]:
    """Return the fields that differ, ``table.key`` for those of tables, and what each costs."""
    found: dict[str, Change] = {}
    for field in fields(ConnectionSpec):
        old, new = getattr(former, field.name), getattr(wanted, field.name)
        if old == new or field.name == "name":
            continue
        for name in _differing(field.name, old, new):
            found[name] = cost_of(name)
    return found


def _differing(name: str, old: object, new: object) -> list[str]:
    if type(old) is not type(new) or not is_dataclass(old) or isinstance(old, type):
        return [name]  # a plain value, or a table that comes or goes whole
    inner = (field.name for field in fields(old))
    return [f"{name}.{key}" for key in inner if getattr(old, key) != getattr(new, key)]


def cost_of(name: str) -> Change:
    """Return what a change of a field costs; ``name`` as from ``changed_keys``."""
    return COSTS[name] if name in COSTS else COSTS[name.partition(".")[0]]


def cost(former: ConnectionSpec, wanted: ConnectionSpec) -> Change:
    """Return what it takes to get from one to the other."""
    return max(changed_keys(former, wanted).values(), default=Change.NONE)
