"""Announcements: what happened to a connection, as events are told to other processes.

Pure. A worker writes its session's announcements to its event ring and publishes them; the
supervisor relays them and adds its own. Both spell the same kinds, causes and JSON.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any

import msgspec


class EventKind(IntEnum):
    """Kinds of events. The number stands in shared memory, the lower-case name in topics."""

    SPAWN = 1
    READY = 2
    UP = 3
    DOWN = 4
    PING = 5
    PONG = 6
    LATE_PONG = 7
    TIMEOUT = 8
    STALE = 9
    FRESH = 10
    SLOW = 11
    GAP_POSSIBLE = 12
    HUNG = 13
    KILL = 14
    EXIT = 15
    RESTART = 16
    BACKOFF = 17
    CRASH_LOOP = 18
    FAILED = 19
    STOP = 20
    ROTATE = 21
    ADOPTED = 22
    ORPHANED = 23
    HOST_STALL = 24
    CONFIG = 25
    SUPERVISOR_UP = 26
    SUPERVISOR_DOWN = 27
    STORM = 28
    MEMORY = 29
    LEG_UP = 30
    LEG_DOWN = 31

    @property
    def label(self) -> str:
        """The name in topics and JSON."""
        return self.name.lower()


# Too frequent for the fleet's event stream; they stay on the worker's own endpoint and ring.
NOT_RELAYED = frozenset({EventKind.PING, EventKind.PONG})


class Cause(StrEnum):
    """Why: the closed set of an event's ``cause``; docs/wire-format.md says which means what."""

    # a session ended, or never came to be: down, timeout
    DNS = "dns"
    CONNECT_REFUSED = "connect_refused"
    CONNECT_FAILED = "connect_failed"
    CONNECT_TIMEOUT = "connect_timeout"
    TLS = "tls"
    HANDSHAKE_REFUSED = "handshake_refused"
    HANDSHAKE_FAILED = "handshake_failed"
    PEER_CLOSED = "peer_closed"
    RESET = "reset"
    PROTOCOL_ERROR = "protocol_error"
    OVERSIZE = "oversize"
    PING_TIMEOUT = "ping_timeout"
    BUSY = "busy"
    SEND_FAILED = "send_failed"
    SILENCE = "silence"
    NO_FIRST_DATA = "no_first_data"
    HEARTBEAT_GAP = "heartbeat_gap"
    SUBSCRIBE_REFUSED = "subscribe_refused"
    SUBSCRIBE_TIMEOUT = "subscribe_timeout"
    LOGIN_FAILED = "login_failed"
    PROXY = "proxy"
    SUBSCRIPTION_CHANGED = "subscription_changed"
    ROTATED = "rotated"
    CLOSED = "closed"
    STOP = "stop"
    # a worker was ended, or ended: exit, kill, stop, restart, backoff, failed
    OPERATOR = "operator"
    SHUTDOWN = "shutdown"
    SIGNAL = "signal"
    OOM = "oom"
    EXIT = "exit"
    CRASH = "crash"
    UNKNOWN = "unknown"
    HANG = "hang"
    START_TIMEOUT = "start_timeout"
    READY_TIMEOUT = "ready_timeout"
    STOP_TIMEOUT = "stop_timeout"
    MEMORY = "memory"
    SPAWN_FAILED = "spawn_failed"
    BACKOFF = "backoff"
    STORM = "storm"
    DEATHS = "deaths"
    CREDENTIALS = "credentials"
    CONFIGURATION = "configuration"
    SUPERVISOR_DIED = "supervisor_died"
    DATA_SILENCE = "data_silence"
    TUNING = "tuning"
    CONFIG = "config"
    # a session is replaced by a fresh one: rotate
    MAX_AGE = "max_age"
    NOTICE = "notice"
    CROWDED = "crowded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """
    One event before it has a place in a stream.

    ``cause`` is a ``Cause`` or empty; a plain ``str``, since a worker of a later version may say
    one that this supervisor relays without knowing. ``delay_s`` is the time until the next attempt
    where one is planned.
    """

    kind: EventKind
    cause: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    delay_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whose event it is. Events of the fleet itself have no connection, incarnation 0."""

    fleet: str
    connection: str | None
    incarnation: int
    pid: int


def utc_text(wall_ns: int) -> str:
    """
    Return a moment of CLOCK_REALTIME as RFC 3339 has it, UTC, microseconds.

    Raises:
        ValueError: If it is in no year that a calendar has.
        OverflowError: Likewise.

    """
    moment = datetime.fromtimestamp(wall_ns // 1_000_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{wall_ns // 1000 % 1_000_000:06d}Z"


def render(
    announcement: Announcement, origin: Origin, *, seq: int, wall_ns: int, monotonic_ns: int
) -> bytes:
    """
    Return the JSON payload of an event frame.

    Args:
        announcement: What happened.
        origin: To whom.
        seq: Place in the stream of the endpoint that publishes it, from 1.
        wall_ns: CLOCK_REALTIME when it happened; becomes ``time`` (RFC 3339, UTC, microseconds).
        monotonic_ns: CLOCK_MONOTONIC when it happened, comparable on this host and boot.

    """
    return msgspec.json.encode(
        {
            "seq": seq,
            "time": utc_text(wall_ns),
            "monotonic_ns": monotonic_ns,
            "fleet": origin.fleet,
            "connection": origin.connection,
            "incarnation": origin.incarnation,
            "pid": origin.pid,
            "kind": announcement.kind.label,
            "cause": announcement.cause,
            "detail": announcement.detail,
            "delay_s": announcement.delay_s,
        }
    )


def event_topic(origin: Origin, kind: EventKind) -> str:
    """Return the topic an event goes out on."""
    if origin.connection is None:
        return f"event.fleet.{kind.label}"
    return f"event.{origin.connection}.{kind.label}"
