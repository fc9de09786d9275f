"""Faults: what is wrong with a text that somebody configured, in a sentence; "" if nothing is.

Asked by the check of fleet.toml, by the library's constructors, and for what a login returns:
what one of them lets pass would fail the others at their first dial, and again at each.
"""

import re
import reprlib
import warnings
from typing import Any
from urllib.parse import urlsplit

import jmespath
from jmespath.exceptions import JMESPathError
from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

NESTED_MAX = 100  # of expressions: a worker walks them by recursion, message by message
PROXY_SCHEMES = ("http", "socks5")
OUR_HEADERS = ("host", "upgrade", "connection")  # and Sec-WebSocket-*
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
# Latin-1 and no more: RFC 9110 section 5.5 calls it obsolete, and knows no other for a field.
_VALUE = re.compile(r"[\x20-\x7e\xa0-\xff]*")
_PRINTABLE = re.compile(r"[!-~]+")


def url_fault(url: str) -> str:
    """Return what is wrong with the URL of an exchange."""
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


def proxy_fault(url: str) -> str:
    """Return what is wrong with the URL of a proxy. It is not quoted: it may hold a password."""
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and bool(parts.port)
    except ValueError:
        is_whole = False
    if is_whole and parts.scheme in PROXY_SCHEMES and _PRINTABLE.fullmatch(url) is not None:
        return ""
    return "must be http://host:port or socks5://host:port"


def header_name_fault(name: str) -> str:
    """Return what is wrong with the name of a header to add to the handshake."""
    lower = name.lower()
    if _TOKEN.fullmatch(name) is None:
        return "is no name of a header (RFC 9110: letters, digits, !#$%&'*+-.^_`|~)"
    if lower in OUR_HEADERS or lower.startswith("sec-websocket-"):
        return "is made by the handshake itself; leave it out"
    return ""


def header_value_fault(value: str) -> str:
    """Return what is wrong with the value of a header. It is not quoted: it may be a secret."""
    if _VALUE.fullmatch(value) is None:
        return "its value must be Latin-1 without control characters and line ends"
    return ""


def subprotocol_fault(name: str) -> str:
    """Return what is wrong with the name of a subprotocol."""
    return "" if _TOKEN.fullmatch(name) else "is no name of a subprotocol (RFC 6455 section 4.1)"


def expression_fault(expression: str) -> str:
    """Return what is wrong with a JMESPath expression, with the position of bad syntax."""
    deep = f"is no usable JMESPath expression: nested deeper than {NESTED_MAX}"
    if sum(map(expression.count, "([{!")) > NESTED_MAX:
        return deep
    try:
        with warnings.catch_warnings():  # an old way to write literals, still understood
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            tree: Any = jmespath.compile(expression).parsed
    except JMESPathError as error:
        position = getattr(error, "lex_position", None)
        where = f" at position {position}" if position is not None else ""
        return f"is no JMESPath expression{where}: {str(error).splitlines()[0]}"
    except RecursionError:
        return deep
    except (ValueError, OverflowError) as error:  # a number of thousands of digits
        return f"is no JMESPath expression: {error}"
    return deep if _is_deep(tree) else ""


def _is_deep(tree: Any) -> bool:
    """Return whether walking an expression's tree recurses more than is good for a worker."""
    level = [tree]
    for _ in range(NESTED_MAX):
        level = [child for node in level for child in node["children"] if isinstance(child, dict)]
        if not level:
            return False
    return True
