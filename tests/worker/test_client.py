"""What the conformance list does not ask of the client; the list is in tests/conformance."""

import asyncio
import ssl

import pytest
from library import Answering, client, exchange_of, run, until
from raw_exchange import CLOSE

from worker import BackoffConfig, ConnectionFailed, NotConnected, WebSocket, connect
from worker.errors import ConnectionClosed, WebSocketError

URL = "ws://127.0.0.1:1/"


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"close_timeout": float("nan")}, "close_timeout"),
        ({"engine": "other"}, "engine must be auto or websockets, got 'other'"),
        ({"max_message": 0}, "max_message"),
        ({"max_message": "16MiB"}, "max_message"),
        ({"buffer": 0}, "buffer"),
        ({"buffer": 1.5}, "buffer"),
        ({"ssl_context": "tls"}, "ssl_context"),
        ({"backoff": None}, "backoff"),
        ({"deserializer": "json"}, "deserializer"),
        ({"proxy": "proxy.test:3128"}, "proxy must be http://host:port"),
        ({"headers": {"X": "a\r\nY: b"}}, "headers: X its value must be Latin-1"),
        ({"headers": {"X": "€"}}, "headers: X its value must be Latin-1"),
        ({"headers": {"X Y": "a"}}, "headers: X Y is no name"),
        ({"headers": {"Host": "a"}}, "headers: Host is made by the handshake"),
        ({"headers": {"X": 1}}, "headers and subprotocols must be text"),
        ({"headers": [("X", "a")]}, "headers must be a mapping"),
        ({"subprotocols": ["a b"]}, "subprotocols: a b is no name"),
        ({"subprotocols": "ab"}, "subprotocols a list"),
        ({"subscribe": "abc"}, "subscribe must be a list"),
        ({"subscribe": ["\ud800"]}, "subscribe: .* is no text nor JSON"),
        ({"subscribe": [b"\xff"]}, "subscribe: .* is no text nor JSON"),
        ({"subscribe": [object()]}, "subscribe: .* is no text nor JSON"),
    ],
)
def test_impossible_arguments_are_refused_by_name(keys, text):
    with pytest.raises(ValueError, match=text):
        WebSocket(URL, **keys)


@pytest.mark.parametrize(
    ("code", "reason", "text"),
    [
        (1005, "", "close frame of 1005"),
        (999, "", "close frame of 999"),
        ("1000", "", "close frame of '1000'"),
        (1000, "x" * 124, "reason: .* 123 bytes, got 124"),
        (1000, "\ud800", "close frame of 1000"),
    ],
)
def test_what_no_close_frame_can_carry_is_refused_and_the_client_goes_on(code, reason, text):
    async def act():
        script = Answering()
        async with exchange_of(script) as exchange:
            ws = client(exchange.url)
            await ws.connect()
            with pytest.raises(ValueError, match=text):
                await ws.close(code, reason)
            assert ws.is_connected
            await ws.close(4999, "ö" * 61 + "x")
            assert script.closes == [b"\x13\x87" + ("ö" * 61 + "x").encode()]

    run(act())


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"payload": "text"}, "payload must be bytes, got str"),
        ({"payload": b"x" * 126}, "payload: .* got 126"),
        ({"timeout": float("nan")}, "timeout must be seconds"),
        ({"timeout": -1}, "timeout must be seconds"),
    ],
)
def test_an_impossible_ping_is_refused_and_leaves_nothing_waiting(keys, text):
    async def act():
        async with exchange_of() as exchange, client(exchange.url) as ws:
            with pytest.raises(ValueError, match=text):
                await ws.ping(**keys)
            assert await ws.ping() > 0

    run(act())


def test_an_error_that_nobody_foresaw_in_a_dial_is_told_and_dialled_again():
    class Broken(ssl.SSLContext):
        def wrap_bio(self, *_arguments, **_keys):
            raise RuntimeError("not foreseen")

    async def act():
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, found: told.append(found))
        async with exchange_of() as exchange:
            url = exchange.url.replace("ws://", "wss://")
            context = Broken(ssl.PROTOCOL_TLS_CLIENT)
            ws = client(url, ssl_context=context, backoff=BackoffConfig(max_attempts=3))
            with pytest.raises(ConnectionFailed, match="not foreseen"):
                await ws.connect()
            assert ws.stats().connect_failures == 3
            assert str(told[0]["exception"]) == "not foreseen"

    run(act())


def test_whatever_has_bytes_is_sent_as_binary_and_what_cannot_be_sent_ends_nothing():
    async def echo(peer):
        while True:
            opcode, payload = await peer.receive()
            peer.send(opcode, payload)
            if opcode == CLOSE:
                return

    async def act():
        async with exchange_of(echo) as exchange, client(exchange.url) as ws:
            for item in (b"ab", bytearray(b"ab"), memoryview(b"ab")):
                await ws.send(item)
                assert await ws.recv() == b"ab"
            for item in ("\ud800", object()):
                with pytest.raises((UnicodeEncodeError, TypeError)):
                    await ws.send(item)
            await ws.send(None)
            assert await ws.recv() == "null"
            assert ws.stats().messages_sent == 4

    run(act())


def test_a_client_can_be_made_and_asked_before_there_is_a_loop():
    ws = connect(URL, heartbeat="trading")
    assert (ws.state, ws.is_connected, ws.latency_ms, ws.uri) == ("idle", False, None, URL)
    assert ws.stats().state == "idle"


def test_awaiting_connects_and_states_follow_the_life():
    async def act():
        async with exchange_of() as exchange:
            ws = client(exchange.url)
            with pytest.raises(NotConnected, match="idle"):
                await ws.send("x")
            with pytest.raises(NotConnected, match="idle"):
                await ws.ping()
            dial = asyncio.ensure_future(ws.connect())
            await asyncio.sleep(0)
            assert ws.state == "connecting"
            await dial
            assert (ws.state, ws.is_connected) == ("connected", True)
            closing = asyncio.create_task(ws.close())
            await asyncio.sleep(0)
            assert ws.state == "closing"
            await closing
            assert ws.state == "closed"
            again = await client(exchange.url)
            assert again.is_connected
            await again.close()

    run(act())


def test_many_senders_are_served_in_order():
    async def act():
        script = Answering()
        async with exchange_of(script) as exchange, client(exchange.url) as ws:
            await asyncio.gather(*(ws.send(str(number)) for number in range(100)))
            await until(lambda: len(script.texts) == 100)
            assert script.texts == [b"%d" % number for number in range(100)]
            assert ws.stats().messages_sent == 100

    run(act())


def test_several_consumers_share_the_messages():
    async def act():
        texts = [str(number) for number in range(60)]
        async with exchange_of(Answering(opening=texts)) as exchange, client(exchange.url) as ws:
            found = []

            async def take():
                for _ in range(20):
                    found.append(await ws.recv())
                    await asyncio.sleep(0)

            await asyncio.gather(take(), take(), take())
            assert sorted(found, key=int) == texts

    run(act())


def test_errors_have_one_root_and_say_what_happened():
    for error in (
        ConnectionFailed(URL, "dns", "gaierror: x", None),
        ConnectionClosed(1001, "bye"),
        NotConnected("idle"),
    ):
        assert isinstance(error, WebSocketError)
    assert str(ConnectionFailed(URL, "dns", "gaierror: x")).endswith("(dns): gaierror: x")
    assert str(ConnectionClosed(1000, "")) == "closed with 1000"
