"""Streams: what ``tap`` and ``events`` print, read from the endpoints like any subscriber."""

import base64
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import zmq

from shm.directory import fleet_directory
from shm.segment import is_locked
from shm.stats import stats_path
from supervisor import screens
from supervisor.fleets import find, is_supervised, opened, select, slots_of
from worker.endpoints import EVENTS, data_endpoint
from worker.envelope import Envelope, Flag, Kind, decode

POLL_MS = 200
ALIVE_CHECK_MS = 1000  # without a message for so long, look whether somebody can still send one


@dataclass(frozen=True, slots=True)
class Tapped:
    """One data message; ``missing`` counts the sequence numbers lost just before it."""

    connection: str
    envelope: Envelope
    missing: int


def subscriber(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoints: Sequence[str]
) -> "zmq.Socket[bytes]":
    """
    Return a SUB connected to the endpoints, without subscriptions.

    Buffers are here and not in the publisher; a lost peer is dialled again after 1 ms, since the
    listener is held while a worker restarts (docs/wire-format.md).
    """
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVHWM, 100_000)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RECONNECT_IVL, 1)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 100)
    for endpoint in endpoints:
        socket.connect(endpoint)
    return socket


def tap(shm_dir: Path, runtime_dir: Path, names: Sequence[str], count: int) -> Iterator[Tapped]:
    """
    Yield data messages as they come, all connections in one stream, until the fleet ends.

    Args:
        shm_dir: The fleet's.
        runtime_dir: The fleet's.
        names: Connections.
        count: How many in all; 0 never ends.

    """
    last_seq: dict[str, int] = {}
    with zmq.Context() as context:
        endpoints = [data_endpoint(runtime_dir, name) for name in names]
        with subscriber(context, endpoints) as socket:
            for name in names:
                socket.subscribe(f"data.{name}\0")
                socket.subscribe(f"data.{name}.")
            for _ in itertools.repeat(None, count) if count else itertools.repeat(None):
                while not socket.poll(ALIVE_CHECK_MS):
                    if not is_supervised(shm_dir) and not _any_worker(shm_dir, names):
                        return
                envelope = decode(socket.recv())
                name = envelope.topic.split(".")[1]
                former = last_seq.get(name, 0)
                # Not above the former: another run of the fleet, which began to count anew.
                missing = envelope.seq - former - 1 if 0 < former < envelope.seq else 0
                last_seq[name] = envelope.seq
                yield Tapped(name, envelope, missing)


def _any_worker(shm_dir: Path, names: Sequence[str]) -> bool:
    return any(is_locked(stats_path(shm_dir, name)) for name in names)


def tapped_document(tapped: Tapped) -> dict[str, Any]:
    """Return the JSON document of a tapped message: text as text, anything else as base64."""
    envelope = tapped.envelope
    document: dict[str, Any] = {
        "schema": 1,
        "connection": tapped.connection,
        "topic": envelope.topic,
        "kind": envelope.kind,
        "epoch": envelope.epoch,
        "seq": envelope.seq,
        "topic_seq": envelope.topic_seq,
        "wall_ns": envelope.wall_ns,
        "monotonic_ns": envelope.monotonic_ns,
        "missing": tapped.missing,
    }
    if envelope.flags & Flag.TEXT:
        document["payload"] = envelope.payload.decode("utf-8", "replace")
    else:
        document["payload_b64"] = base64.b64encode(envelope.payload).decode("ascii")
    return document


def tapped_line(tapped: Tapped) -> str:
    """Return the line for people: who, where in the sequence, and the message."""
    envelope = tapped.envelope
    gap = f"GAP: {tapped.missing} missing before this\n" if tapped.missing else ""
    if envelope.flags & Flag.TEXT:
        payload = screens.plain(envelope.payload.decode("utf-8", "replace"))
    else:
        payload = f"<{len(envelope.payload)} bytes> {envelope.payload[:32].hex(' ')}"
    return f"{gap}{envelope.topic} {envelope.epoch}:{envelope.seq} {payload}"


def print_tap(shm_dir: Path, patterns: Sequence[str], *, count: int, as_json: bool) -> int:
    """
    Print messages of the matching connections; return the exit code.

    Raises:
        NoSuchConnection: If a pattern matches nothing.

    """
    with opened(shm_dir) as registry:
        names = select(patterns, [slot.name for slot in slots_of(registry, shm_dir)])
        runtime_dir = registry.runtime_dir
    for tapped in tap(shm_dir, runtime_dir, names, count):
        if as_json:
            sys.stdout.buffer.write(msgspec.json.encode(tapped_document(tapped)) + b"\n")
        else:
            sys.stdout.write(tapped_line(tapped) + "\n")
        sys.stdout.flush()
    return 0


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
            return 0


def events(shm_dir: Path, runtime_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the fleet's events as they happen, as their JSON documents, until the fleet ends."""
    with zmq.Context() as context:
        endpoint = f"ipc://{runtime_dir / EVENTS}"
        with subscriber(context, [endpoint]) as socket:
            socket.subscribe("event.")
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
