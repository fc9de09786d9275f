"""From a validated ``[[connection]]`` table to the spec a worker is given."""

import re

from supervisor import fleet_model as model
from worker.spec import (
    SECOND_NS,
    ConnectionSpec,
    CrashLoopSpec,
    HangSpec,
    HeartbeatSpec,
    LimitsSpec,
    Match,
    MatchKind,
    PublishSpec,
    ReconnectSpec,
    RestartSpec,
    ServerPing,
)

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
# Comparisons joined by || of which each names the literal: a payload without it matches none.
_COMPARISON = re.compile(r"\s*[\w.]+\s*==\s*'([^'\\]+)'\s*")
_BARE_NAME = re.compile(r"[A-Za-z_]\w*")


def is_function(matcher: str) -> bool:
    """Return whether a matcher is ``package.module:function`` and not an expression."""
    return _FUNCTION.fullmatch(matcher) is not None


def connection_spec(table: model.ConnectionTable) -> ConnectionSpec:
    """Return the spec of a table that passed every check."""
    return ConnectionSpec(
        name=table.name,
        url=table.url,
        exchange=table.exchange or "",
        subscribe=tuple(table.subscribe),
        headers=tuple(table.headers.items()),
        subprotocols=tuple(table.subprotocols),
        compression=table.compression,
        decode=table.decode,
        server_ping=tuple(
            ServerPing(match=_match(rule.match), reply=rule.reply) for rule in table.server_ping
        ),
        tls_ca=table.tls.ca,
        heartbeat=_heartbeat(table.heartbeat),
        reconnect=_reconnect(table.reconnect),
        restart=_restart(table.restart),
        hang=HangSpec(warn_after_ns=table.hang.warn_after, timeout_ns=table.hang.timeout),
        publish=PublishSpec(
            control=table.publish.control,
            key=table.publish.key,
            sndhwm=table.publish.sndhwm,
            ring=table.publish.stats.ring,
        ),
        limits=LimitsSpec(
            max_message=table.limits.max_message,
            max_inflated=table.limits.max_inflated,
            max_control_bytes=table.limits.max_control_bytes,
        ),
        stop_timeout_ns=table.stop_timeout,
        start_timeout_ns=table.start_timeout,
        ready_timeout_ns=table.ready_timeout,
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
    )


def _match(matcher: model.Matcher, *, function_allowed: bool = False) -> Match:
    if isinstance(matcher, model.TextMatch):
        return Match(kind=MatchKind.TEXT, value=matcher.text)
    if function_allowed and is_function(matcher):
        return Match(kind=MatchKind.CALLABLE, value=matcher)
    return Match(kind=MatchKind.JMESPATH, value=matcher, hint=hint(matcher))


def hint(expression: str) -> str:
    """
    Return a literal that every payload matching a JMESPath expression contains, or "".

    Known for a bare name (its key must be there) and for comparisons with one and the same quoted
    literal; plain ASCII only, since JSON may escape anything else.
    """
    if _BARE_NAME.fullmatch(expression):
        return expression
    found = [_COMPARISON.fullmatch(part) for part in expression.split("||")]
    literals = {match[1] for match in found if match is not None}
    if None in found or len(literals) != 1:
        return ""
    (literal,) = literals
    return literal if re.fullmatch(r"[A-Za-z0-9_.: -]+", literal) else ""


def _reconnect(table: model.ReconnectTable) -> ReconnectSpec:
    return ReconnectSpec(
        enabled=table.enabled,
        initial_delay_ns=table.initial_delay,
        max_delay_ns=table.max_delay,
        stable_after_ns=table.stable_after,
        reset_after_ns=table.reset_after,
        connect_timeout_ns=table.connect_timeout,
        close_timeout_ns=table.close_timeout,
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
