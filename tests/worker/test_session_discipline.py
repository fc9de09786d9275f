"""What a worker process does around a session: budget, login, welcome, answers, pace, silence."""

import asyncio
import contextlib
import json
import os
import ssl
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
import trustme
from exchange_thread import ExchangeThread
from raw_exchange import CLOSE, PING, PONG, TEXT, hold
from worker_process import Counter, Word, WorkerProcess, wait_for

from worker.announcement import EventKind
from worker.exits import Exit
from worker.session import State
from worker.spec import (
    AckSpec,
    BudgetSpec,
    ConnectionSpec,
    HeartbeatSpec,
    LivenessSpec,
    Match,
    MatchKind,
    OutboundLimit,
    PublishSpec,
    ReconnectSpec,
    Secret,
    ServerHeartbeat,
    SubscribeSpec,
)

pytestmark = pytest.mark.system
MS = 1_000_000
SECOND = 1000 * MS
FAST = ReconnectSpec(initial_delay_ns=10 * MS, max_delay_ns=20 * MS, close_timeout_ns=300 * MS)


def text(value):
    return Match(kind=MatchKind.TEXT, value=value)


def jmespath(value):
    return Match(kind=MatchKind.JMESPATH, value=value)


def spec_of(url, **keys):
    keys.setdefault("reconnect", FAST)
    keys.setdefault("heartbeat", None)
    return ConnectionSpec(name="x", url=url, **keys)


@pytest.fixture
def start(tmp_path):
    with contextlib.ExitStack() as stack:

        def worker(spec):
            started = WorkerProcess(tmp_path, spec)
            stack.callback(started.close)
            return started

        yield worker


def told(worker, kind):
    return [body for found, body in worker.events() if found == kind]


def up(worker):
    wait_for(lambda: worker.state() is State.UP, f"up: {worker.said()}")


# Login ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def token_server():
    """A foreign HTTP server that gives out numbered tokens and knows its clients' sockets."""

    peers = []

    class Tokens(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            peers.append(self.client_address)
            body = json.dumps({"token": f"t{len(peers)}"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Tokens) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/token", peers
        finally:
            server.shutdown()


def test_a_login_fetches_a_token_before_each_dial_over_one_kept_http_connection(start, monkeypatch):
    seen = []

    async def script(peer):
        seen.append((peer.request, await peer.until(TEXT), await peer.until(TEXT)))
        if len(seen) == 3:
            await hold(peer)

    with token_server() as (url, peers), ExchangeThread(script) as exchange:
        monkeypatch.setenv("TOKEN_URL", url)
        worker = start(
            spec_of(
                exchange.url,
                login="operator_functions:token",
                secrets=(("token_url", Secret("env", "TOKEN_URL")),),
                subscribe=SubscribeSpec(messages=("sub",)),
            )
        )
        wait_for(lambda: len(seen) == 3, "three sessions")
        up(worker)
        assert worker.stop() == Exit.STOPPED
    for number, (request, login, subscription) in enumerate(seen, 1):
        assert f"?token=t{number} ".encode() in request.split(b"\r\n")[0]
        assert f"X-Session: {number}".encode() in request
        assert (login, subscription) == (b'{"op":"auth"}', b"sub")
    assert len(set(peers)) == 1, "the HTTP connection is kept"


@pytest.mark.parametrize(
    ("function", "code"), [("refused", Exit.CREDENTIALS), ("nowhere", Exit.CONFIGURATION)]
)
def test_a_login_that_cannot_work_ends_the_worker_for_good(start, function, code):
    worker = start(spec_of("ws://127.0.0.1:1/", login=f"operator_functions:{function}"))
    assert worker.process.wait(20) == code


@pytest.mark.parametrize("function", ["broken", "wrong", "garbled", "unreachable"])
def test_a_login_that_raises_is_a_dial_that_failed(start, function):
    worker = start(spec_of("ws://127.0.0.1:1/", login=f"operator_functions:{function}"))
    wait_for(lambda: len(told(worker, EventKind.DOWN)) >= 2, "tried again")
    assert told(worker, EventKind.DOWN)[0]["cause"] == "login_failed"
    assert worker.stop() == Exit.STOPPED


def test_secrets_reach_the_handshake_and_nothing_else(start, tmp_path):
    (tmp_path / "key").write_text("s3cret-value\n")

    async def script(peer):
        requests.append(peer.request)
        await hold(peer)

    requests = []
    with ExchangeThread(script) as exchange:
        spec = spec_of(exchange.url, headers=(("X-Key", Secret("file", str(tmp_path / "key"))),))
        worker = start(spec)
        up(worker)
        shown = worker.said() + json.dumps(worker.events())
        shown += Path(f"/proc/{worker.process.pid}/cmdline").read_text()
        worker.stop()
    assert b"X-Key: s3cret-value" in requests[0]
    assert "s3cret-value" not in shown + repr(msgspec.msgpack.encode(spec))


def test_a_missing_secret_is_told_by_its_reference(start):
    worker = start(spec_of("ws://127.0.0.1:1/", headers=(("X", Secret("env", "NOT_SET_HERE")),)))
    wait_for(lambda: told(worker, EventKind.DOWN), "down")
    assert "env:NOT_SET_HERE" in told(worker, EventKind.DOWN)[0]["detail"]["error"]


# Opening -------------------------------------------------------------------------------------


def test_welcome_login_and_answers_come_in_order_before_up(start):
    async def script(peer):
        await asyncio.sleep(0.1)
        heard.append(("early", peer.reader._buffer[:]))
        peer.send(TEXT, b'{"type":"welcome"}')
        for _ in range(2):
            heard.append(await peer.until(TEXT))
            peer.send(TEXT, b'{"type":"ack"}')
            await asyncio.sleep(0.05)
        await hold(peer)

    heard = []
    subscribe = SubscribeSpec(
        topics=("a", "b", "c"),
        template='{"sub":${topics},"id":${seq}}',
        topics_per_message=2,
        ready=jmespath("type == 'welcome'"),
        ack=AckSpec(match=jmespath("type == 'ack'")),
    )
    with ExchangeThread(script) as exchange:
        worker = start(spec_of(exchange.url, subscribe=subscribe))
        up(worker)
        assert heard == [
            ("early", b""),
            b'{"sub":["a","b"],"id":1}',
            b'{"sub":["c"],"id":2}',
        ]
        # The last answer is counted after it was looked at, and that made the session UP.
        wait_for(lambda: worker.count(Counter.MESSAGES) == 3, "welcome and answers are data")
        worker.stop()


def test_a_refused_subscription_is_told_in_the_exchanges_words(start):
    async def script(peer):
        await peer.until(TEXT)
        peer.send(TEXT, b'{"error":"no such topic"}')
        await hold(peer)

    subscribe = SubscribeSpec(
        messages=("x",), ack=AckSpec(match=jmespath("ok"), error=jmespath("error"))
    )
    with ExchangeThread(script) as exchange:
        worker = start(spec_of(exchange.url, subscribe=subscribe))
        down = wait_for(lambda: told(worker, EventKind.DOWN), "down")[0]
        assert (down["cause"], down["detail"]["error"]) == (
            "subscribe_refused",
            '{"error":"no such topic"}',
        )
        worker.stop()


def test_a_live_change_of_topics_needs_no_new_session(start):
    async def script(peer):
        while True:
            opcode, payload = await peer.receive()
            if opcode == CLOSE:
                peer.send(CLOSE, payload)
                return
            heard.append(payload)

    heard = []
    subscribe = SubscribeSpec(
        topics=("a", "b"), template="+${topics}", cancel_template="-${topics}"
    )
    with ExchangeThread(script) as exchange:
        spec = spec_of(exchange.url, subscribe=subscribe)
        worker = start(spec)
        up(worker)
        wanted = replace(spec, subscribe=replace(subscribe, topics=("b", "c")))
        (worker.shm / "x.spec").write_bytes(msgspec.msgpack.encode(wanted))
        os.kill(worker.process.pid, 10)  # SIGUSR1
        wait_for(lambda: len(heard) == 3, "the change")
        assert heard == [b'+["a","b"]', b'-["a"]', b'+["c"]']
        assert told(worker, EventKind.CONFIG)[0]["cause"] == "subscription_changed"
        assert worker.count(Counter.SESSIONS) == 1
        worker.stop()


def test_the_pace_is_kept_with_pings_counted(start):
    async def script(peer):
        while True:
            opcode, payload = await peer.receive()
            if opcode == CLOSE:
                peer.send(CLOSE, payload)
                return
            times.append(time.monotonic())
            if opcode == PING:
                peer.send(PONG, payload)

    times = []
    with ExchangeThread(script) as exchange:
        worker = start(
            spec_of(
                exchange.url,
                subscribe=SubscribeSpec(messages=tuple(f"m{n}" for n in range(20))),
                outbound=OutboundLimit(messages=5, per_ns=300 * MS),
                heartbeat=HeartbeatSpec(
                    interval_ns=300 * MS, timeout_ns=200 * MS, first_ns=100 * MS
                ),
            )
        )
        up(worker)
        worker.stop()
    # As the server sees it, which hears some a little late: a window of 0.2 s inside the 0.3.
    for at in times:
        assert sum(at <= when < at + 0.2 for when in times) <= 5
    assert times[19] - times[0] > 0.9


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_is_verified_with_the_operators_authority_and_leaves_from_the_source_address(
    start, tmp_path, trusted
):
    async def script(peer):
        callers.append(peer.writer.get_extra_info("peername")[0])
        await hold(peer)

    callers, context = [], ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours, another = trustme.CA(), trustme.CA()
    ours.issue_cert("localhost").configure_cert(context)
    file = tmp_path / "ca.pem"
    (ours if trusted else another).cert_pem.write_to_path(str(file))
    with ExchangeThread(script, context=context) as exchange:
        worker = start(spec_of(exchange.url, tls_ca=str(file), source_address="127.0.0.2"))
        if trusted:
            up(worker)
            assert callers == ["127.0.0.2"]
        else:
            down = wait_for(lambda: told(worker, EventKind.DOWN), "down")[0]
            assert down["cause"] == "tls"
            assert not callers
        assert worker.stop() == Exit.STOPPED


# Budget and refusals -------------------------------------------------------------------------


def test_the_budget_of_a_host_is_shared_and_waited_for(start, tmp_path):
    async def script(peer):
        times.append(time.monotonic())
        peer.reset()

    times = []
    budget = BudgetSpec(directory=str(tmp_path / "b"), host="h", connects=2, per_ns=600 * MS)
    with ExchangeThread(script) as exchange:
        worker = start(spec_of(exchange.url, budget=budget))
        wait_for(lambda: len(times) >= 6, "six dials")
        assert worker.count(Counter.DIALS_POSTPONED) >= 3
        worker.stop()
    assert times[5] - times[0] > 0.9, "two at once, then one each 0.3 s"


@pytest.mark.parametrize("form", ["1", "date", "unix", "unix_ms"])
def test_the_exchange_says_when_to_come_again(start, form):
    async def script(peer):
        times.append(time.monotonic())
        value = form
        if form == "date":
            gmt = time.gmtime(time.time() + 2)
            value = time.strftime("%a, %d %b %Y %H:%M:%S GMT", gmt)
        elif form.startswith("unix"):
            value = round((time.time() + 1.5) * (1000 if form == "unix_ms" else 1))
        peer.writer.write(
            f"HTTP/1.1 429 Too Many\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        await peer.gone()

    times = []
    with ExchangeThread(script, handshake=False) as exchange:
        worker = start(spec_of(exchange.url))
        wait_for(lambda: len(times) >= 2, "the second dial")
        worker.stop()
    # Without it the second dial would leave within 20 ms; a rounded moment may be 1 s away.
    assert 0.9 < times[1] - times[0] < 10


# Silence -------------------------------------------------------------------------------------


def test_data_silence_is_stale_then_fresh_and_the_session_stays(start):
    async def script(peer):
        peer.send(TEXT, b"1")
        await asyncio.sleep(0.8)
        peer.send(TEXT, b"2")
        await hold(peer)

    with ExchangeThread(script) as exchange:
        worker = start(spec_of(exchange.url, liveness=LivenessSpec(data_silence_ns=300 * MS)))
        wait_for(lambda: told(worker, EventKind.FRESH), "fresh")
        assert told(worker, EventKind.STALE)[0]["cause"] == "data_silence"
        assert worker.count(Counter.SESSIONS) == 1
        worker.stop()


def test_each_topic_has_its_own_age(start):
    async def script(peer):
        for _ in range(20):
            peer.send(TEXT, b'{"s":"btc"}')
            if _ < 2 or _ > 15:
                peer.send(TEXT, b'{"s":"eth"}')
            await asyncio.sleep(0.1)
        await hold(peer)

    with ExchangeThread(script) as exchange:
        worker = start(
            spec_of(
                exchange.url,
                liveness=LivenessSpec(data_silence_ns=600 * MS),
                publish=PublishSpec(key="s"),
            )
        )
        fresh = wait_for(lambda: told(worker, EventKind.FRESH), "fresh")
        assert {body["detail"]["key"] for body in told(worker, EventKind.STALE)} >= {"eth"}
        assert fresh[0]["detail"]["key"] == "eth"
        worker.stop()


def test_an_exchange_that_falls_silent_in_all_topics_at_once_is_told_topic_by_topic(start):
    async def script(peer):
        for number in range(1_000):
            peer.send(TEXT, b'{"s":"%d"}' % number)
        await hold(peer)

    with ExchangeThread(script) as exchange:
        liveness = LivenessSpec(data_silence_ns=2_000 * MS)
        spec = spec_of(
            exchange.url, liveness=liveness, publish=PublishSpec(key="s"), heartbeat=None
        )
        worker = start(spec)
        wait_for(lambda: worker.count(Counter.MESSAGES) == 1_000, "all topics")
        before = worker.count(Counter.EVENTS)
        # The connection and each topic, once; told in portions, none of them left out.
        wait_for(lambda: worker.count(Counter.EVENTS) >= before + 1_000, "all stale")
        time.sleep(0.5)
        assert worker.count(Counter.EVENTS) <= before + 1_001
        keys = {body["detail"].get("key") for body in told(worker, EventKind.STALE)}
        assert len(keys) > 200, "the last of them still stand in the ring"
        worker.stop()


@pytest.mark.parametrize(
    ("keys", "cause"),
    [
        ({"liveness": LivenessSpec(max_silence_ns=300 * MS)}, "silence"),
        ({"liveness": LivenessSpec(first_data_timeout_ns=300 * MS)}, "no_first_data"),
        (
            {"server_heartbeat": ServerHeartbeat(match=text("hb"), max_gap_ns=300 * MS)},
            "heartbeat_gap",
        ),
    ],
)
def test_a_silent_exchange_is_left_and_dialled_again(start, keys, cause):
    with ExchangeThread(hold) as exchange:
        worker = start(spec_of(exchange.url, **keys))
        down = wait_for(lambda: told(worker, EventKind.DOWN), "down")[0]
        assert down["cause"] == cause
        assert told(worker, EventKind.TIMEOUT)[0]["cause"] == cause
        wait_for(lambda: worker.count(Counter.SESSIONS) >= 2, "again")
        worker.stop()


def test_the_exchanges_heartbeat_is_control_and_keeps_the_session(start):
    async def script(peer):
        for _ in range(10):
            peer.send(TEXT, b"hb")
            await asyncio.sleep(0.1)
        peer.send(TEXT, b"data")
        await hold(peer)

    theirs = ServerHeartbeat(match=text("hb"), max_gap_ns=800 * MS)
    with ExchangeThread(script) as exchange:
        worker = start(spec_of(exchange.url, server_heartbeat=theirs))
        wait_for(lambda: worker.word(Word.SEQ) == 1, "data")
        assert worker.count(Counter.CONTROL_MESSAGES) == 10
        assert not told(worker, EventKind.DOWN)
        worker.stop()


def test_misses_above_one_count_and_a_late_pong_is_told(start):
    async def script(peer):
        first = await peer.until(PING)
        await asyncio.sleep(0.35)
        peer.send(PONG, first)
        await hold(peer)

    beat = HeartbeatSpec(interval_ns=400 * MS, timeout_ns=200 * MS, first_ns=50 * MS, misses=3)
    with ExchangeThread(script) as exchange:
        worker = start(spec_of(exchange.url, heartbeat=beat))
        late = wait_for(lambda: told(worker, EventKind.LATE_PONG), "late pong")[0]
        assert late["detail"]["rtt_ns"] > 300 * MS
        wait_for(lambda: worker.count(Counter.PONGS) >= 2, "alive")
        assert worker.count(Counter.MISSED_PONGS) == 1
        assert worker.count(Counter.SESSIONS) == 1
        worker.stop()


def test_a_pong_that_may_wait_behind_what_we_cannot_read_is_our_own_trouble(start):
    async def script(peer):
        while True:
            peer.writer.write(b"\x81\x00" * 100_000)
            await peer.writer.drain()

    beat = HeartbeatSpec(interval_ns=300 * MS, timeout_ns=200 * MS, first_ns=100 * MS)
    with ExchangeThread(script) as exchange:
        worker = start(spec_of(exchange.url, heartbeat=beat))
        dead = wait_for(lambda: told(worker, EventKind.TIMEOUT), "dead")[0]
        assert dead["cause"] == "busy"
        assert dead["detail"]["unread_bytes"] > 0
        worker.stop()
