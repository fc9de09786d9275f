"""What one connection is told to do: plain data, validated elsewhere, sent to the worker whole.

Pure. Durations are integer nanoseconds, sizes are bytes. ``supervisor/fleetfile.py`` makes these
from fleet.toml and checks every relation between them; here stand shapes and defaults only.
"""

from dataclasses import dataclass, field
from enum import StrEnum

MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000_000_000
MIB = 1024 * 1024


class MatchKind(StrEnum):
    """How a rule looks at a message."""

    JMESPATH = "jmespath"  # truthy result of the expression on the parsed JSON
    TEXT = "text"  # the whole payload equals the text
    CALLABLE = "callable"  # ``package.module:function`` on the parsed message, else on its text


class Decode(StrEnum):
    """Compression that an exchange applies inside a message (not permessage-deflate)."""

    NONE = "none"
    GZIP = "gzip"
    ZLIB = "zlib"
    DEFLATE = "deflate"  # raw deflate, RFC 1951


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One rule on a payload. ``hint``: literal bytes that a matching payload must contain."""

    kind: MatchKind
    value: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPing:
    """
    An application ping of the exchange and our answer.

    ``reply`` is a template: ``${ping}`` or ``${data.ts}`` is replaced by the raw JSON token found
    at that path of the ping, so that numbers and strings come back exactly as they were sent.
    """

    match: Match
    reply: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatSpec:
    """
    Pings to the exchange. Application pings are ordinary text messages, else PING frames are sent.

    ``payload`` may hold ``${seq}``, ``${ts_ms}`` and ``${uuid}``. With PING frames and no payload
    each ping has a body of its own. ``pong_id`` is a JMESPath to the echoed ``${seq}``.
    ``first_ns`` is the delay of the first ping after the session is up.
    """

    interval_ns: int = 30 * SECOND_NS
    timeout_ns: int = 10 * SECOND_NS
    first_ns: int = 1 * SECOND_NS
    payload: bytes | None = None
    application: bool = False
    pong_matcher: Match | None = None
    pong_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconnectSpec:
    """When a lost session is dialled again, inside the worker."""

    enabled: bool = True
    initial_delay_ns: int = 100 * MILLISECOND_NS
    max_delay_ns: int = 30 * SECOND_NS
    stable_after_ns: int = 10 * SECOND_NS
    reset_after_ns: int = 60 * SECOND_NS
    connect_timeout_ns: int = 10 * SECOND_NS
    close_timeout_ns: int = 1 * SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashLoopSpec:
    """``deaths`` within ``within_ns`` raise the flag; retries then keep ``floor_ns`` apart."""

    deaths: int = 5
    within_ns: int = 60 * SECOND_NS
    floor_ns: int = 5 * SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartSpec:
    """When a dead worker is replaced, by the supervisor."""

    initial_delay_ns: int = 100 * MILLISECOND_NS
    max_delay_ns: int = 30 * SECOND_NS
    stable_after_ns: int = 10 * SECOND_NS
    reset_after_ns: int = 60 * SECOND_NS
    crash_loop: CrashLoopSpec | None = field(default_factory=CrashLoopSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class HangSpec:
    """How old a worker's liveness stamp may get."""

    warn_after_ns: int = 1 * SECOND_NS
    timeout_ns: int = 5 * SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishSpec:
    """What goes out on the data endpoint and what is kept in shared memory."""

    control: bool = False
    key: str | None = None
    sndhwm: int = 10_000
    ring: int = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSpec:
    """Bounds on what a peer may make us hold or look at, in bytes."""

    max_message: int = 16 * MIB
    max_inflated: int = 64 * MIB
    max_control_bytes: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSpec:
    """One configured stream."""

    name: str
    url: str
    exchange: str = ""
    subscribe: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    subprotocols: tuple[str, ...] = ()
    compression: bool = False
    decode: Decode = Decode.NONE
    server_ping: tuple[ServerPing, ...] = ()
    tls_ca: str | None = None
    heartbeat: HeartbeatSpec | None = field(default_factory=HeartbeatSpec)
    reconnect: ReconnectSpec = field(default_factory=ReconnectSpec)
    restart: RestartSpec = field(default_factory=RestartSpec)
    hang: HangSpec = field(default_factory=HangSpec)
    publish: PublishSpec = field(default_factory=PublishSpec)
    limits: LimitsSpec = field(default_factory=LimitsSpec)
    stop_timeout_ns: int = 5 * SECOND_NS
    start_timeout_ns: int = 20 * SECOND_NS
    ready_timeout_ns: int = 30 * SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """
    Everything a worker process is given besides its listening socket.

    ``supervisor_start_ticks`` is field 22 of ``/proc/<pid>/stat``: with the pid it names the
    supervisor without confusing it with a later process of the same pid.
    """

    fleet: str
    incarnation: int
    runtime_dir: str
    shm_dir: str
    supervisor_pid: int
    supervisor_start_ticks: int
    spec: ConnectionSpec
