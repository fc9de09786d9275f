"""Streams: what ``tap`` and ``events`` print, read from the endpoints like any subscriber."""

import base64
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import zmq

from shm.directory import fleet_directory
from supervisor import screens
from supervisor.exit_codes import OK
from supervisor.fleets import find, is_supervised, opened
from supervisor.items import Event, Gap, Message, SessionChange
from supervisor.sockets import subscribed
from supervisor.subscriber import Subscriber
from worker.endpoints import EVENTS
from worker.envelope import Kind, decode

POLL_MS = 200
ALIVE_CHECK_MS = 1000  # without a message for so long, look whether somebody can still send one


def tapped_document(message: Message, missing: int = 0) -> dict[str, Any]:
    """
    Return the JSON document of a message: text as text, anything else as base64.

    Args:
        message: What is told.
        missing: How many messages of its connection were lost since the one before it.

    """
    document: dict[str, Any] = {
        "schema": 1,
        "connection": message.connection,
        "topic": message.topic,
        "kind": int(Kind.DATA),
        "epoch": message.epoch,
        "seq": message.seq,
        "topic_seq": message.topic_seq,
        "wall_ns": message.wall_ns,
        "monotonic_ns": message.monotonic_ns,
        "repaired": message.repaired,
        "missing": missing,
    }
    if message.text:
        document["payload"] = message.payload.decode("utf-8", "replace")
    else:
        document["payload_b64"] = base64.b64encode(message.payload).decode("ascii")
    return document


def tapped_line(item: Message | Gap | SessionChange) -> str:
    """Return the line for people: who, where in the sequence, and the message or what befell."""
    if isinstance(item, Gap):
        return f"GAP: {item.missing} missing of {item.connection}: {item.first} to {item.last}"
    if isinstance(item, SessionChange):
        return f"SESSION: {item.connection} has another session with the exchange"
    if item.text:
        payload = screens.plain(item.payload.decode("utf-8", "replace"))
    else:
        payload = f"<{len(item.payload)} bytes> {item.payload[:32].hex(' ')}"
    repaired = " (from the journal)" if item.repaired else ""
    return f"{item.topic} {item.epoch}:{item.seq}{repaired} {payload}"


def print_tap(shm_dir: Path, patterns: Sequence[str], *, count: int, as_json: bool) -> int:
    """
    Print messages of the matching connections until the fleet ends; return the exit code.

    Args:
        shm_dir: The fleet's.
        patterns: Globs; none means all.
        count: How many messages in all; 0 goes on.
        as_json: A document a message. What befell between them is told on stderr.

    Raises:
        NoSuchConnection: If a pattern matches nothing.

    """
    missing: Counter[str] = Counter()
    left = count
    with Subscriber(shm_dir.name, *patterns, wait=False, until_fleet_ends=True) as subscriber:
        for item in subscriber:
            assert not isinstance(item, Event), "nobody asked for events"
            if not as_json or not isinstance(item, Message):
                print(tapped_line(item), file=sys.stderr if as_json else sys.stdout, flush=True)
            else:
                document = tapped_document(item, missing[item.connection])
                sys.stdout.buffer.write(msgspec.json.encode(document) + b"\n")
                sys.stdout.buffer.flush()
                missing[item.connection] = 0
            if isinstance(item, Gap):
                missing[item.connection] += item.missing or 0
            left -= isinstance(item, Message)
            if count and not left:
                break
    return OK


def print_events(fleet: str | None, *, follow: bool, as_json: bool) -> int:
    """
    Print a fleet's events until it ends, or with ``follow`` those of its next runs too.

    Raises:
        NoSuchFleet: If no such fleet is running, and it is not named and followed.

    """
    shm_dir = fleet_directory(fleet) if follow and fleet else find(fleet, running=True)
    while True:
        while follow and not is_supervised(shm_dir):
            time.sleep(POLL_MS / 1000)
        with opened(shm_dir) as registry:
            runtime_dir = registry.runtime_dir
        for document in events(shm_dir, runtime_dir):
            line = (
                json.dumps({"schema": 1, **document}) if as_json else screens.event_line(document)
            )
            print(line, flush=True)
        if not follow:
            return OK


def events(shm_dir: Path, runtime_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the fleet's events as they happen, as their JSON documents, until the fleet ends."""
    with zmq.Context() as context:
        endpoint = f"ipc://{runtime_dir / EVENTS}"
        with subscribed(context, endpoint, (b"event.",)) as socket:
            while True:
                if not socket.poll(ALIVE_CHECK_MS):
                    if is_supervised(shm_dir):
                        continue
                    return  # it was killed: nobody is left to say so
                envelope = decode(socket.recv())
                if envelope.kind == Kind.EVENT:
                    document: dict[str, Any] = msgspec.json.decode(envelope.payload)
                    yield document
                    if document["kind"] == "supervisor_down":
                        return
