import asyncio
import contextlib
import gzip
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from exchange_thread import ExchangeThread
from raw_exchange import BINARY, CLOSE, PING, PONG, TEXT, frame, hold
from worker_process import Counter, Subscriber, Word, WorkerProcess, wait_for

from shm.layout import BUCKETS, Histogram
from shm.process import start_ticks
from worker.announcement import EventKind
from worker.envelope import Flag, Kind
from worker.exits import Exit
from worker.session import State
from worker.spec import (
    ConnectionSpec,
    Decode,
    HeartbeatSpec,
    LimitsSpec,
    Match,
    MatchKind,
    PublishSpec,
    ReconnectSpec,
    ServerPing,
    SubscribeSpec,
)

pytestmark = pytest.mark.system
MS = 1_000_000
FAST = ReconnectSpec(initial_delay_ns=10 * MS, max_delay_ns=20 * MS, close_timeout_ns=300 * MS)


def spec_of(url, **keys):
    keys.setdefault("reconnect", FAST)
    keys.setdefault("heartbeat", None)
    return ConnectionSpec(name="x", url=url, **keys)


@pytest.fixture
def start(tmp_path):
    """Start workers and subscribers that end with the test."""
    with contextlib.ExitStack() as stack:

        def worker(spec, **keys):
            started = WorkerProcess(tmp_path, spec, **keys)
            stack.callback(started.close)
            return started

        def subscriber(started, *prefixes):
            reader = Subscriber(started, *prefixes)
            stack.callback(reader.close)
            return reader

        worker.subscriber = subscriber
        yield worker


def kinds(worker):
    return [EventKind(kind).label for kind, _ in worker.events()]


def up(worker):
    wait_for(lambda: worker.state() is State.UP, f"up: {worker.said()}")


def test_messages_are_published_byte_for_byte_in_order_with_both_clocks(start):
    sent = [(TEXT, b'{"n":%d}' % n) if n % 2 else (BINARY, bytes([n, 0, 255])) for n in range(200)]

    async def script(peer):
        assert await peer.until(TEXT) == b'{"op":"subscribe"}'
        await go.wait()
        for opcode, payload in sent:
            peer.send(opcode, payload)
        await hold(peer)

    go = asyncio.Event()
    with ExchangeThread(script) as exchange:
        worker = start(
            spec_of(exchange.url, subscribe=SubscribeSpec(messages=('{"op":"subscribe"}',)))
        )
        reader = start.subscriber(worker, b"data.x\0")
        wait_for(lambda: worker.word(Word.SUBSCRIBERS) == 1, worker.said())
        up(worker)
        exchange.call(go.set)
        wait_for(lambda: len(reader.read()) == 200, "all messages")
        frames = reader.frames
        assert [frame.payload for frame in frames] == [payload for _, payload in sent]
        assert [frame.seq for frame in frames] == list(range(1, 201))
        assert [frame.topic_seq for frame in frames] == list(range(1, 201))
        assert frames[0].flags == Flag.FIRST_OF_EPOCH
        assert [frame.flags for frame in frames[1:3]] == [Flag.TEXT, 0]
        assert frames[0].epoch == 1
        assert worker.word(Word.SEQ) == worker.count(Counter.MESSAGES) == 200
        assert worker.count(Counter.BYTES) == sum(len(payload) for _, payload in sent)
        assert worker.stop() == Exit.STOPPED
        wait_for(lambda: exchange.open == 0, "socket closed")


def test_state_liveness_hello_and_events_are_told(start):
    with ExchangeThread(hold) as exchange:
        worker = start(
            spec_of(
                exchange.url,
                heartbeat=HeartbeatSpec(
                    interval_ns=50 * MS, timeout_ns=10_000 * MS, first_ns=50 * MS
                ),
            )
        )
        reader = start.subscriber(worker, b"state.x\0", b"event.x.")
        up(worker)
        late = start.subscriber(worker, b"state.x\0")
        wait_for(lambda: len(reader.of(Kind.LIVENESS)) >= 3, "liveness")
        wait_for(lambda: late.of(Kind.HELLO), "a hello")
        state = json.loads(late.of(Kind.HELLO)[0].payload)
        assert state == {
            "connection": "x",
            "state": "up",
            "pid": worker.process.pid,
            "epoch": 1,
            "seq": 0,
            "session": 1,
            "journal": {"path": str(worker.shm / "x.journal"), "size": 8 << 20},
        }
        wait_for(lambda: worker.count(Counter.PONGS) >= 3, "pongs")
        events = [json.loads(frame.payload) for frame in reader.of(Kind.EVENT)]
        numbers = [event["seq"] for event in events]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        (pong, *_) = [event for event in events if event["kind"] == "pong"]
        assert pong["detail"]["rtt_ns"] > 0
        assert kinds(worker)[:2] == ["ready", "up"]
        assert worker.word(Word.SERVING_NS) > 0
        assert worker.word(Word.RTT_AVG_NS) > 0
        rtt = worker.view.histograms[Histogram.RTT * BUCKETS : (Histogram.RTT + 1) * BUCKETS]
        pongs = worker.count(Counter.PONGS)
        assert 0 <= pongs - sum(rtt) + 1 <= 2
        rtt.release()
        assert worker.stop() == Exit.STOPPED
        assert kinds(worker)[-1] == "down"
        assert worker.events()[-1][1]["cause"] == "stop"


def test_a_silent_exchange_sees_its_socket_closed_each_time_and_never_holds_two(start):
    highest = []

    async def silent(peer):
        highest.append(exchange.open)
        await peer.gone()

    with ExchangeThread(silent) as exchange:
        beat = HeartbeatSpec(interval_ns=60 * MS, timeout_ns=30 * MS, first_ns=10 * MS)
        worker = start(spec_of(exchange.url, heartbeat=beat))
        wait_for(lambda: worker.count(Counter.TIMEOUTS) >= 3, worker.said())
        descriptors = len(os.listdir(f"/proc/{worker.process.pid}/fd"))
        wait_for(lambda: worker.count(Counter.TIMEOUTS) >= 20, worker.said())
        assert len(os.listdir(f"/proc/{worker.process.pid}/fd")) <= descriptors + 1
        # The next dial may overtake the exchange's own reading of the last one's end.
        assert max(highest) <= 2
        assert worker.stop() == Exit.STOPPED
        wait_for(lambda: exchange.open == 0, "all closed")
        story = [kind for kind in kinds(worker) if kind not in ("ready",)]
        for number in [n for n, kind in enumerate(story) if kind == "timeout"]:
            assert story[number - 1] == "ping"
            assert story[number + 1] == "down"
        downs = [body for kind, body in worker.events() if kind == EventKind.DOWN]
        assert {body["cause"] for body in downs[:-1]} == {"ping_timeout"}


def test_late_duplicate_and_unsolicited_pongs_are_no_samples(start):
    async def script(peer):
        peer.send(PONG, b"unsolicited")
        body = await peer.until(PING)
        for answer in (b"", b"other", body, body):
            peer.send(PONG, answer)
        await hold(peer)

    with ExchangeThread(script) as exchange:
        beat = HeartbeatSpec(interval_ns=10_000 * MS, timeout_ns=9_000 * MS, first_ns=20 * MS)
        worker = start(spec_of(exchange.url, heartbeat=beat))
        wait_for(lambda: worker.count(Counter.FOREIGN_PONGS) == 4, worker.said())
        assert worker.count(Counter.PONGS) == 1


def test_a_pong_that_arrived_in_time_counts_though_the_worker_was_stopped(start):
    """Only what has waited in the socket decides, not when we came to look."""
    pinged = []

    async def script(peer):
        while True:
            opcode, body = await peer.receive()
            if opcode == PING:
                pinged.append(body)
                await asyncio.sleep(0.1)
                peer.send(PONG, body)

    with ExchangeThread(script) as exchange:
        beat = HeartbeatSpec(interval_ns=1_000 * MS, timeout_ns=400 * MS, first_ns=10 * MS)
        worker = start(spec_of(exchange.url, heartbeat=beat))
        wait_for(lambda: pinged, worker.said())
        os.kill(worker.process.pid, signal.SIGSTOP)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: False, "the timeout to pass", timeout_s=0.8)
        os.kill(worker.process.pid, signal.SIGCONT)
        wait_for(lambda: worker.count(Counter.PONGS) >= 1, worker.said())
        assert worker.count(Counter.TIMEOUTS) == 0
        assert exchange.accepted == 1


def test_application_pings_are_text_and_their_pongs_are_not_data(start):
    async def script(peer):
        opcode, body = await peer.receive()
        seen.append((opcode, body))
        peer.send(TEXT, b'{"success":true,"ret_msg":"pong","op":"ping"}')
        peer.send(TEXT, b'{"topic":"trade"}')
        await hold(peer)

    seen = []
    beat = HeartbeatSpec(
        interval_ns=10_000 * MS,
        timeout_ns=9_000 * MS,
        first_ns=100 * MS,
        application=True,
        payload=b'{"op": "ping"}',
        pong_matcher=Match(kind=MatchKind.JMESPATH, value="op == 'pong' || ret_msg == 'pong'"),
    )
    with ExchangeThread(script) as exchange:
        worker = start(spec_of(exchange.url, heartbeat=beat))
        wait_for(lambda: worker.count(Counter.MESSAGES) == 1, worker.said())
        assert seen == [(TEXT, b'{"op": "ping"}')]
        assert worker.count(Counter.PONGS) == worker.count(Counter.CONTROL_MESSAGES) == 1
        assert worker.word(Word.RTT_LAST_NS) > 0


def test_server_pings_are_answered_in_both_forms_and_gzip_data_passes_as_it_is(start):
    answers = []
    data = gzip.compress(b'{"ch":"market","tick":{"id":1}}')

    async def script(peer):
        peer.send(PING, b"frame")
        answers.append(await peer.until(PONG))
        peer.send(BINARY, gzip.compress(b'{"ping":1492420473027}'))
        answers.append(await peer.until(TEXT))
        peer.send(BINARY, data)
        peer.send(BINARY, b"not gzip at all")
        await hold(peer)

    rule = ServerPing(
        match=Match(kind=MatchKind.JMESPATH, value="ping", hint="ping"), reply='{"pong":${ping}}'
    )
    with ExchangeThread(script) as exchange:
        worker = start(spec_of(exchange.url, decode=Decode.GZIP, server_ping=(rule,)))
        reader = start.subscriber(worker, b"data.x\0")
        wait_for(lambda: worker.count(Counter.MESSAGES) == 2, worker.said())
        assert answers == [b"frame", b'{"pong":1492420473027}']
        assert worker.count(Counter.SERVER_PINGS) == 2
        assert worker.count(Counter.DECODE_ERRORS) == 1
        for frame in reader.read():
            assert frame.payload in (data, b"not gzip at all")


def test_a_raising_rule_and_a_bomb_lose_neither_message_nor_connection(start):
    bomb = gzip.compress(bytes(5_000_000))

    async def script(peer):
        for _ in range(3):
            peer.send(BINARY, bomb)
            peer.send(BINARY, gzip.compress(b"7"))
        await hold(peer)

    rule = ServerPing(match=Match(kind=MatchKind.JMESPATH, value="length(@)"), reply="no")
    with ExchangeThread(script) as exchange:
        worker = start(
            spec_of(
                exchange.url,
                decode=Decode.GZIP,
                server_ping=(rule,),
                publish=PublishSpec(key="length(@)"),
                limits=LimitsSpec(max_inflated=100_000),
            )
        )
        wait_for(lambda: worker.count(Counter.MESSAGES) == 6, worker.said())
        assert worker.count(Counter.DECODE_ERRORS) == 3
        assert worker.count(Counter.MATCHER_ERRORS) == 6
        assert exchange.accepted == 1


def test_keys_make_topics_with_numbers_of_their_own(start):
    async def script(peer):
        await go.wait()
        for n in range(9):
            peer.send(TEXT, b'{"s":"k%d"}' % (n % 3) if n % 3 else b'{"other":1}')
        await hold(peer)

    go = asyncio.Event()
    with ExchangeThread(script) as exchange:
        worker = start(spec_of(exchange.url, publish=PublishSpec(key="s")))
        reader = start.subscriber(worker, b"data.x\0", b"data.x.")
        wait_for(lambda: worker.word(Word.SUBSCRIBERS) == 2, worker.said())
        up(worker)
        exchange.call(go.set)
        wait_for(lambda: len(reader.read()) == 9, "all")
        assert [frame.seq for frame in reader.frames] == list(range(1, 10))
        for topic in ("data.x", "data.x.k1", "data.x.k2"):
            numbers = [frame.topic_seq for frame in reader.frames if frame.topic == topic]
            assert numbers == [1, 2, 3]


@pytest.mark.parametrize("how", ["TERM", "INT", "HUP"])
def test_a_signal_ends_in_order_with_close_1000(start, how):
    codes = []

    async def script(peer):
        codes.append((await peer.until(CLOSE))[:2])
        peer.send(CLOSE, codes[0])
        await peer.gone()

    with ExchangeThread(script) as exchange:
        worker = start(spec_of(exchange.url))
        up(worker)
        assert worker.stop(getattr(signal, f"SIG{how}")) == Exit.STOPPED
        assert codes == [(1000).to_bytes(2, "big")]
        assert "Traceback" not in worker.said()


def test_a_stop_works_while_the_exchange_is_away_or_mute(start):
    async def mute(peer):
        await peer.gone()

    with ExchangeThread(mute, handshake=False) as exchange:
        worker = start(spec_of(exchange.url))
        wait_for(lambda: worker.state() is State.HANDSHAKING, worker.said())
        assert worker.stop() == Exit.STOPPED
        wait_for(lambda: exchange.open == 0, "the dial is gone")


def test_refused_dials_go_on_with_a_cause_and_a_delay_each(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        worker = start(spec_of(f"ws://127.0.0.1:{taken.getsockname()[1]}/"))
        wait_for(lambda: worker.count(Counter.CONNECT_FAILURES) >= 30, worker.said())
    downs = [body for kind, body in worker.events() if kind == EventKind.DOWN]
    assert {body["cause"] for body in downs} == {"connect_refused"}
    assert all(0 <= body["delay_s"] <= 0.02 for body in downs)
    assert worker.stop() == Exit.STOPPED


def test_a_connect_timeout_is_a_counted_failure(start):
    async def mute(peer):
        await peer.gone()

    reconnect = ReconnectSpec(
        initial_delay_ns=10 * MS, max_delay_ns=10 * MS, connect_timeout_ns=60 * MS
    )
    with ExchangeThread(mute, handshake=False) as exchange:
        worker = start(spec_of(exchange.url, reconnect=reconnect))
        wait_for(lambda: worker.count(Counter.CONNECT_FAILURES) >= 3, worker.said())
        bodies = [body for kind, body in worker.events() if kind == EventKind.DOWN]
        assert {body["cause"] for body in bodies} == {"connect_timeout"}


def test_without_reconnecting_the_end_of_the_session_is_the_end(start):
    async def script(peer):
        peer.send(CLOSE, b"\x03\xe8done")
        await peer.gone()

    with ExchangeThread(script) as exchange:
        worker = start(spec_of(exchange.url, reconnect=ReconnectSpec(enabled=False)))
        assert worker.process.wait(20) == Exit.UNAVAILABLE


def test_numbers_go_on_over_a_kill_and_the_listener_is_never_away(start):
    async def script(peer):
        for n in itertools.count():
            peer.send(TEXT, b"%d" % n)
            await peer.writer.drain()
            await asyncio.sleep(0.001)

    with ExchangeThread(script) as exchange:
        first = start(spec_of(exchange.url))
        wait_for(lambda: first.count(Counter.MESSAGES) > 50, first.said())
        first.process.kill()
        first.process.wait(20)
        head = first.word(Word.SEQ)
        second = start(spec_of(exchange.url), incarnation=2, listener=first.listener)
        reader = start.subscriber(second, b"data.x\0")
        wait_for(reader.read, second.said())
        assert reader.frames[0].epoch == 2
        assert reader.frames[0].seq - reader.frames[0].topic_seq == head
        wait_for(lambda: second.count(Counter.MESSAGES) > head + 10, "totals go on")
        assert second.stop() == Exit.STOPPED


def test_a_second_worker_of_a_living_name_does_not_start(start, tmp_path):
    with ExchangeThread(hold) as exchange:
        first = start(spec_of(exchange.url))
        up(first)
        second = start(spec_of(exchange.url), incarnation=2, listener=first.listener)
        assert second.process.wait(30) == Exit.TEMPORARY
        assert str(first.process.pid) in second.said()
        assert first.process.poll() is None


def test_a_supervisor_that_dies_is_announced_and_the_worker_ends(start):
    waiting = [sys.executable, "-c", "input()"]
    with (
        subprocess.Popen(waiting, stdin=subprocess.PIPE) as other,
        ExchangeThread(hold) as exchange,
    ):
        worker = start(spec_of(exchange.url), supervisor=(other.pid, start_ticks(other.pid)))
        up(worker)
        assert "orphaned" not in kinds(worker)
        other.kill()
        wait_for(lambda: "orphaned" in kinds(worker), worker.said())
        assert worker.process.poll() is None
        assert worker.process.wait(30) == Exit.STOPPED


@pytest.mark.parametrize("ticks", [1, 0])
def test_another_process_of_the_supervisors_number_is_not_the_supervisor(start, ticks):
    with ExchangeThread(hold) as exchange:
        worker = start(spec_of(exchange.url), supervisor=(os.getpid(), ticks))
        wait_for(lambda: "orphaned" in kinds(worker), worker.said())


def test_each_relayed_event_wakes_the_supervisor_once_the_words_are_true(start, tmp_path):
    async def script(peer):
        peer.send(CLOSE)
        await peer.gone()

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wake:
        wake.bind(str(tmp_path / "wake.sock"))
        wake.settimeout(20)
        with ExchangeThread(script) as exchange:
            worker = start(spec_of(exchange.url))
            for _ in range(4):
                assert wake.recv(100) == b"x"
            assert kinds(worker)[:2] == ["ready", "up"]


def test_a_hung_worker_leaves_its_stack_and_dies_of_the_abort(start, tmp_path):
    with ExchangeThread(hold) as exchange:
        worker = start(spec_of(exchange.url))
        up(worker)
        assert worker.stop(signal.SIGABRT) == -signal.SIGABRT
    assert "process.py" in (tmp_path / "x.stack").read_text()


def test_rubbish_from_subscribers_is_counted_and_harms_nobody(start):
    import zmq

    with ExchangeThread(hold) as exchange, zmq.Context() as context:
        worker = start(spec_of(exchange.url))
        up(worker)
        with context.socket(zmq.XSUB) as rude:
            rude.setsockopt(zmq.LINGER, 0)
            rude.connect(f"ipc://{worker.socket_path}")
            rude.send(b"\x01data.")
            rude.send(b"\x07rubbish")
            wait_for(lambda: worker.count(Counter.SUBSCRIPTIONS_REFUSED) >= 1, worker.said())
            # Stored a moment after the counter.
            wait_for(lambda: worker.word(Word.SUBSCRIBERS) == 1, "and one is a subscription")
        wait_for(lambda: worker.word(Word.SUBSCRIBERS) == 0, "the subscription went with its peer")


def test_an_unexpected_exception_ends_the_worker(start, tmp_path, monkeypatch):
    """A loop that stamps on, with a session that lost its timer, would look alive for ever."""

    async def script(peer):
        peer.send(TEXT, b"{}")
        await hold(peer)

    (tmp_path / "surprise.py").write_text(
        "import asyncio\n"
        "def surprise():\n    raise RuntimeError('not foreseen')\n"
        "def match(message):\n    asyncio.get_running_loop().call_soon(surprise)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    beat = HeartbeatSpec(
        interval_ns=60_000 * MS,
        first_ns=10 * MS,
        application=True,
        payload=b"ping",
        pong_matcher=Match(kind=MatchKind.CALLABLE, value="surprise:match"),
    )

    async def answering(peer):
        await peer.until(TEXT)
        await script(peer)

    with ExchangeThread(answering) as exchange:
        worker = start(spec_of(exchange.url, heartbeat=beat))
        assert worker.process.wait(20) != 0
        assert "not foreseen" in worker.said()


@pytest.mark.parametrize("name", ["no.such.module:match", "operator_functions:match_later"])
def test_a_matcher_that_cannot_be_used_is_a_configuration_error(start, name):
    beat = HeartbeatSpec(
        application=True,
        payload=b"ping",
        pong_matcher=Match(kind=MatchKind.CALLABLE, value=name),
    )
    worker = start(spec_of("ws://127.0.0.1:1/", heartbeat=beat))
    assert worker.process.wait(20) == Exit.CONFIGURATION
    assert name in worker.said()


def cpu_s(worker):
    fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    "flood",
    [b"\x81\x00", b"\x81\x01x", b"\x00\x00", b"\x89\x00"],
    ids=["empty", "one_byte", "endless_fragments", "pings"],
)
def test_a_flood_of_tiny_frames_starves_neither_stamps_nor_signals(start, flood):
    async def script(peer):
        if flood == b"\x00\x00":
            peer.writer.write(b"\x01\x00")
        while True:
            peer.writer.write(flood * 100_000)
            await peer.writer.drain()

    with ExchangeThread(script) as exchange:
        worker = start(spec_of(exchange.url))
        wait_for(lambda: worker.word(Word.LAST_FRAME_NS) or worker.count(Counter.SESSIONS), "flood")
        time.sleep(1)
        before, used_s = worker.word(Word.LIVENESS_COUNT), cpu_s(worker)
        # In time of its own: on a busy machine it has little of each second.
        wait_for(lambda: cpu_s(worker) >= used_s + 1.5, "1.5 s of work", 60)
        assert worker.word(Word.LIVENESS_COUNT) >= before + 4, "ten a second when idle"
        began = time.monotonic()
        assert worker.stop() == Exit.STOPPED
        assert time.monotonic() - began < 10


def test_a_peer_that_pings_and_reads_nothing_costs_bounded_memory(start):
    async def script(peer):
        peer.writer.transport.pause_reading()
        flood = frame(PING, b"x" * 125) * 1000
        while True:
            peer.writer.write(flood)
            await peer.writer.drain()

    with ExchangeThread(script) as exchange:
        worker = start(spec_of(exchange.url, heartbeat=None))
        wait_for(lambda: downs(worker), "the session is given up")
        assert downs(worker)[0]["cause"] == "send_failed"
        rss = Path(f"/proc/{worker.process.pid}/status").read_text().split("VmRSS:")[1].split()[0]
        assert int(rss) < 200_000, "kB"


def downs(worker):
    return [body for kind, body in worker.events() if kind == EventKind.DOWN]
