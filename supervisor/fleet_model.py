"""The shape of fleet.toml: every key, its type, its default and what it means.

Pydantic checks shape here and the JSON Schema is made from here; relations between keys, merging
and files are ``supervisor/fleetfile.py``, durations and sizes ``supervisor/fleet_units.py``.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from supervisor.exchange_spec import DEFAULTS, RATE_MAX
from supervisor.fleet_units import (
    UNITS_BYTES,
    Cpus,
    Duration,
    DurationOrZero,
    Size,
    SizeOrZero,
    Window,
)
from worker.spec import Decode

COUNT_MAX = 1_000_000
MESSAGE_MAX = UNITS_BYTES["GiB"]
CONTROL_MAX = UNITS_BYTES["MiB"]
SNDHWM_MAX = 10_000_000
SEED_MAX = 2**63 - 1
BUFFER_MAX = UNITS_BYTES["GiB"] // 2 - 1  # the kernel doubles it into an int
BUSY_POLL_MAX = 1_000_000  # microseconds
STATUS_MIN, STATUS_MAX = 100, 4999  # HTTP statuses, and close codes (RFC 6455 section 7.4.2)


def _key(default: str | int, description: str, *, le: int | None = None) -> Any:
    """A field whose default is written as an operator would write it, and validated like that."""
    return Field(default, description=description, le=le)


class Table(BaseModel):
    """A table of fleet.toml: nothing is guessed, nothing unknown is let through."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)


class TextMatch(Table):
    """A match on the whole payload."""

    text: str = Field(min_length=1, description="The payload, to the letter.")


Matcher = str | TextMatch


class ServerPingTable(Table):
    """An application ping of the exchange."""

    match: Matcher = Field(description="JMESPath expression, or {text = ...}.")
    reply: str = Field(
        min_length=1, description="Text sent back; ${a.b} copies the raw JSON token at that path."
    )


class HeartbeatTable(Table):
    """Pings to the exchange."""

    interval: Duration = _key("30s", description="Time between pings; at least 1ms.")
    timeout: Duration = _key("10s", description="Time allowed for a pong.")
    first: Duration | None = Field(
        None, description="First ping after the session opens; default 1 s, or interval if shorter."
    )
    payload: str | None = Field(
        None, description="Body of a ping; may hold ${seq}, ${ts_s}, ${ts_ms}, ${uuid}."
    )
    use_ws_ping: bool = Field(True, description="Send WebSocket PING frames.")
    use_application_ping: bool = Field(False, description="Send the payload as a text message.")
    pong_matcher: Matcher | None = Field(
        None, description="JMESPath expression, {text = ...}, or package.module:function."
    )
    pong_id: str | None = Field(None, description="JMESPath to the echoed ${seq}.")
    misses: int = Field(1, ge=1, le=100, description="Unanswered pings in a row that mean death.")


class ServerHeartbeatTable(Table):
    """A heartbeat message that the exchange sends by itself."""

    match: Matcher = Field(description="JMESPath expression, or {text = ...}.")
    max_gap: Duration = Field(description="Without one for so long the session is dead.")
    idle_only: bool = Field(False, description="It comes only without data, so data counts too.")


class LivenessTable(Table):
    """How long the exchange may be silent. Off unless set."""

    max_silence: DurationOrZero | None = Field(
        None, description="No frame of any kind for so long: the session is dead; 0: off."
    )
    data_silence: DurationOrZero | None = Field(
        None, description="No data for so long, of the connection or of one key: stale."
    )
    first_data_timeout: DurationOrZero | None = Field(
        None, description="No data at all so long after UP: the session is dead."
    )


class AckTable(Table):
    """How the exchange answers subscriptions: one message for each."""

    match: Matcher = Field(description="JMESPath expression, or {text = ...}: an answer.")
    error: Matcher | None = Field(None, description="Likewise: an answer that refuses.")
    timeout: Duration = _key("10s", description="Time allowed after the last was sent.")


class OutboundTable(Table):
    """What the exchange lets a client send."""

    messages: int = Field(
        ge=1, le=COUNT_MAX, description="At most so many, pings and pongs counted..."
    )
    per: Duration = _key("1s", description="...within this time.")


class SocketTable(Table):
    """The TCP connection. Nagle's algorithm is always off."""

    source_address: str | None = Field(None, description="Local IP address to connect from.")
    receive_buffer: Annotated[Size, Field(le=BUFFER_MAX)] | None = Field(
        None, description="SO_RCVBUF; without it the kernel grows the buffer as needed."
    )
    send_buffer: Annotated[Size, Field(le=BUFFER_MAX)] | None = Field(
        None, description="SO_SNDBUF; likewise."
    )
    busy_poll: int | None = Field(
        None, ge=1, le=BUSY_POLL_MAX, description="SO_BUSY_POLL: microseconds to poll the device."
    )
    quickack: bool = Field(False, description="TCP_QUICKACK, again after every read.")


class ProcessTable(Table):
    """Where the worker runs and how urgently. What is not set is inherited from the supervisor."""

    cpu: Cpus | None = Field(None, description="CPU of the loop, or a list of them.")
    zmq_cpu: Cpus | None = Field(
        None, description="CPU of ZeroMQ's threads; without it they do not follow the loop."
    )
    nice: int | None = Field(None, ge=-20, le=19, description="Of all its threads; -20 is urgent.")
    scheduler: str | None = Field(
        None,
        pattern=r"^(other|fifo:[1-9][0-9]?)$",
        description='"other", or "fifo:10": realtime, of the loop and ZeroMQ\'s threads.',
    )
    memory_soft: Size | None = Field(
        None, description="More than that held, outside shared memory, is announced."
    )
    memory_hard: Size | None = Field(
        None, description="With more than that the worker is replaced; at least 64MiB."
    )


class SecretTable(Table):
    """Where a secret is found. Exactly one key."""

    env: str | None = Field(None, min_length=1, description="Environment variable.")
    file: str | None = Field(None, min_length=1, description="First line of a file.")
    credential: str | None = Field(None, min_length=1, description="systemd credential.")


class BudgetTable(Table):
    """How often a host is dialled, by all fleets of the user together."""

    connects: int = Field(5, ge=1, le=COUNT_MAX, description="So many at once...")
    per: Duration = _key("5s", description="...and so many in each such time.")
    concurrent: int = Field(0, ge=0, le=COUNT_MAX, description="Sessions at a time; 0: any number.")


class ReconnectTable(Table):
    """When a lost session is dialled again, inside the worker."""

    enabled: bool = Field(True, description="Whether at all; if not, the worker exits with 69.")
    initial_delay: Duration = _key("100ms", description="First ceiling of the full jitter.")
    max_delay: Duration = _key("30s", description="Last ceiling.")
    stable_after: DurationOrZero = _key("10s", description="UP for so long: redialled at once.")
    reset_after: Duration = _key("60s", description="UP for so long: the doubling is forgotten.")
    connect_timeout: Duration = _key("10s", description="Dial, TLS and handshake together.")
    close_timeout: Duration = _key("1s", description="A closing socket is gone after this.")
    address_timeout: Duration = _key(
        "3s",
        description="TCP to one of a host's addresses; at most half of `connect_timeout`. "
        "What failed is tried last the next time.",
    )
    max_attempts: int = Field(
        0, ge=0, le=COUNT_MAX, description="Dials in a row, then exit 69; 0: for ever."
    )
    refusals: list[Annotated[int, Field(ge=STATUS_MIN, le=STATUS_MAX)]] = Field(
        [], description="HTTP statuses and close codes that mean: not soon again."
    )


class RotateTable(Table):
    """When a session is replaced by a fresh one, which is made before the old one is closed."""

    max_age: Duration | None = Field(None, description="No session gets older; default: any age.")
    window: Window | None = Field(
        None, description='Preferred part of the day, UTC: "02:00-04:00"; needs max_age.'
    )
    jitter: DurationOrZero = _key(0, description="Up to so much earlier, by chance.")
    overlap: DurationOrZero = _key(
        "1s", description="Both sessions bring data for so long; 0: only one is allowed at a time."
    )


class SecondLegTable(Table):
    """What the second of two sessions does otherwise."""

    url: str | None = Field(None, description="Another address or host; default: the same.")
    source_address: str | None = Field(None, description="Local IP address to connect from.")


class CrashLoopTable(Table):
    """When dying often is called a crash loop."""

    deaths: int = Field(5, ge=1, le=COUNT_MAX, description="So many deaths...")
    within: Duration = _key("60s", description="...within this time...")
    floor: Duration = _key("5s", description="...keep retries at least so far apart.")


class RestartTable(Table):
    """When a dead worker is replaced."""

    initial_delay: Duration = _key("100ms", description="First delay, doubling.")
    max_delay: Duration = _key("30s", description="Longest delay.")
    stable_after: DurationOrZero = _key(
        "10s", description="UP for so long: replaced at once; 0: always at once."
    )
    reset_after: Duration = _key("60s", description="UP for so long: the doubling is forgotten.")
    crash_loop: CrashLoopTable | Literal[False] = Field(
        CrashLoopTable(), description="Flag and floor for frequent deaths; false: off."
    )


class HangTable(Table):
    """How old a worker's liveness stamp may get."""

    warn_after: Duration = _key("1s", description="Then it is called hung.")
    timeout: Duration = _key("5s", description="Then it is replaced.")


class StatsTable(Table):
    """What is kept in shared memory."""

    ring: int = Field(16_384, description="Samples kept; a power of two, 1,024 to 1,048,576.")


class JournalTable(Table):
    """The last published frames, kept for whoever missed some."""

    size: SizeOrZero = _key("8MiB", description="Bytes of frames kept, 64KiB to 4GiB; 0: none.")


class PublishTable(Table):
    """What goes out on the data endpoint."""

    control: bool = Field(False, description="Publish pongs and answered pings as data too.")
    key: str | None = Field(None, description="JMESPath to the last part of the topic.")
    sndhwm: int = Field(
        10_000, ge=1, le=SNDHWM_MAX, description="Messages queued per slow subscriber."
    )
    sndbytes: Size = _key(
        "64MiB", description="A subscriber that leaves so much unread is cut; at least 1MiB."
    )
    journal: JournalTable = Field(JournalTable(), description="Published frames kept.")
    stats: StatsTable = Field(StatsTable(), description="Sizes in shared memory.")


class LimitsTable(Table):
    """Bounds on what a peer may make us hold or look at."""

    max_message: Size = _key(
        "16MiB", description="Longest message; longer ends the session.", le=MESSAGE_MAX
    )
    max_inflated: Size = _key("64MiB", description="Longest payload after decode.", le=MESSAGE_MAX)
    max_control_bytes: Size = _key(
        512, description="Longest payload the dialect looks at.", le=CONTROL_MAX
    )
    max_overlap: Size = _key(
        "32MiB", description="Memory for finding the same message in two sessions."
    )


class TlsTable(Table):
    """Peer and name are always verified."""

    ca: str | None = Field(
        None, description="File of certificates trusted instead of the system's."
    )


class ConnectionKeys(Table):
    """Keys of ``[defaults]`` and of every ``[[connection]]``."""

    headers: dict[str, str | SecretTable] = Field({}, description="Sent with the handshake.")
    secrets: dict[str, SecretTable] = Field({}, description="Given to the login function.")
    login: str | None = Field(None, description="package.module:function, called before each dial.")
    proxy: str | SecretTable | None = Field(None, description="http:// or socks5:// URL.")
    socket: SocketTable = Field(SocketTable(), description="The TCP connection.")
    process: ProcessTable = Field(ProcessTable(), description="CPUs and urgency of the worker.")
    ready: Matcher | None = Field(
        None, description="Wait for such a message before anything is sent."
    )
    ack: AckTable | None = Field(None, description="Answers to subscriptions.")
    outbound: OutboundTable | None = Field(None, description="Limit on what is sent.")
    subscribe_template: str | None = Field(
        None, description="Message for topics; holds ${topics} or ${topic}, may hold ${seq}."
    )
    unsubscribe_template: str | None = Field(None, description="Likewise, to end them.")
    topics_per_message: int = Field(
        100, ge=1, le=COUNT_MAX, description="Topics in one message at most."
    )
    subprotocols: list[str] = Field([], description="Offered in the handshake.")
    engine: Literal["auto", "websockets", "picows"] = Field(
        "auto", description="WebSocket engine; `auto` is picows, with `compression` websockets."
    )
    compression: bool = Field(False, description="Offer permessage-deflate.")
    decode: Decode = Field(
        Decode.NONE,
        strict=False,
        description="Compression inside messages, for matching only: none, gzip, zlib, deflate.",
    )
    server_ping: list[ServerPingTable] = Field([], description="Pings of the exchange to answer.")
    server_heartbeat: ServerHeartbeatTable | None = Field(
        None, description="Heartbeat message of the exchange."
    )
    notice: list[Matcher] = Field(
        [], description="Messages that announce the end of a session: it is rotated."
    )
    rotate: RotateTable = Field(RotateTable(), description="Replacing sessions by fresh ones.")
    dedup: str | None = Field(
        None, description="JMESPath: equal in two sessions' copies of a message; default: payload."
    )
    legs: Literal[1, 2] = Field(1, description="Sessions kept up at a time; the first one wins.")
    liveness: LivenessTable = Field(LivenessTable(), description="Silence of the exchange.")
    tls: TlsTable = Field(TlsTable(), description="TLS.")
    heartbeat: HeartbeatTable | Literal[False] = Field(
        HeartbeatTable(), description="Pings to the exchange; false: none; a number: the interval."
    )
    reconnect: ReconnectTable = Field(ReconnectTable(), description="Redialling.")
    restart: RestartTable = Field(RestartTable(), description="Replacing dead workers.")
    hang: HangTable = Field(HangTable(), description="Replacing hung workers.")
    publish: PublishTable = Field(PublishTable(), description="What subscribers get.")
    limits: LimitsTable = Field(LimitsTable(), description="Bounds.")
    stop_timeout: Duration = _key("5s", description="From SIGTERM to SIGKILL.")
    start_timeout: Duration = _key("20s", description="From fork to the first stamp of its loop.")
    ready_timeout: Duration = _key(
        "30s", description="From fork to serving; modules of the operator are loaded in between."
    )


class ConnectionTable(ConnectionKeys):
    """One stream and its worker."""

    name: str = Field(
        pattern=r"^[a-z0-9-]{1,48}$", description="Lower-case letters, digits and '-', at most 48."
    )
    url: str = Field(description="ws:// or wss://.")
    exchange: str | None = Field(None, description="A built-in profile.")
    subscribe: list[str] = Field([], description="Messages sent when the session is open.")
    topics: list[str] = Field([], description="Put into subscribe_template.")
    leg2: SecondLegTable | None = Field(None, description="The second session, with legs = 2.")


class FleetTable(Table):
    """The fleet as a whole."""

    name: str | None = Field(
        None, pattern=r"^[a-z0-9-]{1,48}$", description="Default: the file's stem."
    )
    runtime_dir: str | None = Field(None, min_length=1, description="Where its sockets are.")
    orphans: Literal["keep", "exit"] | None = Field(
        None, description="Workers without supervisor; default: exit at a terminal, else keep."
    )


class SimulatorTable(Table):
    """An exchange of our own in a process beside the fleet, for demos and tests."""

    host: str = Field(DEFAULTS.host, min_length=1, description="Address to listen on.")
    port: int = Field(DEFAULTS.port, ge=1, le=65535, description="Port to listen on.")
    rate: float = Field(
        DEFAULTS.rate, gt=0, le=RATE_MAX, description="Messages a second per session.", strict=False
    )
    seed: int = Field(DEFAULTS.seed, ge=0, le=SEED_MAX, description="Of everything random in it.")
    answer_delay: DurationOrZero = _key(0, description="Added to every answer.")
    shared: bool = Field(False, description="One market for all sessions of an exchange.")
    max_age: DurationOrZero = _key(0, description="It closes sessions of that age; 0: never.")
    notice: DurationOrZero = _key(0, description="It says so that long before; 0: not.")


class Document(Table):
    """A whole fleet.toml."""

    version: Literal[1] = Field(1, description="Of this format.")
    fleet: FleetTable = Field(FleetTable(), description="The fleet as a whole.")
    defaults: ConnectionKeys = Field(ConnectionKeys(), description="For every connection.")
    connection: list[ConnectionTable] = Field(min_length=1, description="One table a stream.")
    budget: dict[str, BudgetTable] = Field(
        {}, description="Connect budgets by host; default 5, one more each second; loopback: none."
    )
    simulator: SimulatorTable | None = Field(None, description="The embedded exchange.")


def schema() -> dict[str, Any]:
    """Return the JSON Schema of fleet.toml."""
    document = Document.model_json_schema()
    for table in (document, *document["$defs"].values()):
        for key in table.get("properties", {}).values():
            if isinstance(key.get("default"), dict):
                del key["default"]  # of a table: in nanoseconds, which no file is written in
    for name in ("ConnectionKeys", "ConnectionTable"):
        heartbeat = document["$defs"][name]["properties"]["heartbeat"]
        heartbeat["anyOf"] += [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **document,
        "title": "feedwarden fleet.toml",
    }
