"""Dial: a host and a port to a connected socket, directly or through a proxy.

The loop's own ``create_connection`` gives all addresses of a name one deadline, so that a dead
first address eats what the second would have needed. Here every address has its own. They are
tried one after the other and never at once: exchanges count connection attempts. Names are
resolved anew at each call, for a cached address outlives the machine behind it.
"""

import asyncio
import base64
import encodings.idna  # noqa: F401 - the codec of names, once for all forks: 0.4 MiB and 4 ms each
import errno
import ipaddress
import os
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from worker.addresses import Address, AddressOrder, interleaved
from worker.resolver import look_up
from worker.utf8 import printable

PROXY_SCHEMES = ("http", "socks5")
_PRINTABLE = re.compile(r"[!-~]+")
HTTP = b"HTTP/1."
ANSWER_BYTES_MAX = 8 * 1024
TEXT_LIMIT = 200  # characters of a proxy's own words that are passed on


Prepare = Callable[[socket.socket], None]


def _leave(_connection: socket.socket) -> None:
    """Leave a socket as it is."""


class ProxyRefused(OSError):
    """A proxy that cannot be used, reached or persuaded. Its text never holds the password."""


@dataclass(frozen=True, slots=True)
class Proxy:
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


async def open_socket(
    host: str,
    port: int,
    *,
    proxy: str | None = None,
    source: str | None = None,
    address_timeout_s: float = 3.0,
    prepare: Prepare = _leave,
    order: AddressOrder | None = None,
) -> socket.socket:
    """
    Return a connected, non-blocking TCP socket with TCP_NODELAY set; the caller closes it.

    Resolving has no deadline of its own: resolv.conf(5) sets it. A cancelled call ends at once.

    Args:
        host: Name or address of the peer; through a proxy it is the proxy that resolves it.
        port: Its port.
        proxy: ``http://[user:password@]host:port`` (asked to CONNECT) or ``socks5://...``.
        source: Local address to leave from. Only addresses of its family are tried.
        address_timeout_s: Deadline of each address in seconds (the loop's clock). Through a proxy
            it covers the proxy's own dial too.
        prepare: Called with every socket before it connects; with that of a SOCKS proxy after.
        order: What former dials of the same host remember, and this one adds to.

    Raises:
        ProxyRefused: If the proxy's URL is wrong, or it cannot be reached, or says no.
        TimeoutError: If the last address tried did not answer in time.
        socket.gaierror: If the name cannot be resolved, or not in the family of ``source``.
        UnicodeError: If the host can be no name at all.
        OSError: If connecting failed otherwise, of the class of the last address's error.
        ValueError: If ``source`` is no IP address.

    """
    family = socket.AF_UNSPEC
    if source is not None:
        is_v6 = ipaddress.ip_address(source).version == 6
        family = socket.AF_INET6 if is_v6 else socket.AF_INET
    order = AddressOrder() if order is None else order
    if proxy is None:
        return await _first(
            await _resolve(host, port, family),
            lambda address: _connect(address, source, address_timeout_s, prepare),
            address_timeout_s,
            order,
        )
    gate = parse_proxy(proxy)
    try:
        return await _first(
            await _resolve(gate.host, gate.port, family),
            lambda address: _tunnel(gate, address, host, port, source, address_timeout_s, prepare),
            address_timeout_s,
            order,
            role=f"{host}:{port} through proxy ",
        )
    except (TimeoutError, ProxyRefused):
        raise
    except (OSError, UnicodeError) as error:
        raise ProxyRefused(f"proxy {gate.host}:{gate.port}: {error}") from error


async def _resolve(host: str, port: int, family: int) -> list[Address]:
    if (address := _literal(host, port)) is not None:
        if family not in (socket.AF_UNSPEC, address.family):
            raise socket.gaierror(socket.EAI_ADDRFAMILY, f"{host} is of another family")
        return [address]
    found = await look_up(host, port, family)
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, f"{host} has no address")
    return interleaved([Address(entry[0], entry[4]) for entry in found])


def _literal(host: str, port: int) -> Address | None:
    """Return an address that needs no resolving, and so none of the loop's threads."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    if version == 4:
        return Address(socket.AF_INET, (host, port))
    # One with a scope (fe80::1%eth0) is left to getaddrinfo, which knows its number.
    return None if "%" in host else Address(socket.AF_INET6, (host, port, 0, 0))


async def _first(
    addresses: list[Address],
    attempt: Callable[[Address], Awaitable[socket.socket]],
    timeout_s: float,
    order: AddressOrder,
    role: str = "",
) -> socket.socket:
    """Return the first socket that an attempt yields; an answer of a proxy ends the search."""
    failures: list[str] = []
    last: OSError | None = None
    for address in order.of(addresses):
        order.tried(address)
        try:
            return await attempt(address)
        except ProxyRefused:
            raise
        except OSError as error:
            last = error
            failures.append(f"{role}{address}: {_why(error, timeout_s)}")
    assert last is not None
    text = "; ".join(failures)
    if isinstance(last, TimeoutError) or last.errno is None:
        raise (TimeoutError if isinstance(last, TimeoutError) else OSError)(text) from last
    raise OSError(last.errno, text) from last  # Python picks the class by the number


def _why(error: OSError, timeout_s: float) -> str:
    if error.errno:
        return os.strerror(error.errno)
    return f"no answer within {timeout_s:g} s" if isinstance(error, TimeoutError) else str(error)


async def _connect(
    address: Address, source: str | None, timeout_s: float, prepare: Prepare
) -> socket.socket:
    connection = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        prepare(connection)
        if source is not None:
            connection.bind((source, 0))
        async with asyncio.timeout(timeout_s):
            await _connected(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


async def _connected(connection: socket.socket, address: Address) -> None:
    """
    Connect, as connect(2) says for a non-blocking socket.

    Not the loop's ``sock_connect``: uvloop's resolves the address once more, in a thread.
    """
    loop = asyncio.get_running_loop()
    code = connection.connect_ex(address.sockaddr)
    if code == errno.EINPROGRESS:
        writable = asyncio.Event()
        loop.add_writer(connection, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(connection)
        code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


async def _tunnel(
    gate: Proxy,
    address: Address,
    host: str,
    port: int,
    source: str | None,
    timeout_s: float,
    prepare: Prepare,
) -> socket.socket:
    if gate.scheme == "socks5":
        connection = await _through_socks(gate, address, host, port, source, timeout_s)
        try:
            prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection
    connection = await _connect(address, source, timeout_s, prepare)
    try:
        async with asyncio.timeout(timeout_s):
            why = await _ask_to_connect(connection, gate, host, port)
        if why:
            text = f"proxy {address} refused {host}:{port}: {gate.redacted(why)}"
            raise ProxyRefused(text)
    except BaseException:
        connection.close()
        raise
    return connection


async def _ask_to_connect(connection: socket.socket, gate: Proxy, host: str, port: int) -> str:
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


async def _through_socks(
    gate: Proxy, address: Address, host: str, port: int, source: str | None, timeout_s: float
) -> socket.socket:
    # Here, for a worker that needs no proxy shall not pay for it.
    from python_socks import ProxyError, ProxyType
    from python_socks.async_.asyncio import Proxy

    tunnel = Proxy(
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
