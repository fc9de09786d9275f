"""Client arguments: what a user of the library passed, checked before anything is dialled.

A fault found here is told where it was written; the same fault found by a dial would be told in the
background, again and again, to nobody.
"""

import inspect
import reprlib
import ssl
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from websockets.exceptions import ProtocolError
from websockets.frames import Close

from worker.expressions import fault_of
from worker.handshake import header_faults, is_token, url_fault
from worker.proxy import ProxyRefused, parse_proxy

SECONDS_MAX = 366 * 86400.0
REASON_BYTES_MAX = 123  # RFC 6455 section 5.5: 125, less the code
BINARY = (bytes, bytearray, memoryview)


def check_seconds(name: str, value: object) -> None:
    """Raises ValueError if it is no duration: finite, above zero and at most a year of seconds."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= SECONDS_MAX:  # type: ignore[operator]
        shown = reprlib.repr(value)  # an integer may have thousands of digits
        raise ValueError(f"{name} must be seconds, a finite number above zero, got {shown}")


def check_uri(uri: object) -> None:
    """Raises ValueError if it is no URI that can be dialled."""
    if not isinstance(uri, str):
        raise ValueError(f"uri must be text such as 'wss://host/path', got {uri!r}")
    if fault := url_fault(uri):
        raise ValueError(f"uri {fault}")


def check_count(name: str, value: object) -> None:
    """Raises ValueError if it is no whole number above zero that a machine can count to."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= sys.maxsize:
        raise ValueError(f"{name} must be a whole number above zero, got {reprlib.repr(value)}")


def check_instance(name: str, value: object, kind: type, mend: str) -> None:
    """Raises ValueError if a value is not of its type; ``mend`` says what to write."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {mend}, got {value!r}")


def check_engine(engine: object, *, compression: bool) -> None:
    """Raises ValueError if there is no such engine, or it does not do what is asked."""
    if engine not in ("auto", "websockets", "picows"):
        raise ValueError(f"engine must be auto, websockets or picows, got {engine!r}")
    if engine == "picows" and compression:
        raise ValueError("compression: picows inflates nothing; leave engine out")


def check_network(ssl_context: object, proxy: object) -> None:
    """Raises ValueError if a connection cannot be made with these. No proxy URL is quoted."""
    if ssl_context is not None:
        check_instance(
            "ssl_context", ssl_context, ssl.SSLContext, "an ssl.SSLContext, or None for the default"
        )
    if proxy is not None:
        if not isinstance(proxy, str):
            raise ValueError(f"proxy must be text, got {type(proxy).__name__}")
        try:
            parse_proxy(proxy)
        except ProxyRefused as error:
            raise ValueError(f"proxy: {error}") from None


def headers_of(headers: object) -> tuple[tuple[str, str], ...]:
    """Return headers as the handshake takes them. Raises ValueError if it cannot."""
    if headers is None:
        return ()
    if not isinstance(headers, Mapping):
        raise ValueError(f"headers must be a mapping of names to values, got {headers!r}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ValueError(f"headers: name and value of {name!r} must be text")
    for name, fault in header_faults(headers):
        raise ValueError(f"headers: {name!r} {fault}")
    return tuple(headers.items())


def subprotocols_of(subprotocols: Iterable[str] | None) -> tuple[str, ...]:
    """Return subprotocols as the handshake takes them. Raises ValueError if it cannot."""
    if isinstance(subprotocols, str):
        raise ValueError(f"subprotocols must be a list of names: write [{subprotocols!r}]")
    names = tuple(subprotocols or ())
    for name in names:
        if not isinstance(name, str) or not is_token(name):
            raise ValueError(f"subprotocols: {name!r} is no name of one (RFC 6455 section 4.1)")
    return names


def messages_of(subscribe: Any) -> tuple[str, ...]:
    """Return subscriptions as texts. Raises ValueError unless it is several messages."""
    if isinstance(subscribe, (str, Mapping, *BINARY)):
        raise ValueError(f"subscribe must be a list of messages: write [{subscribe!r}]")
    texts = []
    for index, item in enumerate(subscribe):
        try:
            texts.append(utf8_of("it", text_of(item)))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"subscribe: message {index} is no text: {error}") from None
    return tuple(texts)


def utf8_of(name: str, text: object) -> str:
    """Return a text that can be sent or received. Raises ValueError if it cannot."""
    if not isinstance(text, str):
        raise ValueError(f"{name}: the text must be str, got {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: the text cannot be sent: {error}") from None
    return text


def payload_of(data: Any) -> tuple[bytes, bool]:
    """
    Return what to send, and whether as text.

    Raises:
        TypeError: If an object cannot be JSON.
        UnicodeEncodeError: If a text has lone surrogates.

    """
    if isinstance(data, BINARY):
        return bytes(data), False
    return text_of(data).encode(), True


def text_of(item: Any) -> str:
    """Return text, UTF-8 bytes, or an object as JSON, as text."""
    if isinstance(item, str):
        return item
    return item.decode() if isinstance(item, bytes) else msgspec.json.encode(item).decode()


def check_closing(code: int, reason: str) -> None:
    """Raises ValueError if a close frame cannot hold them."""
    try:
        Close(code, reason).check()
        length = len(reason.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"reason cannot be sent: {error}") from None
    except (ProtocolError, TypeError):
        raise ValueError(
            f"code must be 1000 or another close code that may be sent, such as 3000 to 4999, "
            f"got {code!r}"
        ) from None
    if length > REASON_BYTES_MAX:
        raise ValueError(f"reason has at most {REASON_BYTES_MAX} bytes, got {length}")


def check_expression(name: str, expression: object) -> None:
    """Raises ValueError if it is no JMESPath expression; with the position of bad syntax."""
    if not isinstance(expression, str):
        raise ValueError(f"{name} must be a JMESPath expression, got {reprlib.repr(expression)}")
    if fault := fault_of(expression):
        raise ValueError(f"{name} {fault}")


def check_plain(name: str, function: object) -> None:
    """Raises ValueError if it is a coroutine function: whether it matches is needed at once."""
    if inspect.iscoroutinefunction(function):
        raise ValueError(f"{name} must be a plain function: whether it matches is needed at once")
