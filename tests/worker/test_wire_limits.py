"""What a wire refuses, bears and counts, with either engine."""

import asyncio
import socket
import ssl
import time

import pytest
import trustme
from raw_exchange import BINARY, CLOSE, PING, TEXT, RawExchange, frame
from wires import Ear, dial, life, run, spec_of, wait_until

from worker.spec import LimitsSpec
from worker.wire import Route, engine_of, make_wire, tls_context

UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        ({}, "picows"),
        ({"compression": True}, "websockets"),
        ({"engine": "websockets"}, "websockets"),
        ({"engine": "picows"}, "picows"),
    ],
)
def test_auto_is_picows_where_nothing_asks_for_websockets(keys, chosen):
    assert engine_of(spec_of("ws://h/", **keys)) == chosen


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 520 Web Server Returned an Unknown Error\r\n\r\n", 520),
        (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", 302),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n<html>", 403),
        (b"HTTP/1.0 429 Slow\r\nRetry-After: 7\r\n\r\n<html>", 429),
        (b"HTTP/1.1 429 Slow\r\nretry-after: 7\r\nContent-Length: 0\r\n\r\n", 429),
    ],
)
def test_every_status_is_told_and_no_redirect_followed(engine, answer, status):
    async def script(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.write(answer)
        peer.writer.write_eof()
        await peer.gone()

    ear, exchange = life(script, engine=engine, handshake=False)
    assert (ear.ending.cause, ear.ending.status) == ("handshake_refused", status)
    assert ear.ending.retry_after_ns == (7_000_000_000 if status == 429 else 0)
    assert exchange.accepted == 1


@pytest.mark.parametrize(
    "chosen",
    [b"Sec-WebSocket-Protocol: v2\r\n", b"Sec-WebSocket-Extensions: permessage-deflate\r\n"],
)
def test_what_nobody_offered_is_not_agreed_to(engine, chosen):
    async def script(peer):
        await peer.handshake(chosen)
        await peer.gone()

    ear, _ = life(script, engine=engine, handshake=False, subprotocols=("v1",))
    assert ear.ending.cause == "handshake_failed"
    assert not ear.opened.is_set()


def test_user_and_password_of_the_url_go_into_their_header_and_nowhere_else(engine):
    async def script(peer):
        peer.send(CLOSE)
        await peer.gone()

    async def act():
        async with RawExchange(script) as exchange:
            _wire, ear = dial(spec_of(exchange.url.replace("//", "//u:p%40@"), engine=engine))
            await ear.closed.wait()
            return exchange.peers[0].request.lower(), exchange.port

    request, port = run(act())
    assert b"\r\nhost: 127.0.0.1:%d\r\n" % port in request
    assert b"\r\nauthorization: basic dtpwqa==\r\n" in request


def test_text_that_is_no_utf8_ends_the_session_with_1007(engine):
    codes = []

    async def script(peer):
        peer.writer.write(frame(TEXT, "µ".encode()) + frame(TEXT, b"\xff") + frame(TEXT, b"x"))
        codes.append((await peer.until(CLOSE))[:2])
        await peer.gone()

    ear, _ = life(script, engine=engine)
    assert codes == [(1007).to_bytes(2, "big")]
    assert ear.ending.cause == "protocol_error"
    assert ear.of("message") == [(True, "µ".encode())]


def test_a_message_of_exactly_the_limit_is_taken(engine):
    async def script(peer):
        peer.send(TEXT, bytes(1000))
        peer.send(TEXT, bytes(500), fin=False)
        peer.send(0, bytes(500))
        peer.send(CLOSE)
        await peer.gone()

    ear, _ = life(script, engine=engine, limits=LimitsSpec(max_message=1000))
    assert ear.of("message") == [(True, bytes(1000))] * 2


@pytest.mark.parametrize("when", ["opened", "message", "ping"])
def test_an_owner_that_raises_is_reported_and_loses_the_socket(engine, when):
    class Raising(Ear):
        def on_opened(self):
            super().on_opened()
            self.fail("opened")

        def on_message(self, *told):
            super().on_message(*told)
            self.fail("message")

        def on_ping(self, *told):
            super().on_ping(*told)
            self.fail("ping")

        def fail(self, at):
            if at == when:
                raise RuntimeError(at)

    async def script(peer):
        peer.writer.write(frame(TEXT, b"x") + frame(PING))
        await peer.gone()

    async def act():
        reported = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reported.append(context["exception"]))
        async with RawExchange(script) as exchange:
            spec = spec_of(exchange.url, engine=engine)
            ear = Raising()
            make_wire(spec, Route(url=spec.url), ear).open(None)
            await ear.closed.wait()
            await wait_until(lambda: exchange.open == 0)
        return ear, reported

    ear, reported = run(act())
    assert [str(error) for error in reported] == [when]
    assert ear.ending.cause == "reset"


class Dear(Ear):
    """One whose messages cost 10 us each, on a machine of any speed."""

    def on_message(self, is_text, payload, now_ns, wall_ns):
        super().on_message(is_text, payload, now_ns, wall_ns)
        while time.monotonic_ns() < now_ns + 10_000:
            pass


async def told_by_turn(engine, sent):
    """Return all that an ear was told of ``sent``, and how much of it in each turn of the loop."""

    async def script(peer):
        peer.writer.write(sent + frame(CLOSE))
        await peer.gone()

    async with RawExchange(script) as exchange:
        _wire, ear = dial(spec_of(exchange.url, engine=engine), Dear())
        seen, turns = 0, []
        while not ear.closed.is_set():
            await asyncio.sleep(0)
            turns.append(len(ear.told) - seen)
            seen = len(ear.told)
        return ear, turns


def test_a_flood_of_empty_messages_leaves_the_loop_its_turns(engine):
    """Two bytes a frame are the most work that a read can bring: 32,768 frames in 64 KiB."""
    count = 200_000 if engine == "picows" else 80_000
    ear, turns = run(told_by_turn(engine, frame(BINARY) * count))
    assert len(ear.of("message")) == count
    assert len(turns) > 15
    assert max(turns) <= 3 * 4096  # two slices at most, and what other events there were


def test_a_flood_amid_long_messages_takes_one_long_turn_at_most(engine):
    count = 80_000
    ear, turns = run(told_by_turn(engine, frame(BINARY, b"x" * 4096) * 500 + frame(BINARY) * count))
    assert len(ear.of("message")) == 500 + count
    assert sorted(turns)[-2] <= 3 * 4096


@pytest.mark.parametrize("tls", [False, True])
def test_what_was_read_and_not_yet_parsed_counts_as_waiting(engine, tls, tmp_path):
    """While a flood is worked off, a death must not be believed: its pong may be in there."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)

    async def script(peer):
        peer.writer.write(frame(BINARY) * 200_000 + frame(PING, b"last"))
        await peer.until(10)
        await peer.gone()

    async def act():
        async with RawExchange(script, context=context) as exchange:
            keys = {"tls_ca": str(tmp_path / "ca.pem")} if tls else {}
            wire, ear = dial(spec_of(exchange.url, engine=engine, **keys))
            waiting = []
            await wait_until(lambda: ear.of("message"))
            while not ear.of("ping"):
                waiting.append(wire.pending_bytes())
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            left = wire.pending_bytes()
            wire.abort()
            await ear.closed.wait()
            return waiting, left

    waiting, left = run(act())
    assert any(waiting)
    assert left == 0


def test_a_peer_that_is_gone_before_the_handshake_is_not_dialled_again(engine):
    async def act():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
            _wire, ear = dial(spec_of(url, engine=engine))
            loop = asyncio.get_running_loop()
            accepted, _ = await loop.sock_accept(listener)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            accepted.close()
            await ear.closed.wait()
            await asyncio.sleep(0.05)
            with pytest.raises(BlockingIOError):
                listener.accept()
            return ear.ending.cause

    assert run(act()) in {"reset", "handshake_failed", "connect_failed"}


def test_a_context_is_made_for_wss_only():
    assert tls_context("ws://h/", None) is None
    assert tls_context("WSS://h/", None).verify_mode is ssl.CERT_REQUIRED
