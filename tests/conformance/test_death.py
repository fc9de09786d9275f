"""L3 to L7: what a dead connection is and what is done about it."""

import asyncio

import pytest
from library import (
    PONG,
    Answering,
    Diary,
    client,
    exchange_of,
    fast,
    open_sockets,
    run,
    until,
)

from worker import ConnectionClosed

MUTE = {"interval": 0.1, "timeout": 0.05}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_l3_a_dead_connection_is_closed_and_the_server_sees_it(loop):
    async def act():
        script = Answering(mute=True, deaf=True)
        async with (
            exchange_of(script) as exchange,
            client(exchange.url, heartbeat=fast(**MUTE), close_timeout=20) as ws,
        ):
            diary = Diary(ws)
            timeout = await diary.until("timeout")
            await until(lambda: script.gone_ns)
            assert (script.gone_ns[0] - timeout.monotonic_ns) / 1e9 < 10, "at once, not after 20 s"
            assert script.closes[0][:2] == (1001).to_bytes(2, "big")
            await diary.until("connected")
            await until(lambda: exchange.accepted >= 2)
            script.deaf = False

    run(act(), loop=loop)


def test_l3_without_reconnecting_a_death_is_the_end():
    async def act():
        script = Answering(mute=True)
        async with exchange_of(script) as exchange:
            ws = client(exchange.url, heartbeat=fast(**MUTE), reconnect=False)
            diary = Diary(ws)
            await ws.run()
            assert ws.state == "closed"
            await until(lambda: exchange.open == 0)
            with pytest.raises(ConnectionClosed):
                await ws.recv()
            await ws.close()
            assert exchange.accepted == 1
            assert diary.names[-3:] == ["timeout", "disconnected", "closed"]

    run(act())


def test_l3_a_server_that_reads_nothing_loses_the_socket_within_the_close_timeout():
    async def deaf(peer):
        await asyncio.sleep(60)

    async def act():
        async with exchange_of(deaf) as exchange:
            ws = client(exchange.url, heartbeat=fast(**MUTE), reconnect=False)
            diary = Diary(ws)
            await ws.connect()
            await ws.wait_closed()
            (ping,), (closed,) = diary.of("ping"), await closed_of(diary)
            assert (closed.monotonic_ns - ping.monotonic_ns) / 1e9 < 0.05 + 0.3 + 5
            await ws.close()

    run(act())


async def closed_of(diary):
    await diary.until("closed")
    return diary.of("closed")


def test_l4_after_twenty_timeouts_the_server_holds_one_socket_and_after_close_none():
    async def act():
        script = Answering(mute=True)
        async with exchange_of(script) as exchange:
            ws = client(exchange.url, heartbeat=fast(interval=0.05, timeout=0.03, first=0.01))
            async with ws:
                diary = Diary(ws, "timeout", "connected", "closed")
                await diary.until("timeout", 3)
                sockets, tasks = open_sockets(), len(asyncio.all_tasks())
                await diary.until("timeout", 20)
                await diary.until("connected", 20)
                await until(lambda: exchange.open == 1)
                # A server's end of a socket may still be on its way out, at either moment.
                await until(lambda: abs(open_sockets() - sockets) <= 3)
                await until(lambda: abs(len(asyncio.all_tasks()) - tasks) <= 2)
            await until(lambda: exchange.open == 0)
            # The last may have been in its handshake, which no script sees.
            assert exchange.accepted - 1 <= len(script.gone_ns) <= exchange.accepted

    run(act())


def test_l5_connecting_twice_is_one_connection_and_closing_is_safe_at_any_time():
    async def act():
        async with exchange_of() as exchange:
            idle = client(exchange.url, heartbeat=fast())
            diary = Diary(idle, "closed")
            await idle.close()
            await idle.close()
            assert (idle.state, len(diary.events)) == ("closed", 1)
            with pytest.raises(ConnectionClosed):
                await idle.connect()
            ws = client(exchange.url, heartbeat=fast())
            await asyncio.gather(ws.connect(), ws.connect())
            await ws.connect()
            assert exchange.accepted == 1
            await ws.close()
            await ws.close()
            assert ws.stats().pings == 0

    run(act())


def test_l5_a_close_while_resting_or_waiting_for_a_pong_ends_pings_at_once():
    async def act():
        for mute in (False, True):
            script = Answering(mute=mute)
            async with exchange_of(script) as exchange:
                ws = client(exchange.url, heartbeat=fast(interval=1, first=0.01))
                diary = Diary(ws)
                async with ws:
                    await diary.until("ping")
                    await until(lambda ws=ws, mute=mute: mute or ws.latency_ms is not None)
                await asyncio.sleep(1.2)
                assert len(script.pings) == 1
                assert not diary.of("timeout")
                assert diary.names[-1] == "closed"

    run(act())


def test_l6_each_dead_connection_is_told_exactly_once():
    async def act():
        async with (
            exchange_of(Answering(mute=True)) as exchange,
            client(exchange.url, heartbeat=fast(interval=0.05, timeout=0.03)) as ws,
        ):
            diary = Diary(ws, "timeout", "disconnected")
            await diary.until("disconnected", 5)
            first_ten = diary.names[:10]
            assert first_ten == ["timeout", "disconnected"] * 5
            # A neighbour that holds us up for 0.25 s makes it "busy".
            assert {event.cause for event in diary.events} <= {"ping_timeout", "busy"}

    run(act())


def test_l7_a_pong_without_a_ping_measures_nothing_and_one_of_another_body_saves_nothing():
    class Wrong(Answering):
        async def __call__(self, peer):
            peer.send(PONG, b"nobody asked")
            await super().__call__(peer)

        def ping(self, peer, body):
            peer.send(PONG, b"another")

    async def act():
        async with (
            exchange_of(Wrong()) as exchange,
            client(exchange.url, heartbeat=fast(**MUTE)) as ws,
        ):
            diary = Diary(ws, "pong", "timeout")
            await diary.until("timeout")
            assert not diary.of("pong")
            assert ws.stats().latency_max_ms is None
            assert ws.stats().foreign_pongs >= 2

    run(act())
