import asyncio
import contextlib
import gc
import gzip
import json
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.dialect import (
    KEY_LENGTH_MAX,
    DecodeError,
    Dialect,
    DialectError,
    Ping,
    Pong,
    RuleError,
    Watch,
)
from worker.spec import (
    ConnectionSpec,
    Decode,
    HeartbeatSpec,
    LimitsSpec,
    Match,
    MatchKind,
    PublishSpec,
    ServerPing,
)


def jmespath(expression, hint=""):
    return Match(kind=MatchKind.JMESPATH, value=expression, hint=hint)


def dialect(matcher=None, *, function=None, payload=b"ping", pong_id=None, **keys):
    beat = HeartbeatSpec(
        application=matcher is not None, payload=payload, pong_matcher=matcher, pong_id=pong_id
    )
    return Dialect(ConnectionSpec(name="x", url="ws://h/", heartbeat=beat, **keys), function)


BYBIT = jmespath("op == 'pong' || ret_msg == 'pong'")
HTX = ServerPing(match=jmespath("ping", "ping"), reply='{"pong":${ping}}')


@pytest.mark.parametrize(
    "reply",
    [
        b'{"success":true,"ret_msg":"pong","conn_id":"x","op":"ping"}',
        b'{"op":"pong","args":["1535975085052"]}',
    ],
)
def test_both_pongs_of_bybit_are_pongs(reply):
    assert dialect(BYBIT).look(reply, Watch.PONG) == Pong(None)


@pytest.mark.parametrize("data", [b"[1,2]", b"7", b"null", b'"pong"', b"pong", b"", b"\xff\xfe"])
def test_what_is_no_object_or_no_json_is_data_to_an_expression(data):
    assert dialect(BYBIT).look(data, Watch.PONG) is None


def test_a_text_pong_is_the_whole_payload():
    rule = dialect(Match(kind=MatchKind.TEXT, value="pong"))
    assert rule.look(b"pong", Watch.PONG) == Pong(None)
    assert rule.look(b"pong ", Watch.PONG) is None


def test_rules_rest_while_no_ping_is_outstanding():
    def never(_message):
        raise AssertionError

    match = Match(kind=MatchKind.CALLABLE, value="m:f")
    assert dialect(match, function=never).look(b"{}", Watch(0)) is None


def test_a_function_gets_the_parsed_message_else_the_text():
    seen = []
    match = Match(kind=MatchKind.CALLABLE, value="m:f")
    rule = dialect(match, function=seen.append)
    rule.look(b'{"a":1}', Watch.PONG)
    rule.look(b"hello", Watch.PONG)
    assert seen == [{"a": 1}, "hello"]


def test_a_long_payload_is_data_unseen():
    limits = LimitsSpec(max_control_bytes=20)
    text = "p" * 21
    rule = dialect(Match(kind=MatchKind.TEXT, value=text), limits=limits)
    assert rule.look(text.encode(), Watch.PONG) is None


def test_a_payload_without_the_hint_is_not_parsed():
    match = Match(kind=MatchKind.CALLABLE, value="m:f", hint="pong")
    assert dialect(match, function=lambda _message: True).look(b'{"x":1}', Watch.PONG) is None


@pytest.mark.parametrize("expression", ["length(@)", "starts_with(a, 'x')", "to_number(@) > `0`"])
@pytest.mark.parametrize("data", [b"1", b"{}", b'{"a":1}', b"[]", b"null"])
def test_an_expression_that_raises_is_a_rule_error_in_every_place(expression, data):
    places = [
        lambda: dialect(jmespath(expression)).look(data, Watch.PONG),
        lambda: dialect(jmespath("@"), pong_id=expression).look(data, Watch.PONG),
        lambda: dialect(publish=PublishSpec(key=expression)).key(data),
    ]
    for place in places:
        with contextlib.suppress(RuleError):
            place()


def test_a_key_expression_that_raises_is_a_rule_error():
    with pytest.raises(RuleError, match="length"):
        dialect(publish=PublishSpec(key="length(@)")).key(b"1")


@pytest.mark.parametrize(
    ("expression", "data"),
    [
        ("ceil(to_number(p))", b'{"p":"1e999"}'),
        ("max_by(@, &a)", b'[{"a":1},{"a":"x"}]'),
        ("contains(a, `1`)", b'{"a":"text"}'),
        ("[::0]", b"[1]"),
    ],
)
def test_what_the_functions_of_jmespath_let_through_is_a_rule_error_too(expression, data):
    with pytest.raises(RuleError):
        dialect(publish=PublishSpec(key=expression)).key(data)
    with pytest.raises(RuleError):
        dialect(jmespath("@"), pong_id=expression).look(data, Watch.PONG)


@pytest.mark.parametrize("error", [GeneratorExit, asyncio.CancelledError, MemoryError])
def test_whatever_a_function_raises_is_a_rule_error(error):
    def matcher(_message):
        raise error

    match = Match(kind=MatchKind.CALLABLE, value="m:f")
    with pytest.raises(RuleError, match=error.__name__):
        dialect(match, function=matcher).look(b"{}", Watch.PONG)


def test_a_function_that_makes_a_coroutine_matches_nothing():
    async def matches(_message):
        return True

    match = Match(kind=MatchKind.CALLABLE, value="m:f")
    with pytest.raises(RuleError, match="a coroutine"):
        dialect(match, function=matches).look(b"{}", Watch.PONG)


def test_a_function_that_raises_is_a_rule_error():
    match = Match(kind=MatchKind.CALLABLE, value="m:f")
    with pytest.raises(RuleError, match="ZeroDivisionError"):
        dialect(match, function=lambda _message: 1 / 0).look(b"{}", Watch.PONG)


@pytest.mark.parametrize("token", ["1492420473027", '"a\\u00e9b"', "1.50", "[1, 2]", "12345678901"])
def test_a_server_ping_is_answered_with_the_raw_token(token):
    found = dialect(server_ping=(HTX,)).look(f'{{"ping":{token}}}'.encode(), Watch(0))
    assert found == Ping(f'{{"pong":{token}}}')


def test_a_reply_copies_nested_fields():
    rule = ServerPing(match=jmespath("op == 'ping'"), reply='{"op":"pong","ts":${data.ts}}')
    found = dialect(server_ping=(rule,)).look(b'{"op":"ping","data":{"ts":"07"}}', Watch(0))
    assert found == Ping('{"op":"pong","ts":"07"}')


@pytest.mark.parametrize(
    "ping", [b'{"op":"ping"}', b'{"op":"ping","data":1}', b'{"op":"ping","data":{"ts":"\xff"}}']
)
def test_a_ping_that_lacks_the_field_is_a_rule_error(ping):
    rule = ServerPing(match=Match(kind=MatchKind.CALLABLE, value="m:f"), reply="${data.ts}")
    with pytest.raises(ValueError, match="not given"):
        dialect(server_ping=(rule,))
    rule = ServerPing(match=jmespath("@", '"ping"'), reply="${data.ts}")
    with pytest.raises(RuleError, match=r"data\.ts"):
        dialect(server_ping=(rule,)).look(ping, Watch(0))


def test_a_gzip_ping_is_understood():
    rule = dialect(server_ping=(HTX,), decode=Decode.GZIP)
    assert rule.look(gzip.compress(b'{"ping":18212558000}'), Watch(0)) == Ping(
        '{"pong":18212558000}'
    )


def test_zlib_and_raw_deflate_are_understood():
    raw = zlib.compressobj(wbits=-15)
    deflated = raw.compress(b'{"ping":1}') + raw.flush()
    for decode, payload in (
        (Decode.ZLIB, zlib.compress(b'{"ping":1}')),
        (Decode.DEFLATE, deflated),
    ):
        assert dialect(server_ping=(HTX,), decode=decode).look(payload, Watch(0))


def test_what_is_not_compressed_as_said_is_a_decode_error():
    with pytest.raises(DecodeError):
        dialect(server_ping=(HTX,), decode=Decode.GZIP).look(b'{"ping":1}', Watch(0))


def test_a_bomb_is_inflated_no_further_than_the_bound():
    bomb = gzip.compress(bytes(50_000_000))
    limits = LimitsSpec(max_control_bytes=len(bomb), max_inflated=1_000_000)
    rule = dialect(
        server_ping=(HTX,), decode=Decode.GZIP, limits=limits, publish=PublishSpec(key="s")
    )
    tracemalloc.start()
    try:
        assert rule.look(bomb, Watch(0)) is None
        with pytest.raises(DecodeError, match="1000000 bytes"):
            rule.key(bomb)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_ping_templates_are_filled():
    rule = dialect(BYBIT, payload=b'{"id":${seq},"t":${ts_ms},"u":"${uuid}","cost":"$5 ${x}"}')
    body = json.loads(rule.ping_body(7, 1234, lambda: "u-1"))
    assert body == {"id": 7, "t": 1234, "u": "u-1", "cost": "$5 ${x}"}


def test_a_binary_payload_survives_its_template():
    assert dialect(payload=b"\xff${seq}\x00").ping_body(3, 0, str) == b"\xff3\x00"


def test_the_echo_is_found_as_text():
    rule = dialect(jmespath("result == 'pong'"), pong_id="id")
    assert rule.look(b'{"id":12,"result":"pong"}', Watch.PONG) == Pong("12")
    assert rule.look(b'{"result":"pong"}', Watch.PONG) == Pong(None)


@pytest.mark.parametrize(
    ("message", "key"),
    [
        (b'{"s":"BTC-USDT"}', "BTC-USDT"),
        (b'{"s":"a/b c\xc3\xa9"}', "a_b_c_"),
        (b'{"s":17}', "17"),
        (b'{"s":1.5}', "1.5"),
        (b'{"s":"' + b"x" * 200 + b'"}', "x" * KEY_LENGTH_MAX),
        (b'{"s":""}', None),
        (b'{"s":true}', None),
        (b'{"s":null}', None),
        (b'{"s":["a"]}', None),
        (b"not json", None),
    ],
)
def test_keys_are_fit_for_a_topic(message, key):
    assert dialect(publish=PublishSpec(key="s")).key(message) == key


@given(st.binary(max_size=600), st.sampled_from(Decode))
def test_any_bytes_are_control_or_data_or_a_named_error(payload, decode):
    rule = dialect(
        jmespath("length(@) > `0`"),
        pong_id="id",
        decode=decode,
        server_ping=(HTX,),
        publish=PublishSpec(key="keys(@)[0]"),
    )
    for look in (lambda: rule.look(payload, Watch.PONG), lambda: rule.key(payload)):
        with contextlib.suppress(DialectError):
            look()


def test_expressions_leave_nothing_for_the_garbage_collector():
    rules = dialect(jmespath("op == 'pong'"), pong_id="id", publish=PublishSpec(key="data[0].s"))
    data, pong = b'{"data":[{"s":"BTC"}]}', b'{"op":"pong","id":7}'
    rules.key(data)
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            assert rules.key(data) == "BTC"
            assert rules.look(pong, Watch.PONG) == Pong("7")
        assert gc.collect() == 0
    finally:
        gc.enable()
