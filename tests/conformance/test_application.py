"""A1 to A8: heartbeats that are messages of the exchange's own."""

import json

import pytest
from library import (
    PING,
    PONG,
    TEXT,
    Answering,
    Diary,
    client,
    exchange_of,
    fast,
    run,
    until,
)

from worker import HeartbeatConfig

PRIVATE_REPLY = (
    b'{"req_id":"","op":"pong","args":["1672916271846"],"conn_id":"cojidqec0hv9fgvhtbt0"}'
)
PUBLIC_REPLY = b'{"success":true,"ret_msg":"pong","conn_id":"0970e817","req_id":"","op":"ping"}'


def seeds_matcher(msg):
    """The seed page's, as printed."""
    return msg.get("op") == "pong"


def either(msg):
    """That of docs/heartbeat.md."""
    return msg.get("op") == "pong" or msg.get("ret_msg") == "pong"


def spoken(matcher, payload=b'{"op": "ping"}', **keys):
    return fast(
        use_ws_ping=False,
        use_application_ping=True,
        payload=payload,
        pong_matcher=matcher,
        **keys,
    )


class Frames(Answering):
    """Writes down every opcode but CLOSE, too."""

    async def __call__(self, peer):
        self.opcodes = []
        receive = peer.receive

        async def noting():
            opcode, payload = await receive()
            self.opcodes.append(opcode)
            return opcode, payload

        peer.receive = noting
        await super().__call__(peer)


def test_a1_the_payload_is_a_text_message_and_no_ping_frame_is_sent():
    async def act():
        script = Frames(answer=lambda text: PRIVATE_REPLY)
        async with (
            exchange_of(script) as exchange,
            client(exchange.url, heartbeat=spoken(seeds_matcher)) as ws,
        ):
            await Diary(ws, "pong").until("pong", 4)
            assert set(script.opcodes) == {TEXT}
            assert set(script.texts) == {b'{"op": "ping"}'}

    run(act())


def test_a2_the_matcher_gets_the_parsed_message_and_a_match_is_a_latency():
    seen = []

    def matcher(msg):
        seen.append(msg)
        return either(msg)

    async def act():
        async with (
            exchange_of(Answering(answer=lambda text: PUBLIC_REPLY, delay=0.02)) as exchange,
            client(exchange.url, heartbeat=spoken(matcher)) as ws,
        ):
            pong = await Diary(ws, "pong").until("pong")
            assert ws.latency_ms == pong.latency_ms >= 19
            assert seen[0] == json.loads(PUBLIC_REPLY)

    run(act())


def test_a2_what_does_not_match_is_data_and_saves_nobody():
    async def act():
        script = Answering(answer=lambda text: b'{"op":"other"}')
        async with (
            exchange_of(script) as exchange,
            client(exchange.url, heartbeat=spoken(seeds_matcher, timeout=0.05)) as ws,
        ):
            diary = Diary(ws, "pong", "timeout")
            assert await ws.recv() == '{"op":"other"}'
            await diary.until("timeout")
            assert not diary.of("pong")

    run(act())


def test_a3_a_matcher_that_raises_loses_no_message_and_the_heartbeat_goes_on():
    def matcher(msg):
        if msg["n"] < 0:
            return True
        raise LookupError(msg["n"])

    class Both(Answering):
        def text(self, peer, payload):
            for number in range(3):
                peer.send(TEXT, b'{"n":%d}' % number)
            peer.send(TEXT, b'{"n":-1}')

    async def act():
        async with (
            exchange_of(Both()) as exchange,
            client(exchange.url, heartbeat=spoken(matcher)) as ws,
        ):
            diary = Diary(ws, "pong", "error", "timeout")
            await diary.until("pong", 3)
            assert [await ws.recv() for _ in range(9)] == ['{"n":0}', '{"n":1}', '{"n":2}'] * 3
            assert ws.stats().matcher_errors == len(diary.of("error")) == 9
            assert {error.where for error in diary.of("error")} == {"pong_matcher"}
            assert not diary.of("timeout")

    run(act())


@pytest.mark.parametrize(
    "data", [b"[1,2]", b"17", b'"text"', b"null", b"true", b"no json", b"\xc3\xa4", b"{"]
)
def test_a4_json_that_is_no_object_and_no_json_at_all_are_delivered(data):
    class DataThenPong(Answering):
        def text(self, peer, payload):
            peer.send(TEXT, data)
            peer.send(TEXT, PRIVATE_REPLY)

    async def act():
        async with (
            exchange_of(DataThenPong()) as exchange,
            client(exchange.url, heartbeat=spoken(seeds_matcher)) as ws,
        ):
            await Diary(ws, "pong").until("pong")
            assert await ws.recv() == data.decode()

    run(act())


@pytest.mark.parametrize(
    "matcher",
    [{"text": "pong"}, lambda msg: msg == "pong", "@ == 'pong'"],
    ids=["text", "function", "expression"],
)
def test_a4_a_plain_text_pong_is_understood(matcher):
    async def act():
        async with (
            exchange_of(Answering(answer=lambda text: b"pong", opening=["pongs"])) as exchange,
            client(exchange.url, heartbeat=spoken(matcher, payload=b"ping")) as ws,
        ):
            await Diary(ws, "pong").until("pong", 2)
            assert await ws.recv() == "pongs"

    run(act())


def test_a5_a_recognised_pong_is_an_event_and_not_data():
    class PongThenData(Answering):
        def text(self, peer, payload):
            peer.send(TEXT, PRIVATE_REPLY)
            peer.send(TEXT, b"data %d" % len(self.texts))

    async def act():
        async with (
            exchange_of(PongThenData()) as exchange,
            client(exchange.url, heartbeat=spoken(seeds_matcher)) as ws,
        ):
            diary = Diary(ws, "pong", "message")
            assert [await ws.recv() for _ in range(3)] == ["data 1", "data 2", "data 3"]
            await diary.until("message", 3)
            assert {event.data[:4] for event in diary.of("message")} == {"data"}
            assert diary.of("pong")[0].payload == PRIVATE_REPLY
            assert ws.stats().messages_received == 3

    run(act())


def test_a5_a_pong_that_nobody_waits_for_is_data():
    async def act():
        async with (
            exchange_of(Answering(opening=[PRIVATE_REPLY.decode()])) as exchange,
            client(exchange.url, heartbeat=spoken(seeds_matcher, first=5, interval=5)) as ws,
        ):
            assert await ws.recv() == PRIVATE_REPLY.decode()

    run(act())


def test_a6_answers_that_echo_their_number_are_told_apart():
    class OutOfOrder(Answering):
        """Each ping is answered 150 ms later, so that three wait; a foreign number comes too."""

        def text(self, peer, payload):
            number = json.loads(payload)["req_id"]
            self.later(peer, TEXT, b'{"method":"pong","req_id":%d}' % number, 0.15)
            peer.send(TEXT, b'{"method":"pong","req_id":999}')

    async def act():
        heartbeat = spoken(
            "method == 'pong'",
            payload=b'{"method":"ping","req_id":${seq}}',
            pong_id="req_id",
            interval=0.05,
            timeout=0.6,
        )
        script = OutOfOrder()
        async with exchange_of(script) as exchange, client(exchange.url, heartbeat=heartbeat) as ws:
            diary = Diary(ws, "pong", "timeout")
            await diary.until("pong", 6)
            assert all(pong.latency_ms >= 148 for pong in diary.of("pong"))
            assert ws.stats().foreign_pongs >= 6
            assert not diary.of("timeout")
            numbers = [json.loads(text)["req_id"] for text in script.texts]
            assert numbers == list(range(1, len(numbers) + 1))

    run(act())


@pytest.mark.parametrize(
    ("matcher", "reply", "lives"),
    [
        (seeds_matcher, PRIVATE_REPLY, True),
        (seeds_matcher, PUBLIC_REPLY, False),  # the page's matcher misses what Bybit says there
        (either, PRIVATE_REPLY, True),
        (either, PUBLIC_REPLY, True),
        ("op == 'pong' || ret_msg == 'pong'", PRIVATE_REPLY, True),
        ("op == 'pong' || ret_msg == 'pong'", PUBLIC_REPLY, True),
    ],
)
def test_a7_bybit_answers_in_two_ways_and_the_documented_matcher_knows_both(matcher, reply, lives):
    async def act():
        async with (
            exchange_of(Answering(answer=lambda text: reply)) as exchange,
            client(exchange.url, heartbeat=spoken(matcher, timeout=0.08)) as ws,
        ):
            diary = Diary(ws, "pong", "timeout")
            await diary.until("pong" if lives else "timeout", 2)
            assert not diary.of("timeout" if lives else "pong")

    run(act())


@pytest.mark.parametrize("body", [b"", b"1672916271846", b"\0" * 125])
def test_a8_pings_of_the_exchange_are_answered_with_their_body(body):
    """As Binance sends them, beside our own of 20 and 10 s."""
    answers = []

    async def serve(peer):
        for _ in range(3):
            peer.send(PING, body)
            answers.append(await peer.until(PONG))
        await peer.gone()

    async def act():
        heartbeat = HeartbeatConfig(interval=20.0, timeout=10.0)
        async with exchange_of(serve) as exchange, client(exchange.url, heartbeat=heartbeat) as ws:
            await until(lambda: len(answers) == 3)
            assert answers == [body] * 3
            assert ws.stats().server_pings == 3
            assert ws.stats().foreign_pongs == 0

    run(act())
