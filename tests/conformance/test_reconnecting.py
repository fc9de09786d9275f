"""R1 to R4 and R8: when a lost session is dialled again, and with what."""

import asyncio
import os
import socket
import sys
from urllib.parse import urlsplit

import pytest
from library import (
    CLOSE,
    QUICK,
    TEXT,
    Answering,
    Diary,
    client,
    exchange_of,
    foreign,
    open_sockets,
    refused_url,
    run,
    until,
)
from raw_exchange import Peer

from worker import BackoffConfig, ConnectionClosed, ConnectionFailed

# A second address with the port of the first: of this process only, so that no other has it taken.
OTHER = f"127.78.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"


def test_r1_delays_are_jittered_below_doubling_ceilings_up_to_the_cap_and_attempts_end():
    async def act():
        backoff = BackoffConfig(initial=0.01, maximum=0.05, max_attempts=12)
        ws = client(refused_url(), backoff=backoff)
        diary = Diary(ws)
        with pytest.raises(ConnectionFailed, match="connect_refused"):
            await ws.connect()
        await ws.close()
        delays = [event.delay for event in diary.of("reconnecting")]
        assert len(delays) == 11
        assert len(set(delays)) > 6
        for attempt, delay in enumerate(delays):
            assert 0 <= delay <= min(0.01 * 2**attempt, 0.05)
        assert len(diary.of("connecting")) == 12
        assert diary.names[-1] == "closed"

    run(act())


def test_r1_a_session_that_lasted_resets_the_doubling_and_a_short_one_does_not():
    lasting = [0, 0, 0, 1.3, 0]

    async def serve(peer):
        await asyncio.sleep(lasting.pop(0) if lasting else 60)

    async def act():
        backoff = BackoffConfig(initial=0.001, maximum=0.002, reset_after=1)
        async with exchange_of(serve) as exchange, client(exchange.url, backoff=backoff) as ws:
            diary = Diary(ws, "connecting")
            await until(lambda: exchange.accepted == 6)
            await until(lambda: len(diary.events) >= 5)
            assert [event.attempt for event in diary.events[-5:]] == [2, 3, 4, 2, 3]

    run(act())


@pytest.mark.parametrize(
    "keys",
    [
        {"initial": 0},
        {"initial": 2, "maximum": 1},
        {"factor": 0.5},
        {"factor": True},
        {"factor": float("nan")},
        {"max_attempts": -1},
        {"max_attempts": True},
        {"reset_after": -1},
        {"stable_after": float("inf")},
    ],
)
def test_r1_an_impossible_backoff_is_refused(keys):
    with pytest.raises(ValueError, match=rf"maximum|{next(iter(keys))}"):
        BackoffConfig(**keys)


def test_r2_reconnecting_tells_attempt_delay_and_the_error_before():
    async def act():
        ws = client(refused_url(), backoff=BackoffConfig(initial=0.01, maximum=0.01))
        diary = Diary(ws)
        dial = asyncio.create_task(ws.connect())
        await diary.until("connecting", 3)
        first, second = diary.of("reconnecting")[:2]
        assert (first.attempt, second.attempt) == (2, 3)
        assert "ConnectionRefusedError" in first.error
        assert 0 <= first.delay <= 0.01
        between = (diary.of("connecting")[1].monotonic_ns - first.monotonic_ns) / 1e9
        assert between >= first.delay - 0.001
        assert ws.state in ("reconnecting", "connecting")
        await ws.close()
        with pytest.raises(ConnectionFailed):
            await dial

    run(act())


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_r3_a_refusal_that_will_not_pass_soon_is_not_repeated_soon(status):
    async def refuse(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)
        await peer.gone()

    async def act():
        backoff = BackoffConfig(initial=0.01, maximum=30)
        async with exchange_of(refuse, handshake=False) as exchange:
            ws = client(exchange.url, backoff=backoff)
            diary = Diary(ws)
            dial = asyncio.create_task(ws.connect())
            assert (await diary.until("reconnecting")).delay == 30
            await asyncio.sleep(0.1)
            assert exchange.accepted == 1
            await ws.close()
            with pytest.raises(ConnectionFailed) as failed:
                await dial
            assert (failed.value.status, failed.value.cause) == (status, "handshake_refused")

    run(act())


@pytest.mark.parametrize("code", [1008, 4401, 4403])
def test_r3_a_close_that_means_the_same_is_not_repeated_soon(code):
    async def act():
        backoff = BackoffConfig(initial=0.01, maximum=30)
        async with foreign(lambda ws: ws.close(code=code)) as url:
            ws = client(url, backoff=backoff)
            diary = Diary(ws)
            await ws.connect()
            assert (await diary.until("reconnecting")).delay == 30
            assert diary.of("disconnected")[0].code == code
            await ws.close()

    run(act())


def test_r4_resets_in_the_handshake_are_retried():
    class Resetting:
        resets = 0

        async def __call__(self, peer):
            await peer.reader.readuntil(b"\r\n\r\n")
            self.resets += 1
            if self.resets <= 50:
                peer.reset()
                return
            await peer.gone()

    async def act():
        script = Resetting()
        async with exchange_of(script, handshake=False) as exchange:
            ws = client(exchange.url)
            dial = asyncio.create_task(ws.connect())
            await until(lambda: script.resets > 50)
            assert ws.stats().connect_failures == 50
            await ws.close()
            with pytest.raises(ConnectionFailed):
                await dial

    run(act())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_r4_two_thousand_refused_dials_stay_flat_and_the_next_succeeds(loop):
    depth = []

    async def act():
        url = refused_url()
        ws = client(url, backoff=BackoffConfig(initial=1e-5, maximum=1e-5))
        ws.add_handler("connecting", lambda event: depth.append(stack_depth()))
        dial = asyncio.create_task(ws.connect())
        await until(lambda: len(depth) > 100)
        sockets, tasks = open_sockets(), len(asyncio.all_tasks())
        await until(lambda: ws.stats().connect_failures >= 2000)
        assert open_sockets() <= sockets + 2
        assert len(asyncio.all_tasks()) <= tasks + 2
        assert max(depth[100:]) == max(depth[:100])
        assert ws.state in ("connecting", "reconnecting")
        server = await asyncio.start_server(shake_hands, "127.0.0.1", urlsplit(url).port)
        async with server:
            await dial
            assert ws.is_connected
            await ws.close()

    run(act(), loop=loop)


async def shake_hands(reader, writer):
    peer = Peer(reader, writer)
    await peer.handshake()
    peer.send(CLOSE, await peer.until(CLOSE))
    writer.close()


def stack_depth():
    frame, depth = sys._getframe(), 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


def test_r4_a_name_that_does_not_resolve_is_retried():
    async def act():
        ws = client("ws://no-such-host.invalid/ws")
        diary = Diary(ws)
        dial = asyncio.create_task(ws.connect())
        await diary.until("reconnecting", 3)
        assert "gaierror" in diary.of("reconnecting")[0].error
        await ws.close()
        with pytest.raises(ConnectionFailed):
            await dial

    run(act())


def test_r4_an_address_that_accepts_and_says_nothing_does_not_hide_the_next_for_good(monkeypatch):
    async def act():
        async with exchange_of() as exchange:
            with socket.socket() as mute:
                mute.bind((OTHER, exchange.port))
                mute.listen()
                tcp = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
                found = [(*tcp, (host, exchange.port)) for host in (OTHER, "127.0.0.1")]
                monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
                ws = client(f"ws://exchange.test:{exchange.port}/ws", connect_timeout=0.5)
                diary = Diary(ws)
                async with ws:
                    (retried,) = diary.of("reconnecting")
                    assert (
                        retried.error == f"{OTHER}:{exchange.port} accepted, and no session opened"
                    )
                    exchange.peers[0].reset()
                    await diary.until("connected", 2)  # and a new session begins with the good one
                assert len(diary.of("connecting")) == 3

    run(act())


def test_r8_subscriptions_are_said_again_in_every_session():
    class Dropping(Answering):
        def text(self, peer, payload):
            if payload == b"last":
                peer.reset() if len(self.sessions) % 2 else peer.writer.close()

    async def act():
        script = Dropping()
        subscribe = ['{"op":"subscribe"}', b'{"op":"login"}', {"id": 1, "args": ["a", "b"]}, "last"]
        async with (
            exchange_of(script) as exchange,
            client(exchange.url, subscribe=subscribe, backoff=QUICK),
        ):
            await until(lambda: sum(len(texts) == 4 for texts in script.sessions) >= 5)
            said = [b'{"op":"subscribe"}', b'{"op":"login"}', b'{"id":1,"args":["a","b"]}', b"last"]
            assert all(texts == said for texts in script.sessions if len(texts) == 4)

    run(act())


def test_connecting_returns_though_the_session_is_gone_already():
    """The server says something and closes in the packet of the handshake."""

    async def brief(peer):
        peer.send(TEXT, b"all there is")
        peer.send(CLOSE, (1000).to_bytes(2, "big") + b"bye")
        await peer.gone()

    async def act():
        async with exchange_of(brief) as exchange:
            async with client(exchange.url, reconnect=False) as ws:
                assert await ws.recv() == "all there is"
                with pytest.raises(ConnectionClosed) as closed:
                    await ws.recv()
                assert (closed.value.code, closed.value.reason) == (1000, "bye")
            async with client(exchange.url) as ws:
                await until(lambda: ws.stats().sessions >= 3)
                assert await ws.recv() == "all there is"

    run(act())


def test_a_connect_that_is_cancelled_leaves_nothing_behind():
    async def mute(peer):
        await peer.gone()

    async def act():
        async with exchange_of(mute, handshake=False) as exchange:
            ws = client(exchange.url)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await ws.connect()
            await until(lambda: exchange.accepted == 1 and exchange.open == 0)
            assert ws.state == "closed"

    run(act())


def test_a_second_connect_that_is_cancelled_leaves_the_first_alone():
    async def act():
        async with exchange_of() as exchange:
            ws = client(exchange.url)
            first, second = asyncio.create_task(ws.connect()), asyncio.create_task(ws.connect())
            await asyncio.sleep(0)
            second.cancel()
            await first
            assert ws.is_connected
            await ws.close()

    run(act())


def test_a_session_whose_task_is_cancelled_from_outside_leaves_no_socket_open():
    """As a program does that cancels whatever tasks there are."""

    async def act():
        async with exchange_of() as exchange:
            async with client(exchange.url) as ws:
                others = asyncio.all_tasks() - {asyncio.current_task(), *exchange.tasks}
                for task in others:
                    task.cancel()
                await until(lambda: ws.stats().sessions == 1 + bool(others) and ws.is_connected)
                await until(lambda: exchange.open == 1)
            await until(lambda: exchange.open == 0)

    run(act())
