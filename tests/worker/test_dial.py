import asyncio
import base64
import contextlib
import errno
import os
import socket
import struct
import threading
import time
import traceback

import pytest
import uvloop
from raw_exchange import open_descriptors

from worker.addresses import AddressOrder
from worker.dial import open_socket
from worker.proxy import ProxyRefused

pytestmark = pytest.mark.timeout(30)
SHORT_S = 0.3
# A second address with the port of the first: of this process only, so that no other has it taken.
GETADDRINFO = socket.getaddrinfo
OTHER = f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
USER, PASSWORD = "trader", "p@ss:w/rd"
ENCODED = "p%40ss%3Aw%2Frd"


class Names(dict):
    """A resolver that is a dictionary: the sandbox of a test need not reach a DNS server."""

    asked = 0

    def getaddrinfo(self, host, port, family=0, *arguments):
        if host not in self:
            return GETADDRINFO(host, port, family, *arguments)
        self.asked += 1
        found = []
        for text in self[host]:
            of = socket.AF_INET6 if ":" in text else socket.AF_INET
            if family in (socket.AF_UNSPEC, of):
                tail = (0, 0) if of == socket.AF_INET6 else ()
                found.append((of, socket.SOCK_STREAM, 6, "", (text, port, *tail)))
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found


@pytest.fixture
def names(monkeypatch):
    known = Names({"nowhere.invalid": []})
    monkeypatch.setattr(socket, "getaddrinfo", known.getaddrinfo)
    return known


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request, names):
    """Run a coroutine on either loop, with names; all descriptors must be back at its end."""

    def runner(coroutine, **more):
        names.update(more)

        async def counted():
            before = open_descriptors()
            try:
                return await coroutine
            finally:
                # The servers' threads close theirs when ours are closed, a little later.
                for _ in range(1000):
                    if open_descriptors() <= before:
                        break
                    await asyncio.sleep(0.01)
                assert open_descriptors() == before

        with asyncio.Runner(loop_factory=request.param) as held:
            return held.run(counted())

    return runner


@contextlib.contextmanager
def server(handle, address="127.0.0.1", port=0):
    """A listener that hands each connection to ``handle`` in a thread; yields its port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(16)
        with served(listener, handle):
            yield listener.getsockname()[1]


@contextlib.contextmanager
def served(listener, handle):
    """Accept in a thread; at the end every thread has ended."""
    taken = []

    def serve():
        while True:
            try:
                connection, _peer = listener.accept()
            except OSError:
                return
            connection.settimeout(10)
            taken.append(threading.Thread(target=guarded, args=(connection,)))
            taken[-1].start()

    def guarded(connection):
        with connection, contextlib.suppress(OSError):
            handle(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # ends accept; closing would not
        thread.join()
        for each in taken:
            each.join()


def greet(connection):
    """Once spoken to, say who called, then wait for the end."""
    # Not before: python-socks takes what comes right behind a CONNECT's answer for a part of it.
    connection.recv(1)
    connection.sendall(f"hello {connection.getpeername()[0]}\n".encode())
    connection.recv(1)


@contextlib.contextmanager
def black_hole(address="127.0.0.1"):
    """A listener whose queue is full: the kernel drops every further SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        time.sleep(0.05)
        yield listener.getsockname()[1]


@contextlib.contextmanager
def refused_port(address="127.0.0.1"):
    """A port that is bound, so nobody else's, and does not listen."""
    with socket.socket() as holder:
        holder.bind((address, 0))
        yield holder.getsockname()[1]


async def greeting(*args, **options):
    """Dial, check what every socket must be, and return the first line it reads."""
    connection = await open_socket(*args, **options)
    with connection:
        assert connection.getblocking() is False
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert os.get_inheritable(connection.fileno()) is False
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, b"?")
        line = b""
        while not line.endswith(b"\n"):
            received = await loop.sock_recv(connection, 100)
            assert received, "closed early"
            line += received
        return line


async def failure(*args, **options):
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the callers look at it
        await open_socket(*args, **options)
    error = caught.value
    text = "".join(traceback.format_exception(error))
    assert PASSWORD not in text
    assert ENCODED not in text
    assert base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode() not in text
    return error


# Directly ----------------------------------------------------------------------------------


def test_an_address_is_dialled(run):
    with server(greet) as port:
        assert run(greeting("127.0.0.1", port)) == b"hello 127.0.0.1\n"


def test_a_name_is_resolved_anew_at_each_call(run, names):
    async def twice(port):
        assert await greeting("moving.test", port) == b"hello 127.0.0.1\n"
        names["moving.test"] = ["127.0.0.9"]
        assert isinstance(await failure("moving.test", port), ConnectionRefusedError)
        assert names.asked == 2

    with server(greet) as port:
        run(twice(port), **{"moving.test": ["127.0.0.1"]})


def test_a_black_hole_costs_its_own_deadline_and_the_next_address_answers(run):
    async def timed(port):
        start_s = time.monotonic()
        line = await greeting("two.test", port, address_timeout_s=SHORT_S)
        return line, time.monotonic() - start_s

    with black_hole() as port, server(greet, OTHER, port):
        line, took_s = run(timed(port), **{"two.test": ["127.0.0.1", OTHER]})
    assert line.startswith(b"hello")
    assert SHORT_S * 0.9 < took_s < 10


def test_the_next_dial_begins_with_an_address_that_was_not_tried_in_vain(run):
    async def twice(port):
        order = AddressOrder()
        keys = {"address_timeout_s": 10, "order": order}
        with contextlib.suppress(TimeoutError):  # a deadline that the first address outlasts
            await asyncio.wait_for(greeting("two.test", port, **keys), SHORT_S)
        return await asyncio.wait_for(greeting("two.test", port, **keys), 9)

    with black_hole() as port, server(greet, OTHER, port):
        assert run(twice(port), **{"two.test": ["127.0.0.1", OTHER]}).startswith(b"hello")


def test_each_of_several_black_holes_has_a_deadline_and_all_are_named(run):
    async def timed(port):
        start_s = time.monotonic()
        error = await failure("two.test", port, address_timeout_s=SHORT_S)
        return error, time.monotonic() - start_s

    with black_hole() as port:
        error, took_s = run(timed(port), **{"two.test": ["127.0.0.9", "127.0.0.1"]})
        assert type(error) is TimeoutError
        assert str(error) == (
            f"127.0.0.9:{port}: Connection refused; 127.0.0.1:{port}: no answer within 0.3 s"
        )
    assert SHORT_S * 0.9 < took_s < 10


def test_a_refused_port_is_refused_by_name(run):
    with refused_port() as port:
        error = run(failure("127.0.0.1", port))
        assert type(error) is ConnectionRefusedError
        assert error.errno == errno.ECONNREFUSED
        assert f"127.0.0.1:{port}: Connection refused" in str(error)


def test_an_unresolvable_name_is_a_fault_of_the_resolver(run):
    assert isinstance(run(failure("nowhere.invalid", 443)), socket.gaierror)


def test_a_host_that_can_be_no_name_is_a_unicode_error(run):
    with pytest.raises(UnicodeError):
        run(open_socket("a" * 70 + ".test", 443))


def test_the_source_address_is_where_the_peer_sees_us(run):
    with server(greet) as port:
        assert run(greeting("127.0.0.1", port, source="127.0.0.2")) == b"hello 127.0.0.2\n"


def test_with_a_source_only_addresses_of_its_family_are_tried(run):
    with refused_port() as port:
        error = run(
            failure("both.test", port, source="127.0.0.2"), **{"both.test": ["::1", "127.0.0.1"]}
        )
        assert str(error).endswith(f"] 127.0.0.1:{port}: Connection refused")
    assert isinstance(run(failure("::1", 443, source="127.0.0.2")), socket.gaierror)


def test_a_source_that_is_not_ours_or_no_address_is_told(run):
    error = run(failure("127.0.0.1", 443, source="192.0.2.1"))
    assert error.errno == errno.EADDRNOTAVAIL
    with pytest.raises(ValueError, match="eth0"):
        run(open_socket("127.0.0.1", 443, source="eth0"))


def test_cancelling_a_dial_closes_its_socket_and_the_loop_goes_on(run):
    """The number that comes free is used again at once, and must not be watched any more."""

    async def cancelled(hole, port):
        for _ in range(3):
            task = asyncio.create_task(open_socket("127.0.0.1", hole))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await greeting("127.0.0.1", port) == b"hello 127.0.0.1\n"

    with black_hole() as hole, server(greet) as port:
        run(cancelled(hole, port))


def test_cancelling_at_any_moment_leaks_nothing(run):
    async def swept(port):
        for steps in range(12):
            task = asyncio.create_task(open_socket("127.0.0.1", port))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                (await task).close()

    with server(greet) as port:
        run(swept(port))


# Through a proxy ---------------------------------------------------------------------------


def relay(one, other):
    """Copy both ways until one side ends."""

    def copy(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=copy, args=(other, one))
    back.start()
    copy(one, other)
    back.join()


def http_proxy(target_port, *, status="200 Connection established", auth=None, heard=None):
    """Return a handler for CONNECT: to our port, whatever name is asked for."""

    def handle(connection):
        request = b""
        while b"\r\n\r\n" not in request:
            received = connection.recv(4096)
            if not received:
                return
            request += received
        lines = request.decode().split("\r\n")
        if heard is not None:
            heard.append(lines[0])
        answer = status
        if auth is not None:
            basic = base64.b64encode(auth.encode()).decode()
            if f"Proxy-Authorization: Basic {basic}" not in lines:
                answer = "407 Proxy Authentication Required"
        connection.sendall(f"HTTP/1.1 {answer}\r\nVia: test\r\n\r\n".encode())
        if answer.startswith("200"):
            with socket.create_connection(("127.0.0.1", target_port), 10) as onward:
                relay(connection, onward)

    return handle


def exactly(connection, count):
    data = b""
    while len(data) < count:
        received = connection.recv(count - len(data))
        if not received:
            raise ConnectionResetError
        data += received
    return data


def socks5_proxy(target_port, *, reply=0, auth=None, heard=None):
    """Return a handler for SOCKS5 (RFC 1928, 1929): to our port, whatever name is asked for."""

    def handle(connection):
        _version, count = exactly(connection, 2)
        methods = exactly(connection, count)
        method = 2 if auth is not None else 0
        if method not in methods:
            connection.sendall(b"\x05\xff")
            return
        connection.sendall(bytes([5, method]))
        if auth is not None:
            user = exactly(connection, exactly(connection, 2)[1]).decode()
            password = exactly(connection, exactly(connection, 1)[0]).decode()
            granted = f"{user}:{password}" == auth
            connection.sendall(bytes([1, not granted]))
            if not granted:
                return
        assert exactly(connection, 4) == b"\x05\x01\x00\x03"  # a name, not an address
        name = exactly(connection, exactly(connection, 1)[0]).decode()
        (port,) = struct.unpack(">H", exactly(connection, 2))
        if heard is not None:
            heard.append(f"{name}:{port}")
        connection.sendall(bytes([5, reply, 0, 1, 127, 0, 0, 1, 0, 80]))
        if reply == 0:
            with socket.create_connection(("127.0.0.1", target_port), 10) as onward:
                relay(connection, onward)

    return handle


PROXIES = pytest.mark.parametrize(
    ("scheme", "proxy"), [("http", http_proxy), ("socks5", socks5_proxy)]
)


@PROXIES
def test_a_proxy_is_asked_by_name_and_carries_the_bytes(run, scheme, proxy):
    heard = []
    with server(greet) as target, server(proxy(target, heard=heard)) as gate:
        line = run(greeting("nowhere.invalid", 443, proxy=f"{scheme}://127.0.0.1:{gate}"))
    assert line == b"hello 127.0.0.1\n"
    assert heard[0].removeprefix("CONNECT ").split()[0] == "nowhere.invalid:443"


@PROXIES
def test_a_proxy_takes_percent_encoded_credentials(run, scheme, proxy):
    with server(greet) as target, server(proxy(target, auth=f"{USER}:{PASSWORD}")) as gate:
        url = f"{scheme}://{USER}:{ENCODED}@127.0.0.1:{gate}"
        assert run(greeting("nowhere.invalid", 443, proxy=url)) == b"hello 127.0.0.1\n"


@PROXIES
@pytest.mark.parametrize("known", [True, False])
def test_wrong_or_missing_credentials_are_a_refusal_without_the_password(run, scheme, proxy, known):
    with server(proxy(1, auth="somebody:else")) as gate:
        login = f"{USER}:{ENCODED}@" if known else ""
        error = run(failure("nowhere.invalid", 443, proxy=f"{scheme}://{login}127.0.0.1:{gate}"))
    assert type(error) is ProxyRefused
    assert f"proxy 127.0.0.1:{gate} refused nowhere.invalid:443: " in str(error)


def test_what_the_proxy_answered_is_told_short_and_printable(run):
    status = f"403 no {PASSWORD} \x1b[31m" + "x" * 1000
    with server(http_proxy(1, status=status)) as gate:
        url = f"http://{USER}:{ENCODED}@127.0.0.1:{gate}"
        error = run(failure("nowhere.invalid", 443, proxy=url))
    assert "403 no *** ?[31mxxx" in str(error)
    assert len(str(error)) < 400


def test_an_answer_in_pieces_is_taken_whole_and_not_a_byte_of_the_peers_with_it(run):
    def handle(connection):
        connection.recv(4096)
        for piece in (b"HTTP/1.1 2", b"00 fine\r\nVia: x\r", b"\n\r\nfirst words of the peer"):
            connection.sendall(piece)
            time.sleep(0.05)
        connection.recv(1)

    async def act(gate):
        dialled = await open_socket("peer.invalid", 1, proxy=f"http://127.0.0.1:{gate}")
        with dialled:
            return await asyncio.get_running_loop().sock_recv(dialled, 99)

    with server(handle) as gate:
        assert run(act(gate)) == b"first words of the peer"


def test_the_reason_of_a_socks_proxy_is_told(run):
    with server(socks5_proxy(1, reply=2)) as gate:
        error = run(failure("nowhere.invalid", 443, proxy=f"socks5://127.0.0.1:{gate}"))
    assert type(error) is ProxyRefused
    assert "not allowed by ruleset" in str(error)


@pytest.mark.parametrize("scheme", ["http", "socks5"])
@pytest.mark.parametrize("answer", [b"", b"\xff\xfe\r\n\r\n", b"\x05", b"SSH-2.0-x\r\n"])
def test_a_peer_that_is_no_proxy_or_hangs_up_is_a_refusal(run, scheme, answer):
    def handle(connection):
        connection.recv(4096)
        connection.sendall(answer)

    with server(handle) as gate:
        url = f"{scheme}://{USER}:{ENCODED}@127.0.0.1:{gate}"
        assert type(run(failure("nowhere.invalid", 443, proxy=url))) is ProxyRefused


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_credentials_the_proxy_cannot_be_told_are_a_refusal(run, scheme):
    with server(lambda connection: connection.sendall(b"\x05\x02") or connection.recv(99)) as gate:
        url = f"{scheme}://{USER}:{ENCODED}%E2%82%AC@127.0.0.1:{gate}"
        assert type(run(failure("nowhere.invalid", 443, proxy=url))) is ProxyRefused


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_is_not_there_or_has_no_address_is_a_refusal(run, scheme):
    login = f"{scheme}://{USER}:{ENCODED}@"
    with refused_port() as port:
        error = run(failure("nowhere.invalid", 443, proxy=f"{login}127.0.0.1:{port}"))
        assert type(error) is ProxyRefused
        assert f"127.0.0.1:{port}: Connection refused" in str(error)
    error = run(failure("127.0.0.1", 443, proxy=f"{login}nowhere.invalid:8080"))
    assert type(error) is ProxyRefused
    assert "proxy nowhere.invalid:8080" in str(error)


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_silent_proxy_is_a_timeout_that_names_it(run, scheme):
    with server(lambda connection: connection.recv(9999) and connection.recv(1)) as gate:
        url = f"{scheme}://{USER}:{ENCODED}@127.0.0.1:{gate}"
        error = run(failure("nowhere.invalid", 443, proxy=url, address_timeout_s=SHORT_S))
    assert type(error) is TimeoutError
    assert f"through proxy 127.0.0.1:{gate}: no answer within 0.3 s" in str(error)


@PROXIES
def test_the_second_address_of_a_proxy_answers_for_the_first(run, scheme, proxy):
    with (
        server(greet) as target,
        black_hole() as gate,
        server(proxy(target), OTHER, gate),
    ):
        url = f"{scheme}://proxy.test:{gate}"
        dial = greeting("nowhere.invalid", 443, proxy=url, address_timeout_s=SHORT_S)
        line = run(dial, **{"proxy.test": ["127.0.0.1", OTHER]})
    assert line == b"hello 127.0.0.1\n"


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_no_of_the_proxy_is_final_and_not_asked_for_twice(run, scheme):
    calls = []

    def handle(connection):
        calls.append(1)
        connection.recv(4096)
        connection.sendall(b"\x05\xff\r\n\r\n")

    with server(handle, "127.0.0.1") as gate, server(handle, OTHER, gate):
        dial = failure("nowhere.invalid", 443, proxy=f"{scheme}://proxy.test:{gate}")
        error = run(dial, **{"proxy.test": ["127.0.0.1", OTHER]})
    assert type(error) is ProxyRefused
    assert len(calls) == 1


@PROXIES
def test_the_proxy_sees_the_source_address(run, scheme, proxy):
    seen = []

    def handle(connection):
        seen.append(connection.getpeername()[0])
        proxy(target)(connection)

    with server(greet) as target, server(handle) as gate:
        url = f"{scheme}://127.0.0.1:{gate}"
        run(greeting("nowhere.invalid", 443, proxy=url, source="127.0.0.2"))
    assert seen == ["127.0.0.2"]


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_cancelling_a_dial_through_a_proxy_closes_its_socket(run, scheme):
    reached = threading.Event()

    def handle(connection):
        connection.recv(4096)
        reached.set()
        connection.recv(1)

    async def cancelled(gate):
        dial = open_socket("nowhere.invalid", 443, proxy=f"{scheme}://127.0.0.1:{gate}")
        task = asyncio.create_task(dial)
        assert await asyncio.to_thread(reached.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with server(handle) as gate:
        run(cancelled(gate))


@pytest.mark.parametrize(
    "url",
    [
        f"https://{USER}:{ENCODED}@127.0.0.1:1",
        f"socks4://{USER}:{ENCODED}@127.0.0.1:1",
        f"http://{USER}:{ENCODED}@127.0.0.1",
        f"http://{USER}:{ENCODED}@127.0.0.1:0",
        f"http://{USER}:{ENCODED}@127.0.0.1:99999",
        f"http://{USER}:{ENCODED}@:8080",
        f"http://{USER}:p/ss@127.0.0.1:8080",  # the password looks like a port
        f"http://{USER}:{ENCODED}@[::1:8080",
        "127.0.0.1:8080",
        "",
    ],
)
def test_a_proxy_url_that_is_none_is_refused_and_not_quoted(run, url):
    error = run(failure("127.0.0.1", 443, proxy=url))
    assert type(error) is ProxyRefused
    assert "want http://" in str(error)
    assert "p/ss" not in str(error)
    assert USER not in str(error)
