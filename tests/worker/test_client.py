"""What the conformance list does not ask of the client; the list is in tests/conformance."""

import asyncio
import ssl
import sys
from asyncio.subprocess import PIPE

import pytest
from library import Answering, Diary, client, exchange_of, fast, refused_url, run, until
from raw_exchange import CLOSE

import worker
from worker import BackoffConfig, ConnectionFailed, NotConnected, WebSocket, connect
from worker.errors import ConnectionClosed, WebSocketError, WrongLoop

URL = "ws://127.0.0.1:1/"


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"close_timeout": float("nan")}, "close_timeout"),
        ({"engine": "other"}, "engine must be auto, websockets or picows, got 'other'"),
        ({"engine": "picows", "compression": True}, "compression: picows inflates nothing"),
        ({"max_message": 0}, "max_message"),
        ({"max_message": "16MiB"}, "max_message"),
        ({"max_message": 2**63}, "max_message must be a whole number above zero"),
        ({"buffer": 0}, "buffer"),
        ({"buffer": "9"}, "buffer must be a whole number above zero, got '9'"),
        ({"buffer_bytes": "1MiB"}, "buffer_bytes must be a whole number above zero"),
        ({"heartbeat": False}, "or None for no heartbeat; got False"),
        ({"heartbeat": {"interval": 3}}, "must be seconds between pings, a HeartbeatConfig"),
        ({"backoff": 3}, "backoff must be a BackoffConfig, got 3"),
        ({"reconnect": 3}, "reconnect must be True or False; see backoff, got 3"),
        ({"ssl_context": True}, "ssl_context must be an ssl.SSLContext"),
        ({"deserializer": "json"}, "deserializer must be a function, got 'json'"),
        ({"proxy": "ftp://u:secret@h:1"}, "proxy: proxy URL has no scheme that is known"),
        ({"proxy": 5}, "proxy must be text, got int"),
        ({"proxy": "proxy.test:3128"}, "proxy: proxy URL has no scheme that is known"),
        ({"proxy": "http://h:1/\n"}, "proxy: proxy URL holds other than printable ASCII"),
        ({"headers": ["a"]}, "headers must be a mapping"),
        ({"headers": {"X": 1}}, "name and value of 'X' must be text"),
        ({"headers": {"Host": "h"}}, "'Host' is made by the handshake itself; leave it out"),
        ({"headers": {"X": "a\r\nY: b"}}, "'X' its value must not hold control characters"),
        ({"headers": {"X": "→"}}, "'X' its value must be Latin-1"),
        ({"headers": {"X Y": "a"}}, "'X Y' is no name of a header"),
        ({"headers": {"X": "a", "x": "b"}}, "'x' is the same header as 'X'; keep one"),
        ({"subprotocols": "mqtt"}, r"a list of names: write \['mqtt'\]"),
        ({"subprotocols": ["a b"]}, "'a b' is no name of one"),
        ({"subscribe": '{"op":"x"}'}, "subscribe must be a list of messages: write"),
        ({"subscribe": {"op": "x"}}, r"write \[{'op': 'x'}\]"),
        ({"subscribe": ["a", object()]}, "subscribe: message 1 is no text"),
        ({"subscribe": [b"\xff"]}, "subscribe: message 0 is no text"),
        ({"subscribe": b"abc"}, "subscribe must be a list of messages: write"),
        ({"subscribe": ["\ud800"]}, "subscribe: message 0 is no text"),
    ],
)
def test_impossible_arguments_are_refused_by_name(keys, text):
    with pytest.raises(ValueError, match=text):
        WebSocket(URL, **keys)


def test_a_proxy_that_is_refused_is_not_quoted():
    with pytest.raises(ValueError, match="proxy") as refused:
        WebSocket(URL, proxy="http://user:secret@")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("uri", [None, "", "http://h/", "h.test/ws", "ws://"])
def test_what_is_no_uri_is_refused(uri):
    with pytest.raises(ValueError, match=r"^uri"):
        WebSocket(uri)


def test_an_unknown_event_and_a_handler_that_is_none_are_refused_at_once():
    ws = WebSocket(URL)
    with pytest.raises(ValueError, match=r"no event .msg.; there are closed, .*message"):
        ws.on("msg")
    with pytest.raises(ValueError, match="a handler of 'message' must be a function, got 3"):
        ws.add_handler("message", 3)


def test_receiving_before_connecting_is_refused_and_not_waited_for():
    async def act():
        ws = WebSocket(URL)
        with pytest.raises(NotConnected, match="idle; call connect"):
            await ws.recv()
        with pytest.raises(NotConnected, match="idle"):
            async for _ in ws:
                pass

    run(act())


@pytest.mark.parametrize(
    ("closing", "text"),
    [
        ((99999, ""), "code must be 1000 or another"),
        ((999, ""), "code must be 1000 or another"),
        ((1006, ""), "code must be 1000 or another"),
        (("1000", ""), "code must be 1000 or another"),
        ((1000, "ä" * 62), "reason has at most 123 bytes, got 124"),
        ((1000, "\ud800"), "reason cannot be sent"),
    ],
)
def test_a_close_that_cannot_be_sent_is_refused_and_the_session_goes_on(closing, text):
    async def act():
        script = Answering()
        async with exchange_of(script) as exchange:
            ws = await client(exchange.url)
            with pytest.raises(ValueError, match=text):
                await ws.close(*closing)
            assert ws.is_connected
            await ws.close(4001, "x" * 123)
            assert ws.state == "closed"
        assert script.closes == [(4001).to_bytes(2, "big") + b"x" * 123]

    run(act())


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"payload": "text"}, "payload must be bytes, such as"),
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


def test_the_package_lists_what_it_gives():
    assert set(worker.__all__) <= set(dir(worker))
    assert all(getattr(worker, name) for name in worker.__all__)
    with pytest.raises(AttributeError, match="Websocket"):
        _ = worker.Websocket


def test_its_repr_tells_host_and_state_and_no_token():
    ws = WebSocket("wss://user:secret@h.test:444/ws?listenKey=secret")
    assert repr(ws) == "<WebSocket wss://h.test:444 idle>"
    assert repr(WebSocket("ws://[::1]:9350/a")) == "<WebSocket ws://[::1]:9350 idle>"


def test_dials_that_fail_are_logged_for_those_who_listen_to_no_event(caplog):
    async def act():
        url = refused_url()
        ws = client(f"{url}?token=secret")
        dial = asyncio.create_task(ws.connect())
        await until(lambda: len(caplog.records) >= 2)
        await ws.close()
        with pytest.raises(ConnectionFailed):
            await dial
        assert caplog.records[0].levelname == "WARNING"
        said = caplog.messages[0]
        assert said.startswith(f"{url.removesuffix('/ws')}: cannot connect (connect_refused: ")
        assert "; dial 2 in 0.0" in said
        assert "secret" not in caplog.text

    run(act())


def test_a_lost_session_is_logged_and_what_the_peer_said_cannot_command_a_terminal(caplog):
    async def act():
        async def serve(peer):
            peer.send(8, (1011).to_bytes(2, "big") + b"\x1b[2Jbye")
            await peer.receive()

        async with exchange_of(serve) as exchange:
            ws = await client(exchange.url)
            await until(lambda: "lost (peer_closed" in caplog.text)
            await ws.close()
        assert "\x1b" not in caplog.text

    run(act())


def test_the_first_time_a_matcher_raises_is_logged(caplog):
    async def act():
        script = Answering(answer=lambda text: b"pong")
        async with exchange_of(script) as exchange:
            beat = fast(
                timeout=0.05,
                payload=b"ping",
                use_ws_ping=False,
                use_application_ping=True,
                pong_matcher=lambda message: message.get("op") == "pong",
            )
            ws = client(exchange.url, heartbeat=beat)
            diary = Diary(ws)
            await ws.connect()
            await diary.until("error", 3)
            await ws.close()
        said = [line for line in caplog.messages if "pong_matcher" in line]
        assert len(said) == 1
        assert "AttributeError: 'str' object has no attribute 'get'" in said[0]

    run(act())


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


def test_the_buffer_is_bounded_in_bytes_too():
    async def act():
        texts = [f"{number}" * 1_000 for number in range(9)]
        async with (
            exchange_of(Answering(opening=texts)) as exchange,
            client(exchange.url, buffer_bytes=2_500) as ws,
        ):
            await until(lambda: ws.stats().messages_received == 9)
            assert [await ws.recv(), await ws.recv()] == texts[-2:]
            assert ws.stats().messages_dropped == 7

    run(act())


def test_on_another_loop_every_call_is_refused_by_name_and_the_session_goes_on():
    def elsewhere(call):
        with pytest.raises(WrongLoop, match="belongs to another event loop; make one"):
            asyncio.run(call())

    async def iterate(ws):
        async for _ in ws:
            pass

    async def act():
        async with exchange_of(Answering(opening=["one"])) as exchange:
            ws = await client(exchange.url)
            for call in (
                ws.recv, ws.ping, ws.connect, ws.close, ws.wait_closed, ws.run,
                lambda: ws.send("x"), lambda: iterate(ws), ws.__aenter__,
            ):  # fmt: skip
                await asyncio.to_thread(elsewhere, call)
            assert await ws.recv() == "one"
            assert await ws.ping() > 0
            await ws.close()
        await asyncio.to_thread(elsewhere, ws.recv)

    run(act())


def test_errors_have_one_root_and_say_what_happened():
    for error in (
        ConnectionFailed(URL, "dns", "gaierror: x", None),
        ConnectionClosed(1001, "bye"),
        NotConnected("idle"),
        WrongLoop(),
    ):
        assert isinstance(error, WebSocketError)
    assert str(ConnectionFailed(URL, "dns", "gaierror: x")).endswith("(dns): gaierror: x")
    assert str(ConnectionClosed(1000, "")) == "closed with 1000"


def test_the_text_of_an_error_holds_no_token_and_nothing_that_commands_a_terminal():
    failed = ConnectionFailed("wss://user:word@h.test:9/ws?token=hush", "dns", "gaierror")
    for text in (str(failed), repr(failed)):
        assert "wss://h.test:9 (dns): gaierror" in text
        assert "hush" not in text
        assert "word" not in text
    assert failed.uri.endswith("hush")
    assert str(ConnectionClosed(1000, "\x1b[2J再见")) == "closed with 1000 (?[2J再见)"


FORGOTTEN = """
import asyncio, sys
from worker import WebSocket

async def main():
    ws = WebSocket(sys.argv[1], engine=sys.argv[2])
    await ws.connect()
    await ws.recv()

asyncio.run(main())
"""


@pytest.mark.parametrize(("engine", "unclosed"), [("picows", 0), ("websockets", 1)])
def test_a_client_that_was_not_closed_closes_no_descriptor_twice(engine, unclosed):
    """Its transport's socket is collected with the loop, which Python warns of; nothing else is."""

    async def act():
        async with exchange_of(Answering(opening=["x"])) as exchange:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-X", "dev", "-c", FORGOTTEN, exchange.url, engine, stderr=PIPE
            )
            _out, told = await child.communicate()
            assert child.returncode == 0
            assert told.count(b"ResourceWarning: unclosed <") == unclosed, told.decode()

    run(act())
