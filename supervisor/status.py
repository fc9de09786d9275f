"""Status: what a fleet looks like now, read from shared memory alone.

Needs no supervisor: it answers when that is dead or hung. Gathers facts and names states; the
tables for people are in ``supervisor/screens.py``.
"""

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from shm.errors import SegmentError
from shm.layout import Word
from shm.reader import Reader
from shm.segment import is_locked
from shm.stats import stats_path
from supervisor import screens
from supervisor.errors import NoSuchFleet
from supervisor.fleets import select
from supervisor.registry import RegistryView, Slot
from supervisor.restart import NO_PROCESS, State
from worker.session import State as SessionState

NS = 1e9
NOT_UP = 3
# Worst first: what an operator must look at stands on top.
STATES = (
    "failed",
    "hung",
    "crash_loop",
    "backoff",
    "stale",
    "connecting",
    "starting",
    "stopping",
    "stopped",
    "up",
)


@dataclass(frozen=True, slots=True)
class Status:
    """A fleet's status document (``status --json``) and whether everything wanted is up."""

    document: dict[str, Any]
    all_up: bool


def gather(shm_dir: Path, patterns: Sequence[str] = ()) -> Status:
    """
    Return the status of the fleet of ``shm_dir``, of the connections that match.

    Raises:
        FileNotFoundError: If the fleet has ended.
        NoSuchConnection: If a pattern matches nothing.
        SegmentError: If the registry cannot be read.

    """
    with RegistryView.open(shm_dir) as registry:
        now_ns = time.monotonic_ns()
        alive = registry.supervisor_alive()
        slots = registry.slots()
        chosen = set(select(patterns, [slot.name for slot in slots]))
        rows = [
            _connection(shm_dir, registry, slot if alive else _unattended(slot, shm_dir), now_ns)
            for slot in slots
            if slot.name in chosen
        ]
        rows.sort(key=lambda row: (STATES.index(row["state"]), row["name"]))
        document = {
            "schema": 1,
            "fleet": registry.fleet,
            "supervisor": {
                "pid": registry.supervisor_pid,
                "alive": alive,
                "epoch": registry.epoch,
                "tick_age_s": _age_s(now_ns, registry.tick_ns),
            },
            "connections": rows,
        }
    all_up = alive and all(row["state"] == "up" for row in rows if row["desired"] == "running")
    return Status(document, all_up)


def _unattended(slot: Slot, shm_dir: Path) -> Slot:
    """Return a slot as it is without a supervisor: a worker that died stays dead."""
    with contextlib.suppress(SegmentError):
        if slot.pid and not is_locked(stats_path(shm_dir, slot.name)):
            return replace(slot, pid=0, state=State.FAILED, next_attempt_ns=0)
    return slot


def _connection(shm_dir: Path, registry: RegistryView, slot: Slot, now_ns: int) -> dict[str, Any]:
    session = SessionState.IDLE
    measured: dict[str, Any] = _measured(None, now_ns)
    with contextlib.suppress(SegmentError, FileNotFoundError), Reader(shm_dir, slot.name) as reader:
        words = reader.view.words
        if slot.pid and reader.epoch == slot.incarnation and words[Word.SERVING_NS]:
            session = SessionState(words[Word.SESSION_STATE])
        measured = _measured(reader, now_ns)
        if session is not SessionState.UP:
            measured["uptime_s"] = None
    waiting = slot.next_attempt_ns > now_ns
    return {
        "name": slot.name,
        "exchange": slot.exchange,
        "state": state_name(slot, session),
        "desired": "running" if slot.wanted else "stopped",
        "pid": slot.pid or None,
        "incarnation": slot.incarnation,
        "restarts": slot.restarts,
        **measured,
        "next_attempt_s": (slot.next_attempt_ns - now_ns) / NS if waiting else None,
        "rss_mib": _rss_mib(slot.pid),
        "endpoint": f"ipc://{registry.runtime_dir}/data/{slot.name}.sock",
        "last_exit": _last_exit(slot),
    }


def state_name(slot: Slot, session: SessionState) -> str:
    """Return the one word for a connection: the first that holds."""
    if slot.state in NO_PROCESS:
        if slot.state is State.FAILED:
            return "failed"
        if not slot.wanted:
            return "stopped"
        return "crash_loop" if slot.crash_loop else "backoff"
    if slot.state is State.STOPPING:
        return "stopping"
    if slot.hung or slot.state is State.KILLING:
        return "hung"
    if slot.state is State.STARTING:
        return "starting"
    return "up" if session is SessionState.UP else "connecting"


def _measured(reader: Reader | None, now_ns: int) -> dict[str, Any]:
    words = reader.view.words if reader is not None else [0] * 64
    counts = reader.counters() if reader is not None else {}
    percentiles = reader.percentiles("rtt", (50, 99, 100)) if reader is not None else {}

    def count(name: str) -> int:
        return counts.get(name, 0)

    return {
        "uptime_s": _age_s(now_ns, words[Word.UP_SINCE_NS]),
        "messages": count("messages"),
        "bytes": count("bytes"),
        "last_message_age_s": _age_s(now_ns, words[Word.LAST_MESSAGE_NS]),
        "rtt_ms": {
            "last": _ms(words[Word.RTT_LAST_NS]),
            "avg": _ms(words[Word.RTT_AVG_NS]),
            "p50": _ms(percentiles.get(50, 0)),
            "p99": _ms(percentiles.get(99, 0)),
            "max": _ms(percentiles.get(100, 0)),
            "count": int(reader.histogram("rtt").sum()) if reader is not None else 0,
        },
        "pings": count("pings"),
        "pongs": count("pongs"),
        "late_pongs": count("late_pongs"),
        "timeouts": count("timeouts"),
        "reconnects": count("reconnects"),
    }


def _age_s(now_ns: int, then_ns: int) -> float | None:
    return max(0.0, (now_ns - then_ns) / NS) if then_ns else None


def _ms(nanoseconds: int) -> float | None:
    return nanoseconds / 1e6 if nanoseconds else None


def _rss_mib(pid: int) -> float | None:
    if not pid:
        return None
    try:
        return round(float(psutil.Process(pid).memory_info().rss) / 2**20, 1)
    except psutil.Error:
        return None


def _last_exit(slot: Slot) -> dict[str, Any] | None:
    if slot.last_exit is None:
        return None
    said = slot.last_exit.announcement
    return {
        "cause": said.cause,
        "code": said.detail.get("code"),
        "signal": said.detail.get("signal"),
        "time": datetime.fromtimestamp(slot.last_exit.wall_ns / NS, UTC).isoformat(),
    }


def show(
    shm_dir: Path, patterns: Sequence[str], *, as_json: bool, check: bool, every_s: float | None
) -> int:
    """
    Print the status, again and again if ``every_s``; return the exit code.

    Raises:
        NoSuchConnection: If a pattern matches nothing.
        NoSuchFleet: If the fleet ended meanwhile.

    """
    while True:
        try:
            status = gather(shm_dir, patterns)
        except FileNotFoundError:
            raise NoSuchFleet(shm_dir.name, ()) from None
        console = Console()
        if every_s is not None and console.is_terminal:
            console.clear()
        if as_json:
            print(json.dumps(status.document), flush=True)
        else:
            console.print(screens.status_table(status.document))
        if every_s is None:
            return NOT_UP if check and not status.all_up else 0
        time.sleep(every_s)
