"""Orders: the verbs that change something, given to the supervisor and, if asked, waited for."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from signal import Signals
from typing import Any

from supervisor.control import Order, Reply, Verb, absolute, send_order
from supervisor.errors import FleetError, NoSuchFleet, NoSuchSignal
from supervisor.exit_codes import FAILED, OK, TIMED_OUT
from supervisor.fleets import find, is_supervised, opened, select, slots_of
from supervisor.slot import Slot
from supervisor.status import gather
from worker.endpoints import CONTROL

REPLY_TIMEOUT_S = 5.0
RELOAD_TIMEOUT_S = 60.0  # beyond what a file may take to be read, twice
POLL_S = 0.05


class OrderRefused(FleetError):
    """The supervisor did not take the order; text and exit code are its own."""

    def __init__(self, error: str, code: int = FAILED) -> None:
        super().__init__(error)
        self.exit_code = code


class Left(FleetError):
    """What was waited for cannot come true: connections have left the fleet."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self.names = tuple(names)

    def __str__(self) -> str:
        return f"not waited for, since no longer in the fleet: {', '.join(self.names)}"


class TimedOut(FleetError):
    """An answer, or what was ordered, did not come in time."""

    exit_code = TIMED_OUT


def give(
    verb: Verb,
    patterns: Sequence[str],
    *,
    fleet: str | None,
    wait_s: float = 0,
    signal_name: str = "SIGKILL",
    file: Path | None = None,
    dry_run: bool = False,
    as_json: bool = False,
    keep: bool = False,
) -> int:
    """
    Give one order; with ``wait_s`` above 0 return only when it has come true.

    With ``as_json`` the answer's document is printed, and a refusal is one, too.

    Raises:
        NoSuchFleet: If no such fleet has a living supervisor.
        NoSuchConnection: If a pattern matches nothing.
        OrderRefused: If the supervisor says so.
        TimedOut: If the supervisor does not answer, or ``wait_s`` is over.
        Left: If what was started has left the fleet meanwhile.

    """
    shm_dir = find(fleet, running=True)
    with opened(shm_dir) as registry:
        before = {slot.name: slot for slot in slots_of(registry, shm_dir)}
        control = registry.runtime_dir / CONTROL
    names = select(patterns, list(before)) if patterns else []
    signal_wanted = full_signal_name(signal_name)
    order = Order(verb, tuple(names), signal_wanted, absolute(file), dry_run, keep)
    for name in names if verb == "kill" else ():
        if not before[name].pid:
            print(f"{name}: no process, nothing to kill", file=sys.stderr)
    given_s = time.monotonic()
    reply = _answer(control, order, shm_dir.name)
    _show(reply, as_json=as_json)
    if reply.error:
        return reply.code
    if wait_s:
        chosen = {name: before[name] for name in names}
        if verb == "reload":
            _wait(verb, partial(_pending_changes, shm_dir, before, reply), wait_s)
        else:
            _wait(verb, partial(_pending, verb, shm_dir, chosen, given_s), wait_s)
    return OK


def _answer(control: Path, order: Order, fleet: str) -> Reply:
    patience_s = RELOAD_TIMEOUT_S if order.verb == "reload" else REPLY_TIMEOUT_S
    reply = send_order(control, order, patience_s)
    if reply is None:
        raise TimedOut(
            f"the supervisor of {fleet!r} did not answer within {patience_s:g} s; "
            "it may be stopped or hung (supervisor status tells its pid)"
        )
    return reply


def _show(reply: Reply, *, as_json: bool) -> None:
    """Print an answer; raise ``OrderRefused`` for a refusal that is not printed."""
    if as_json and reply.document is not None:
        print(json.dumps(reply.document), flush=True)
    elif reply.error:
        raise OrderRefused(reply.error, reply.code)
    else:
        for line in reply.lines:
            print(line, flush=True)


def full_signal_name(wanted: str) -> str:
    """
    Return ``SIGSTOP`` for "SIGSTOP", "stop" or "19".

    Raises:
        NoSuchSignal: If there is none of that name or number.

    """
    name = wanted.upper()
    for signal in Signals:
        if name in (signal.name, signal.name.removeprefix("SIG"), str(signal.value)):
            return signal.name
    raise NoSuchSignal(wanted)


def _wait(verb: Verb, pending_now: Callable[[], list[str]], wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while pending := pending_now():
        if time.monotonic() >= deadline:
            raise TimedOut(f"not done within {wait_s:g} s: {verb} {' '.join(pending)}".rstrip())
        time.sleep(POLL_S)


def _pending(verb: Verb, shm_dir: Path, before: dict[str, Slot], given_s: float = 0) -> list[str]:
    """Return the names for which the order has not come true; the fleet's for a shutdown."""
    rows = _rows(shm_dir)
    if rows is None:
        return []  # the fleet has ended, and everything ordered with it
    if verb == "shutdown":  # with --keep its table stays
        return [shm_dir.name] if is_supervised(shm_dir) else []
    if verb == "rotate":
        return [name for name in before if name in rows and not _is_fresh(rows[name], given_s)]
    come_true = COME_TRUE[verb]
    left = [name for name in before if name not in rows]
    if left and verb in ("start", "restart") and _is_whole(shm_dir):
        raise Left(left)  # a stop or a kill has come true with it
    gone = verb in ("stop", "kill")
    return [
        name
        for name, slot in before.items()
        if not (come_true(rows[name], slot) if name in rows else gone)
    ]


def _pending_changes(shm_dir: Path, before: dict[str, Slot], reply: Reply) -> list[str]:
    """
    Return the connections that a reload has changed, and that are not yet as the file says.

    What was stopped by hand, before it or since, starts as the file says: nobody waits for that.
    """
    rows = _rows(shm_dir)
    if rows is None or reply.begun_ns == 0 or reply.document is None:
        return []
    actions: dict[str, str] = {
        row["connection"]: row["action"] for row in reply.document["changes"]
    }
    left = [name for name, action in actions.items() if action != "stop" and name not in rows]
    if left and _is_whole(shm_dir):
        raise Left(left)
    going = [name for name, action in actions.items() if action == "stop" and name in rows]
    return (
        left
        + going
        + [
            name
            for name, action in actions.items()
            if action != "stop"
            and name in rows
            and rows[name]["desired"] == "running"
            and not _has_changed(action, rows[name], before.get(name), reply.begun_ns / 1e9)
        ]
    )


def _has_changed(action: str, row: dict[str, Any], former: Slot | None, begun_s: float) -> bool:
    """Return whether a connection is up as a reload wants it, which began at a moment."""
    if action not in ("reconnect", "restart"):
        return bool(row["state"] == "up")
    if action == "restart" and former is not None and row["incarnation"] <= former.incarnation:
        return False
    return _is_fresh(row, begun_s)


def _rows(shm_dir: Path) -> dict[str, dict[str, Any]] | None:
    """Return the rows of ``status`` by name, ``None`` if the fleet has ended."""
    try:
        return {row["name"]: row for row in gather(shm_dir).document["connections"]}
    except NoSuchFleet:
        return None


def _is_whole(shm_dir: Path) -> bool:
    """Return whether every line of the table is written; while a fleet begins, not all are."""
    with opened(shm_dir) as registry:
        return registry.slot_count == len(slots_of(registry, shm_dir))


def _is_fresh(row: dict[str, Any], given_s: float) -> bool:
    """Return whether all sessions of a connection began after a moment of CLOCK_MONOTONIC."""
    is_up = row["state"] == "up" and row["uptime_s"] is not None
    return is_up and time.monotonic() - row["uptime_s"] >= given_s


COME_TRUE: dict[Verb, Callable[[dict[str, Any], Slot], bool]] = {
    "start": lambda row, _before: row["state"] == "up",
    "stop": lambda row, _before: row["state"] == "stopped",
    "restart": lambda row, before: row["state"] == "up" and row["incarnation"] > before.incarnation,
    # Without a process there was nothing to kill.
    "kill": lambda row, before: not before.pid or row["pid"] != before.pid,
}
