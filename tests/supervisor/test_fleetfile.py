"""Every fault at once, each at its line; and what a good file becomes."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.fleet_model import duration_ns, size_bytes
from supervisor.fleetfile import FleetFileError, load
from supervisor.toml_positions import line_numbers
from worker.profiles import PROFILES
from worker.spec import SECOND_NS, Decode, Match, MatchKind

MINIMAL = '[[connection]]\nname = "a"\nurl = "ws://h/"\n'


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")

    def read(text, name="majors.toml"):
        path = tmp_path / name
        path.write_text(text)
        return load(path)

    return read


@pytest.fixture
def faults(read):
    def faults(text, **options):
        with pytest.raises(FleetFileError) as caught:
            read(text, **options)
        return [(fault.line, fault.key, fault.message) for fault in caught.value.faults]

    return faults


def only(faults):
    assert len(faults) == 1, faults
    return faults[0]


def test_a_minimal_file_has_the_documented_defaults(read):
    fleet = read(MINIMAL)
    assert fleet.name == "majors"
    assert fleet.runtime_dir == Path("/run/user/1/feedwarden/majors")
    (spec,) = fleet.connections
    assert spec.heartbeat.interval_ns == 30 * SECOND_NS
    assert spec.heartbeat.timeout_ns == 10 * SECOND_NS
    assert spec.heartbeat.first_ns == SECOND_NS
    assert spec.restart.crash_loop.deaths == 5
    assert spec.limits.max_message == 16 << 20
    assert fleet.simulator is None


def test_the_runtime_directory_is_systemds_first(read, monkeypatch):
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/feedwarden")
    assert read(MINIMAL).runtime_dir == Path("/run/feedwarden/majors")
    configured = read('[fleet]\nruntime_dir = "/x"\n' + MINIMAL)
    assert configured.runtime_dir == Path("/x")


def test_precedence_is_default_then_defaults_then_profile_then_connection(read):
    text = """
    [defaults.heartbeat]
    interval = 5
    timeout = 4
    [[connection]]
    name = "plain"
    url = "ws://h/"
    [[connection]]
    name = "profiled"
    url = "ws://h/"
    exchange = "bybit_v5"
    [[connection]]
    name = "own"
    url = "ws://h/"
    exchange = "bybit_v5"
    [connection.heartbeat]
    timeout = 3
    """
    plain, profiled, own = (c.heartbeat for c in read(text).connections)
    assert (plain.interval_ns, plain.timeout_ns) == (5 * SECOND_NS, 4 * SECOND_NS)
    assert (profiled.interval_ns, profiled.timeout_ns) == (20 * SECOND_NS, 10 * SECOND_NS)
    assert (own.interval_ns, own.timeout_ns) == (20 * SECOND_NS, 3 * SECOND_NS)
    assert own.application
    assert own.payload == b'{"op":"ping"}'


@pytest.mark.parametrize(
    ("written", "interval", "timeout"), [("heartbeat = 4", 4, 4), ("heartbeat = 60.0", 60, 10)]
)
def test_a_scalar_heartbeat_is_the_interval_with_a_timeout_that_fits(
    read, written, interval, timeout
):
    beat = read(MINIMAL + written).connections[0].heartbeat
    assert (beat.interval_ns, beat.timeout_ns) == (interval * SECOND_NS, timeout * SECOND_NS)


def test_false_turns_the_heartbeat_off_even_over_a_profile(read):
    text = MINIMAL + "exchange = 'bybit_v5'\nheartbeat = false"
    assert read(text).connections[0].heartbeat is None


def test_matchers_are_told_apart_and_hints_derived(read):
    def matcher(written):
        beat = "heartbeat = { use_ws_ping = false, use_application_ping = true, payload = 'p', "
        return read(MINIMAL + beat + f"pong_matcher = {written} }}").connections[0].heartbeat

    assert matcher("{ text = 'pong' }").pong_matcher == Match(kind=MatchKind.TEXT, value="pong")
    assert matcher("'my.package:is_pong'").pong_matcher == Match(
        kind=MatchKind.CALLABLE, value="my.package:is_pong"
    )
    both = "op == 'pong' || ret_msg == 'pong'"
    assert matcher(f'"{both}"').pong_matcher.hint == "pong"
    assert matcher("\"op == 'a' || op == 'b'\"").pong_matcher.hint == ""
    assert matcher("'ping'").pong_matcher.hint == "ping"


def test_decode_and_server_pings_reach_the_spec(read):
    spec = read(MINIMAL + "exchange = 'htx_spot'").connections[0]
    assert spec.decode is Decode.GZIP
    assert spec.server_ping[0].reply == '{"pong":${ping}}'


def test_all_faults_come_at_once_each_with_line_and_key(faults):
    text = """version = 1
[fleet]
nmae = "x"
[[connection]]
name = "Bad Name"
url = "ws://h/"
[[connection]]
name = "b"
url = "ws://h/"
hearbeat = 3
[connection.restart]
initial_delay = "soon"
crash_loop = { deaths = 0 }
"""
    found = faults(text)
    assert [(line, key) for line, key, _message in found] == [
        (3, "fleet.nmae"),
        (5, "connection[0].name"),
        (10, "connection[1].hearbeat"),
        (12, "connection[1].restart.initial_delay"),
        (13, "connection[1].restart.crash_loop.deaths"),
    ]


def test_a_fault_in_the_defaults_is_told_there_and_once(faults):
    text = '[defaults.hang]\ntimeout = "never"\n' + MINIMAL + MINIMAL.replace('"a"', '"b"')
    line, key, message = only(faults(text))
    assert (line, key) == (2, "defaults.hang.timeout")
    assert '"250ms"' in message


@pytest.mark.parametrize(
    ("beat", "key", "words"),
    [
        ("use_application_ping = true", "use_application_ping", "excludes use_ws_ping"),
        ("use_ws_ping = false", "use_ws_ping", "one kind of ping"),
        ("payload = '" + "x" * 126 + "'", "payload", "at most 125 bytes, got 126"),
        ("interval = nan", "interval", "above zero"),
        ("interval = inf", "interval", "above zero"),
        ("interval = true", "interval", "above zero"),
        ("timeout = 0", "timeout", "above zero"),
        ("timeout = '-1s'", "timeout", "above zero"),
        ("pong_id = 'a['", "pong_id", "no JMESPath expression"),
    ],
)
def test_impossible_heartbeats_are_refused_with_the_key(faults, beat, key, words):
    found = faults(MINIMAL + f"heartbeat = {{ {beat} }}\n")
    assert any(k == f"connection[0].heartbeat.{key}" and words in m for _line, k, m in found), found


def test_an_application_ping_needs_a_payload_a_matcher_and_a_timeout_that_fits(faults):
    beat = "heartbeat = { use_ws_ping = false, use_application_ping = true, timeout = 40 }\n"
    keys = {key.rsplit(".", 1)[1] for _line, key, _message in faults(MINIMAL + beat)}
    assert keys == {"payload", "pong_matcher", "timeout"}


def test_a_matcher_of_bad_syntax_is_refused_with_its_position(faults):
    beat = (
        "heartbeat = { use_ws_ping = false, use_application_ping = true, payload = 'p', "
        "pong_matcher = \"op == 'a' ||\" }\n"
    )
    _line, _key, message = only(faults(MINIMAL + beat))
    assert "position" in message


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://h/", "ws:// or wss://"),
        ("ws://", "no host"),
        ("ws:///path", "no host"),
        ("ws://h:99999/", "is not a URL"),
        ("ws://h/#x", "fragment"),
        ("ws://h/a b", "without spaces"),
    ],
)
def test_urls_that_cannot_be_dialled_are_refused(faults, url, words):
    assert words in only(faults(MINIMAL.replace("ws://h/", url)))[2]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[connection.hang]\nwarn_after = 5\ntimeout = 5\n", "connection[0].hang.timeout"),
        ("[connection.restart]\nmax_delay = 0.01\n", "connection[0].restart.max_delay"),
        ("[connection.reconnect]\nreset_after = 1\n", "connection[0].reconnect.reset_after"),
        ("publish = { stats = { ring = 1000 } }\n", "connection[0].publish.stats.ring"),
        ("publish = { key = 'a[' }\n", "connection[0].publish.key"),
    ],
)
def test_contradictions_are_refused(faults, text, key):
    assert only(faults(MINIMAL + text))[1] == key


def test_a_file_stem_that_is_no_name_asks_for_one(faults):
    assert only(faults(MINIMAL, name="My Fleet.toml"))[1] == "fleet.name"


def test_a_syntax_error_has_its_line(faults):
    assert only(faults(MINIMAL + "x = = 1\n"))[0] == 4


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FleetFileError, match="is not UTF-8"):
        load(path)


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_makes_a_valid_connection(read, name):
    spec = read(MINIMAL + f"exchange = '{name}'").connections[0]
    assert spec.exchange == name
    assert spec.heartbeat is not None or spec.server_ping


@pytest.mark.parametrize(
    ("written", "nanoseconds"),
    [(20, 20 * 10**9), (0.25, 250_000_000), ("250ms", 250_000_000), ("23h", 23 * 3600 * 10**9)],
)
def test_durations(written, nanoseconds):
    assert duration_ns(written) == nanoseconds


@pytest.mark.parametrize("written", ["", "20", "s", "1 fortnight", -1, 0, True, None, [], 1e30])
def test_what_is_no_duration(written):
    with pytest.raises(ValueError, match="a duration above zero"):
        duration_ns(written)


@pytest.mark.parametrize(("written", "size"), [(512, 512), ("8MiB", 8 << 20), ("1.5KiB", 1536)])
def test_sizes(written, size):
    assert size_bytes(written) == size


KEYS = st.text("abc-_", min_size=1, max_size=3)
VALUES = st.one_of(
    st.integers(0, 9).map(str), st.just("'''x\n[no]\ny = 1'''"), st.just("[\n1,\n2]")
)


@given(st.lists(st.tuples(KEYS, st.dictionaries(KEYS, VALUES, max_size=3)), max_size=5))
def test_every_key_that_tomllib_finds_has_its_line(tables):
    text, expected = "", {}
    for index, (name, keys) in enumerate(tables):
        text += f"# comment\n[[t.{name}]]\n"
        nth = sum(other == name for other, _ in tables[:index])
        for key, value in keys.items():
            expected[("t", name, nth, key)] = text.count("\n") + 1
            text += f"{key} = {value}\n"
    tomllib.loads(text)
    found = line_numbers(text)
    assert {path: found.get(path) for path in expected} == expected
