import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
import threading
import zlib

import pytest
from aiohttp import WSMsgType, web
from exchange_thread import ExchangeThread
from raw_exchange import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    RawExchange,
    frame,
)
from wires import dial, life, run, spec_of, wait_until

from worker.spec import LimitsSpec


def test_messages_come_as_the_foreign_server_sent_them(engine):
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
        wire, ear = dial(spec_of(f"ws://127.0.0.1:{runner.addresses[0][1]}/ws", engine=engine))
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


def test_control_frames_between_fragments_are_answered_and_leave_the_message_whole(engine):
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

    ear, _ = life(script, engine=engine)
    assert ear.of("message") == [(True, b"one two")]
    assert ear.of("ping") == [(b"in between",)]
    assert ear.of("pong") == [(b"stray",)]
    assert answers == [b"in between"]


def test_frames_cut_at_every_byte_come_the_same(engine):
    stream = frame(TEXT, b"x" * 130) + frame(PING, b"p") + frame(BINARY, b"y")

    async def script(peer):
        for n in range(len(stream)):
            peer.writer.write(stream[n : n + 1])
            await asyncio.sleep(0)
        await peer.until(PONG)
        peer.send(CLOSE)
        await peer.gone()

    ear, _ = life(script, engine=engine)
    assert ear.of("message") == [(True, b"x" * 130), (False, b"y")]


@pytest.mark.parametrize(
    "parts",
    [
        [frame(TEXT, bytes(2000))],
        [frame(TEXT, bytes(600), fin=False), frame(CONT, bytes(600))],
        [b"\x81\x7f" + (1 << 62).to_bytes(8, "big")],
    ],
)
def test_an_oversize_message_ends_the_session_with_1009(engine, parts):
    codes = []

    async def script(peer):
        for part in parts:
            peer.writer.write(part)
        codes.append((await peer.until(CLOSE))[:2])
        await peer.gone()

    ear, _ = life(script, engine=engine, limits=LimitsSpec(max_message=1000))
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
def test_a_breach_of_the_protocol_ends_the_session_with_1002(engine, breach):
    codes = []

    async def script(peer):
        peer.writer.write(breach)
        codes.append((await peer.until(CLOSE))[:2])
        await peer.gone()

    ear, _ = life(script, engine=engine)
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


def test_what_had_come_before_an_abrupt_end_is_handed_on(engine):
    """The pongs to a flood with pings in it meet a peer that is gone, while much waits here."""
    flood = b"".join(frame(TEXT, b"%07d" % n) + frame(PING, b"") for n in range(8_000))

    async def script(peer):
        peer.writer.transport.set_write_buffer_limits(0)
        peer.writer.write(flood)
        await peer.writer.drain()  # the client's kernel has all of it
        peer.reset()

    ear, _ = life(script, engine=engine)
    assert ear.ending.cause == "reset"
    found = [int(message[1]) for message in ear.of("message")]
    assert found == list(range(len(found)))
    assert len(found) == 8_000


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("closes", [False, True])
def test_what_the_kernel_has_is_handed_on_though_a_write_meets_the_reset_first(
    engine, loop, closes
):
    texts = [b"%d %s" % (number, b"x" * 40) for number in range(1_000)]
    go, sent = threading.Event(), threading.Event()

    async def script(peer):
        await asyncio.to_thread(go.wait, 20)
        for text in texts:
            peer.send(TEXT, text)
        if closes:
            peer.send(CLOSE, (1001).to_bytes(2, "big") + b"maintenance")
        out = peer.writer.get_extra_info("socket").fileno()
        # Until the client's kernel has acknowledged all of it (SIOCOUTQ, tcp(7)).
        while struct.unpack("i", fcntl.ioctl(out, termios.TIOCOUTQ, bytes(4)))[0]:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        peer.reset()
        with contextlib.suppress(ConnectionError):
            await peer.writer.wait_closed()
        sent.set()

    async def act(exchange):
        wire, ear = dial(spec_of(exchange.url, engine=engine))
        await ear.opened.wait()
        await asyncio.sleep(0.01)
        go.set()
        assert sent.wait(20)  # the loop stands: nothing is read
        for _ in range(3):
            wire.send_ping(b"")
        await ear.closed.wait()
        return ear

    with ExchangeThread(script) as exchange:
        ear = run(act(exchange), loop=loop)
    assert [message[1] for message in ear.of("message")] == texts
    if closes:
        assert (ear.ending.cause, ear.ending.code) == ("peer_closed", 1001)
    else:
        assert ear.ending.cause == "reset"


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


@pytest.mark.parametrize("size", [9, 9000])
def test_a_message_deflated_with_a_final_block_leaves_the_next_ones_readable(size):
    def deflated(text, flush):
        packer = zlib.compressobj(0, wbits=-15)
        return packer.compress(text) + packer.flush(flush)

    async def script(peer):
        await peer.handshake(b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
        peer.send(TEXT, deflated(b"a" * size, zlib.Z_FINISH), rsv=4)
        peer.send(TEXT, deflated(b"b" * size, zlib.Z_FINISH), rsv=4)
        peer.send(TEXT, deflated(b"c" * size, zlib.Z_SYNC_FLUSH)[:-4], rsv=4)
        peer.send(TEXT, deflated(b"d", zlib.Z_FINISH) + deflated(b"e", zlib.Z_FINISH), rsv=4)
        await peer.gone()

    ear, _ = life(script, handshake=False, compression=True)
    assert ear.of("message") == [(True, letter * size) for letter in (b"a", b"b", b"c")]
    assert (ear.ending.cause, "final block" in ear.ending.error) == ("protocol_error", True)


def test_data_that_comes_with_the_handshake_comes_after_it(engine):
    async def script(peer):
        peer.writer.write(frame(TEXT, b"eager") + frame(CLOSE, b"\x03\xe8"))
        await peer.gone()

    ear, _ = life(script, engine=engine)
    assert [item[0] for item in ear.told] == ["connected", "opened", "message"]
    assert (ear.ending.cause, ear.ending.code) == ("peer_closed", 1000)


def test_what_waits_in_the_socket_is_counted_and_small_frames_are_not_delayed(engine):
    async def act():
        async def script(peer):
            await peer.until(TEXT)
            peer.send(TEXT, b"12345678")
            await peer.gone()

        async with RawExchange(script) as exchange:
            wire, ear = dial(spec_of(exchange.url, engine=engine))
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


def test_noise_never_escapes_as_an_exception(engine):
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
                _wire, ear = dial(spec_of(exchange.url, engine=engine))
                await ear.closed.wait()
                assert ear.ending.cause in {"protocol_error", "reset", "peer_closed", "oversize"}
        assert trouble == []

    run(act())
