"""Each example of docs/heartbeat.md, as printed, against an exchange that does what it is for.

The embedded exchange speaks for all but one of the patterns. Each pattern is seen to keep a healthy
session and to find out a sick one; the times are those of the page.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from exchange import running_exchange
from exchange_thread import ExchangeThread
from fleet import running_fleet, wait_for
from library import PATIENCE_S, Answering, Diary, run, until
from listening import listening

from worker import HeartbeatConfig, WebSocket

pytestmark = pytest.mark.system

PAGE = (Path(__file__).parents[2] / "docs" / "heartbeat.md").read_text()
BINANCE = '{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}'
KRAKEN = '{"method":"subscribe","params":{"channel":"trade","symbol":["BTC/USD"]},"req_id":1}'
GATE = "gate"
# Beginning of the pattern's paragraph: connection, path of the embedded exchange, subscription.
PATTERNS = {
    "The exchange answers PING frames, or pings by frame itself": ("frames", "/binance", BINANCE),
    "The exchange answers a message": (
        "message",
        "/bybit",
        '{"op":"subscribe","args":["publicTrade.BTCUSDT"]}',
    ),
    "Bare text": (
        "text",
        "/okx",
        '{"op":"subscribe","args":[{"channel":"trades","instId":"BTC-USDT"}]}',
    ),
    "The answer echoes a number": ("number", "/kraken", KRAKEN),
    "A timestamp in the ping": (GATE, "", '{"channel":"spot.trades","event":"subscribe"}'),
    "The exchange pings by message": (
        "pings-us",
        "/htx",
        '{"sub":"market.btcusdt.trade.detail","id":"1"}',
    ),
    "The exchange sends a heartbeat of its own": ("beats", "/kraken", KRAKEN),
    "The exchange answers pings and sends no data.": ("clocks", "/binance", BINANCE),
    "None": ("none", "/binance", BINANCE),
}
PINGED = {"frames", "message", "text", "number", GATE}


def patterns():
    """Gives the TOML and the Python of each pattern, by the name of its connection."""
    text = PAGE.split("## Patterns\n")[1].split("\n## ")[0]
    heads = list(re.finditer(r"^\*\*([^*]+)\*\*", text, re.M))
    assert [head[1] for head in heads] == list(PATTERNS), "each pattern is tried"
    ends = [head.start() for head in heads[1:]] + [len(text)]
    found = {}
    for head, end in zip(heads, ends, strict=True):
        part = text[head.start() : end]
        examples = [re.findall(rf"```{kind}\n(.*?)```", part, re.S) for kind in ("toml", "python")]
        found[PATTERNS[head[1]][0]] = examples
    assert all(len(toml) == 1 for toml, _ in found.values()), "one worked example a pattern"
    return found


def gate(text):
    """What the exchange with timestamps answers."""
    request = json.loads(text)
    if request["channel"] != "spot.ping":
        return b'{"channel":"spot.trades","event":"subscribe"}'
    assert abs(request["time"] - time.time()) < 60
    return b'{"time":1,"channel":"spot.pong","event":"","result":null}'


def connections(exchange, gate_url):
    """The connections of fleet.toml, each with the example as printed."""
    parts = []
    for name, path, subscribe in PATTERNS.values():
        url = gate_url if name == GATE else exchange.url(path, name)
        parts.append(
            f"[[connection]]\nname = '{name}'\nurl = '{url}'\nsubscribe = ['{subscribe}']\n"
            + patterns()[name][0][0]
        )
    return "".join(parts)


def test_every_pattern_keeps_a_healthy_session(tmp_path):
    """Of HTX that is three pings: it closes what has answered none of two."""
    with (
        running_exchange() as exchange,
        ExchangeThread(Answering(answer=gate)) as gate_exchange,
        running_fleet(tmp_path, connections(exchange, gate_exchange.url)) as fleet,
    ):
        fleet.wait_up()
        exchange.fault("mute_data", tag="beats")
        exchange.fault("mute_data", tag="clocks")
        with listening([fleet.rows()["clocks"]["endpoint"]]) as listener:

            def kinds():
                return [event["kind"] for event in listener.events("clocks")]

            wait_for(lambda: "stale" in kinds(), "no data for 5 s")
            assert fleet.rows()["clocks"]["state"] == "stale"
            exchange.command("clear")
            exchange.fault("mute_data", tag="beats")
            wait_for(lambda: "fresh" in kinds(), "data again")
        wait_for(
            lambda: all(session["open_s"] > 17 for session in exchange.sessions()), "17 s of life"
        )
        rows = fleet.rows()
        tagged = {session["tag"]: session for session in exchange.sessions()}
        assert {row["state"] for row in rows.values()} == {"up"}
        assert {name for name, row in rows.items() if row["reconnects"]} == set()
        for name in PINGED | {"beats", "clocks"}:
            assert rows[name]["pongs"] >= 1, name
            assert rows[name]["timeouts"] == 0
            assert rows[name]["rtt_ms"]["last"] > 0
        for name in ("pings-us", "none"):
            assert (tagged[name]["pings"], rows[name]["pings"]) == (0, 0)
            assert rows[name]["rtt_ms"]["last"] is None


def test_every_pattern_finds_out_a_sick_exchange(tmp_path):
    with (
        running_exchange() as exchange,
        ExchangeThread(Answering(answer=lambda _text: None)) as gate_exchange,
    ):
        for name in PINGED:
            exchange.fault("mute_pongs", tag=name)
        exchange.fault("mute_data", tag="clocks")
        toml = connections(exchange, gate_exchange.url)
        # Nothing is subscribed here, so that not even an acknowledgement comes.
        silent = toml.replace(f"?tag=clocks'\nsubscribe = ['{BINANCE}']", "?tag=clocks'")
        assert silent != toml
        # With pings a minute without frames is never reached: the pong is missed before.
        mute = exchange.url("/binance", "mute")
        silent += f"[[connection]]\nname = 'mute'\nurl = '{mute}'\nheartbeat = false\n"
        silent += patterns()["clocks"][0][0].split("first_data")[0].replace("= 60", "= 4")
        with running_fleet(tmp_path, silent) as fleet:
            bus = f"ipc://{fleet.runtime_dir}/events.sock"
            with listening([bus]) as listener:
                fleet.wait_up("beats", "frames")
                exchange.fault("half_open", tag="beats")

                def causes():
                    return {
                        event["connection"]: (event["cause"], event["detail"]["waited_s"])
                        for event in reversed(listener.events())
                        if event["kind"] == "timeout"
                    }

                expected = dict.fromkeys(PINGED, ("ping_timeout", 10))
                expected["beats"] = ("heartbeat_gap", 5)
                expected["clocks"] = ("no_first_data", 15)
                expected["mute"] = ("silence", 4)
                wait_for(lambda: set(causes()) == set(expected), "a timeout of each")
                found = causes()
        assert {name: cause for name, (cause, _) in found.items()} == {
            name: cause for name, (cause, _) in expected.items()
        }
        for name, (_, waited_s) in found.items():
            assert expected[name][1] <= waited_s < expected[name][1] + 2, (name, waited_s)


@pytest.mark.parametrize("name", [n for n, (_, python) in patterns().items() if python])
def test_every_pattern_in_python(name):
    """Each of them is a heartbeat; what it waits for comes."""
    paths = {name: (path, subscribe) for name, path, subscribe in PATTERNS.values()}
    (program,) = patterns()[name][1]
    heartbeat = eval(program, {"HeartbeatConfig": HeartbeatConfig})
    path, subscribe = paths[name]

    async def act(url):
        async with WebSocket(url, heartbeat=heartbeat, subscribe=[subscribe]) as ws:
            diary = Diary(ws, "pong", "timeout", "disconnected")
            if name == "pings-us":
                await until(lambda: ws.stats().server_pings)
                assert ws.latency_ms is None
            else:
                pong = await diary.until("pong")
                assert ws.latency_ms == pong.latency_ms > 0
            assert len(await ws.recv()) > 0
            assert set(diary.names) <= {"pong"}

    with running_exchange() as exchange:
        run(act(exchange.url(path)))


def test_the_program_prints_messages_and_latencies_as_it_says():
    """With the URL that the page names: a path of the embedded exchange."""
    path = re.search(r"`ws://127.0.0.1:9350(/\w+)` is one", PAGE)[1]
    program = re.findall(r"```python\n(.*?)```", PAGE.split("## The library\n")[1], re.S)[0]
    assert "wss://example.com/ws" in program
    with running_exchange() as exchange:
        source = program.replace("wss://example.com/ws", exchange.url(path))
        with subprocess.Popen(
            [sys.executable, "-u", "-c", source], stdout=subprocess.PIPE, text=True
        ) as process:
            lines = []
            deadline = time.monotonic() + PATIENCE_S
            try:
                while not {"latency", "message"} <= set(lines):
                    assert time.monotonic() < deadline
                    line = process.stdout.readline()
                    assert line, lines
                    lines.append("message" if line.startswith("{") else kind_of(line))
            finally:
                process.kill()


def kind_of(line):
    return "latency" if float(line) > 0 else "nonsense"


def test_the_first_example_in_both_notations_is_the_same_heartbeat(tmp_path):
    head = PAGE.split("## What happens")[0]
    (program,) = re.findall(r"```python\n(.*?)```", head, re.S)
    names = {}

    async def act(url):
        exec(program.replace("wss://example.com/ws", url), names)
        async with names["ws"] as ws:
            await Diary(ws, "pong").until("pong")
            assert ws.latency_ms > 0

    with running_exchange() as exchange:
        run(act(exchange.url("/binance")))
    (toml,) = re.findall(r"```toml\n(.*?)```", head, re.S)
    assert "interval = 20\n" in toml
    assert "timeout = 10\n" in toml
