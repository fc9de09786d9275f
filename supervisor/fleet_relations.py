"""Relations: what the tables of a fleet.toml must satisfy together, beyond the shape of each.

Each check yields the path of the key inside its table, and what is wrong with it and its mend.
"""

import ipaddress
import re
from collections.abc import Iterator

from shm.directory import BUDGET_DIRECTORY
from supervisor import fleet_model as model
from supervisor.fleet_spec import is_function
from worker import faults
from worker.template import fields_of, fill

KeyPath = tuple[str | int, ...]
Found = Iterator[tuple[KeyPath, str]]
PING_BODY_MAX = 125  # RFC 6455 section 5.5
RING_MIN, RING_MAX = 1024, 1 << 20
# Longest text of each field of a payload: a UUID, and integers of 64 bits.
EXPANSIONS = {"uuid": "u" * 36, "seq": "9" * 20, "ts_ms": "9" * 20, "ts_s": "9" * 20}
RESERVED_CONNECTION = "fleet"  # the topic event.fleet is the fleet's own
RESERVED_FLEET = BUDGET_DIRECTORY  # stands beside the fleets' directories
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
NUL = "must not hold a NUL character"


def relations(table: model.ConnectionTable) -> Found:
    """Yield what is wrong in a ``[[connection]]`` of good shape."""
    if table.name == RESERVED_CONNECTION:
        yield ("name",), f"{RESERVED_CONNECTION!r} is taken by the fleet's own events"
    if message := faults.url_fault(table.url):
        yield ("url",), message
    yield from _handshake_faults(table)
    yield from _secret_faults(table)
    yield from _network_faults(table)
    yield from _matcher_faults(table)
    yield from _subscription_faults(table)
    if isinstance(table.heartbeat, model.HeartbeatTable):
        for key, message in _heartbeat_faults(table.heartbeat):
            yield ("heartbeat", key), message
        yield from _faults_beside_heartbeat(table, table.heartbeat)
    yield from _time_faults(table)
    ring = table.publish.stats.ring
    if not RING_MIN <= ring <= RING_MAX or ring & (ring - 1):
        yield (
            ("publish", "stats", "ring"),
            f"must be a power of two of {RING_MIN} to {RING_MAX}, got {model.shown(ring)}",
        )


def fleet_relations(table: model.FleetTable) -> Found:
    """Yield what is wrong in ``[fleet]``."""
    if table.name == RESERVED_FLEET:
        yield ("name",), f"{RESERVED_FLEET!r} is taken by the connect budgets"
    if table.runtime_dir is not None and "\0" in table.runtime_dir:
        yield ("runtime_dir",), NUL


def budget_relations(host: str) -> Found:
    """Yield what is wrong with the key of a ``[budget."host"]``."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if _HOST.fullmatch(host) is None:
            yield (), "must be a host name in lower case or an IP address, without scheme and port"


def simulator_relations(table: model.SimulatorTable) -> Found:
    """Yield what is wrong in ``[simulator]``."""
    if "\0" in table.host:
        yield ("host",), NUL


def _handshake_faults(table: model.ConnectionTable) -> Found:
    seen: dict[str, str] = {}
    for name, value in table.headers.items():
        lower = name.lower()
        if message := faults.header_name_fault(name):
            yield ("headers", name), message
        elif lower in seen:
            yield ("headers", name), f"is the same header as {seen[lower]!r}; keep one"
        seen[lower] = name
        if isinstance(value, str) and (message := faults.header_value_fault(value)):
            yield ("headers", name), message
    for index, name in enumerate(table.subprotocols):
        if message := faults.subprotocol_fault(name):
            yield ("subprotocols", index), message


def _secret_faults(table: model.ConnectionTable) -> Found:
    named: list[tuple[KeyPath, object]] = [(("proxy",), table.proxy)]
    named += [(("headers", name), value) for name, value in table.headers.items()]
    named += [(("secrets", name), value) for name, value in table.secrets.items()]
    for path, secret in named:
        if not isinstance(secret, model.SecretTable):
            continue
        given = {key: value for key, value in secret.model_dump().items() if value is not None}
        if len(given) != 1:
            yield path, "must have exactly one of the keys env, file and credential"
        for key, value in given.items():
            if "\0" in value:
                yield (*path, key), NUL
            elif key == "env" and "=" in value:
                yield (*path, key), "is no name of an environment variable"
            elif key == "credential" and ("/" in value or value in (".", "..")):
                yield (*path, key), "is no name of a credential; name it as in LoadCredential="


def _network_faults(table: model.ConnectionTable) -> Found:
    if isinstance(table.proxy, str) and (message := faults.proxy_fault(table.proxy)):
        yield ("proxy",), f"{message}, or a secret with that"
    address = table.socket.source_address
    if address is not None:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            yield (
                ("socket", "source_address"),
                f"must be an IP address of this machine, got {model.shown(address)}",
            )
    if table.tls.ca is not None and ("\0" in table.tls.ca or not table.tls.ca):
        yield ("tls", "ca"), NUL if table.tls.ca else "must name a file"
    if table.login is not None and not is_function(table.login):
        yield (
            ("login",),
            f"must be package.module:function, got {model.shown(table.login)}",
        )


def _matcher_faults(table: model.ConnectionTable) -> Found:
    beat, ack = table.server_heartbeat, table.ack
    matchers: list[tuple[KeyPath, model.Matcher | None]] = [
        (("server_ping", index, "match"), rule.match)
        for index, rule in enumerate(table.server_ping)
    ]
    matchers += [
        (("server_heartbeat", "match"), None if beat is None else beat.match),
        (("ready",), table.ready),
        (("ack", "match"), None if ack is None else ack.match),
        (("ack", "error"), None if ack is None else ack.error),
        (("publish", "key"), table.publish.key),
    ]
    for path, matcher in matchers:
        if isinstance(matcher, str) and (message := faults.expression_fault(matcher)):
            yield path, message


def _subscription_faults(table: model.ConnectionTable) -> Found:
    if table.topics and table.subscribe_template is None:
        yield (
            ("topics",),
            "need subscribe_template, the message that they are put into",
        )
    for key in ("subscribe_template", "unsubscribe_template"):
        template: str | None = getattr(table, key)
        if template is None:
            continue
        fields = fields_of(template)
        if not fields & {"topics", "topic"}:
            yield (key,), "must hold ${topics} (a JSON array) or ${topic} (a JSON string)"
        elif "topic" in fields and table.topics_per_message != 1:
            yield (
                (key,),
                "holds ${topic}, which is one: set topics_per_message = 1, or use ${topics}",
            )


def _heartbeat_faults(beat: model.HeartbeatTable) -> Iterator[tuple[str, str]]:
    application = beat.use_application_ping
    if application and beat.use_ws_ping:
        yield "use_application_ping", "excludes use_ws_ping; set use_ws_ping = false"
    if not application and not beat.use_ws_ping:
        yield "use_ws_ping", "one kind of ping must be on; heartbeat = false turns both off"
    yield from _application_faults(beat) if application else _frame_faults(beat)
    matcher = beat.pong_matcher
    is_expression = isinstance(matcher, str) and not is_function(matcher)
    if is_expression and (message := faults.expression_fault(str(matcher))):
        yield "pong_matcher", message
    if beat.pong_id is not None and (message := faults.expression_fault(beat.pong_id)):
        yield "pong_id", message


def _application_faults(beat: model.HeartbeatTable) -> Iterator[tuple[str, str]]:
    if beat.payload is None:
        yield "payload", "is missing: an application ping must say what to send"
    if beat.pong_matcher is None:
        yield "pong_matcher", "is missing: an application ping must know its answer"
    if beat.pong_id is not None:
        if beat.payload is not None and "${seq}" not in beat.payload:
            yield "pong_id", "needs ${seq} in payload: without it there is no number to echo"
        return
    if beat.timeout > beat.interval:
        yield (
            "timeout",
            "must not be above interval: without pong_id only one ping can be outstanding",
        )
    if beat.misses > 1:
        yield (
            "misses",
            "above 1 needs pong_id: without it a late pong cannot be told from the next ping's",
        )


def _frame_faults(beat: model.HeartbeatTable) -> Iterator[tuple[str, str]]:
    if beat.payload is not None:
        longest = len(fill(beat.payload, EXPANSIONS).encode())
        if longest > PING_BODY_MAX:
            yield (
                "payload",
                f"a PING body has at most {PING_BODY_MAX} bytes, got {longest} with its fields "
                "at their longest",
            )
    if not beat.use_ws_ping:
        return
    for key in ("pong_matcher", "pong_id"):
        if getattr(beat, key) is not None:
            yield (
                key,
                "is for application pings; a PING frame's answer is a PONG frame: leave it out",
            )


def _faults_beside_heartbeat(table: model.ConnectionTable, beat: model.HeartbeatTable) -> Found:
    silence = table.liveness.max_silence
    longest_gap = max(beat.interval, beat.first or 0)
    if silence and silence <= longest_gap:
        yield (
            ("liveness", "max_silence"),
            "must exceed heartbeat.interval and heartbeat.first: pongs are frames too, and a "
            "session with nothing else to say would be killed in good health",
        )
    if table.outbound is not None and table.outbound.messages < 2:
        yield (
            ("outbound", "messages"),
            "must be 2 or more beside a heartbeat: one place is kept for pings",
        )


def _time_faults(table: model.ConnectionTable) -> Found:
    if table.hang.timeout <= table.hang.warn_after:
        yield ("hang", "timeout"), "must be above hang.warn_after"
    for name, times in (("reconnect", table.reconnect), ("restart", table.restart)):
        if times.max_delay < times.initial_delay:
            yield (name, "max_delay"), f"must not be below {name}.initial_delay"
        if times.reset_after < times.stable_after:
            yield (name, "reset_after"), f"must not be below {name}.stable_after"
