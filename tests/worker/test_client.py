"""What the conformance list does not ask of the client; the list is in tests/conformance."""

import asyncio

import pytest
from library import Answering, client, exchange_of, run, until

from worker import ConnectionFailed, NotConnected, WebSocket, connect
from worker.errors import ConnectionClosed, WebSocketError

URL = "ws://127.0.0.1:1/"


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"close_timeout": float("nan")}, "close_timeout"),
        ({"engine": "other"}, "engine must be auto, websockets or picows, got 'other'"),
        ({"engine": "picows", "compression": True}, "compression: picows inflates nothing"),
        ({"max_message": 0}, "max_message"),
        ({"buffer": 0}, "buffer"),
    ],
)
def test_impossible_arguments_are_refused_by_name(keys, text):
    with pytest.raises(ValueError, match=text):
        WebSocket(URL, **keys)


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
