"""Arguments: what a user of the library may hand in, checked before anything is dialled.

The texts in them are judged by ``worker/faults.py``, as those of fleet.toml are.
"""

import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from websockets.exceptions import ProtocolError
from websockets.frames import Close

from worker import faults

SECONDS_MAX = 366 * 86400.0
CLOSE_REASON_MAX = 123  # RFC 6455 section 5.5: a control frame has 125 bytes, the code takes two
BYTES = (bytes, bytearray, memoryview)


def check_seconds(name: str, value: object) -> None:
    """
    Check that a value is a duration in seconds.

    Raises:
        ValueError: If it is no finite number above zero, or longer than a year.

    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= SECONDS_MAX:  # type: ignore[operator]
        shown = reprlib.repr(value)
        raise ValueError(f"{name} must be seconds, a finite number above zero, got {shown}")


def check_count(name: str, value: object) -> None:
    """
    Check that a value is a whole number above zero.

    Raises:
        ValueError: If it is not.

    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number above zero, got {value!r}")


def check_request(
    uri: object, headers: object, subprotocols: Iterable[object], proxy: object
) -> None:
    """
    Check what goes into the upgrade request, or before it.

    Raises:
        ValueError: If something cannot; the text names it.

    """
    if not isinstance(uri, str) or not isinstance(proxy, str | None):
        raise ValueError(f"uri and proxy must be text, got {uri!r} and {type(proxy).__name__}")
    if not isinstance(headers, Mapping) or isinstance(subprotocols, str):
        raise ValueError("headers must be a mapping of texts, subprotocols a list of them")
    texts = (*headers, *headers.values(), *subprotocols)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("headers and subprotocols must be text")
    found = [("uri", faults.url_fault(uri))]
    if proxy is not None:
        found.append(("proxy", faults.proxy_fault(proxy)))
    for name, value in headers.items():
        found.append((f"headers: {name}", faults.header_name_fault(name)))
        found.append((f"headers: {name}", faults.header_value_fault(value)))
    found += [
        (f"subprotocols: {name}", faults.subprotocol_fault(str(name))) for name in subprotocols
    ]
    for name, fault in found:
        if fault:
            raise ValueError(f"{name} {fault}")


def check_expression(name: str, expression: object) -> None:
    """
    Check a JMESPath expression.

    Raises:
        ValueError: If it is none; with the position of bad syntax.

    """
    if not isinstance(expression, str):
        raise ValueError(f"{name} must be a JMESPath expression, got {expression!r:.80}")
    if fault := faults.expression_fault(expression):
        raise ValueError(f"{name} {fault}")


def utf8_of(name: str, text: object) -> str:
    """
    Return a text that can be sent or received.

    Raises:
        ValueError: If it is no str, or no UTF-8 can be made of it.

    """
    if not isinstance(text, str):
        raise ValueError(f"{name}: the text must be str, got {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: the text cannot be sent: {error}") from None
    return text


def text_of(item: Any) -> str:
    """
    Return the text message that a thing is: str, UTF-8 bytes, or an object as JSON.

    Raises:
        TypeError: If the object cannot be JSON.
        UnicodeDecodeError: If the bytes are no UTF-8.

    """
    if isinstance(item, str):
        return item
    return item.decode() if isinstance(item, bytes) else msgspec.json.encode(item).decode()


def texts_of(items: Iterable[Any]) -> tuple[str, ...]:
    """
    Return what to say at the start of a session.

    Raises:
        ValueError: If something is no message, or no UTF-8 can be made of it.

    """
    if isinstance(items, BYTES + (str,)):
        raise ValueError(f"subscribe must be a list of messages, got {items!r:.80}")
    texts = []
    for item in items:
        try:
            text = text_of(item)
            text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"subscribe: {item!r:.80} is no text nor JSON: {error}") from error
        texts.append(text)
    return tuple(texts)


def check_close(code: int, reason: str) -> None:
    """
    Check what a close frame is to say.

    Raises:
        ValueError: If no frame can carry it.

    """
    try:
        Close(code, reason).check()
        length = len(reason.encode())
    except (ProtocolError, UnicodeEncodeError, TypeError, AttributeError) as error:
        raise ValueError(f"close frame of {code!r} and {reason!r:.80}: {error}") from None
    if length > CLOSE_REASON_MAX:
        raise ValueError(
            f"reason: a close frame has room for {CLOSE_REASON_MAX} bytes, got {length}"
        )
