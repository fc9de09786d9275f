"""E1 to E4: what handlers are told, in which order, and what becomes of one that fails."""

import asyncio
import dataclasses
import logging
import time
from datetime import UTC, datetime, timedelta

import pytest
from library import (
    CLOSE,
    TEXT,
    Answering,
    Diary,
    client,
    exchange_of,
    fast,
    foreign,
    refused_url,
    run,
    until,
)

from worker import ConnectionFailed


def test_e1_a_ping_has_its_payload_and_a_pong_its_latency_and_both_have_both_clocks():
    async def act():
        async with (
            exchange_of(Answering(delay=0.01)) as exchange,
            client(exchange.url, heartbeat=fast()) as ws,
        ):
            diary = Diary(ws, "ping", "pong")
            pong = await diary.until("pong")
            ping = diary.of("ping")[0]
            assert isinstance(ping.payload, bytes)
            assert pong.payload == ping.payload
            between_ms = (pong.monotonic_ns - ping.monotonic_ns) / 1e6
            assert pong.latency_ms == pytest.approx(between_ms, abs=1e-6)
            between_s = (pong.time - ping.time).total_seconds()
            assert between_s * 1e3 == pytest.approx(between_ms, abs=5)
            for event in (ping, pong):
                assert datetime.now(UTC) - event.time < timedelta(seconds=5)
                assert 0 < time.monotonic_ns() - event.monotonic_ns < 5e9
                with pytest.raises(dataclasses.FrozenInstanceError):
                    event.payload = b""

    run(act())


def test_e2_a_death_is_told_in_the_order_of_its_causes():
    async def act():
        async with exchange_of(Answering(mute=True)) as exchange:
            ws = client(exchange.url, heartbeat=fast(interval=0.1, timeout=0.05))
            diary = Diary(ws)
            async with ws:
                await diary.until("connected", 2)
            assert diary.names[:8] == [
                "connecting", "connected", "ping", "timeout", "disconnected", "reconnecting",
                "connecting", "connected",
            ]  # fmt: skip
            stamps = [event.monotonic_ns for event in diary.events]
            assert stamps == sorted(stamps)
            assert [event.session for event in diary.of("connected")[:2]] == [1, 2]
            assert diary.of("timeout")[0].waited >= 0.05

    run(act())


def test_e2_an_application_pong_is_a_pong_event():
    async def act():
        heartbeat = fast(
            use_ws_ping=False,
            use_application_ping=True,
            payload=b"ping",
            pong_matcher={"text": "pong"},
        )
        async with (
            exchange_of(Answering(answer=lambda text: b"pong")) as exchange,
            client(exchange.url, heartbeat=heartbeat) as ws,
        ):
            pong = await Diary(ws).until("pong")
            assert pong.payload == b"pong"
            assert pong.latency_ms > 0

    run(act())


def test_e3_a_life_is_connecting_connected_disconnected_and_one_closed_with_our_code():
    async def act():
        async with exchange_of() as exchange:
            ws = client(exchange.url)
            diary = Diary(ws)
            await ws.connect()
            await ws.close(4321, "enough")
            await ws.close()
            assert diary.names == ["connecting", "connected", "disconnected", "closed"]
            connecting, connected, _down, closed = diary.events
            assert (connecting.attempt, connected.uri) == (1, exchange.url)
            assert (closed.code, closed.reason) == (4321, "enough")

    run(act())


@pytest.mark.parametrize("code", [1000, 1001, 1011, 4000])
def test_e3_closed_has_the_code_and_reason_of_the_server(code):
    async def act():
        async with foreign(lambda ws: ws.close(code=code, message=b"so long")) as url:
            ws = client(url, reconnect=False)
            diary = Diary(ws)
            await ws.run()
            await diary.until("closed")
            (closed,) = diary.of("closed")
            assert (closed.code, closed.reason) == (code, "so long")
            await ws.close()
            assert len(diary.of("closed")) == 1

    run(act())


@pytest.mark.parametrize("how", ["fin", "rst", "no answer"])
def test_e3_closed_is_1006_if_no_close_frame_came(how):
    async def serve(peer):
        if how == "rst":
            peer.reset()
        elif how == "no answer":
            await peer.gone()

    async def act():
        async with exchange_of(serve) as exchange:
            ws = client(exchange.url, reconnect=False)
            diary = Diary(ws)
            await ws.connect()
            if how == "no answer":
                await ws.close(1000)
            await ws.wait_closed()
            assert (await diary.until("closed")).code == 1006
            await ws.close()

    run(act())


def test_e3_a_connect_that_fails_for_good_is_closed_too():
    async def act():
        ws = client(refused_url(), reconnect=False)
        diary = Diary(ws)
        with pytest.raises(ConnectionFailed):
            await ws.connect()
        await ws.close()
        assert diary.names == ["connecting", "closed"]

    run(act())


def test_e4_handlers_run_in_the_order_they_were_added_and_none_twice():
    async def act():
        async with exchange_of() as exchange:
            ws = client(exchange.url)
            told = []

            async def first(event):
                await asyncio.sleep(0.01)
                told.append("first")

            def second(event):
                told.append("second")

            for handler in (first, second, first):
                ws.add_handler("connected", handler)
            removed = ws.on("connected")(lambda event: told.append("removed"))
            ws.remove_handler("connected", removed)
            ws.remove_handler("connected", removed)
            async with ws:
                pass
            assert told == ["first", "second"]
            with pytest.raises(ValueError, match="no event 'conected'; there are closed, con"):
                ws.on("conected")(second)

    run(act())


@pytest.mark.parametrize("kind", ["function", "coroutine", "cancelled"])
def test_e4_a_handler_that_raises_is_logged_counted_told_and_the_next_runs(kind, caplog):
    async def fail_later(event):
        raise LookupError("of the user")

    async def wait_for_a_cancelled_one(event):
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    def fail(event):
        raise LookupError("of the user")

    handlers = {"function": fail, "coroutine": fail_later, "cancelled": wait_for_a_cancelled_one}

    async def act():
        async with exchange_of() as exchange:
            ws = client(exchange.url)
            diary = Diary(ws, "error")
            for name in ("connected", "error"):
                ws.add_handler(name, handlers[kind])
            late = Diary(ws, "connected", "closed")
            async with ws:
                await diary.until("error")
            assert late.names == ["connected", "closed"]
            assert ws.stats().handler_errors == 2  # the error's handler failed too
            (error,) = diary.events
            assert error.where == "handler of connected"
            assert isinstance(error.error, LookupError | RuntimeError)

    with caplog.at_level(logging.ERROR, logger="worker.client"):
        run(act())
    assert len(caplog.records) == 2
    assert all(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("how", ["at once", "in a task of its own"])
def test_a_handler_may_close_the_client(how):
    async def act():
        async with exchange_of(Answering(opening=["x"])) as exchange:
            ws = client(exchange.url, close_timeout=5)
            diary = Diary(ws, "closed")

            @ws.on("message")
            async def close(event):
                closing = ws.close(3000)
                if how == "at once":
                    await closing
                else:
                    await asyncio.wait_for(asyncio.create_task(closing), 4)
                diary.events.append(event)

            await ws.connect()
            begun = time.monotonic()
            await ws.wait_closed()
            await diary.until("closed")
            assert time.monotonic() - begun < 2
            assert diary.names == ["message", "closed"]
            assert diary.events[-1].code == 3000

    run(act())


def test_a_handler_that_never_returns_does_not_hold_up_close_for_longer_than_its_timeout():
    async def act():
        async with exchange_of() as exchange:
            ws = client(exchange.url, close_timeout=0.2)
            released = asyncio.Event()
            ws.add_handler("connected", lambda event: released.wait())
            await ws.connect()
            begun = time.monotonic()
            await ws.close()
            assert 0.19 <= time.monotonic() - begun < 1
            released.set()

    run(act())


def test_messages_that_slow_handlers_leave_waiting_are_bounded_and_no_other_event_is_lost():
    async def serve(peer):
        for number in range(100):
            peer.send(TEXT, b"%d" % number)
        peer.send(CLOSE, (1000).to_bytes(2, "big"))
        await peer.gone()

    async def act():
        async with exchange_of(serve) as exchange:
            ws = client(exchange.url, reconnect=False, buffer=10)
            released, told = asyncio.Event(), []
            ws.add_handler("connected", lambda event: released.wait())
            diary = Diary(ws, "connected", "disconnected", "closed")
            ws.add_handler("message", lambda event: told.append(event.data))
            await ws.run()
            released.set()
            await diary.until("closed")
            assert told == [str(number) for number in range(90, 100)]
            assert ws.stats().messages_dropped == 90
            assert diary.names == ["connected", "disconnected", "closed"]
            await ws.close()

    run(act())


def test_the_buffer_drops_its_oldest_messages_and_counts_them():
    async def act():
        texts = [str(number) for number in range(50)]
        async with (
            exchange_of(Answering(opening=texts)) as exchange,
            client(exchange.url, buffer=8) as ws,
        ):
            await until(lambda: ws.stats().messages_received == 50)
            assert [await ws.recv() for _ in range(8)] == texts[-8:]
            assert ws.stats().messages_dropped == 42

    run(act())
