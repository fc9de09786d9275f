"""Config: how a user of the library says what heartbeat and what backoff he wants.

Checked at construction; durations are float seconds here and integer nanoseconds in the spec.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from worker.client_arguments import (
    check_count,
    check_expression,
    check_instance,
    check_plain,
    check_seconds,
    utf8_of,
)
from worker.dialect import reply_fault
from worker.expressions import hint_of
from worker.heartbeat_rules import PingSettings, contradictions, silence_fault
from worker.spec import (
    SECOND_NS,
    ConnectionSpec,
    Decode,
    HeartbeatSpec,
    LivenessSpec,
    Match,
    MatchKind,
    ReconnectSpec,
    ServerHeartbeat,
    ServerPing,
)

PongMatcher = str | Mapping[str, str] | Callable[[Any], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatConfig:
    """
    When to ping, and what is an answer.

    A ping without its answer within ``timeout`` is the end of the session: it is closed, and
    redialled if reconnecting is on.

    Attributes:
        interval: Seconds between pings, on an absolute timetable; at least 0.001.
        timeout: Seconds allowed for the answer. At most ``interval``, unless answers can be told
            apart: PING frames without a fixed payload, or ``pong_id``.
        payload: Body of a ping. PING frames without one get a body of their own each. May hold
            ``${seq}``, ``${ts_s}``, ``${ts_ms}`` and ``${uuid}``.
        use_ws_ping: Send PING frames (RFC 6455 section 5.5.2).
        use_application_ping: Send the payload as a text message instead.
        pong_matcher: What recognises the answer among messages: a function that gets the parsed
            JSON, else the text; a JMESPath expression on the same; or ``{"text": "pong"}`` for a
            message that is exactly that.
        pong_id: JMESPath to where the exchange echoes ``${seq}``.
        first: Seconds from the session's start to the first ping; default 1, or ``interval`` if
            shorter.
        misses: Unanswered pings in a row that mean death.
        server_ping: Pings that the exchange sends as messages, and our answers:
            ``{"match": "ping", "reply": '{"pong":${ping}}'}``. ``match`` is as ``pong_matcher``,
            but no function; ``${a.b}`` copies the raw JSON token at that path of the ping.
        server_heartbeat: A heartbeat message of the exchange, ``{"match": ..., "max_gap": seconds,
            "idle_only": bool}``: without one for so long the session is dead. ``idle_only``: it
            comes only without data, so data counts too.
        decode: Compression inside messages, looked through by every matcher: ``none``, ``gzip``,
            ``zlib`` or ``deflate``.
        max_silence: Seconds without a frame of any kind that mean death; ``None``: for ever. Above
            ``interval``, if there are pings.
        data_silence: Seconds without data that make the session stale, and an event.
        first_data_timeout: Seconds from the session's start without any data that mean death.

    With neither kind of ping, a ``server_ping``, a ``server_heartbeat`` or one of the last three
    must be given: ``heartbeat=None`` is nothing at all.

    Raises:
        ValueError: If a value is impossible, or contradicts another; the text names the field.

    """

    interval: float = 30.0
    timeout: float = 10.0
    payload: bytes = b""
    use_ws_ping: bool = True
    use_application_ping: bool = False
    pong_matcher: PongMatcher | None = None
    pong_id: str | None = None
    first: float | None = None
    misses: int = 1
    server_ping: Sequence[Mapping[str, Any]] = ()
    server_heartbeat: Mapping[str, Any] | None = None
    decode: str = "none"
    max_silence: float | None = None
    data_silence: float | None = None
    first_data_timeout: float | None = None

    def __post_init__(self) -> None:
        check_seconds("interval", self.interval)
        check_seconds("timeout", self.timeout)
        for name in ("first", "max_silence", "data_silence", "first_data_timeout"):
            if (value := getattr(self, name)) is not None:
                check_seconds(name, value)
        if not isinstance(self.decode, str) or self.decode not in tuple(Decode):
            raise ValueError(f"decode must be one of {', '.join(Decode)}, got {self.decode!r}")
        self._server_pings()
        self._server_heartbeat()
        if not isinstance(self.payload, bytes):
            raise ValueError(f"payload must be bytes, such as b'ping', got {self.payload!r}")
        check_count("misses", self.misses)
        for name in ("use_ws_ping", "use_application_ping"):
            check_instance(name, getattr(self, name), bool, "True or False")
        for name, why in contradictions(self._settings()):
            raise ValueError(f"{name} {why}")
        if self.use_application_ping and self.pong_matcher is not None:
            _match_of(self.pong_matcher)
            if self.pong_id is not None:
                check_expression("pong_id", self.pong_id)
        if not (self.use_ws_ping or self.use_application_ping or self._listens()):
            raise ValueError(
                "use_ws_ping or use_application_ping must be on; heartbeat=None is off"
            )
        pings = self.use_ws_ping or self.use_application_ping
        silence = self.max_silence
        if pings and silence and (fault := silence_fault(silence, self.interval, self.first)):
            raise ValueError(f"max_silence {fault}")

    def _settings(self) -> PingSettings:
        return PingSettings(
            second=1.0,
            interval=self.interval,
            timeout=self.timeout,
            payload=self.payload,
            use_ws_ping=self.use_ws_ping,
            use_application_ping=self.use_application_ping,
            has_matcher=self.pong_matcher is not None,
            pong_id=self.pong_id,
            misses=self.misses,
        )

    def _listens(self) -> bool:
        clocks = (self.max_silence, self.data_silence, self.first_data_timeout)
        return bool(self.server_ping or self.server_heartbeat or any(clocks))

    @classmethod
    def preset(cls, name: str) -> "HeartbeatConfig":
        """
        Return the interval and timeout for a use.

        ``trading``: 20 and 10 s, ``llm_streaming``: 30 and 15 s, ``dashboard``: 30 and 20 s.

        Raises:
            ValueError: If there is no such preset.

        """
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
        interval, timeout = PRESETS[name]
        return cls(interval=interval, timeout=timeout)

    def onto(self, spec: ConnectionSpec) -> ConnectionSpec:
        """Return a connection with this heartbeat and these clocks."""
        return replace(
            spec,
            heartbeat=self._pings(),
            server_ping=self._server_pings(),
            server_heartbeat=self._server_heartbeat(),
            decode=Decode(self.decode),
            liveness=LivenessSpec(
                max_silence_ns=_ns_or_0(self.max_silence),
                data_silence_ns=_ns_or_0(self.data_silence),
                first_data_timeout_ns=_ns_or_0(self.first_data_timeout),
            ),
        )

    def _server_pings(self) -> tuple[ServerPing, ...]:
        rules: object = self.server_ping
        if isinstance(rules, str | bytes | Mapping) or not isinstance(rules, Sequence):
            shape = "[{'match': ..., 'reply': ...}]"
            raise ValueError(f"server_ping must be a list of mappings, {shape}, got {rules!r}")
        pings = tuple(
            ServerPing(
                match=_rule("server_ping", rule), reply=utf8_of("server_ping", rule["reply"])
            )
            for rule in self.server_ping
            if _has_keys("server_ping", rule, {"match", "reply"})
        )
        for ping in pings:
            if fault := reply_fault(ping.reply):
                raise ValueError(f"server_ping: reply {fault}")
        return pings

    def _server_heartbeat(self) -> ServerHeartbeat | None:
        rule = self.server_heartbeat
        if rule is None or not _has_keys("server_heartbeat", rule, {"match", "max_gap"}):
            return None
        check_seconds("server_heartbeat max_gap", rule["max_gap"])
        idle_only = rule.get("idle_only", False)
        check_instance("server_heartbeat idle_only", idle_only, bool, "True or False")
        return ServerHeartbeat(
            match=_rule("server_heartbeat", rule),
            max_gap_ns=_ns(rule["max_gap"]),
            idle_only=idle_only,
        )

    def _pings(self) -> HeartbeatSpec | None:
        if not self.use_ws_ping and not self.use_application_ping:
            return None
        first = self.first if self.first is not None else min(1.0, self.interval)
        return HeartbeatSpec(
            interval_ns=_ns(self.interval),
            timeout_ns=_ns(self.timeout),
            first_ns=_ns(first),
            payload=self.payload or None,
            application=self.use_application_ping,
            pong_matcher=None if self.pong_matcher is None else _match_of(self.pong_matcher),
            pong_id=self.pong_id,
            misses=self.misses,
        )


PRESETS = {"trading": (20.0, 10.0), "llm_streaming": (30.0, 15.0), "dashboard": (30.0, 20.0)}
FUNCTION = Match(kind=MatchKind.CALLABLE, value="given")


def heartbeat_of(wanted: "HeartbeatConfig | float | str | None") -> HeartbeatConfig | None:
    """
    Return the config that a user meant: seconds between pings, a preset's name, or none.

    Raises:
        ValueError: If it is neither.

    """
    if wanted is None or isinstance(wanted, HeartbeatConfig):
        return wanted
    if isinstance(wanted, str):
        return HeartbeatConfig.preset(wanted)
    if isinstance(wanted, bool) or not isinstance(wanted, int | float):
        raise ValueError(
            "heartbeat must be seconds between pings, a HeartbeatConfig, a preset's name, or None "
            f"for no heartbeat; got {wanted!r}"
        )
    check_seconds("heartbeat", wanted)
    return HeartbeatConfig(interval=wanted, timeout=min(10.0, wanted))


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffConfig:
    """
    How long to wait before a lost session is dialled again: full jitter, doubling.

    Attributes:
        initial: Ceiling of the first wait, seconds.
        maximum: Highest ceiling, seconds.
        factor: What a ceiling grows by.
        stable_after: A session that was up for so many seconds is redialled at once.
        reset_after: One that was up for so long starts the doubling anew.
        max_attempts: Dials in a row without a session that lasted, then it is over; 0: for ever.

    Raises:
        ValueError: If a value is impossible; the text names the field.

    """

    initial: float = 0.1
    maximum: float = 30.0
    factor: float = 2.0
    stable_after: float = 10.0
    reset_after: float = 60.0
    max_attempts: int = 0

    def __post_init__(self) -> None:
        for name in ("initial", "maximum", "reset_after"):
            check_seconds(name, getattr(self, name))
        if self.stable_after != 0:
            check_seconds("stable_after", self.stable_after)
        if self.maximum < self.initial:
            raise ValueError(f"maximum must not be below initial, got {self.maximum:g}")
        if type(self.factor) not in (int, float) or not 1 <= self.factor <= 10:
            raise ValueError(f"factor must be 1 to 10, got {self.factor!r}")
        attempts = self.max_attempts
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 0:
            raise ValueError(f"max_attempts must be a whole number, got {attempts!r}")

    def spec(self, *, enabled: bool, connect_timeout: float, close_timeout: float) -> ReconnectSpec:
        """Return it as the machines take it."""
        return ReconnectSpec(
            enabled=enabled,
            initial_delay_ns=_ns(self.initial),
            max_delay_ns=_ns(self.maximum),
            factor=float(self.factor),
            stable_after_ns=round(self.stable_after * SECOND_NS),
            reset_after_ns=_ns(self.reset_after),
            max_attempts=self.max_attempts,
            connect_timeout_ns=_ns(connect_timeout),
            close_timeout_ns=_ns(close_timeout),
        )


def _ns(seconds: float) -> int:
    return max(1, round(seconds * SECOND_NS))


def _ns_or_0(seconds: float | None) -> int:
    return 0 if seconds is None else _ns(seconds)


def _has_keys(name: str, rule: Mapping[str, Any], wanted: set[str]) -> bool:
    allowed = wanted | ({"idle_only"} if name == "server_heartbeat" else set())
    if not isinstance(rule, Mapping) or not wanted <= set(rule) <= allowed:
        keys = " and ".join(sorted(wanted))
        also = ", and idle_only if wanted" if name == "server_heartbeat" else ""
        raise ValueError(f"{name} must be a mapping with {keys}{also}, got {rule!r}")
    return True


def _rule(name: str, rule: Mapping[str, Any]) -> Match:
    if callable(rule["match"]):
        raise ValueError(f"{name}: match must be a JMESPath expression or {{'text': ...}}")
    return _match_of(rule["match"], name)


def _match_of(matcher: PongMatcher, name: str = "pong_matcher") -> Match:
    if callable(matcher):
        check_plain(name, matcher)
        return FUNCTION
    if isinstance(matcher, str):
        check_expression(name, matcher)
        return Match(kind=MatchKind.JMESPATH, value=matcher, hint=hint_of(matcher))
    if isinstance(matcher, Mapping) and set(matcher) == {"text"}:
        return Match(kind=MatchKind.TEXT, value=utf8_of(name, matcher["text"]))
    raise ValueError(
        f"{name} must be a function, a JMESPath expression or {{'text': ...}}, got {matcher!r}"
    )
