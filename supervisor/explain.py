"""Explain: why a connection is in its state, what happens next and when, from shared memory alone.

Needs no supervisor, as ``status``; it tells one connection in full.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from shm.layout import EVENT_SLOTS, Counter, Word
from shm.view import EventRecord, StatsView
from supervisor import stacks
from supervisor.exit_codes import OK
from supervisor.fleets import opened, select, slots_of
from supervisor.reasons import Session, reason
from supervisor.screens import age, ending, plain, since_s
from supervisor.slot import Slot
from supervisor.status import UNREADABLE, gather
from worker.announcement import NOT_RELAYED, EventKind, utc_text
from worker.endpoints import stack_file
from worker.session import State as SessionState

EVENTS_SHOWN = 8
STACK_LINES = 40


def show(shm_dir: Path, patterns: Sequence[str], *, as_json: bool) -> int:
    """
    Explain the connections that match; with ``as_json`` a document a line.

    Raises:
        NoSuchConnection: If a pattern matches nothing.
        NoSuchFleet: If the fleet has ended.
        SegmentError: If the registry cannot be read.

    """
    for number, document in enumerate(explained(shm_dir, patterns)):
        if as_json:
            print(json.dumps(document))
        else:
            print("\n" * bool(number) + "\n".join(map(plain, lines(document))))
    return OK


def explained(shm_dir: Path, patterns: Sequence[str]) -> list[dict[str, Any]]:
    """Return a document for each connection that matches; raises as ``show``."""
    status = gather(shm_dir, patterns).document
    rows = {row["name"]: row for row in status["connections"]}
    with opened(shm_dir) as registry:
        slots = {slot.name: slot for slot in slots_of(registry, shm_dir)}
        runtime_dir = registry.runtime_dir
    chosen = select(patterns, [name for name in slots if name in rows])
    return [_document(shm_dir, runtime_dir, status, rows[name], slots[name]) for name in chosen]


def _document(
    shm_dir: Path, runtime_dir: Path, status: dict[str, Any], row: dict[str, Any], slot: Slot
) -> dict[str, Any]:
    now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
    supervisor = status["supervisor"]
    session, events, postponed = _look(shm_dir, slot)
    found = reason(row["state"], slot, session, watched=supervisor["alive"], now_ns=now_ns)
    dump = stacks.last(stack_file(runtime_dir, slot.name))
    life = slot.life
    return {
        "schema": 1,
        "fleet": status["fleet"],
        "connection": slot.name,
        "state": row["state"],
        "desired": row["desired"],
        "why": found.why,
        "next": found.next,
        "next_in_s": found.in_s,
        "mend": found.mend,
        "since_s": since_s(life.since_ns, now_ns),
        "stopped_by": life.stop_cause or None,
        "pid": row["pid"],
        "incarnation": row["incarnation"],
        "restarts": row["restarts"],
        "crash_loop": slot.crash_loop,
        "recent_deaths": len(life.deaths),
        "attempt": life.attempt,
        "session": {
            "state": session.state,
            "since_s": since_s(session.since_ns, now_ns),
            "last_down": session.down,
            "dials_postponed": postponed,
        },
        "stamp_age_s": since_s(session.stamp_ns, now_ns),
        "exits": [
            {
                "time": utc_text(wall_ns - (now_ns - death.at_ns)),
                "cause": death.cause,
                "code": death.code,
                "signal": death.signal or None,
            }
            for death in life.exits
        ],
        "events": events,
        "stacks": None if dump is None else {"of": dump.head, "text": dump.text},
        "supervisor": supervisor,
        "note": row["note"],
    }


def _look(shm_dir: Path, slot: Slot) -> tuple[Session, list[dict[str, Any]], int]:
    """Return the session, the last events, and how many dials had to wait for the budget."""
    try:
        with StatsView.open(shm_dir, slot.name) as view:
            words = view.words
            published = words[Word.EVENT_PUBLISH]
            records, _lapped = view.events(max(0, published - EVENT_SLOTS), EVENT_SLOTS)
            told = [record for record in records if record.kind not in NOT_RELAYED]
            down = next((r for r in reversed(told) if r.kind == EventKind.DOWN), None)
            # Words of an earlier process tell nothing of now.
            ours = view.epoch == slot.incarnation and slot.pid
            session = Session(
                state=SessionState(words[Word.SESSION_STATE]).name.lower() if ours else "none",
                since_ns=words[Word.SESSION_SINCE_NS] if ours else 0,
                stamp_ns=words[Word.LIVENESS_NS] if ours else 0,
                last_message_ns=words[Word.LAST_MESSAGE_NS],
                down=None if down is None else msgspec.json.decode(down.body),
                down_ns=0 if down is None else down.monotonic_ns,
            )
            postponed = int(view.counters[Counter.DIALS_POSTPONED])
            return session, [_event(record) for record in told[-EVENTS_SHOWN:]], postponed
    except UNREADABLE:
        return Session("none"), [], 0


def _event(record: EventRecord) -> dict[str, Any]:
    body = msgspec.json.decode(record.body)
    return {
        "time": utc_text(record.wall_ns),
        "kind": EventKind(record.kind).label,
        "cause": body.get("cause", ""),
        "detail": body.get("detail", {}),
        "delay_s": body.get("delay_s"),
    }


def lines(document: dict[str, Any]) -> list[str]:
    """Return a document as people read it."""
    at = "" if document["next_in_s"] is None else f" in {age(document['next_in_s'])}"
    process = (
        "none"
        if document["pid"] is None
        else f"pid {document['pid']}, incarnation {document['incarnation']}"
    )
    shown = [
        f"{document['connection']}: {document['state']}, wanted {document['desired']}",
        f"  why       {document['why']}",
        f"  next      {document['next']}{at}",
    ]
    if document["mend"]:
        shown.append(f"  mend      {document['mend']}")
    if not document["supervisor"]["alive"]:
        shown.append("  note      the supervisor is dead")
    if document["note"]:
        shown.append(f"  note      {document['note']}")
    shown.append(f"  process   {process}; restarts {document['restarts']}")
    session = document["session"]
    waits = f"; waits for the host's connect budget: {session['dials_postponed']}"
    shown.append(f"  session   {session['state']}{waits if session['dials_postponed'] else ''}")
    for death in document["exits"]:
        how = ending(death["cause"], death["code"], death["signal"])
        shown.append(f"  exit      {death['time']} {how}")
    for event in document["events"]:
        facts = " ".join(f"{key}={value}" for key, value in event["detail"].items())
        shown.append(
            f"  event     {event['time']} {event['kind']} {event['cause']} {facts}".rstrip()
        )
    if document["stacks"] is not None:
        dump = document["stacks"]
        shown.append(f"  stacks    {dump['of'] or 'of a process that ended by itself'}")
        shown += [f"            {line}" for line in dump["text"].splitlines()[:STACK_LINES]]
    return shown
