import asyncio
import contextlib
import socket
import ssl
import zlib

import pytest
import trustme
import uvloop
from aiohttp import WSMsgType, web
from raw_exchange import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    RawExchange,
    frame,
    open_descriptors,
)

from worker.spec import ConnectionSpec, LimitsSpec, ReconnectSpec
from worker.wire import Route, Wire, tls_context

PATIENCE_S = 20
CLOSE_TIMEOUT_S = 0.3


class Ear:
    """Writes down what a wire tells."""

    def __init__(self):
        self.told = []
        self.opened, self.closed = asyncio.Event(), asyncio.Event()
        self.ending = None

    def on_connected(self, peer):
        self.told.append(("connected", peer))

    def on_opened(self):
        self.told.append(("opened",))
        self.opened.set()

    def on_message(self, is_text, payload, now_ns, wall_ns):
        assert 0 < now_ns < wall_ns
        self.told.append(("message", is_text, payload))

    def on_pong(self, body, now_ns):
        self.told.append(("pong", body))

    def on_ping(self, body, now_ns):
        self.told.append(("ping", body))

    def on_closed(self, ending):
        assert self.ending is None, "closed twice"
        self.ending = ending
        self.closed.set()

    def of(self, kind):
        return [item[1:] for item in self.told if item[0] == kind]


def spec_of(url, **keys):
    keys.setdefault("reconnect", ReconnectSpec(close_timeout_ns=int(CLOSE_TIMEOUT_S * 1e9)))
    return ConnectionSpec(name="x", url=url, **keys)


def dial(spec):
    ear = Ear()
    wire = Wire(spec, Route(url=spec.url, headers=spec.headers), ear)
    wire.open(tls_context(spec))
    return wire, ear


def run(coroutine):
    async def bounded():
        async with asyncio.timeout(PATIENCE_S):
            return await coroutine

    return uvloop.run(bounded())


async def wait_until(condition):
    while not condition():  # noqa: ASYNC110 - nobody tells when a socket is gone
        await asyncio.sleep(0.005)


def life(script, *, handshake=True, **keys):
    """Return what a wire told from dial to end, the exchange being ``script``."""

    async def act():
        async with RawExchange(script, handshake=handshake) as exchange:
            _wire, ear = dial(spec_of(exchange.url, **keys))
            await ear.closed.wait()
            await wait_until(lambda: exchange.open == 0)
            return ear, exchange

    return run(act())


def test_messages_come_as_the_foreign_server_sent_them():
    async def act():
        async def serve(request):
            ws = web.WebSocketResponse()
            await ws.prepare(request)
            async for message in ws:
                if message.type == WSMsgType.TEXT:
                    await ws.send_str(message.data)
                    await ws.send_bytes(b"\0\xff")
                    await ws.send_str("é" * 100_000)
                    await ws.close(code=4001, message=b"enough")
            return ws

        app = web.Application()
        app.router.add_get("/ws", serve)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        wire, ear = dial(spec_of(f"ws://127.0.0.1:{runner.addresses[0][1]}/ws"))
        await ear.opened.wait()
        assert wire.send_text('{"ü":1}'.encode())
        await ear.closed.wait()
        await runner.cleanup()
        return ear

    ear = run(act())
    assert ear.of("message") == [
        (True, '{"ü":1}'.encode()),
        (False, b"\0\xff"),
        (True, ("é" * 100_000).encode()),
    ]
    assert (ear.ending.cause, ear.ending.code, ear.ending.reason) == (
        "peer_closed",
        4001,
        "enough",
    )


def test_deflated_messages_of_a_foreign_server_come_inflated_if_asked_for():
    async def act():
        async def serve(request):
            ws = web.WebSocketResponse(compress=True)
            await ws.prepare(request)
            await ws.send_str("abc" * 1000)
            await ws.close()
            return ws

        app = web.Application()
        app.router.add_get("/ws", serve)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"ws://127.0.0.1:{runner.addresses[0][1]}/ws"
        _wire, ear = dial(spec_of(url, compression=True))
        await ear.closed.wait()
        await runner.cleanup()
        return ear

    assert run(act()).of("message") == [(True, b"abc" * 1000)]


def test_control_frames_between_fragments_are_answered_and_leave_the_message_whole():
    answers = []

    async def script(peer):
        peer.send(TEXT, b"one ", fin=False)
        peer.send(PING, b"in between")
        peer.send(CONT, b"", fin=False)
        peer.send(PONG, b"stray")
        peer.send(CONT, b"two")
        answers.append(await peer.until(PONG))
        peer.send(CLOSE)
        await peer.gone()

    ear, _ = life(script)
    assert ear.of("message") == [(True, b"one two")]
    assert ear.of("ping") == [(b"in between",)]
    assert ear.of("pong") == [(b"stray",)]
    assert answers == [b"in between"]


def test_frames_cut_at_every_byte_come_the_same():
    stream = frame(TEXT, b"x" * 130) + frame(PING, b"p") + frame(BINARY, b"y")

    async def script(peer):
        for n in range(len(stream)):
            peer.writer.write(stream[n : n + 1])
            await asyncio.sleep(0)
        await peer.until(PONG)
        peer.send(CLOSE)
        await peer.gone()

    ear, _ = life(script)
    assert ear.of("message") == [(True, b"x" * 130), (False, b"y")]


@pytest.mark.parametrize(
    "parts",
    [
        [frame(TEXT, bytes(2000))],
        [frame(TEXT, bytes(600), fin=False), frame(CONT, bytes(600))],
        [b"\x81\x7f" + (1 << 62).to_bytes(8, "big")],
    ],
)
def test_an_oversize_message_ends_the_session_with_1009(parts):
    codes = []

    async def script(peer):
        for part in parts:
            peer.writer.write(part)
        codes.append((await peer.until(CLOSE))[:2])
        await peer.gone()

    ear, _ = life(script, limits=LimitsSpec(max_message=1000))
    assert codes == [(1009).to_bytes(2, "big")]
    assert ear.ending.cause == "oversize"
    assert ear.of("message") == []


@pytest.mark.parametrize(
    "breach",
    [
        frame(3, b"reserved opcode"),
        frame(TEXT, b"x", rsv=4),
        frame(CONT, b"nothing to continue"),
        frame(PING, bytes(126)),
        frame(PING, b"", fin=False),
        b"\x81\x81mask",
        frame(CLOSE, b"\x03"),
    ],
)
def test_a_breach_of_the_protocol_ends_the_session_with_1002(breach):
    codes = []

    async def script(peer):
        peer.writer.write(breach)
        codes.append((await peer.until(CLOSE))[:2])
        await peer.gone()

    ear, _ = life(script)
    assert codes == [(1002).to_bytes(2, "big")]
    assert ear.ending.cause == "protocol_error"


@pytest.mark.parametrize(
    "breach",
    [
        frame(TEXT, b"caf\xe9"),
        frame(TEXT, b"\xed\xa0\x80"),  # a surrogate
        frame(TEXT, "€".encode()[:2]),
        frame(TEXT, "€".encode()[:2], fin=False) + frame(CONT, b"x"),
    ],
)
def test_text_that_is_no_utf_8_ends_the_session_with_1007_and_is_not_delivered(breach):
    codes = []

    async def script(peer):
        halves = frame(TEXT, "€".encode()[:2], fin=False) + frame(CONT, "€".encode()[2:])
        peer.writer.write(halves + breach + frame(TEXT, b"after"))
        codes.append((await peer.until(CLOSE))[:2])
        await peer.gone()

    ear, _ = life(script)
    assert codes == [(1007).to_bytes(2, "big")]
    assert ear.ending.cause == "protocol_error"
    assert [message[1] for message in ear.of("message")] == ["€".encode()]


def test_binary_messages_are_any_bytes():
    async def script(peer):
        peer.send(BINARY, b"\xff\xfe")
        peer.send(CLOSE, b"\x03\xe8")
        await peer.gone()

    ear, _ = life(script)
    assert [message[1] for message in ear.of("message")] == [b"\xff\xfe"]


def test_what_had_come_before_an_abrupt_end_is_handed_on():
    """The pongs to a flood with pings in it meet a peer that is gone, while much waits here."""
    flood = b"".join(frame(TEXT, b"%07d" % n) + frame(PING, b"") for n in range(8_000))

    async def script(peer):
        peer.writer.transport.set_write_buffer_limits(0)
        peer.writer.write(flood)
        await peer.writer.drain()  # the client's kernel has all of it
        peer.reset()

    ear, _ = life(script)
    assert ear.ending.cause == "reset"
    found = [int(message[1]) for message in ear.of("message")]
    assert found == list(range(len(found)))
    assert len(found) == 8_000


def test_a_deflate_bomb_is_oversize_and_inflates_no_further():
    packer = zlib.compressobj(9, wbits=-15)
    bomb = packer.compress(bytes(30_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH)

    async def script(peer):
        await peer.handshake(b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
        peer.send(TEXT, bomb[:-4], rsv=4)
        await peer.gone()

    ear, _ = life(
        script, handshake=False, compression=True, limits=LimitsSpec(max_message=1_000_000)
    )
    assert ear.ending.cause == "oversize"


@pytest.mark.parametrize("status", [401, 404, 429, 503])
def test_a_refused_handshake_tells_its_status(status):
    async def script(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 4\r\n\r\nbusy" % status)
        await peer.gone()

    ear, _ = life(script, handshake=False)
    assert (ear.ending.cause, ear.ending.status) == ("handshake_refused", status)
    assert not ear.opened.is_set()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"\0" * 20_000,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: wrong\r\n\r\n",
    ],
)
def test_garbage_for_a_handshake_is_a_failed_handshake(answer):
    async def script(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.write(answer)
        await peer.gone()

    ear, _ = life(script, handshake=False)
    assert ear.ending.cause == "handshake_failed"
    assert not ear.opened.is_set()


@pytest.mark.parametrize("stage", ["accepted", "request read", "half answered", "open"])
def test_a_reset_at_any_stage_ends_the_wire(stage):
    async def script(peer):
        if stage == "open":
            await peer.handshake()
        elif stage != "accepted":
            await peer.reader.readuntil(b"\r\n\r\n")
        if stage == "half answered":
            peer.writer.write(b"HTTP/1.1 101 Swit")
        await peer.writer.drain()
        await asyncio.sleep(0.02)
        peer.reset()

    ear, _ = life(script, handshake=False)
    assert ear.ending.cause in {"reset", "handshake_failed"}
    assert ear.opened.is_set() == (stage == "open")


def test_data_that_comes_with_the_handshake_comes_after_it():
    async def script(peer):
        peer.writer.write(frame(TEXT, b"eager") + frame(CLOSE, b"\x03\xe8"))
        await peer.gone()

    ear, _ = life(script)
    assert [item[0] for item in ear.told] == ["connected", "opened", "message"]
    assert (ear.ending.cause, ear.ending.code) == ("peer_closed", 1000)


def test_a_close_is_answered_within_the_round_trip():
    codes = []

    async def script(peer):
        codes.append((await peer.until(CLOSE))[:2])
        peer.send(CLOSE, codes[0])
        await peer.gone()

    async def act():
        async with RawExchange(script) as exchange:
            keys = {"reconnect": ReconnectSpec(close_timeout_ns=10**11)}
            wire, ear = dial(spec_of(exchange.url, **keys))
            await ear.opened.wait()
            wire.close(1000, "", wait=True)
            assert not wire.send_text(b"too late")
            await ear.closed.wait()
            assert ear.ending.code == 1000

    run(act())
    assert codes == [(1000).to_bytes(2, "big")]


@pytest.mark.parametrize("wait", [True, False])
def test_a_peer_that_reads_nothing_loses_the_socket_within_the_close_timeout(wait):
    async def act():
        release = asyncio.Event()

        async def script(peer):
            peer.writer.transport.pause_reading()
            await release.wait()
            peer.writer.transport.resume_reading()
            await peer.gone()

        async with RawExchange(script) as exchange:
            wire, ear = dial(spec_of(exchange.url))
            await ear.opened.wait()
            while wire.send_text(b"x" * 60_000) and wire._transport.get_write_buffer_size() < 10**7:
                pass
            wire.close(1001, "dead", wait=wait)
            await ear.closed.wait()
            release.set()
            await wait_until(lambda: exchange.open == 0)

    run(act())


def test_a_dial_can_be_aborted_at_every_stage():
    async def act():
        async def mute(peer):
            await peer.gone()

        async with RawExchange(mute, handshake=False) as exchange:
            for turns in range(12):
                wire, ear = dial(spec_of(exchange.url))
                for _ in range(turns):
                    await asyncio.sleep(0)
                wire.abort()
                await ear.closed.wait()
            await wait_until(lambda: exchange.open == 0)

    run(act())


def test_a_refused_port_and_an_unknown_name_have_their_causes():
    async def act(url):
        _wire, ear = dial(spec_of(url))
        await ear.closed.wait()
        return ear.ending.cause

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert run(act(f"ws://127.0.0.1:{port}/")) == "connect_refused"
    assert run(act("ws://no-such-host.invalid/")) == "dns"
    assert run(act(f"ws://{'a' * 70}.invalid/")) == "dns"


def test_tls_is_verified_against_the_operators_own_authority(tmp_path):
    async def act(authority, certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)

        async def script(peer):
            peer.send(TEXT, b"secret")
            peer.send(CLOSE)
            await peer.gone()

        async with RawExchange(script, context=context) as exchange:
            path = tmp_path / "ca.pem"
            authority.cert_pem.write_to_path(str(path))
            _wire, ear = dial(spec_of(exchange.url, tls_ca=str(path)))
            await ear.closed.wait()
            return ear

    ours, other = trustme.CA(), trustme.CA()
    ear = run(act(ours, ours.issue_cert("localhost")))
    assert ear.of("message") == [(True, b"secret")]
    for certificate in (other.issue_cert("localhost"), ours.issue_cert("elsewhere.test")):
        ear = run(act(ours, certificate))
        assert ear.ending.cause == "tls"
        assert ear.of("opened") == []


def test_the_upgrade_request_carries_headers_and_subprotocols_and_no_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ws_proxy", "http://127.0.0.1:1")

    async def script(peer):
        peer.send(CLOSE)
        await peer.gone()

    ear, exchange = life(
        script, headers=(("X-Key", "k"), ("User-Agent", "mine")), subprotocols=("v1",)
    )
    request = exchange.peers[0].request
    assert ear.opened.is_set()
    assert b"X-Key: k" in request
    assert b"Sec-WebSocket-Protocol: v1" in request
    assert request.count(b"User-Agent") >= 1
    assert b"permessage-deflate" not in request


def test_what_waits_in_the_socket_is_counted_and_small_frames_are_not_delayed():
    async def act():
        async def script(peer):
            await peer.until(TEXT)
            peer.send(TEXT, b"12345678")
            await peer.gone()

        async with RawExchange(script) as exchange:
            wire, ear = dial(spec_of(exchange.url))
            await ear.opened.wait()
            raw = wire._transport.get_extra_info("socket")
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            wire._transport.pause_reading()
            wire.send_text(b"go")
            await wait_until(lambda: wire.pending_bytes() == 10)
            wire._transport.resume_reading()
            await wait_until(lambda: ear.of("message"))
            assert wire.pending_bytes() == 0
            wire.abort()
            await ear.closed.wait()
            assert wire.pending_bytes() == 0

    run(act())


def test_a_thousand_lives_leave_no_descriptor_and_no_task():
    async def act():
        async def script(peer):
            peer.send(TEXT, b"x")
            peer.send(CLOSE)
            await peer.gone()

        async with RawExchange(script) as exchange:
            for number in range(1000):
                _wire, ear = dial(spec_of(exchange.url))
                await ear.closed.wait()
                exchange.peers.clear()
                if number == 20:
                    await wait_until(lambda: exchange.open == 0)
                    descriptors, tasks = open_descriptors(), len(asyncio.all_tasks())
            await wait_until(lambda: exchange.open == 0)
            await asyncio.sleep(0.1)
            assert open_descriptors() <= descriptors
            assert len(asyncio.all_tasks()) <= tasks

    run(act())


def test_noise_never_escapes_as_an_exception():
    """Every reply of the exchange, cut and mutated, ends in a named cause."""
    import random

    draw = random.Random(5)
    whole = frame(TEXT, b"abc") + frame(PING, b"p") + frame(BINARY, bytes(300)) + frame(CLOSE)

    async def script(peer):
        noise = bytearray(whole)
        for _ in range(draw.randrange(1, 6)):
            noise[draw.randrange(len(noise))] = draw.randrange(256)
        peer.writer.write(bytes(noise[: draw.randrange(len(noise))]))
        with contextlib.suppress(RuntimeError):
            peer.writer.write_eof()
        await peer.gone()

    async def act():
        trouble = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: trouble.append(context))
        async with RawExchange(script) as exchange:
            for _ in range(150):
                _wire, ear = dial(spec_of(exchange.url))
                await ear.closed.wait()
                assert ear.ending.cause in {"protocol_error", "reset", "peer_closed", "oversize"}
        assert trouble == []

    run(act())
