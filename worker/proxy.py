"""Proxy: what its URL says, and how it is asked for a way to the peer.

Sockets to it are made in ``worker/dial.py``, but for those of SOCKS, whose library makes its own.
"""

import asyncio
import base64
import re
import socket
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from worker.addresses import Address
from worker.utf8 import printable

PROXY_SCHEMES = ("http", "socks5")
_PRINTABLE = re.compile(r"[!-~]+")
HTTP = b"HTTP/1."
ANSWER_BYTES_MAX = 8 * 1024
TEXT_LIMIT = 200  # characters of a proxy's own words that are passed on


class ProxyRefused(OSError):
    """A proxy that cannot be used, reached or persuaded. Its text never holds the password."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy as its URL says, user and password decoded."""

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)

    def redacted(self, text: str) -> str:
        """Return what a proxy said, short and printable, without what we told it in secret."""
        if self.password:
            basic = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            for secret in (basic, self.password, quote(self.password, safe="")):
                text = text.replace(secret, "***")
        return printable(text)[:TEXT_LIMIT]


def parse_proxy(url: str) -> Proxy:
    """
    Return what a proxy's URL says.

    Raises:
        ProxyRefused: If it cannot be used.

    """
    # No part of the URL is quoted in an error: a stray slash makes its password look like a port.
    wanted = "want http://[user:password@]host:port or socks5://..., specials percent-encoded"
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        raise ProxyRefused(f"proxy URL cannot be read; {wanted}") from None
    if scheme not in PROXY_SCHEMES:
        raise ProxyRefused(f"proxy URL has no scheme that is known; {wanted}")
    if not host or not port:
        raise ProxyRefused(f"proxy URL lacks its host or port; {wanted}")
    if _PRINTABLE.fullmatch(url) is None:
        raise ProxyRefused(f"proxy URL holds other than printable ASCII; {wanted}")
    return Proxy(scheme, host, port, unquote(parts.username or ""), unquote(parts.password or ""))


async def ask_to_connect(connection: socket.socket, gate: Proxy, host: str, port: int) -> str:
    """
    Ask with HTTP CONNECT (RFC 9110 section 9.3.6); return why the proxy refuses, "" if not.

    By hand, since python-socks takes one read for the whole answer: what comes later of it, or
    comes with it of the peer's, it would leave in the stream or swallow.
    """
    loop = asyncio.get_running_loop()
    name = host if ":" in host else host.encode("idna").decode("ascii")
    authority = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if gate.user:
        basic = base64.b64encode(f"{gate.user}:{gate.password}".encode()).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {basic}")
    await loop.sock_sendall(connection, "\r\n".join([*lines, "", ""]).encode("ascii"))
    answer = bytearray()
    while not answer.endswith(b"\r\n\r\n"):
        byte = await loop.sock_recv(connection, 1)  # never a byte too many
        answer += byte
        if not byte or len(answer) > ANSWER_BYTES_MAX:
            return "it hung up" if not byte else "its answer has no end"
        if not HTTP.startswith(answer[: len(HTTP)]):
            return "it does not speak HTTP"
    _version, _, said = answer.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
    return "" if said.startswith("2") else said


async def through_socks(
    gate: Proxy, address: Address, host: str, port: int, source: str | None, timeout_s: float
) -> socket.socket:
    """
    Return a socket to ``host`` and ``port`` through a SOCKS proxy at ``address``.

    Args:
        gate: The proxy.
        address: Where it is.
        host: Name or address of the peer; the proxy resolves it.
        port: Its port.
        source: Local address to leave from.
        timeout_s: For all of it, seconds of the loop's clock.

    Raises:
        ProxyRefused: If it says no, or something that cannot be read.
        OSError: If it cannot be reached, or is lost on the way.

    """
    # Here, for a worker that needs no proxy shall not pay for it.
    from python_socks import ProxyError, ProxyType
    from python_socks.async_.asyncio import Proxy as SocksProxy

    tunnel = SocksProxy(
        ProxyType.SOCKS5, address.sockaddr[0], gate.port, gate.user, gate.password, rdns=True
    )
    local = None if source is None else (source, 0)
    try:
        connection = await tunnel.connect(host, port, timeout=timeout_s, local_addr=local)
    except OSError:  # not reached, or lost on the way: another address may do better
        raise
    except Exception as error:
        # Not only ProxyError: the library trips over credentials it cannot encode and answers it
        # cannot read. The text of such an error, or its chain, may quote the password.
        why = str(error) if isinstance(error, ProxyError) else type(error).__name__
        text = f"proxy {address} refused {host}:{port}: {gate.redacted(why)}"
        raise ProxyRefused(text) from None
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection
