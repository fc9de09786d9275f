"""C1 to C9: what a heartbeat's configuration takes and refuses."""

import asyncio
import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from library import Answering, Diary, client, exchange_of, fast, run

from worker import HeartbeatConfig, WebSocket
from worker.config import heartbeat_of
from worker.spec import ConnectionSpec

URL = "ws://127.0.0.1:1/"
APPLICATION = {
    "use_ws_ping": False,
    "use_application_ping": True,
    "payload": b"ping",
    "pong_matcher": {"text": "pong"},
}
PLAIN = ConnectionSpec(name="x", url=URL, heartbeat=None)


async def matches_later(_message):
    return True


NUMBERS = st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=3))


def pings(config):
    """Return our pings as the machines take them."""
    return config.onto(PLAIN).heartbeat


def test_c1_defaults_are_30_and_10_seconds_an_empty_payload_and_ping_frames():
    config = HeartbeatConfig()
    assert (config.interval, config.timeout, config.payload) == (30.0, 10.0, b"")
    assert config.use_ws_ping
    assert not config.use_application_ping
    assert HeartbeatConfig(interval=0.25, timeout=0.125).interval == 0.25


def test_c2_none_means_no_ping_no_timeout_and_no_latency():
    async def act():
        script = Answering(mute=True)
        async with exchange_of(script) as exchange, client(exchange.url, heartbeat=None) as ws:
            diary = Diary(ws)
            await asyncio.sleep(1.2)  # a heartbeat's first ping would leave after 1 s
            assert (script.pings, diary.events, ws.latency_ms) == ([], [], None)
            assert ws.stats().pings == ws.stats().timeouts == 0
            assert ws.is_connected

    run(act())


def test_c3_the_call_of_the_seed_page_constructs_as_printed():
    config = HeartbeatConfig(
        interval=20.0,
        timeout=10.0,
        payload=b'{"op": "ping"}',
        use_ws_ping=False,
        use_application_ping=True,
        pong_matcher=lambda msg: msg.get("op") == "pong",
    )
    assert WebSocket(URL, heartbeat=config).state == "idle"


@pytest.mark.parametrize(
    ("name", "interval", "timeout"),
    [("trading", 20, 10), ("llm_streaming", 30, 15), ("dashboard", 30, 20)],
)
def test_c4_presets_are_those_of_the_use_case_table(name, interval, timeout):
    config = HeartbeatConfig.preset(name)
    assert (config.interval, config.timeout) == (interval, timeout)
    WebSocket(URL, heartbeat=name)


def test_c4_a_preset_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"'trade'.*trading, llm_streaming, dashboard"):
        WebSocket(URL, heartbeat="trade")


@pytest.mark.parametrize("name", ["interval", "timeout", "first"])
@pytest.mark.parametrize("value", [0, 0.0, -1, -0.5])
def test_c5_zero_and_below_are_refused_with_field_and_value(name, value):
    with pytest.raises(ValueError, match=rf"^{name} .*{value}"):
        HeartbeatConfig(**{name: value})


def test_c5_a_config_is_immutable_and_keeps_its_values():
    config = HeartbeatConfig(interval=3, timeout=2, first=1, misses=2, payload=b"${seq}")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.interval = 1.0
    kept = (config.interval, config.timeout, config.first, config.misses, config.payload)
    assert kept == (3, 2, 1, 2, b"${seq}")


def test_c6_a_timeout_above_the_interval_is_refused_where_answers_cannot_be_told_apart():
    with pytest.raises(ValueError, match="timeout must not be above interval"):
        HeartbeatConfig(interval=1, timeout=1.5, **APPLICATION)
    with pytest.raises(ValueError, match="timeout must not be above interval with one payload"):
        HeartbeatConfig(interval=1, timeout=1.5, payload=b"always the same")


def test_c6_a_timeout_above_the_interval_works_where_pings_differ():
    async def act():
        script = Answering(delay=0.25)  # five pings are outstanding at any moment
        async with (
            exchange_of(script) as exchange,
            client(exchange.url, heartbeat=fast(interval=0.05, timeout=1)) as ws,
        ):
            diary = Diary(ws, "pong", "timeout")
            await diary.until("pong", 10)
            assert not diary.of("timeout")
            assert all(pong.latency_ms >= 250 for pong in diary.of("pong"))

    run(act())


def test_c7_both_kinds_of_ping_are_refused_and_the_application_kind_alone_is_accepted():
    with pytest.raises(ValueError, match="use_application_ping excludes use_ws_ping"):
        HeartbeatConfig(**APPLICATION | {"use_ws_ping": True})
    assert HeartbeatConfig(**APPLICATION).use_application_ping


@pytest.mark.parametrize(
    "payload", [b"custom", b"\0\xff\xfe", b"x" * 125, b"$ts_ms" * 19 + b"$$ {seq}"]
)
def test_c7b_a_payload_reaches_the_server_unchanged(payload):
    async def act():
        script = Answering()
        async with (
            exchange_of(script) as exchange,
            client(exchange.url, heartbeat=fast(payload=payload)) as ws,
        ):
            diary = Diary(ws, "ping", "pong")
            await diary.until("pong", 2)
            assert {body for _, body in script.pings} == {payload}
            assert {ping.payload for ping in diary.of("ping")} == {payload}

    run(act())


@pytest.mark.parametrize("name", ["interval", "timeout", "first"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1", 1e12, 10**400])
def test_c8_what_is_no_duration_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        HeartbeatConfig(**{name: value})


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"payload": b"x" * 126}, "payload is too long: .* at most 125 bytes, got 126"),
        ({"payload": b"x" * 120 + b"${uuid}"}, "payload is too long: .* got 156"),
        ({"payload": "ping"}, "payload must be bytes"),
        (APPLICATION | {"payload": b""}, "payload is missing"),
        (APPLICATION | {"pong_matcher": None}, "pong_matcher is missing"),
        (APPLICATION | {"pong_matcher": "op =="}, "pong_matcher is no JMESPath .* position"),
        (APPLICATION | {"pong_matcher": {"txt": "pong"}}, "pong_matcher must be"),
        (APPLICATION | {"pong_id": "id"}, "pong_id needs"),
        (APPLICATION | {"misses": 2}, "misses above 1 needs pong_id"),
        ({"use_ws_ping": False}, "must be on"),
        ({"pong_matcher": {"text": "pong"}}, "pong_matcher .* application pings"),
        ({"misses": 2, "payload": b"always the same"}, "misses must not be above 1"),
        ({"misses": 0}, "misses"),
        ({"misses": True}, "misses"),
        ({"misses": 1.5}, "misses"),
        ({"use_ws_ping": "no"}, "use_ws_ping must be True or False"),
        ({"decode": []}, "decode must be"),
        (APPLICATION | {"pong_matcher": matches_later}, "pong_matcher must be a plain function"),
        (APPLICATION | {"pong_matcher": {"text": "\ud800"}}, "pong_matcher: the text cannot"),
        (APPLICATION | {"pong_matcher": {"text": 5}}, "pong_matcher: the text must be str"),
        (APPLICATION | {"pong_matcher": "[" * 3000}, "pong_matcher .* nested deeper"),
        (APPLICATION | {"pong_matcher": "!" * 3000 + "a"}, "pong_matcher .* nested deeper"),
        (APPLICATION | {"payload": b"${seq}", "pong_id": 5}, "pong_id must be a JMESPath"),
        ({"server_ping": [{"match": "a", "reply": 5}]}, "server_ping: the text must be str"),
    ],
)
def test_c8_contradictions_are_refused_by_the_name_of_the_field(keys, text):
    with pytest.raises(ValueError, match=text):
        HeartbeatConfig(**keys)


@given(interval=NUMBERS, timeout=NUMBERS, first=NUMBERS, misses=NUMBERS)
def test_c8_any_values_make_a_config_with_sound_times_or_a_value_error(**keys):
    try:
        spec = pings(HeartbeatConfig(**keys))
    except ValueError:
        return
    assert spec.interval_ns > 0
    assert spec.timeout_ns > 0
    assert spec.first_ns > 0
    assert spec.misses >= 1


@given(seconds=st.floats(min_value=1e-3, max_value=1e6))
def test_c9_a_number_is_the_interval_with_a_timeout_that_fits(seconds):
    spec = pings(heartbeat_of(seconds))
    assert spec.interval_ns == round(seconds * 1e9)
    assert 0 < spec.timeout_ns <= min(spec.interval_ns, 10_000_000_000)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, False])
def test_c9_a_number_that_is_no_interval_is_refused(value):
    with pytest.raises(ValueError, match="heartbeat must be seconds"):
        WebSocket(URL, heartbeat=value)
