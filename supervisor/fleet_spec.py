"""What is written for a connection, merged into one table; and that, once validated, as the spec
that its worker is given.
"""

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from shm.directory import BUDGET_DIRECTORY, user_directory
from shm.journal_layout import whole_pages
from supervisor import fleet_model as model
from supervisor.fleet_units import duration_ns
from supervisor.toml_positions import Path
from worker.expressions import hint_of
from worker.spec import (
    SECOND_NS,
    AckSpec,
    BudgetSpec,
    ConnectionSpec,
    CrashLoopSpec,
    HangSpec,
    HeartbeatSpec,
    LimitsSpec,
    LivenessSpec,
    Match,
    MatchKind,
    OutboundLimit,
    ProcessSpec,
    PublishSpec,
    ReconnectSpec,
    RestartSpec,
    RotateSpec,
    SecondLeg,
    Secret,
    ServerHeartbeat,
    ServerPing,
    SocketSpec,
    SubscribeSpec,
    Window,
)

# ``false`` switches these off without forgetting what is written of them below.
SWITCHES = ("heartbeat", "crash_loop")
# These are one value each, though they may be written as a table.
MATCHERS = ("pong_matcher", "ready", "match", "error")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def merge(levels: list[dict[str, Any]], at: Path = ()) -> dict[str, Any]:
    """Return tables merged key by key; a later one goes above an earlier one."""
    keys = dict.fromkeys(key for level in levels for key in level)
    return {key: _top([le[key] for le in levels if key in le], (*at, key)) for key in keys}


def _top(values: list[Any], at: Path) -> Any:
    """Return what the values of one key, the lowest first, come to."""
    tables: list[dict[str, Any]] = []
    is_off, is_capped = False, False
    for value in values:
        is_off = value is False and at[-1] in SWITCHES
        if is_off:
            continue
        if at == ("heartbeat",) and _is_duration(value):
            tables.append({"interval": value})
            is_capped = True
        elif isinstance(value, dict) and not _is_one_value(at):
            tables.append(value)
            is_capped = is_capped and not value.keys() & {"interval", "timeout"}
        else:
            tables = []
            last = value
    if is_off:
        return False
    if not tables:
        return last
    merged = tables[0] if len(tables) == 1 else merge(tables, at)
    return merged | {"timeout": _capped(merged)} if is_capped else merged


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _is_one_value(at: Path) -> bool:
    """Return whether a table at this place is one value: a matcher or a secret."""
    return (
        at[-1] in MATCHERS or at == ("proxy",) or (len(at) == 2 and at[0] in ("headers", "secrets"))
    )


def _capped(beat: dict[str, Any]) -> Any:
    """Return a heartbeat's timeout, or its interval if that is shorter."""
    timeout = beat.get("timeout", model.HeartbeatTable.model_fields["timeout"].default)
    try:
        return min(timeout, beat["interval"], key=duration_ns)
    except ValueError:  # told when the shape is checked
        return timeout


def is_function(matcher: str) -> bool:
    """Return whether a matcher is ``package.module:function`` and not an expression."""
    return _FUNCTION.fullmatch(matcher) is not None


def connection_spec(
    table: model.ConnectionTable, budgets: dict[str, model.BudgetTable]
) -> ConnectionSpec:
    """Return the spec of a table that passed every check; ``budgets`` of the file, by host."""
    return ConnectionSpec(
        name=table.name,
        url=table.url,
        exchange=table.exchange or "",
        subscribe=_subscribe(table),
        headers=tuple((name, _maybe_secret(value)) for name, value in table.headers.items()),
        subprotocols=tuple(table.subprotocols),
        engine=table.engine,
        compression=table.compression,
        decode=table.decode,
        server_ping=tuple(
            ServerPing(match=_match(rule.match), reply=rule.reply) for rule in table.server_ping
        ),
        server_heartbeat=_server_heartbeat(table.server_heartbeat),
        notice=tuple(_match(matcher) for matcher in table.notice),
        rotate=_rotate(table.rotate),
        legs=table.legs,
        leg2=_second_leg(table, budgets),
        dedup=table.dedup,
        tls_ca=table.tls.ca,
        proxy=None if table.proxy is None else _maybe_secret(table.proxy),
        source_address=table.socket.source_address,
        socket=_socket(table.socket),
        process=_process(table.process),
        login=table.login,
        secrets=tuple((name, _secret(value)) for name, value in table.secrets.items()),
        outbound=_outbound(table.outbound),
        budget=_budget(table.url, budgets),
        liveness=LivenessSpec(
            max_silence_ns=table.liveness.max_silence or 0,
            data_silence_ns=table.liveness.data_silence or 0,
            first_data_timeout_ns=table.liveness.first_data_timeout or 0,
        ),
        heartbeat=_heartbeat(table.heartbeat),
        reconnect=_reconnect(table.reconnect),
        restart=_restart(table.restart),
        hang=HangSpec(warn_after_ns=table.hang.warn_after, timeout_ns=table.hang.timeout),
        publish=_publish(table.publish),
        limits=_limits(table.limits),
        stop_timeout_ns=table.stop_timeout,
        start_timeout_ns=table.start_timeout,
        ready_timeout_ns=table.ready_timeout,
    )


def _socket(table: model.SocketTable) -> SocketSpec:
    return SocketSpec(
        receive_buffer=table.receive_buffer or 0,
        send_buffer=table.send_buffer or 0,
        busy_poll_us=table.busy_poll or 0,
        quickack=table.quickack,
    )


def _publish(table: model.PublishTable) -> PublishSpec:
    return PublishSpec(
        control=table.control,
        key=table.key,
        sndhwm=table.sndhwm,
        sndbytes=table.sndbytes,
        ring=table.stats.ring,
        journal=whole_pages(table.journal.size),
    )


def _limits(table: model.LimitsTable) -> LimitsSpec:
    return LimitsSpec(
        max_message=table.max_message,
        max_inflated=table.max_inflated,
        max_control_bytes=table.max_control_bytes,
        max_overlap=table.max_overlap,
    )


def _heartbeat(table: model.HeartbeatTable | bool) -> HeartbeatSpec | None:
    if not isinstance(table, model.HeartbeatTable):
        return None
    matcher = table.pong_matcher
    return HeartbeatSpec(
        interval_ns=table.interval,
        timeout_ns=table.timeout,
        first_ns=table.first or min(SECOND_NS, table.interval),
        payload=None if table.payload is None else table.payload.encode(),
        application=table.use_application_ping,
        pong_matcher=None if matcher is None else _match(matcher, function_allowed=True),
        pong_id=table.pong_id,
        misses=table.misses,
    )


def _subscribe(table: model.ConnectionTable) -> SubscribeSpec:
    ack = table.ack
    return SubscribeSpec(
        messages=tuple(table.subscribe),
        topics=tuple(dict.fromkeys(table.topics)),
        template=table.subscribe_template or "",
        cancel_template=table.unsubscribe_template or "",
        topics_per_message=table.topics_per_message,
        ready=None if table.ready is None else _match(table.ready),
        ack=None
        if ack is None
        else AckSpec(
            match=_match(ack.match),
            error=None if ack.error is None else _match(ack.error),
            timeout_ns=ack.timeout,
        ),
    )


def _server_heartbeat(table: model.ServerHeartbeatTable | None) -> ServerHeartbeat | None:
    if table is None:
        return None
    return ServerHeartbeat(
        match=_match(table.match), max_gap_ns=table.max_gap, idle_only=table.idle_only
    )


def _rotate(table: model.RotateTable) -> RotateSpec:
    return RotateSpec(
        max_age_ns=table.max_age or 0,
        window=None
        if table.window is None
        else Window(opens_ns=table.window[0], closes_ns=table.window[1]),
        jitter_ns=table.jitter,
        overlap_ns=table.overlap,
    )


def _second_leg(
    table: model.ConnectionTable, budgets: dict[str, model.BudgetTable]
) -> SecondLeg | None:
    leg = table.leg2
    if leg is None:
        return None
    url = leg.url or table.url
    return SecondLeg(
        url=url,
        source_address=leg.source_address or table.socket.source_address,
        budget=_budget(url, budgets),
    )


def _outbound(table: model.OutboundTable | None) -> OutboundLimit | None:
    return None if table is None else OutboundLimit(messages=table.messages, per_ns=table.per)


def _budget(url: str, budgets: dict[str, model.BudgetTable]) -> BudgetSpec | None:
    host = urlsplit(url).hostname or ""
    table = budgets.get(host)
    if table is None:
        if is_loopback(host):
            return None
        table = model.BudgetTable()
    return BudgetSpec(
        directory=str(user_directory() / BUDGET_DIRECTORY),
        host=host,
        connects=table.connects,
        per_ns=table.per,
        concurrent=table.concurrent,
    )


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine by its very name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _process(table: model.ProcessTable) -> ProcessSpec:
    scheduler = table.scheduler
    return ProcessSpec(
        cpu=table.cpu or (),
        zmq_cpu=table.zmq_cpu or (),
        nice=table.nice,
        priority=None if scheduler is None else int(scheduler.partition(":")[2] or 0),
        memory_soft=table.memory_soft or 0,
        memory_hard=table.memory_hard or 0,
    )


def _secret(table: model.SecretTable) -> Secret:
    if table.env is not None:
        return Secret(kind="env", value=table.env)
    if table.file is not None:
        return Secret(kind="file", value=table.file)
    return Secret(kind="credential", value=table.credential or "")


def _maybe_secret(value: str | model.SecretTable) -> str | Secret:
    return value if isinstance(value, str) else _secret(value)


def _match(matcher: model.Matcher, *, function_allowed: bool = False) -> Match:
    if isinstance(matcher, model.TextMatch):
        return Match(kind=MatchKind.TEXT, value=matcher.text)
    if function_allowed and is_function(matcher):
        return Match(kind=MatchKind.CALLABLE, value=matcher)
    return Match(kind=MatchKind.JMESPATH, value=matcher, hint=hint_of(matcher))


def _reconnect(table: model.ReconnectTable) -> ReconnectSpec:
    return ReconnectSpec(
        enabled=table.enabled,
        initial_delay_ns=table.initial_delay,
        max_delay_ns=table.max_delay,
        stable_after_ns=table.stable_after,
        reset_after_ns=table.reset_after,
        connect_timeout_ns=table.connect_timeout,
        close_timeout_ns=table.close_timeout,
        address_timeout_ns=table.address_timeout,
        max_attempts=table.max_attempts,
        refusals=tuple(table.refusals),
    )


def _restart(table: model.RestartTable) -> RestartSpec:
    limit = table.crash_loop
    return RestartSpec(
        initial_delay_ns=table.initial_delay,
        max_delay_ns=table.max_delay,
        stable_after_ns=table.stable_after,
        reset_after_ns=table.reset_after,
        crash_loop=CrashLoopSpec(deaths=limit.deaths, within_ns=limit.within, floor_ns=limit.floor)
        if isinstance(limit, model.CrashLoopTable)
        else None,
    )
