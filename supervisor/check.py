"""Check: whether a file describes a fleet, and whether this machine can carry it."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from shm.directory import base_directory
from shm.layout import stats_bytes
from supervisor.errors import FleetError
from supervisor.fleetfile import Fleet, FleetFileError, load
from worker.spec import SECOND_NS, ConnectionSpec, HeartbeatSpec

CONFIGURATION = 5


class TooLarge(FleetError):
    """The segments of the fleet do not fit into shared memory."""

    exit_code = CONFIGURATION

    def __init__(self, base: Path, needed: int, free: int, fitting: int, wanted: int) -> None:
        super().__init__(base, needed, free, fitting, wanted)
        self.base, self.needed, self.free = base, needed, free
        self.fitting, self.wanted = fitting, wanted

    def __str__(self) -> str:
        return (
            f"{self.base} has {self.free:,} bytes free, the fleet's segments need "
            f"{self.needed:,}: {self.fitting} of {self.wanted} connections would fit; enlarge it, "
            "lower publish.stats.ring, or name another place with FEEDWARDEN_SHM"
        )


def refuse_if_too_large(fleet: Fleet) -> None:
    """
    Add up what the fleet needs in shared memory.

    Raises:
        TooLarge: If that is more than is free.

    """
    space = os.statvfs(base_directory())
    free = space.f_bavail * space.f_frsize
    sizes = [stats_bytes(connection.publish.ring) for connection in fleet.connections]
    # A worker that is replaced has two segments for a moment.
    needed = sum(sizes) + max(sizes)
    if needed <= free:
        return
    fitting, left = 0, free - max(sizes)
    for size in sorted(sizes):
        left -= size
        if left < 0:
            break
        fitting += 1
    raise TooLarge(base_directory(), needed, free, fitting, len(sizes))


def check(path: Path, as_json: bool) -> int:
    """Print the plan of a file, or its faults; return the exit code."""
    faults: list[dict[str, Any]] = []
    try:
        fleet = load(path)
        refuse_if_too_large(fleet)
    except FleetFileError as error:
        faults = [
            {
                "file": fault.file,
                "line": fault.line,
                "key": fault.key,
                "message": fault.message,
                "hint": fault.hint,
            }
            for fault in error.faults
        ]
        text = str(error)
    except TooLarge as error:
        text = str(error)
        faults = [{"file": str(path), "line": 1, "key": "", "message": text, "hint": ""}]
    else:
        print(json.dumps(plan(fleet)) if as_json else _plan_text(fleet))
        return 0
    if as_json:
        print(json.dumps({"schema": 1, "ok": False, "file": str(path), "faults": faults}))
    else:
        print(text, file=sys.stderr)
    return CONFIGURATION


def plan(fleet: Fleet) -> dict[str, Any]:
    """Return the document of ``check --json`` for a fleet without faults."""
    return {
        "schema": 1,
        "ok": True,
        "file": str(fleet.file),
        "faults": [],
        "fleet": fleet.name,
        "runtime_dir": str(fleet.runtime_dir),
        "connections": [_planned(fleet, connection) for connection in fleet.connections],
    }


def _planned(fleet: Fleet, connection: ConnectionSpec) -> dict[str, Any]:
    return {
        "name": connection.name,
        "exchange": connection.exchange,
        "url": connection.url,
        "endpoint": f"ipc://{fleet.runtime_dir}/data/{connection.name}.sock",
        "heartbeat": heartbeat_in_words(connection.heartbeat),
        "subscriptions": len(connection.subscribe),
        "segment_bytes": stats_bytes(connection.publish.ring),
    }


def heartbeat_in_words(spec: HeartbeatSpec | None) -> str:
    """Return what a heartbeat does, in one phrase."""
    if spec is None:
        return "none of ours"
    kind = "message" if spec.application else "PING frame"
    interval, timeout = spec.interval_ns / SECOND_NS, spec.timeout_ns / SECOND_NS
    return f"{kind} every {interval:g} s, dead without an answer in {timeout:g} s"


def _plan_text(fleet: Fleet) -> str:
    document = plan(fleet)
    rows = document["connections"]
    total = sum(row["segment_bytes"] for row in rows)
    lines = [
        f"OK: fleet {fleet.name}, {len(rows)} connections, {total / 2**20:.1f} MiB shared memory",
        f"sockets below {fleet.runtime_dir}",
    ]
    width = max(len(row["name"]) for row in rows)
    lines += [f"  {row['name']:<{width}}  {row['url']}  ({row['heartbeat']})" for row in rows]
    return "\n".join(lines)
