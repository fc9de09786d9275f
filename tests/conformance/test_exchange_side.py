"""What the exchange does of its own: pings by message, heartbeats, silence; no pings of ours."""

import asyncio
import gzip

import pytest
from library import Diary, client, exchange_of, run, until
from raw_exchange import BINARY, CLOSE, TEXT

from worker import HeartbeatConfig


async def hold(peer):
    peer.send(CLOSE, await peer.until(CLOSE))


HTX = HeartbeatConfig(
    use_ws_ping=False,
    decode="gzip",
    server_ping=[{"match": "ping", "reply": '{"pong":${ping}}'}],
)


def test_a_ping_in_gzip_is_answered_with_its_own_token_and_is_no_data():
    replies = []

    async def exchange(peer):
        peer.send(BINARY, gzip.compress(b'{"ping":18212558000000000123}'))
        replies.append(await peer.until(TEXT))
        peer.send(BINARY, gzip.compress(b'{"tick":1}'))
        await hold(peer)

    async def act():
        async with exchange_of(exchange) as server, client(server.url, heartbeat=HTX) as ws:
            assert gzip.decompress(await ws.recv()) == b'{"tick":1}'
            stats = ws.stats()
            assert (stats.server_pings, stats.pings, stats.messages_received) == (1, 0, 1)
            assert ws.latency_ms is None

    run(act())
    assert replies == [b'{"pong":18212558000000000123}']


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        ({"server_heartbeat": {"match": {"text": "hb"}, "max_gap": 0.2}}, "heartbeat_gap"),
        ({"max_silence": 0.2}, "silence"),
        ({"first_data_timeout": 0.2}, "no_first_data"),
    ],
)
def test_a_silent_exchange_is_dead_though_nothing_was_asked_of_it(config, cause):
    async def act():
        heartbeat = HeartbeatConfig(use_ws_ping=False, **config)
        async with exchange_of(hold) as server:
            ws = client(server.url, heartbeat=heartbeat, reconnect=False)
            diary = Diary(ws)
            await ws.connect()
            (timeout,) = [await diary.until("timeout")]
            assert timeout.cause == cause
            assert timeout.waited >= 0.2
            await diary.until("closed")
            await ws.close()

    run(act())


def test_an_exchange_without_data_is_stale_until_it_sends_some():
    async def exchange(peer):
        await asyncio.sleep(0.4)
        peer.send(TEXT, b"1")
        await hold(peer)

    async def act():
        heartbeat = HeartbeatConfig(use_ws_ping=False, data_silence=0.1)
        async with exchange_of(exchange) as server, client(server.url, heartbeat=heartbeat) as ws:
            told = []
            ws.add_handler("stale", told.append)
            ws.add_handler("fresh", told.append)
            assert await ws.recv() == "1"
            await until(lambda: len(told) >= 2)
            assert [event.name for event in told[:2]] == ["stale", "fresh"]
            assert told[0].age >= 0.1
            assert ws.is_connected

    run(act())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "must be on"),
        ({"decode": "lzma"}, "decode"),
        ({"server_ping": [{"match": "ping"}]}, "server_ping"),
        ({"server_ping": {"match": "ping", "reply": "x"}}, "server_ping must be a list"),
        ({"server_ping": 5}, "server_ping must be a list"),
        ({"server_ping": [{"match": "ping ==", "reply": "x"}]}, "server_ping is no JMESPath"),
        ({"server_ping": [{"match": print, "reply": "x"}]}, "server_ping: match"),
        ({"server_heartbeat": {"match": "hb"}}, "max_gap"),
        ({"server_heartbeat": {"match": "hb", "max_gap": float("nan")}}, "max_gap"),
        ({"max_silence": -1}, "max_silence"),
        ({"data_silence": True}, "data_silence"),
    ],
)
def test_impossible_values_are_refused_by_name(config, words):
    with pytest.raises(ValueError, match=words):
        HeartbeatConfig(use_ws_ping=False, **config)
