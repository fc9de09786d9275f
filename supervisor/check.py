"""Check: whether a file describes a fleet, and whether this machine can carry it."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shm.errors import DirectoryRefused
from supervisor.capacity import TooLarge, refuse_if_too_large, segment_bytes
from supervisor.errors import Fault, FleetFileError
from supervisor.exit_codes import CONFIGURATION, OK
from supervisor.fleet import Fleet
from supervisor.fleetfile import load
from worker.endpoints import data_endpoint
from worker.spec import SECOND_NS, ConnectionSpec, HeartbeatSpec


def check(path: Path, as_json: bool) -> int:
    """Print the plan of a file, or its faults; return the exit code."""
    try:
        fleet = load(path, known_functions=())
        refuse_if_too_large(fleet)
    except FleetFileError as error:
        faults, text = error.faults, str(error)
    except (TooLarge, DirectoryRefused) as error:  # not the file's: no line of it
        faults, text = (Fault(str(path), 0, "", str(error)),), f"supervisor: {error}"
    else:
        print(json.dumps(plan(fleet)) if as_json else _plan_text(fleet))
        return OK
    if as_json:
        listed = [asdict(fault) for fault in faults]
        print(json.dumps({"schema": 1, "ok": False, "file": str(path), "faults": listed}))
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
        "endpoint": data_endpoint(fleet.runtime_dir, connection.name),
        "heartbeat": heartbeat_in_words(connection.heartbeat),
        "subscriptions": len(connection.subscribe.messages) + len(connection.subscribe.topics),
        "segment_bytes": segment_bytes(connection),
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
