"""Dialect: what a pong or a ping of the exchange looks like among its messages.

Pure. Compiled once from a connection's spec. Rules look only at payloads of at most
``max_control_bytes``, and pong rules only while a ping is outstanding, so that data pays next to
nothing: a length test costs 29 ns, JSON and JMESPath on 357 bytes 5 to 7 us.
"""

import enum
import re
import zlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import jmespath
import msgspec
from jmespath.visitor import TreeInterpreter

from worker.ping_payload import filled
from worker.spec import ConnectionSpec, Decode, Match, MatchKind
from worker.template import opened_in

# wbits of zlib.decompressobj: gzip, zlib and raw deflate framing.
WINDOW_BITS = {Decode.GZIP: 31, Decode.ZLIB: 15, Decode.DEFLATE: -15}
_REPLY_FIELD = re.compile(r"\$\{([A-Za-z0-9_.]+)\}")
KEY_LENGTH_MAX = 64
OPENING_BYTES_MAX = 64 * 1024  # an answer may list all that was subscribed
ERROR_BYTES_MAX = 300
_NOT_IN_TOPIC = re.compile(r"[^A-Za-z0-9._-]")

MatchFunction = Callable[[Any], object]
# One for all: ``search`` of a compiled expression makes one a call, which costs twice the search
# itself and leaves a reference cycle, for which the collector then stops the loop.
_INTERPRETER = TreeInterpreter()


class DialectError(Exception):
    """A rule raised, or a payload did not decode. The message is data all the same."""


class DecodeError(DialectError):
    """A payload is not what ``decode`` says, or inflates beyond the bound."""


class RuleError(DialectError):
    """A matcher raised."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The exchange answered an application ping; ``echo`` is what ``pong_id`` found."""

    echo: str | None


@dataclass(frozen=True, slots=True)
class Ping:
    """The exchange pings; ``reply`` is to be sent as a text message."""

    reply: str


@dataclass(frozen=True, slots=True)
class Beat:
    """The exchange's own heartbeat."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The message that the exchange opens with. It is data too."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The answer to a subscription; ``error`` is the payload if it refuses. It is data too."""

    error: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """The exchange announces the end of the session. It is data too."""


Sign = Pong | Ping | Beat | Ready | Ack | Notice


class Watch(enum.Flag):
    """What would mean something now, beside what always does."""

    PONG = enum.auto()
    READY = enum.auto()
    ACK = enum.auto()


class Dialect:
    """
    One connection's rules.

    Args:
        spec: The connection.
        function: The pong matcher, if it is ``package.module:function``; importing is the shell's.

    """

    def __init__(self, spec: ConnectionSpec, function: MatchFunction | None = None) -> None:
        self._control_bytes_max = spec.limits.max_control_bytes
        self._inflated_max = spec.limits.max_inflated
        self._window_bits = WINDOW_BITS.get(spec.decode)
        self._pings = [(_compile(rule.match, None), rule.reply) for rule in spec.server_ping]
        theirs, ack = spec.server_heartbeat, spec.subscribe.ack
        self._beat = _compiled(theirs.match if theirs is not None else None)
        self._notices = [_compile(match, None) for match in spec.notice]
        self._ready = _compiled(spec.subscribe.ready)
        self._ack = _compiled(ack.match if ack is not None else None)
        self._nack = _compiled(ack.error if ack is not None else None)
        beat = spec.heartbeat
        self._pong: _Rule | None = None
        self._pong_id = None
        self._payload = b""
        if beat is not None:
            self._payload = beat.payload or b""
            if beat.pong_matcher is not None:
                self._pong = _compile(beat.pong_matcher, function)
            if beat.pong_id is not None:
                self._pong_id = _expression(beat.pong_id)
        self._key = _expression(spec.publish.key) if spec.publish.key else None
        self._dedup = _expression(spec.dedup) if spec.dedup else None
        self.has_pong = self._pong is not None
        self.always_looks = bool(self._pings or self._notices) or self._beat is not None

    def look(self, payload: bytes, watch: Watch) -> Sign | None:
        """
        Return what sign of the session's life a payload is, ``None`` if it is data and no more.

        Raises:
            DecodeError: If it does not decompress.
            RuleError: If a matcher raised, or the reply's fields are not in the ping.

        """
        opening = watch & (Watch.READY | Watch.ACK)
        bytes_max = OPENING_BYTES_MAX if opening else self._control_bytes_max
        if len(payload) > bytes_max:
            return None
        if self._window_bits is not None:
            inflated = self._inflate(payload, bytes_max)
            if inflated is None:
                return None
            payload = inflated
        message = _Message(payload)
        if opening and (sign := self._look_at_opening(message, watch)) is not None:
            return sign
        if len(payload) > self._control_bytes_max:
            return None
        if self._pong is not None and Watch.PONG in watch and self._pong.matches(message):
            return Pong(self._echo(message))
        for rule, reply in self._pings:
            if rule.matches(message):
                return Ping(_fill_reply(reply, payload))
        if self._beat is not None and self._beat.matches(message):
            return Beat()
        return Notice() if any(rule.matches(message) for rule in self._notices) else None

    def _look_at_opening(self, message: "_Message", watch: Watch) -> Ready | Ack | None:
        if Watch.READY in watch:
            return Ready() if self._ready is not None and self._ready.matches(message) else None
        if self._nack is not None and self._nack.matches(message):
            return Ack(message.payload[:ERROR_BYTES_MAX].decode("utf-8", "replace"))
        return Ack() if self._ack is not None and self._ack.matches(message) else None

    def ping_body(self, seq: int, ts_ms: int, uuid: Callable[[], str]) -> bytes:
        """Return the payload of ping ``seq``; arguments as of ``ping_payload.filled``."""
        return filled(self._payload, seq, ts_ms, uuid)

    def key(self, payload: bytes) -> str | None:
        """
        Return the topic key that ``publish.key`` finds in a message, fit for a topic.

        Raises:
            DecodeError: If the payload does not decompress within ``max_inflated``.
            RuleError: If the expression raised.

        """
        if self._key is None:
            return None
        found = _search(self._key, _Message(self._plain(payload)))
        if not isinstance(found, str | int | float) or isinstance(found, bool) or found == "":
            return None
        return _NOT_IN_TOPIC.sub("_", str(found))[:KEY_LENGTH_MAX]

    def dedup_key(self, payload: bytes) -> bytes:
        """
        Return what the same message has in common in two sessions: what ``dedup`` finds, as JSON.

        The payload itself if that is nothing: null, or null in every place of a list.

        Raises:
            DecodeError: If the payload does not decompress within ``max_inflated``.
            RuleError: If the expression raised.

        """
        if self._dedup is None:
            return payload
        found = _search(self._dedup, _Message(self._plain(payload)))
        if found is None or (isinstance(found, list) and all(part is None for part in found)):
            return payload
        return msgspec.json.encode(found)

    def _plain(self, payload: bytes) -> bytes:
        if self._window_bits is None:
            return payload
        inflated = self._inflate(payload, self._inflated_max)
        if inflated is None:
            raise DecodeError(f"inflates to more than {self._inflated_max} bytes")
        return inflated

    def _inflate(self, payload: bytes, bytes_max: int) -> bytes | None:
        """Return the payload inflated, ``None`` if that is more than ``bytes_max``."""
        assert self._window_bits is not None
        inflater = zlib.decompressobj(self._window_bits)
        try:
            inflated = inflater.decompress(payload, bytes_max + 1)
        except zlib.error as error:
            raise DecodeError(str(error)) from error
        return inflated if len(inflated) <= bytes_max else None

    def _echo(self, message: "_Message") -> str | None:
        if self._pong_id is None:
            return None
        found = _search(self._pong_id, message)
        return None if found is None else str(found)


class _Message:
    """A payload, parsed at most once and only if a rule asks."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self._parsed: Any = None
        self._is_parsed = False

    @property
    def parsed(self) -> Any:
        """The JSON value, else the text."""
        if not self._is_parsed:
            try:
                self._parsed = msgspec.json.decode(self.payload)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._parsed = self.payload.decode("utf-8", "replace")
            self._is_parsed = True
        return self._parsed


class _Rule:
    """One compiled match."""

    def __init__(self, hint: bytes, test: Callable[[_Message], object]) -> None:
        self._hint, self._test = hint, test

    def matches(self, message: _Message) -> bool:
        """Raises RuleError if the test does: it may be an operator's function."""
        if self._hint and self._hint not in message.payload:
            return False
        try:
            return bool(self._test(message))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # even a CancelledError is the function's own, not ours
            raise RuleError(f"{type(error).__name__}: {error}") from error


def _expression(text: str) -> Callable[[Any], Any]:
    """Return the function that a JMESPath is."""
    return partial(_INTERPRETER.visit, jmespath.compile(text).parsed)


def _search(expression: Callable[[Any], Any], message: _Message) -> Any:
    """Return what a JMESPath finds. Its functions raise on operands that do not suit them."""
    try:
        return expression(message.parsed)
    except Exception as error:  # JMESPathError, and what its functions let through: ceil(inf)
        raise RuleError(f"{type(error).__name__}: {error}") from error


def _compiled(match: Match | None) -> "_Rule | None":
    return None if match is None else _compile(match, None)


def _compile(match: Match, function: MatchFunction | None) -> _Rule:
    hint = match.hint.encode()
    match match.kind:
        case MatchKind.TEXT:
            text = match.value.encode()
            return _Rule(hint, lambda message: message.payload == text)
        case MatchKind.JMESPATH:
            search = _expression(match.value)
            return _Rule(hint, lambda message: search(message.parsed))
        case MatchKind.CALLABLE:
            if function is None:
                raise ValueError(f"the function {match.value} was not given")
            return _Rule(hint, lambda message: _decided(function(message.parsed)))


def _decided(found: object) -> object:
    """Return what a matcher found, unless it is a coroutine, which would match whatever comes."""
    if isinstance(found, Coroutine):
        found.close()
        raise TypeError("a coroutine; whether a message matches is needed at once")
    return found


def reply_fault(reply: str) -> str:
    """Return what is wrong with the fields of a reply to a ping, "" if nothing."""
    for field in opened_in(reply):
        if _REPLY_FIELD.fullmatch(field) is None:
            return f"holds {field}, which is no path; write ${{a}} or ${{a.b}}"
    return ""


def _fill_reply(template: str, payload: bytes) -> str:
    """Copy raw JSON tokens, so that numbers and strings come back as they were written."""
    return _REPLY_FIELD.sub(lambda found: _raw_token(payload, found[1]), template)


def _raw_token(payload: bytes, path: str) -> str:
    raw = msgspec.Raw(payload)
    try:
        for name in path.split("."):
            raw = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])[name]
        return bytes(raw).decode("utf-8")
    except (msgspec.DecodeError, KeyError, UnicodeDecodeError, RecursionError) as error:
        raise RuleError(f"no {path!r} in the ping to copy into the reply") from error
