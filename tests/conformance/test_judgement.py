"""L9 to L13: which pongs count, and that neither we nor a former session spoil the judgement."""

import asyncio
import itertools
import ssl
import time

import pytest
import trustme
from exchange_thread import ExchangeThread
from library import Answering, Diary, client, exchange_of, fast, run, until
from raw_exchange import BINARY, CLOSE, PING, PONG, TEXT

from worker import HeartbeatConfig

MUTE = {"interval": 0.1, "timeout": 0.05}


def test_l9_unsolicited_duplicated_stale_and_empty_pongs_are_no_samples():
    class Noisy(Answering):
        former = b"none yet"

        def ping(self, peer, body):
            for noise in (b"", b"unsolicited", self.former):
                peer.send(PONG, noise)
            self.later(peer, PONG, body, 0.03)
            self.later(peer, PONG, body, 0.035)
            self.former = body

    async def act():
        script = Noisy()
        async with (
            exchange_of(script) as exchange,
            client(exchange.url, heartbeat=fast(interval=0.1)) as ws,
        ):
            diary = Diary(ws, "ping", "pong", "timeout")
            await diary.until("pong", 6)
            await until(lambda: ws.stats().foreign_pongs >= 4 * 6)
            assert not diary.of("timeout")
            assert all(pong.latency_ms >= 28 for pong in diary.of("pong"))
            bodies = [body for _, body in script.pings]
            assert len(set(bodies)) == len(bodies)
            assert ws.stats().pongs <= ws.stats().pings
            told = [ping.payload for ping in diary.of("ping")]
            both = min(len(told), len(bodies))  # the latest may be on its way to either
            assert both >= 6
            assert told[:both] == bodies[:both]

    run(act())


def test_l10_a_late_pong_is_counted_as_late_and_is_no_sample_of_a_newer_ping():
    class FirstIsLate(Answering):
        def ping(self, peer, body):
            self.later(peer, PONG, body, 1.2 if len(self.pings) == 1 else 0.01)

    async def act():
        heartbeat = fast(interval=0.8, timeout=0.6, misses=3)
        async with (
            exchange_of(FirstIsLate()) as exchange,
            client(exchange.url, heartbeat=heartbeat) as ws,
        ):
            diary = Diary(ws, "pong", "late_pong", "timeout")
            await diary.until("pong", 3)
            (late,) = diary.of("late_pong") or [await diary.until("late_pong")]
            assert late.latency_ms >= 1198
            assert all(pong.latency_ms < 600 for pong in diary.of("pong"))
            stats = ws.stats()
            assert (stats.late_pongs, stats.missed_pongs, stats.timeouts) == (1, 1, 0)
            assert stats.latency_max_ms < 600

    run(act())


def test_l10_a_pong_after_the_death_revives_nothing():
    async def act():
        script = Answering(delay=0.15, deaf=True)
        async with exchange_of(script) as exchange:
            ws = client(exchange.url, heartbeat=fast(interval=0.2, timeout=0.1), reconnect=False)
            diary = Diary(ws)
            await ws.run()
            await asyncio.sleep(0.1)
            assert ws.state == "closed"
            assert ws.stats().latency_max_ms is None
            assert not diary.of("pong")
            await ws.close()

    run(act())


class Flood(Answering):
    """Sends numbered messages all the time, answers pings."""

    def __init__(self, pause=0.001, **keys):
        super().__init__(**keys)
        self.pause = pause

    async def __call__(self, peer):
        flood = asyncio.create_task(self.flood(peer, len(self.sessions) + 1))
        try:
            await super().__call__(peer)
        finally:
            flood.cancel()

    async def flood(self, peer, session):
        for number in itertools.count():
            peer.send(TEXT, b"%d %d" % (session, number))
            await asyncio.sleep(self.pause)


def test_l11_a_consumer_that_stalls_for_ten_timeouts_loses_neither_session_nor_message():
    async def act():
        script = Flood()
        heartbeat = fast(interval=0.3, timeout=0.3)
        async with exchange_of(script) as exchange, client(exchange.url, heartbeat=heartbeat) as ws:
            diary = Diary(ws, "timeout", "pong")
            assert await ws.recv() == "1 0"
            await asyncio.sleep(3)  # the consumer, beside the loop
            found = [await ws.recv() for _ in range(300)]
            assert found == [f"1 {number}" for number in range(1, 301)]
            assert not diary.of("timeout")
            await diary.until("pong", 9)
            assert not diary.of("timeout")
            assert all(pong.latency_ms < 300 for pong in diary.of("pong") if pong.latency_ms)

    run(act())


def test_l11_handlers_that_stall_are_not_in_the_measurement():
    async def act():
        script = Flood(pause=0.01)
        heartbeat = fast(interval=0.1, timeout=0.1)
        async with exchange_of(script) as exchange, client(exchange.url, heartbeat=heartbeat) as ws:
            released = asyncio.Event()

            @ws.on("message")
            @ws.on("ping")
            async def stall(event):
                if not released.is_set():
                    await asyncio.sleep(0.25)

            await until(lambda: ws.stats().pongs >= 8)
            assert ws.stats().timeouts == 0
            assert ws.stats().latency_p50_ms < 150  # a handler stalls for 250
            released.set()

    run(act())


def test_l11_a_loop_that_stands_beyond_the_deadline_believes_the_pong_in_the_socket():
    """The server is a thread, so that it answers while our loop stands."""
    with ExchangeThread(Answering(delay=0.02)) as exchange:

        async def act():
            heartbeat = fast(interval=0.8, timeout=0.5)
            async with client(exchange.url, heartbeat=heartbeat) as ws:
                diary = Diary(ws)
                for count in range(1, 4):
                    await until(lambda n=count: ws.stats().pings > ws.stats().pongs)
                    time.sleep(1.2)  # noqa: ASYNC251 - the point of the test
                    await diary.until("pong", count)
                assert not diary.of("timeout")
                assert all(
                    pong.latency_ms is None or pong.latency_ms <= 500 for pong in diary.of("pong")
                )

        run(act())


def test_a_loop_that_stands_believes_the_heartbeat_behind_megabytes_in_the_socket():
    async def script(peer):
        for _ in range(60):
            peer.send(BINARY, bytes(100_000))
        while True:
            peer.send(TEXT, b"beat")
            await asyncio.sleep(0.02)

    async def act():
        beat = {"match": {"text": "beat"}, "max_gap": 1.0}
        heartbeat = HeartbeatConfig(use_ws_ping=False, server_heartbeat=beat)
        with ExchangeThread(script) as exchange:
            async with client(exchange.url, heartbeat=heartbeat) as ws:
                diary = Diary(ws, "timeout")
                time.sleep(2.5)  # noqa: ASYNC251 - the point of the test
                await asyncio.sleep(1.5)
                assert not diary.of("timeout")
                assert ws.stats().messages_received == 60

    run(act())


@pytest.fixture(params=["ws", "wss"])
def security(request):
    """Context of the server, and of the client; none without TLS."""
    if request.param == "ws":
        return None, None
    authority = trustme.CA()
    served, trusted = (
        ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)
    )
    authority.issue_cert("localhost").configure_cert(served)
    authority.configure_trust(trusted)
    return served, trusted


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_death_tells_whether_the_exchange_was_silent_or_our_loop_stood(security, loop):
    served, trusted = security

    async def act():
        with ExchangeThread(Answering(mute=True), context=served) as exchange:
            heartbeat = HeartbeatConfig(interval=4, timeout=1.6, first=0.02)
            keys = {"heartbeat": heartbeat, "ssl_context": trusted}
            async with client(exchange.url, **keys) as ws:
                diary = Diary(ws, "ping", "timeout")
                silent = await diary.until("timeout")
                await diary.until("ping", 2)
                time.sleep(1.2)  # noqa: ASYNC251 - the point of the test
                stood = await diary.until("timeout", 2)
                await until(lambda: ws.stats().sessions == 3)  # none is left half accepted
        assert (silent.cause, silent.unread_bytes) == ("ping_timeout", 0)
        assert silent.loop_lag < 0.8
        assert (stood.cause, stood.unread_bytes) == ("busy", 0)
        assert 1.05 < stood.loop_lag < 1.6

    run(act(), loop=loop)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_pong_behind_megabytes_that_waited_while_we_stood_is_believed(security, loop):
    """Over TLS what FIONREAD counts is not what the reader gets; nothing may hide in between."""
    served, trusted = security

    class Full(Answering):
        def ping(self, peer, body):
            for _ in range(40):
                peer.send(BINARY, bytes(100_000))
            super().ping(peer, body)

    async def act():
        with ExchangeThread(Full(), context=served) as exchange:
            heartbeat = HeartbeatConfig(interval=3, timeout=1, first=0.02)
            async with client(exchange.url, heartbeat=heartbeat, ssl_context=trusted) as ws:
                diary = Diary(ws, "ping", "pong", "timeout")
                await diary.until("ping")
                time.sleep(1.3)  # noqa: ASYNC251 - the point of the test
                await diary.until("pong")
                assert not diary.of("timeout")

    run(act(), loop=loop)


def test_l12_a_ping_that_cannot_be_sent_is_death_at_once():
    """A peer that reads nothing, and more waiting for it than may."""

    async def deaf(peer):
        await asyncio.sleep(60)

    async def act():
        heartbeat = HeartbeatConfig(interval=20, timeout=10, first=0.01)
        async with exchange_of(deaf) as exchange:
            much = ["x" * (32 << 20)] * 2  # one alone might be read slowly
            ws = client(exchange.url, heartbeat=heartbeat, reconnect=False, subscribe=much)
            diary = Diary(ws)
            await ws.connect()
            begun_ns = time.monotonic_ns()
            closed = await diary.until("closed")
            assert (closed.monotonic_ns - begun_ns) / 1e9 < 8, "not the 10 s of the timeout"
            (timeout,), (down,) = diary.of("timeout"), diary.of("disconnected")
            assert timeout.cause == down.cause == "send_failed"
            await ws.close()

    run(act())


def test_l13_nothing_of_an_older_session_comes_after_its_end():
    async def act():
        script = Flood(mute=True)
        async with exchange_of(script) as exchange:
            ws = client(exchange.url, heartbeat=fast(interval=0.06, timeout=0.04))
            diary = Diary(ws, "message", "disconnected")
            taken = []
            async with ws:
                async for message in ws:
                    taken.append(int(message.split()[0]))
                    if taken[-1] >= 8:
                        break
            assert taken == sorted(taken)
            ended = 0
            for event in diary.events:
                if event.name == "disconnected":
                    ended += 1
                else:
                    assert int(event.data.split()[0]) == ended + 1

    run(act())


def test_l13_a_pong_to_the_former_session_answers_no_ping_of_this_one():
    class Former(Answering):
        """The second session's pings are answered with the bodies of the first's."""

        def ping(self, peer, body):
            if len(self.sessions) > 1:
                self.later(peer, PONG, self.pings[0][1])

    async def act():
        async with (
            exchange_of(Former()) as exchange,
            client(exchange.url, heartbeat=fast(**MUTE)) as ws,
        ):
            diary = Diary(ws, "timeout", "pong")
            await diary.until("timeout", 2)
            assert not diary.of("pong")

    run(act())


def test_a_server_that_answers_only_the_latest_ping_keeps_its_session():
    """As RFC 6455 section 5.5.3 allows; here the latest is one of the user's."""

    async def script(peer):
        while True:
            opcode, payload = await peer.receive()
            if opcode == CLOSE:
                peer.send(CLOSE, payload)
                return
            if opcode == PING and payload.startswith(b"manual"):
                peer.send(PONG, payload)

    async def act():
        async with (
            exchange_of(script) as exchange,
            client(exchange.url, heartbeat=fast(interval=0.3, timeout=0.3, first=0.05)) as ws,
        ):
            diary = Diary(ws, "timeout")
            ws.add_handler("ping", lambda event: ws.ping())
            await until(lambda: ws.stats().pings >= 4)
            assert not diary.of("timeout")

    run(act())


def test_ping_frames_and_the_heartbeat_do_not_disturb_each_other():
    async def act():
        script = Answering(delay=0.02)
        async with (
            exchange_of(script) as exchange,
            client(exchange.url, heartbeat=fast(interval=0.1)) as ws,
        ):
            begun_s = time.monotonic()
            found = await asyncio.gather(*(ws.ping() for _ in range(5)), ws.ping(b"mine"))
            assert all(rtt_ms >= 18 for rtt_ms in found)
            assert b"mine" in [body for _, body in script.pings]
            script.mute = True
            with pytest.raises(TimeoutError):
                await ws.ping(timeout=0.02)
            waiting = asyncio.create_task(ws.ping(b"twice", timeout=0.05))
            await asyncio.sleep(0)
            with pytest.raises(ValueError, match="twice"):
                await ws.ping(b"twice")
            with pytest.raises(TimeoutError):
                await waiting
            with pytest.raises(ValueError, match="at most 125 bytes, got 126"):
                await ws.ping(b"x" * 126)
            # Of the timetable alone: eight more went out beside it.
            assert ws.stats().pings <= (time.monotonic() - begun_s) / 0.1 + 2

    run(act())
