"""Dial: a host and a port to a connected socket, directly or through a proxy.

The loop's own ``create_connection`` gives all addresses of a name one deadline, so that a dead
first address eats what the second would have needed. Here every address has its own. They are
tried one after the other and never at once: exchanges count connection attempts. Names are
resolved anew at each call, for a cached address outlives the machine behind it.
"""

import asyncio
import encodings.idna  # noqa: F401 - the codec of names, once for all forks: 0.4 MiB and 4 ms each
import errno
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable

from worker.addresses import Address, AddressOrder, interleaved
from worker.proxy import Proxy, ProxyRefused, ask_to_connect, parse_proxy, through_socks
from worker.resolver import look_up

Prepare = Callable[[socket.socket], None]


def _leave(_connection: socket.socket) -> None:
    """Leave a socket as it is."""


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
        connection = await through_socks(gate, address, host, port, source, timeout_s)
        try:
            prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection
    connection = await _connect(address, source, timeout_s, prepare)
    try:
        async with asyncio.timeout(timeout_s):
            why = await ask_to_connect(connection, gate, host, port)
        if why:
            text = f"proxy {address} refused {host}:{port}: {gate.redacted(why)}"
            raise ProxyRefused(text)
    except BaseException:
        connection.close()
        raise
    return connection
