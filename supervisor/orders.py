"""Orders: the verbs that change something, given to the supervisor and, if asked, waited for."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shm.errors import SegmentError
from supervisor.control import Order, Verb, send_order
from supervisor.errors import FleetError
from supervisor.fleets import find, select
from supervisor.registry import RegistryView, Slot
from supervisor.status import gather

REPLY_TIMEOUT_S = 5.0
POLL_S = 0.05


class OrderRefused(FleetError):
    """The supervisor did not take the order; the text is its own."""


class TimedOut(FleetError):
    """An answer, or what was ordered, did not come in time."""

    exit_code = 7


def give(
    verb: Verb,
    patterns: Sequence[str],
    *,
    fleet: str | None,
    wait_s: float = 0,
    signal_name: str = "SIGKILL",
) -> int:
    """
    Give one order; with ``wait_s`` above 0 return only when it has come true.

    Raises:
        NoSuchFleet: If no such fleet has a living supervisor.
        NoSuchConnection: If a pattern matches nothing.
        OrderRefused: If the supervisor says so.
        TimedOut: If the supervisor does not answer, or ``wait_s`` is over.

    """
    shm_dir = find(fleet, running=True)
    with RegistryView.open(shm_dir) as registry:
        before = {slot.name: slot for slot in registry.slots()}
        control = Path(registry.runtime_dir) / "control.sock"
    names = select(patterns, list(before)) if patterns else []
    order = Order(verb, tuple(names), signal_name.upper())
    reply = send_order(control, order, REPLY_TIMEOUT_S)
    if reply is None:
        raise TimedOut(
            f"the supervisor of {shm_dir.name!r} did not answer within {REPLY_TIMEOUT_S:g} s; "
            "it may be stopped or hung (supervisor status tells its pid)"
        )
    if reply.error:
        raise OrderRefused(reply.error)
    if wait_s:
        _wait(verb, shm_dir, {name: before[name] for name in names}, wait_s)
    return 0


def _wait(verb: Verb, shm_dir: Path, before: dict[str, Slot], wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while pending := _pending(verb, shm_dir, before):
        if time.monotonic() >= deadline:
            raise TimedOut(f"not done within {wait_s:g} s: {verb} {' '.join(pending)}".rstrip())
        time.sleep(POLL_S)


def _pending(verb: Verb, shm_dir: Path, before: dict[str, Slot]) -> list[str]:
    """Return the names for which the order has not come true; the fleet's for a shutdown."""
    try:
        rows = {row["name"]: row for row in gather(shm_dir).document["connections"]}
    except (SegmentError, FileNotFoundError):
        return []  # the fleet has ended, and everything ordered with it
    if verb == "shutdown":
        return [shm_dir.name]
    come_true = COME_TRUE[verb]
    return [name for name, slot in before.items() if not come_true(rows[name], slot)]


COME_TRUE: dict[Verb, Callable[[dict[str, Any], Slot], bool]] = {
    "start": lambda row, _before: row["state"] == "up",
    "stop": lambda row, _before: row["state"] == "stopped",
    "restart": lambda row, before: row["state"] == "up" and row["incarnation"] > before.incarnation,
    # Without a process there was nothing to kill.
    "kill": lambda row, before: not before.pid or row["pid"] != before.pid,
}
