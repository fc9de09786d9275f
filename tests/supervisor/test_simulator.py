"""The simulated exchange, seen by clients that are not ours."""

import asyncio
import gzip
import json
import os
import re
import subprocess
import sys
import urllib.error
from pathlib import Path

import aiohttp
import pytest
from exchange import running_exchange, simulator
from fleet import wait_for

from supervisor.exchange_dialects import EXCHANGES
from supervisor.exchange_faults import KINDS
from supervisor.exchange_feed import BATCH_MAX, BEHIND_MAX_S, Feed, Market

SUBSCRIBE = {
    "/binance": '{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}',
    "/bybit": '{"op":"subscribe","args":["publicTrade.BTCUSDT"]}',
    "/okx": '{"op":"subscribe","args":[{"channel":"trades","instId":"BTC-USDT"}]}',
    "/kraken": '{"method":"subscribe","params":{"channel":"trade","symbol":["BTC/USD"]}}',
    "/htx": '{"sub":"market.btcusdt.trade.detail","id":"1"}',
}
PING = {
    "/bybit": '{"op":"ping"}',
    "/okx": "ping",
    "/kraken": '{"method":"ping","req_id":42}',
}
TIMEOUT = aiohttp.ClientTimeout(total=20)


@pytest.fixture(scope="module")
def exchange():
    with running_exchange(rate=100) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_faults_left(exchange):
    yield
    exchange.command("clear")


def talk(url, conversation, **options):
    """Run a coroutine function with an open aiohttp client socket."""

    async def run():
        async with (
            aiohttp.ClientSession(timeout=TIMEOUT) as session,
            session.ws_connect(url, **options) as socket,
        ):
            return await conversation(socket)

    return asyncio.run(asyncio.wait_for(run(), 30))


def text_of(message):
    return gzip.decompress(message.data).decode() if message.type.name == "BINARY" else message.data


@pytest.mark.parametrize("path", EXCHANGES)
def test_data_flows_after_a_subscription_and_its_numbers_grow_by_one(exchange, path):
    async def conversation(socket):
        await socket.send_str(SUBSCRIBE[path])
        return [text_of(await socket.receive()) for _ in range(30)]

    texts = talk(exchange.url(path), conversation)
    numbers = []
    for text in texts:
        found = re.findall(r'"(?:t|u|seq|seqId|trade_id|checksum|tradeId|version)":"?(\d+)"?', text)
        if found and '"method"' not in text and '"channel":"status"' not in text:
            numbers.append(int(found[-1]))
    assert len(numbers) >= 25
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.parametrize("path", PING)
def test_application_pings_are_answered_like_the_exchange_does(exchange, path):
    async def conversation(socket):
        await socket.send_str(PING[path])
        while True:
            text = (await socket.receive()).data
            if "pong" in text:
                return text

    answer = talk(exchange.url(path), conversation)
    if path == "/okx":
        assert answer == "pong"
    else:
        document = json.loads(answer)
        assert document.get("ret_msg") == "pong" or document["req_id"] == 42


def test_htx_pings_in_gzip_and_closes_who_does_not_answer(exchange):
    async def conversation(socket):
        first = json.loads(text_of(await socket.receive()))
        while True:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.CLOSE:
                return first, message.data

    first, code = talk(exchange.url("/htx"), conversation)
    assert first["ping"] > 1.6e12
    assert code == 1003


def collect(exchange, fault, wanted, *, path="/bybit", **options):
    async def conversation(socket):
        await socket.send_str(SUBSCRIBE[path])
        await socket.receive()
        await asyncio.to_thread(exchange.command, "fault", tag="x", **fault)
        return await wanted(socket)

    return talk(exchange.url(path, "x"), conversation, **options)


async def pongs(socket):
    await socket.send_str(PING["/bybit"])
    found = []
    for _ in range(60):
        text = (await socket.receive()).data
        if "pong" in text or "answer" in text:
            found.append(text)
    return found


@pytest.mark.parametrize(
    ("kind", "count"),
    [("mute_pongs", 0), ("double_pongs", 2), ("wrong_pongs", 1), ("late_pongs", 1)],
)
def test_faults_of_pongs(exchange, kind, count):
    found = collect(exchange, {"kind": kind, "delay": 0.1}, pongs)
    assert len(found) == count
    if kind == "wrong_pongs":
        assert "pong" not in found[0]


def test_muted_data_leaves_pongs(exchange):
    async def quiet(socket):
        await asyncio.sleep(0.2)
        while True:
            try:
                await socket.receive(timeout=0.3)
            except TimeoutError:
                break
        await socket.send_str(PING["/bybit"])
        return (await socket.receive()).data

    assert "pong" in collect(exchange, {"kind": "mute_data"}, quiet)


async def last(socket):
    while True:
        message = await socket.receive()
        if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            return message, socket


@pytest.mark.parametrize(
    ("fault", "type_name", "code"),
    [
        ({"kind": "close", "code": 1012}, "CLOSE", 1012),
        ({"kind": "garbage"}, "ERROR", 1002),
        ({"kind": "oversize", "mib": 5}, "ERROR", 1009),
        ({"kind": "reset"}, "CLOSED", 1006),
    ],
)
def test_faults_of_a_moment(exchange, fault, type_name, code):
    message, socket = collect(exchange, fault, last, autoclose=False)
    assert message.type.name in (type_name, "ERROR"), message
    assert code in (socket.close_code, message.data)


def test_a_bomb_is_small_and_inflates_far(exchange):
    async def bomb(socket):
        while True:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                return message.data

    data = collect(exchange, {"kind": "gzip_bomb", "mib": 8}, bomb)
    assert len(data) < 20_000
    assert len(gzip.decompress(data)) == 8 << 20


def test_handshakes_are_refused_with_status_and_retry_after(exchange):
    exchange.fault("refuse", tag="r", status=429, retry_after=7)

    async def nothing(socket):
        return None

    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        talk(exchange.url("/bybit", "r"), nothing)
    assert caught.value.status == 429
    assert caught.value.headers["Retry-After"] == "7"
    talk(exchange.url("/bybit", "other"), nothing)


def test_fragments_arrive_whole_with_pings_between(exchange):
    async def some(socket):
        return [json.loads((await socket.receive()).data) for _ in range(20)]

    messages = collect(exchange, {"kind": "fragments"}, some)
    assert len(messages) == 20


def test_a_fault_ends_with_its_time(exchange):
    exchange.fault("mute_pongs", seconds=0.2)
    assert [fault["kind"] for fault in exchange.command("faults")] == ["mute_pongs"]
    wait_for(lambda: not exchange.command("faults"), "its end")


@pytest.mark.parametrize("query", [{"kind": "flood"}, {}, {"kind": "close", "code": "x"}])
def test_commands_that_make_no_sense_are_told_what_would(exchange, query):
    with pytest.raises(urllib.error.HTTPError) as caught:
        exchange.command("fault", **query)
    with caught.value as answer:
        assert answer.code == 400
        assert json.loads(answer.read())["kinds"] == KINDS


def test_unknown_paths_are_404(exchange):
    async def nothing(socket):
        return None

    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        talk(exchange.url("/nasdaq"), nothing)
    assert caught.value.status == 404


def test_sessions_come_and_go_without_leaks(exchange):
    async def nothing(socket):
        return None

    wait_for(lambda: not exchange.sessions(), "quiet")
    descriptors = len(os.listdir(f"/proc/{exchange.process.pid}/fd"))
    for _ in range(20):
        talk(exchange.url("/okx"), nothing)
    wait_for(lambda: not exchange.sessions(), "all gone")
    assert len(os.listdir(f"/proc/{exchange.process.pid}/fd")) <= descriptors + 1


def test_a_taken_port_is_a_sentence_and_exit_5(exchange):
    command = simulator(port=exchange.port)
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 5
    assert done.stderr.startswith(f"simulator: cannot listen on 127.0.0.1:{exchange.port}")
    assert "Traceback" not in done.stderr


def test_it_ends_with_its_lifeline():
    theirs, ours = os.pipe()
    command = [*simulator(port=0), str(theirs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[theirs]) as process:
        os.close(theirs)
        assert process.stdout.readline().startswith(b"LISTENING")
        os.close(ours)
        assert process.wait(10) == 0


def test_a_high_rate_is_held():
    with running_exchange(rate=5000) as fast:

        async def many(socket):
            await socket.send_str(SUBSCRIBE["/okx"])
            loop = asyncio.get_running_loop()
            began = loop.time()
            for _ in range(10_000):
                await socket.receive()
            return loop.time() - began

        assert talk(fast.url("/okx"), many) < 10, "2 s, five times over for a busy machine"


def test_the_same_seed_gives_the_same_market():
    first, second, other = Market(1), Market(1), Market(2)
    trades = [[market.trade() for _ in range(20)] for market in (first, second, other)]
    assert trades[0] == trades[1] != trades[2]


def test_data_stands_on_an_absolute_timetable_and_is_given_out_in_batches():
    feed = Feed(rate=1000)
    feed.begin(50.0)
    assert feed.take(50.25) == range(1, 251)
    assert feed.take(50.25) == range(251, 251)
    assert feed.take(60.0) == range(251, 251 + BATCH_MAX)
    feed.mute(60.0)
    assert feed.take(60.5) == range(751, 1251), "what was muted is not made up for"
    assert (feed.sent, feed.skipped) == (1250, 0)


def test_a_reader_that_stalls_gets_the_latest_data_later_and_the_rest_is_counted():
    feed = Feed(rate=100)
    feed.begin(50.0)
    for now_s in (50.5, 51.0, 55.0):
        feed.hold(now_s)
    kept = int(BEHIND_MAX_S * 100)
    assert feed.skipped == 500 - kept
    assert feed.take(55.0) == range(1, kept + 1)


def test_the_page_names_every_dialect_and_fault():
    page = (Path(__file__).parent.parent.parent / "docs" / "simulator.md").read_text()
    assert all(f"`{path}`" in page for path in EXCHANGES)
    assert all(f"`{kind}`" in page for kind in KINDS)


# Refusals ----------------------------------------------------------------------------------------


def simulate(*arguments):
    """The verb, which must end by itself."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "supervisor", "simulate", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done


@pytest.mark.parametrize("host", ["256.1.1.1", "a" * 70, "8.8.8.8", "a..b"])
def test_a_host_that_is_none_of_this_machine_is_exit_5_with_a_sentence(host):
    done = simulate("--host", host, "--port", "0")
    assert done.returncode == 5
    assert f"cannot listen on {host}:0" in done.stderr
    assert "choose another host" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_in_use_is_exit_5_with_a_sentence(exchange):
    done = simulate("--port", str(exchange.port))
    assert done.returncode == 5
    assert "address already in use; choose another port" in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [("--rate", "nan"), ("--rate", "0"), ("--rate", "-1"), ("--rate", "inf"), ("--rate", "x"),
     ("--answer-delay", "nan"), ("--answer-delay", "-1"), ("--answer-delay", "inf"),
     ("--port", "65536"), ("--port", "-1"), ("--seed", "-1"), ("--host", "")],
)  # fmt: skip
def test_an_option_out_of_bounds_is_exit_2(option, value):
    assert simulate(option, value).returncode == 2


@pytest.mark.parametrize(
    "query",
    [
        {"kind": "late_pongs", "delay": "nan"},
        {"kind": "late_pongs", "delay": "-1"},
        {"kind": "mute_data", "seconds": "nan"},
        {"kind": "refuse", "status": "9999"},
        {"kind": "refuse", "status": "599"},
        {"kind": "close", "code": "0"},
        {"kind": "oversize", "mib": "1e9"},
        {"kind": "gzip_bomb", "mib": "x"},
    ],
    ids=str,
)
def test_a_number_of_a_fault_that_would_break_the_simulator_is_refused(exchange, query):
    with pytest.raises(urllib.error.HTTPError) as caught:
        exchange.fault(**query)
    with caught.value as refusal:
        assert refusal.code == 400
    assert exchange.command("faults") == []
