"""What the tables of a fleet.toml must satisfy together; each fault with its key and its mend."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor import fleet_model as model
from supervisor.fleet_relations import (
    budget_relations,
    fleet_relations,
    relations,
    simulator_relations,
)
from supervisor.fleetfile import load

FRAMES = {"interval": 20, "timeout": 10}
MESSAGES = {
    "interval": 20,
    "timeout": 10,
    "payload": '{"op":"ping","id":${seq}}',
    "use_ws_ping": False,
    "use_application_ping": True,
    "pong_matcher": "op == 'pong'",
}


def table(**keys):
    return model.ConnectionTable.model_validate({"name": "a", "url": "ws://h/"} | keys)


def faults(**keys):
    """Return {dotted key: message} of a connection with these keys."""
    return {".".join(map(str, path)): text for path, text in relations(table(**keys))}


def only(key, **keys):
    """Return the message of the only fault, which is at ``key``."""
    found = faults(**keys)
    assert list(found) == [key], found
    return found[key]


def beat(**keys):
    return {"heartbeat": FRAMES | keys}


def messages(**keys):
    return {"heartbeat": MESSAGES | keys}


def test_a_plain_connection_and_the_usual_heartbeats_have_no_fault():
    assert faults() == {}
    assert faults(**beat()) == {}
    assert faults(**messages()) == {}
    assert faults(heartbeat=False) == {}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ws://user@h/", "username provided without password"),
        ("ws://%ff:%ff@h/", "user information"),
        ("ws://[::1/", "is not a URL"),
        ("ws://h:99999/", "is not a URL"),
        ("ws://h:0/", "names no host"),
        ("ws://a..b/", "names a host that can be none"),
        ("ws://" + "a" * 64 + "/", "names a host that can be none"),
        ("ws://h/\x00", "control characters"),
        ("ws://h/\n", "control characters"),
        ("ws://h/é", "ASCII"),
        ("ws://h/#part", "fragment"),
    ],
)
def test_a_url_that_cannot_be_dialled_is_refused(url, words):
    assert words in only("url", url=url)


@pytest.mark.parametrize("url", ["ws://h", "wss://[::1]:9443/a?b=c", "ws://u:p@h/", "WSS://H/"])
def test_a_url_that_can_be_dialled_is_none_of_a_fault(url):
    assert faults(url=url) == {}


def test_the_fleets_own_names_are_taken():
    assert "taken by the fleet's own events" in only("name", name="fleet")
    ((path, message),) = fleet_relations(model.FleetTable(name="budget"))
    assert path == ("name",)
    assert "connect budgets" in message
    assert list(fleet_relations(model.FleetTable(name="fleet"))) == []
    assert faults(name="budget") == {}


# Headers and what stands in them ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "X Desk", "X:Desk", "X-Desk\r\nHost", "Prüf", "a/b", "(a)"])
def test_a_header_name_that_is_no_token_is_refused(name):
    assert "is no name of a header" in only(f"headers.{name}", headers={name: "v"})


@pytest.mark.parametrize(
    "name", ["Host", "upgrade", "CONNECTION", "Sec-WebSocket-Key", "sec-websocket-protocol"]
)
def test_headers_of_the_handshake_are_refused(name):
    assert "handshake" in only(f"headers.{name}", headers={name: "v"})


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "\x00", "a\x7f", "a\tb"])
def test_control_characters_in_a_header_are_refused(value):
    assert "control characters" in only("headers.X-Desk", headers={"X-Desk": value})


def test_a_header_from_a_secret_and_one_of_unicode_are_no_fault():
    assert faults(headers={"X-Key": {"env": "KEY"}, "X-Desk": "Händler 1"}) == {}


def test_the_same_header_twice_is_refused_whatever_its_case():
    message = only("headers.x-desk", headers={"X-Desk": "a", "x-desk": "b"})
    assert "'X-Desk'" in message


def test_picows_cannot_be_had_with_compression():
    assert "leave engine out" in only("engine", engine="picows", compression=True)
    assert faults(engine="picows") == faults(engine="auto", compression=True) == {}


def test_a_subprotocol_must_be_a_token():
    assert "subprotocol" in only("subprotocols.1", subprotocols=["good.v1", "not good"])


@given(st.text(max_size=8), st.text(max_size=8))
def test_whatever_a_header_holds_the_handshake_stays_one_header_line(name, value):
    if not faults(headers={name: value}):
        assert not set(name + value) & {"\r", "\n", "\0"}
        assert name
        assert ":" not in name


# Secrets, proxy, addresses, files --------------------------------------------------------------


@pytest.mark.parametrize(
    "secret", [{}, {"env": "A", "file": "/a"}, {"file": "a", "credential": "b"}]
)
@pytest.mark.parametrize("place", ["headers", "secrets", "proxy"])
def test_a_secret_has_exactly_one_place(place, secret):
    keys = {"proxy": secret} if place == "proxy" else {place: {"x": secret}}
    key = "proxy" if place == "proxy" else f"{place}.x"
    assert "exactly one" in only(key, **keys)


@pytest.mark.parametrize(
    "secret", [{"env": "A=B"}, {"file": "/a\0b"}, {"credential": "../a"}, {"credential": ".."}]
)
def test_a_secret_that_can_be_nowhere_is_refused(secret):
    (key,) = secret
    only(f"secrets.x.{key}", secrets={"x": secret})


@pytest.mark.parametrize(
    "proxy", ["http://h", "http://:80", "https://h:80", "socks4://h:1", "h:80", "", "http://h:x",
              "http://h:0", "http://[::1:80", "http://h:80\r\n", "socks5://h:99999"],
)  # fmt: skip
def test_a_proxy_that_is_none_is_refused_and_never_quoted(proxy):
    message = only("proxy", proxy=proxy)
    assert "http://host:port or socks5://host:port" in message
    assert not proxy or proxy not in message.replace("http://host:port", "")


@pytest.mark.parametrize("proxy", ["http://h:3128", "socks5://u:p@[::1]:1080", {"env": "PROXY"}])
def test_a_proxy_is_text_or_a_secret(proxy):
    assert faults(proxy=proxy) == {}


def test_a_source_address_is_an_ip_address():
    for good in ("10.0.0.1", "::1"):
        assert faults(socket={"source_address": good}) == {}
    for bad in ("eth0", "10.0.0.256", "10.0.0.1:80", "", "::1\0"):
        assert "IP address" in only("socket.source_address", socket={"source_address": bad})


@pytest.mark.parametrize("login", ["function", "a.b", "a:b:c", "a:", ":b", "a b:c", "a:b()"])
def test_a_login_must_name_a_function(login):
    assert "package.module:function" in only("login", login=login)
    assert faults(login="desk.keys:sign") == {}


def test_nul_is_refused_in_whatever_becomes_a_path():
    assert "NUL" in only("tls.ca", tls={"ca": "/a\0b"})
    ((path, message),) = fleet_relations(model.FleetTable(runtime_dir="/a\0"))
    assert path == ("runtime_dir",)
    assert "NUL" in message
    ((path, message),) = simulator_relations(model.SimulatorTable(host="h\0"))
    assert path == ("host",)
    assert "NUL" in message


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("stream.binance.com", True), ("10.0.0.1", True), ("::1", True), ("localhost", True),
        ("stream.binance.com:9443", False), ("[::1]", False), ("wss://h", False), ("h/", False),
        ("Stream.Binance.com", False), ("", False), ("a..b", False),
    ],
)  # fmt: skip
def test_a_budget_is_for_a_host_without_port(host, good):
    assert (list(budget_relations(host)) == []) is good


# Heartbeats ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "length"),
    [
        ("x" * 125, None),
        ("x" * 126, 126),
        ("é" * 63, 126),
        ("${seq}" + "x" * 105, None),
        ("${seq}" + "x" * 106, 126),
        ("${uuid}" + "x" * 89, None),
        ("${uuid}" + "x" * 90, 126),
        ("${ts_ms}${ts_s}" + "x" * 86, 126),
        ("$other{}" + "x" * 117, None),
        ("$other{}" + "x" * 118, 126),
    ],
)
def test_a_ping_frame_is_measured_at_its_longest(payload, length):
    found = faults(**beat(payload=payload))
    assert list(found) == ([] if length is None else ["heartbeat.payload"])
    assert all(f"got {length} " in message for message in found.values())


@pytest.mark.parametrize("field", ["${sq}", "${}", "${seq", "${SEQ}", "${seq }", "${seqs"])
def test_a_field_that_no_ping_fills_is_told_and_not_sent(field):
    for written in (beat, messages):
        found = only("heartbeat.payload", **written(payload=f"${{seq}} {field}"))
        assert found.startswith(f"holds {field}, which is no field; there are ${{seq}}")


@pytest.mark.parametrize("field", ["${}", "${ping", "${a-b}", "${a b}"])
def test_a_field_of_a_reply_that_is_no_path_is_told(field):
    rules = [{"match": "ping", "reply": '{"pong":${ping}}'}, {"match": "x", "reply": field}]
    found = only("server_ping.1.reply", server_ping=rules)
    assert found == f"holds {field}, which is no path; write ${{a}} or ${{a.b}}"


def test_the_body_of_an_application_ping_may_be_longer():
    assert faults(**messages(payload="x" * 500)) == {}


@pytest.mark.parametrize(("key", "value"), [("pong_matcher", "op"), ("pong_id", "id")])
def test_what_finds_pongs_among_messages_is_refused_beside_ping_frames(key, value):
    assert "leave it out" in only(f"heartbeat.{key}", **beat(**{key: value}))


def test_an_id_needs_a_number_to_echo():
    assert "${seq}" in only("heartbeat.pong_id", **messages(payload="ping", pong_id="id"))
    assert faults(**messages(pong_id="id")) == {}


def test_several_misses_of_application_pings_need_an_id():
    assert "pong_id" in only("heartbeat.misses", **messages(misses=2))
    assert faults(**messages(misses=2, pong_id="id")) == {}
    assert faults(**beat(misses=2)) == {}


def test_ping_frames_of_one_payload_cannot_be_told_apart():
    assert "put ${seq} into it" in only("heartbeat.misses", **beat(payload="x", misses=2))
    late = {"interval": 10, "timeout": 20}
    assert "put ${seq} into it" in only("heartbeat.timeout", **beat(payload="x", **late))
    assert faults(**beat(payload="x${seq}", misses=2, **late)) == {}
    assert faults(**beat(misses=2, **late)) == {}


def test_pings_are_no_closer_than_timers_are_fine():
    for interval in (1e-9, "999us"):
        fast = beat(interval=interval, timeout=1e-9)
        assert "at least 0.001 s" in only("heartbeat.interval", **fast)
    assert faults(**beat(interval="1ms", timeout="1ms")) == {}


def test_silence_must_outlast_the_pings():
    for silence in (19, 20):
        message = only("liveness.max_silence", liveness={"max_silence": silence}, **beat())
        assert "pongs are frames" in message
    assert faults(liveness={"max_silence": 21}, **beat()) == {}
    assert faults(liveness={"max_silence": 1}, heartbeat=False) == {}
    late = {"liveness": {"max_silence": 30}} | beat(first=40)
    assert only("liveness.max_silence", **late)
    assert faults(liveness={"data_silence": 1, "first_data_timeout": 1}, **beat()) == {}


def test_an_outbound_limit_leaves_a_place_for_pings():
    assert "2 or more" in only("outbound.messages", outbound={"messages": 1})
    assert faults(outbound={"messages": 2}) == {}
    often = beat(interval=0.25, timeout=0.2)
    assert "5 or more" in only("outbound.messages", outbound={"messages": 4}, **often)
    assert faults(outbound={"messages": 5}, **often) == {}
    assert faults(outbound={"messages": 1}, heartbeat=False) == {}


# Matchers and templates ------------------------------------------------------------------------

BAD = "op == 'a' ||"


@pytest.mark.parametrize(
    ("key", "keys"),
    [
        ("server_ping.0.match", {"server_ping": [{"match": BAD, "reply": "x"}]}),
        ("server_heartbeat.match", {"server_heartbeat": {"match": BAD, "max_gap": 5}}),
        ("ready", {"ready": BAD}),
        ("ack.match", {"ack": {"match": BAD}}),
        ("ack.error", {"ack": {"match": "id", "error": BAD}}),
        ("publish.key", {"publish": {"key": BAD}}),
        ("heartbeat.pong_matcher", messages(pong_matcher=BAD)),
        ("heartbeat.pong_id", messages(pong_id=BAD)),
    ],
)
def test_every_matcher_must_be_an_expression(key, keys):
    assert "position" in only(key, **keys)


def test_a_matcher_on_the_whole_text_is_no_expression():
    text = {"text": BAD}
    assert faults(ready=text, ack={"match": text, "error": text}) == {}
    assert faults(server_heartbeat={"match": text, "max_gap": 5}) == {}


@pytest.mark.parametrize(
    "expression",
    ["(" * 101 + "a" + ")" * 101, "[" * 3000, "!" * 3000 + "a", "|".join("a" * 500),
     "a[" + "9" * 5000 + "]", "`" + "[" * 3000 + "]" * 3000 + "`"],
)  # fmt: skip
def test_an_expression_that_would_exhaust_its_reader_is_refused(expression):
    assert "JMESPath" in only("ready", ready=expression)


@given(st.text("ab.[]{}()!&|*?@`'\"=<>:,0 ", max_size=40))
def test_any_text_is_an_expression_or_a_fault(text):
    assert set(faults(ready=text)) <= {"ready"}


@pytest.mark.parametrize("key", ["subscribe_template", "unsubscribe_template"])
def test_templates_hold_topics(key):
    assert "${topics}" in only(key, **{key: '{"op":"subscribe","id":${seq}}'})
    assert faults(**{key: '{"args":${topics}}'}) == {}
    assert "topics_per_message = 1" in only(key, **{key: '{"args":[${topic}]}'})
    assert faults(**{key: '{"args":[${topic}]}'}, topics_per_message=1) == {}
    assert only(key, **{key: "${topics} ${sq}"}).startswith("holds ${sq}, which is no field")
    assert faults(**{key: '{"args":${topics},"note":"$topics $$"}'}) == {}


def test_topics_need_a_template():
    assert "subscribe_template" in only("topics", topics=["a"])
    assert faults(topics=["a"], subscribe_template="${topics}") == {}


# Bounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        {"limits": {"max_message": "1025MiB"}},
        {"limits": {"max_inflated": (1 << 30) + 1}},
        {"limits": {"max_control_bytes": "1025KiB"}},
        {"restart": {"crash_loop": {"deaths": 1_000_001}}},
        {"publish": {"sndhwm": 10_000_001}},
        {"reconnect": {"refusals": [99]}},
        {"reconnect": {"refusals": [5000]}},
        {"reconnect": {"max_attempts": 2**63}},
        {"topics_per_message": 2**63},
        {"outbound": {"messages": 2**63}},
    ],
)
def test_numbers_that_would_overflow_somewhere_are_no_shape(keys):
    with pytest.raises(ValueError, match=r"less than or equal|greater than or equal"):
        table(**keys)


def test_the_bounds_themselves_are_good():
    assert faults(limits={"max_message": "1GiB", "max_inflated": "1GiB"}) == {}
    assert faults(limits={"max_control_bytes": "1MiB"}, publish={"sndhwm": 10_000_000}) == {}
    assert faults(reconnect={"refusals": [100, 4999]}) == {}
    assert faults(restart={"crash_loop": {"deaths": 1_000_000}}) == {}


@pytest.mark.parametrize("ring", [0, 1023, 1000, 1 << 21, -1024])
def test_a_ring_is_a_power_of_two_within_bounds(ring):
    assert "power of two" in only("publish.stats.ring", publish={"stats": {"ring": ring}})


def test_a_silence_of_a_profile_can_be_switched_off(tmp_path):
    file = tmp_path / "fleet.toml"
    file.write_text(
        'version = 1\n[[connection]]\nname = "a"\nexchange = "okx_v5"\nurl = "ws://h.test/"\n'
        "liveness = { max_silence = 0 }\nheartbeat = { interval = 60 }\n"
    )
    (connection,) = load(file).connections
    assert connection.liveness.max_silence_ns == 0
