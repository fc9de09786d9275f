"""Relations: what the tables of a fleet.toml must satisfy together, beyond the shape of each.

Each check yields the path of the key inside its table, and what is wrong with it and its mend. Of
this machine only the CPUs are looked at.
"""

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from shm.directory import BUDGET_DIRECTORY
from shm.journal_layout import SIZE_MAX, SIZE_MIN
from supervisor import fleet_model as model
from supervisor.fleet_spec import is_function
from supervisor.fleet_units import shown
from worker import template
from worker.dialect import reply_fault
from worker.expressions import fault_of
from worker.handshake import header_faults, is_token, url_fault
from worker.heartbeat_rules import PingSettings, contradictions, silence_fault
from worker.outbox import places_for_pings
from worker.placement import is_usable
from worker.proxy import ProxyRefused, parse_proxy
from worker.spec import SECOND_NS

KeyPath = tuple[str | int, ...]
Found = Iterator[tuple[KeyPath, str]]
MEMORY_HARD_MIN = 64 << 20  # a worker begins with some 15 MiB; less would replace it for ever
SNDBYTES_MIN = 1 << 20  # less may be in flight to a subscriber in good health
RING_MIN, RING_MAX = 1024, 1 << 20
RESERVED_CONNECTION = "fleet"  # the topic event.fleet is the fleet's own
RESERVED_FLEET = BUDGET_DIRECTORY  # stands beside the fleets' directories
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
TEMPLATE_FIELDS = ("topics", "topic", "seq")
NUL = "must not hold a NUL character"


def relations(table: model.ConnectionTable) -> Found:
    """Yield what is wrong in a ``[[connection]]`` of good shape."""
    if table.name == RESERVED_CONNECTION:
        yield ("name",), f"{RESERVED_CONNECTION!r} is taken by the fleet's own events"
    if message := url_fault(table.url):
        yield ("url",), message
    yield from _handshake_faults(table)
    yield from _secret_faults(table)
    yield from _network_faults(table)
    yield from _process_faults(table.process)
    yield from _matcher_faults(table)
    yield from _subscription_faults(table)
    if isinstance(table.heartbeat, model.HeartbeatTable):
        for key, message in _heartbeat_faults(table.heartbeat):
            yield ("heartbeat", key), message
        yield from _faults_beside_heartbeat(table, table.heartbeat)
    yield from _time_faults(table)
    yield from _rotation_faults(table)
    if table.publish.sndbytes < SNDBYTES_MIN:
        yield (
            ("publish", "sndbytes"),
            f"must be at least 1MiB, got {shown(table.publish.sndbytes)}",
        )
    journal = table.publish.journal.size
    if journal and not SIZE_MIN <= journal <= SIZE_MAX:
        yield (
            ("publish", "journal", "size"),
            f"must be 0, or 64KiB to 4GiB, got {shown(journal)}",
        )
    ring = table.publish.stats.ring
    if not RING_MIN <= ring <= RING_MAX or ring & (ring - 1):
        yield (
            ("publish", "stats", "ring"),
            f"must be a power of two of {RING_MIN} to {RING_MAX}, got {shown(ring)}",
        )


def functions_of(table: model.ConnectionTable) -> Iterator[tuple[KeyPath, tuple[str, bool]]]:
    """Yield the operator's functions: the key, the name, and whether it is a matcher."""
    if table.login is not None and is_function(table.login):
        yield ("login",), (table.login, False)
    matcher = table.heartbeat.pong_matcher if table.heartbeat else None
    if isinstance(matcher, str) and is_function(matcher):
        yield ("heartbeat", "pong_matcher"), (matcher, True)


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
    for header, fault in header_faults(table.headers):
        yield ("headers", header), fault
    if table.engine == "picows" and table.compression:
        yield ("engine",), "picows inflates nothing; set compression = false, or leave engine out"
    for index, name in enumerate(table.subprotocols):
        if not is_token(name):
            yield ("subprotocols", index), "is no name of a subprotocol (RFC 6455 section 4.1)"


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
    if isinstance(table.proxy, str):
        try:
            parse_proxy(table.proxy)
        except ProxyRefused:  # not quoted: it may hold a password
            fault = "must be http://host:port or socks5://host:port, or a secret with that"
            yield ("proxy",), fault
    address = table.socket.source_address
    if address is not None:
        yield from _address_faults(("socket", "source_address"), address)
    if table.tls.ca is not None and ("\0" in table.tls.ca or not table.tls.ca):
        yield ("tls", "ca"), NUL if table.tls.ca else "must name a file"
    if table.login is not None and not is_function(table.login):
        yield (
            ("login",),
            f"must be package.module:function, got {shown(table.login)}",
        )


def _process_faults(table: model.ProcessTable) -> Found:
    for key in ("cpu", "zmq_cpu"):
        missing = [cpu for cpu in getattr(table, key) or () if not is_usable(cpu)]
        if missing:
            yield (
                ("process", key),
                f"names what this process may not run on: {', '.join(map(str, missing))}; "
                f"there are {os.cpu_count()} CPUs, and a cpuset may withhold some",
            )
    soft, hard = table.memory_soft, table.memory_hard
    if hard is not None and hard < MEMORY_HARD_MIN:
        yield (
            ("process", "memory_hard"),
            f"must be at least {shown(MEMORY_HARD_MIN)}, got {shown(hard)}: "
            "a worker that has just started must have room",
        )
    if hard is not None and soft is not None and soft >= hard:
        yield ("process", "memory_soft"), f"must be below process.memory_hard, {shown(hard)}"


def _matcher_faults(table: model.ConnectionTable) -> Found:
    for index, rule in enumerate(table.server_ping):
        if message := reply_fault(rule.reply):
            yield ("server_ping", index, "reply"), message
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
        (("dedup",), table.dedup),
    ]
    matchers += [(("notice", index), matcher) for index, matcher in enumerate(table.notice)]
    for path, matcher in matchers:
        if isinstance(matcher, str) and (message := fault_of(matcher)):
            yield path, message


def _subscription_faults(table: model.ConnectionTable) -> Found:
    if table.topics and table.subscribe_template is None:
        yield (
            ("topics",),
            "need subscribe_template, the message that they are put into",
        )
    for key in ("subscribe_template", "unsubscribe_template"):
        text: str | None = getattr(table, key)
        if text is None:
            continue
        fields = template.fields_of(text)
        if message := template.fault_of(text, TEMPLATE_FIELDS):
            yield (key,), message
        elif not fields & {"topics", "topic"}:
            yield (key,), "must hold ${topics} (a JSON array) or ${topic} (a JSON string)"
        elif "topic" in fields and table.topics_per_message != 1:
            yield (
                (key,),
                "holds ${topic}, which is one: set topics_per_message = 1, or use ${topics}",
            )


def _heartbeat_faults(beat: model.HeartbeatTable) -> Iterator[tuple[str, str]]:
    if not beat.use_application_ping and not beat.use_ws_ping:
        yield "use_ws_ping", "one kind of ping must be on; heartbeat = false turns both off"
    yield from contradictions(
        PingSettings(
            second=SECOND_NS,
            interval=beat.interval,
            timeout=beat.timeout,
            payload=(beat.payload or "").encode(),
            use_ws_ping=beat.use_ws_ping,
            use_application_ping=beat.use_application_ping,
            has_matcher=beat.pong_matcher is not None,
            pong_id=beat.pong_id,
            misses=beat.misses,
        )
    )
    matcher = beat.pong_matcher
    is_expression = isinstance(matcher, str) and not is_function(matcher)
    if is_expression and (message := fault_of(str(matcher))):
        yield "pong_matcher", message
    if beat.pong_id is not None and (message := fault_of(beat.pong_id)):
        yield "pong_id", message


def _faults_beside_heartbeat(table: model.ConnectionTable, beat: model.HeartbeatTable) -> Found:
    silence = table.liveness.max_silence
    if silence and (message := silence_fault(silence, beat.interval, beat.first)):
        yield ("liveness", "max_silence"), message
    if table.outbound is not None:
        places = places_for_pings(table.outbound.per, beat.interval)
        if table.outbound.messages <= places:
            yield (
                ("outbound", "messages"),
                f"must be {places + 1} or more beside this heartbeat, whose pings need {places}",
            )


def _rotation_faults(table: model.ConnectionTable) -> Found:
    rotate, leg = table.rotate, table.leg2
    if rotate.max_age is None:
        for key in ("window", "jitter"):
            if getattr(rotate, key):
                yield ("rotate", key), "needs rotate.max_age, which no session outlives"
    elif rotate.jitter > rotate.max_age // 2:
        yield ("rotate", "jitter"), "must not be above half of rotate.max_age"
    if table.legs == 2 and not rotate.overlap:
        yield ("legs",), "cannot be 2 where rotate.overlap = 0 says that one session is allowed"
    if table.legs == 2 and (not table.reconnect.enabled or table.reconnect.max_attempts):
        yield ("legs",), "can be 2 only if a leg is dialled again for ever: see reconnect"
    if leg is None:
        return
    if table.legs == 1:
        yield ("leg2",), "is of no use without legs = 2"
    if leg.url is not None and (message := url_fault(leg.url)):
        yield ("leg2", "url"), message
    if leg.source_address is not None:
        yield from _address_faults(("leg2", "source_address"), leg.source_address)


def crowd_relations(
    table: model.ConnectionTable, budgets: Mapping[str, model.BudgetTable]
) -> Found:
    """Yield what is wrong in a ``[[connection]]`` beside the budgets, by host."""
    if table.legs == 1:
        return
    second = table.leg2.url if table.leg2 is not None else None
    hosts = [urlsplit(url).hostname or "" for url in (table.url, second or table.url)]
    for host in hosts[:1] if hosts[0] == hosts[1] else ():
        budget = budgets.get(host)
        if budget is not None and budget.concurrent == 1:
            yield ("legs",), f'cannot be 2: budget."{host}".concurrent allows one session'


def _address_faults(path: KeyPath, address: str) -> Found:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        yield path, f"must be an IP address of this machine, got {shown(address)}"


def _time_faults(table: model.ConnectionTable) -> Found:
    if table.hang.timeout <= table.hang.warn_after:
        yield ("hang", "timeout"), "must be above hang.warn_after"
    for name, times in (("reconnect", table.reconnect), ("restart", table.restart)):
        if times.max_delay < times.initial_delay:
            yield (name, "max_delay"), f"must not be below {name}.initial_delay"
        if times.reset_after < times.stable_after:
            yield (name, "reset_after"), f"must not be below {name}.stable_after"
