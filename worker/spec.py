"""What one connection is told to do: plain data, validated elsewhere, sent to the worker whole.

Pure. Durations are integer nanoseconds, sizes are bytes. ``supervisor/fleetfile.py`` makes these
from fleet.toml and checks every relation between them; here stand shapes and defaults only.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS
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

    ``payload`` may hold ``${seq}``, ``${ts_s}``, ``${ts_ms}`` and ``${uuid}``. With PING frames and
    no payload each ping has a body of its own. ``pong_id`` is a JMESPath to the echoed ``${seq}``.
    ``first_ns`` is the delay of the first ping after the session began to subscribe. ``misses``
    unanswered pings in a row mean death.
    """

    interval_ns: int = 30 * SECOND_NS
    timeout_ns: int = 10 * SECOND_NS
    first_ns: int = 1 * SECOND_NS
    payload: bytes | None = None
    application: bool = False
    pong_matcher: Match | None = None
    pong_id: str | None = None
    misses: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHeartbeat:
    """
    A heartbeat message that the exchange sends by itself, and how long it may fail to.

    ``idle_only``: it comes only while there is nothing else to send, so any message counts.
    """

    match: Match
    max_gap_ns: int
    idle_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessSpec:
    """
    How long the exchange may be silent; 0: for ever.

    ``max_silence_ns``: no frame of any kind, the session is dead. ``first_data_timeout_ns``: no
    data at all since it got up, the session is dead. ``data_silence_ns``: no data, it is stale.
    """

    max_silence_ns: int = 0
    data_silence_ns: int = 0
    first_data_timeout_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AckSpec:
    """
    How the exchange answers a subscription: one matching message for each that was sent.

    ``error`` recognises a refusal. ``timeout_ns`` runs from the last message sent.
    """

    match: Match
    error: Match | None = None
    timeout_ns: int = 10 * SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundLimit:
    """At most ``messages`` in any ``per_ns``, pings and pongs counted."""

    messages: int
    per_ns: int = SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribeSpec:
    """
    What is said when a session is open, and how.

    ``messages`` are sent as they are. ``topics`` are put into ``template`` for as many at a time as
    ``topics_per_message`` says: ``${topics}`` is a JSON array of them, ``${topic}`` the first as a
    JSON string, ``${seq}`` the number of the message. ``cancel_template`` unsubscribes.
    """

    messages: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    template: str = ""
    cancel_template: str = ""
    topics_per_message: int = 100
    ready: Match | None = None
    ack: AckSpec | None = None


@dataclass(frozen=True, slots=True)
class Secret:
    """
    Where a secret is. ``value`` is a reference, never the secret itself.

    Args:
        kind: ``env``, ``file`` or ``credential``.
        value: The variable's name, the file's path, or the name of a systemd credential.

    """

    kind: Literal["env", "file", "credential"]
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    def __repr__(self) -> str:
        return f"Secret({self})"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSpec:
    """
    How often a host may be dialled by all our processes: ``connects`` in any ``per_ns``.

    ``concurrent``: sessions at a time, 0 for any number. ``directory`` holds the bucket files.
    """

    directory: str
    host: str
    connects: int = 5
    per_ns: int = 5 * SECOND_NS
    concurrent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconnectSpec:
    """
    When a lost session is dialled again, inside the worker.

    ``refusals``: HTTP statuses and close codes that will not pass soon, besides the well-known.
    ``max_attempts``: dials in a row without a stable session before giving up, 0 for ever.
    """

    enabled: bool = True
    initial_delay_ns: int = 100 * MILLISECOND_NS
    max_delay_ns: int = 30 * SECOND_NS
    stable_after_ns: int = 10 * SECOND_NS
    reset_after_ns: int = 60 * SECOND_NS
    connect_timeout_ns: int = 10 * SECOND_NS
    close_timeout_ns: int = 1 * SECOND_NS
    address_timeout_ns: int = 3 * SECOND_NS
    factor: float = 2.0
    max_attempts: int = 0
    refusals: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A part of every day, from midnight UTC; it goes over midnight if it closes earlier."""

    opens_ns: int
    closes_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateSpec:
    """
    When a session is replaced by a fresh one, and how long both bring data.

    ``max_age_ns``: not older than that, 0 for any age; ``jitter_ns``: up to so much earlier.
    ``overlap_ns`` 0: the exchange allows one session at a time, so it is closed before the next.
    """

    max_age_ns: int = 0
    window: Window | None = None
    jitter_ns: int = 0
    overlap_ns: int = 1 * SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondLeg:
    """What the second of two sessions does otherwise; ``budget`` is that of its host."""

    url: str
    source_address: str | None = None
    budget: BudgetSpec | None = None


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
class ProcessSpec:
    """
    Where a worker runs and how urgently; what is not set stays as it was inherited.

    ``cpu`` is the loop's, ``zmq_cpu`` that of ZeroMQ's threads. ``priority`` is that of SCHED_FIFO,
    1 to 99 (sched(7)), 0 for SCHED_OTHER. ``memory_soft`` and ``memory_hard`` are bytes, 0 for no
    limit; the supervisor holds to them.
    """

    cpu: tuple[int, ...] = ()
    zmq_cpu: tuple[int, ...] = ()
    nice: int | None = None
    priority: int | None = None
    memory_soft: int = 0
    memory_hard: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketSpec:
    """
    Options of the TCP socket, bytes and microseconds; 0 leaves the system's default.

    ``busy_poll_us`` is SO_BUSY_POLL of socket(7), ``quickack`` TCP_QUICKACK of tcp(7).
    """

    receive_buffer: int = 0
    send_buffer: int = 0
    busy_poll_us: int = 0
    quickack: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishSpec:
    """
    What goes out on the data endpoint and what is kept in shared memory.

    ``sndhwm`` messages wait for a slow subscriber; with ``sndbytes`` unread its connection is cut.
    ``journal``: bytes of its ring, whole pages, 0 for none.
    """

    control: bool = False
    key: str | None = None
    sndhwm: int = 10_000
    sndbytes: int = 64 * MIB
    ring: int = 16_384
    journal: int = 8 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSpec:
    """
    Bounds on what a peer may make us hold or look at, in bytes.

    ``max_overlap``: what is kept to find the same message in two sessions.
    """

    max_message: int = 16 * MIB
    max_inflated: int = 64 * MIB
    max_control_bytes: int = 512
    max_overlap: int = 32 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSpec:
    """
    One configured stream.

    ``notice`` recognises messages by which the exchange announces the end of a session. ``dedup``
    is a JMESPath to what the same message has in common in two sessions, by default the payload.
    """

    name: str
    url: str
    exchange: str = ""
    subscribe: SubscribeSpec = field(default_factory=SubscribeSpec)
    headers: tuple[tuple[str, str | Secret], ...] = ()
    subprotocols: tuple[str, ...] = ()
    engine: Literal["auto", "websockets", "picows"] = "auto"
    compression: bool = False
    decode: Decode = Decode.NONE
    server_ping: tuple[ServerPing, ...] = ()
    server_heartbeat: ServerHeartbeat | None = None
    notice: tuple[Match, ...] = ()
    rotate: RotateSpec = field(default_factory=RotateSpec)
    legs: Literal[1, 2] = 1
    leg2: SecondLeg | None = None
    dedup: str | None = None
    tls_ca: str | None = None
    proxy: str | Secret | None = None
    source_address: str | None = None
    socket: SocketSpec = field(default_factory=SocketSpec)
    process: ProcessSpec = field(default_factory=ProcessSpec)
    login: str | None = None
    secrets: tuple[tuple[str, Secret], ...] = ()
    outbound: OutboundLimit | None = None
    budget: BudgetSpec | None = None
    liveness: LivenessSpec = field(default_factory=LivenessSpec)
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
    supervisor without confusing it with a later process of the same pid. ``keep``: the worker goes
    on when it loses its supervisor, unless the fleet's table says otherwise.
    """

    fleet: str
    incarnation: int
    runtime_dir: str
    shm_dir: str
    supervisor_pid: int
    supervisor_start_ticks: int
    spec: ConnectionSpec
    keep: bool = False
