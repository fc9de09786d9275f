"""Handshake: which URL a connection can have, and what a client may add to its request.

For fleet.toml, the library and what a login returns alike: what one of them let pass would fail at
the first dial, and again at each.
"""

import re
import reprlib
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PRINTABLE = re.compile(r"[!-~]+")
_OURS = ("host", "upgrade", "connection")  # and Sec-WebSocket-*


def url_fault(url: str) -> str:
    """Return why an exchange cannot have this URL, "" if it can."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"is not a URL: {error}"
    host = parts.hostname or ""
    if parts.scheme not in ("ws", "wss"):
        return f"must begin with ws:// or wss://, got {reprlib.repr(url)}"
    if not host or port == 0:
        return f"names no host to connect to, got {reprlib.repr(url)}"
    if parts.fragment:
        return "must not have a fragment (RFC 6455 section 3)"
    if _PRINTABLE.fullmatch(url) is None:
        return "must be ASCII without spaces and control characters; write others as %XX"
    return _dialling_fault(url, host)


def _dialling_fault(url: str, host: str) -> str:
    """Return what those who dial a URL have against it."""
    try:
        parse_uri(url)
    except InvalidURI as error:
        return f"cannot be dialled: {error.msg}"
    except ValueError:  # percent-encoding that is no UTF-8
        return "cannot be dialled: its user information is wrongly encoded"
    try:
        host.encode("idna")  # as socket.getaddrinfo does
    except UnicodeError:
        return f"names a host that can be none, got {reprlib.repr(host)}"
    return ""


def is_token(text: str) -> bool:
    """Return whether a text can name a header or a subprotocol."""
    return _TOKEN.fullmatch(text) is not None


def header_fault(name: str, value: object) -> str:
    """Return why a header cannot be sent, "" if it can; the value may be a secret, or refer to."""
    lower = name.lower()
    if not is_token(name):
        return "is no name of a header (RFC 9110: letters, digits, !#$%&'*+-.^_`|~)"
    if lower in _OURS or lower.startswith("sec-websocket-"):
        return "is made by the handshake itself; leave it out"
    if isinstance(value, str) and _CONTROL.search(value):
        return "its value must not hold control characters, nor line ends"
    if isinstance(value, str) and any(character > "\xff" for character in value):
        return "its value must be Latin-1 (RFC 9110 section 5.5); encode it, as in %XX"
    return ""


def header_faults(headers: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the name of each header that cannot be sent, and why."""
    seen: dict[str, str] = {}
    for name, value in headers.items():
        if fault := header_fault(name, value):
            yield name, fault
        elif name.lower() in seen:
            yield name, f"is the same header as {seen[name.lower()]!r}; keep one"
        seen[name.lower()] = name
