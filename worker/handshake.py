"""Handshake: which headers and subprotocols a client may add to it.

Pure. For fleet.toml and the library alike.
"""

import re
from collections.abc import Iterator, Mapping

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_OURS = ("host", "upgrade", "connection")  # and Sec-WebSocket-*


def is_token(text: str) -> bool:
    """Return whether a text can name a header or a subprotocol."""
    return _TOKEN.fullmatch(text) is not None


def header_faults(headers: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the name of each header that cannot be sent, and why; values may be secrets."""
    seen: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if not is_token(name):
            yield name, "is no name of a header (RFC 9110: letters, digits, !#$%&'*+-.^_`|~)"
        elif lower in _OURS or lower.startswith("sec-websocket-"):
            yield name, "is made by the handshake itself; leave it out"
        elif lower in seen:
            yield name, f"is the same header as {seen[lower]!r}; keep one"
        seen[lower] = name
        if isinstance(value, str) and _CONTROL.search(value):
            yield name, "its value must not hold control characters, nor line ends"
        elif isinstance(value, str) and any(character > "\xff" for character in value):
            yield name, "its value must be Latin-1 (RFC 9110 section 5.5); encode it, as in %XX"
