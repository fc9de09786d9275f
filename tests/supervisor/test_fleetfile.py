"""Every fault at once, each at its line; and what a good file becomes."""

import os
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import Fault, FleetFileError
from supervisor.fleet_spec import merge
from supervisor.fleet_units import duration_ns, size_bytes
from supervisor.fleetfile import load
from supervisor.toml_positions import line_numbers
from worker.profiles import PROFILES
from worker.spec import SECOND_NS, Decode, Match, MatchKind, ProcessSpec, SocketSpec

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


def test_wishes_for_process_and_socket_reach_the_spec_merged_with_the_defaults(read):
    first, last = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    (spec,) = read(
        f"[defaults.process]\ncpu = [{last}, {first}, {last}]\nnice = 5\n"
        '[defaults.socket]\nreceive_buffer = "4MiB"\n' + MINIMAL + f"process.zmq_cpu = {first}\n"
        'process.scheduler = "fifo:10"\nsocket = { busy_poll = 50, quickack = true }\n'
    ).connections
    assert spec.process == ProcessSpec(
        cpu=tuple(sorted({first, last})), zmq_cpu=(first,), nice=5, priority=10
    )
    assert spec.socket == SocketSpec(receive_buffer=4 << 20, busy_poll_us=50, quickack=True)
    (plain,) = read(MINIMAL).connections
    assert (plain.process, plain.socket) == (ProcessSpec(), SocketSpec())
    (other,) = read(MINIMAL + 'process.scheduler = "other"\n').connections
    assert other.process.priority == 0


@pytest.mark.parametrize(
    ("written", "key", "words"),
    [
        ("process.cpu = []", "process.cpu", "number of a CPU or a list"),
        ("process.cpu = -1", "process.cpu", "number of a CPU or a list"),
        ("process.cpu = [0, true]", "process.cpu", "number of a CPU or a list"),
        ("process.cpu = 9999", "process.cpu", "number of a CPU or a list"),
        ("process.cpu = 8191", "process.cpu", "may not run on: 8191"),
        ("process.zmq_cpu = [0, 8190, 8191]", "process.zmq_cpu", "may not run on: 8190, 8191"),
        ("process.nice = 20", "process.nice", "less than or equal to 19"),
        ("process.nice = -21", "process.nice", "greater than or equal to -20"),
        ('process.scheduler = "fifo"', "process.scheduler", "match pattern"),
        ('process.scheduler = "fifo:0"', "process.scheduler", "match pattern"),
        ('process.scheduler = "fifo:100"', "process.scheduler", "match pattern"),
        ('process.schedular = "other"', "process.schedular", "unknown key"),
        ("socket.busy_poll = 0", "socket.busy_poll", "greater than or equal to 1"),
        ('socket.receive_buffer = "1GiB"', "socket.receive_buffer", "less than or equal to"),
        ("socket.send_buffer = 0", "socket.send_buffer", "size above zero"),
    ],
)
def test_impossible_wishes_are_refused_with_the_key(faults, written, key, words):
    _line, found, message = only(faults(MINIMAL + written + "\n"))
    assert found == f"connection[0].{key}"
    assert words in message


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


def test_what_is_missing_is_told_at_the_connection_and_not_at_defaults_that_are_not_there(faults):
    text = MINIMAL + "heartbeat = { use_ws_ping = false, use_application_ping = true }\n"
    assert [(line, key) for line, key, _message in faults(text)] == [
        (4, "connection[0].heartbeat.payload"),
        (4, "connection[0].heartbeat.pong_matcher"),
    ]
    found = faults("[defaults]\nstop_timeout = 1\n" + text)
    assert {key for _line, key, _message in found} == {
        "connection[0].heartbeat.payload",
        "connection[0].heartbeat.pong_matcher",
    }


def test_a_text_for_the_heartbeat_that_is_no_duration_is_told_as_its_interval(faults):
    line, key, message = only(faults(MINIMAL + 'heartbeat = "trading"\n'))
    assert (line, key) == (4, "connection[0].heartbeat.interval")
    assert "got 'trading'" in message


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
        ("publish = { sndbytes = '1KiB' }\n", "connection[0].publish.sndbytes"),
        ("publish = { journal = { size = '60KiB' } }\n", "connection[0].publish.journal.size"),
        ("publish = { journal = { size = '5GiB' } }\n", "connection[0].publish.journal.size"),
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


# Merging -----------------------------------------------------------------------------------------


def beats(read, defaults, own, exchange=""):
    """Return the heartbeat that these three lines come to."""
    text = f"[defaults]\n{defaults}\n{MINIMAL}{own}\n"
    return read(text + (f"exchange = '{exchange}'" if exchange else "")).connections[0].heartbeat


def test_a_profile_without_pings_does_not_forget_the_intervals_below_it(read):
    own = "heartbeat = { use_ws_ping = true }"
    beat = beats(read, "heartbeat = { interval = 3, timeout = 2 }", own, "htx_spot")
    assert (beat.interval_ns, beat.timeout_ns) == (3 * SECOND_NS, 2 * SECOND_NS)


def test_false_switches_off_until_a_later_table_or_number_switches_on(read):
    assert beats(read, "heartbeat = { interval = 3 }", "heartbeat = false") is None
    assert beats(read, "heartbeat = { interval = 3 }", "", "htx_spot") is None
    on = beats(read, "heartbeat = false", "heartbeat = { timeout = 3 }")
    assert (on.interval_ns, on.timeout_ns) == (30 * SECOND_NS, 3 * SECOND_NS)
    assert beats(read, "heartbeat = false", "heartbeat = 7").interval_ns == 7 * SECOND_NS


@pytest.mark.parametrize(
    ("defaults", "own", "exchange", "interval", "timeout"),
    [
        # A number lowers an inherited timeout that would exceed it, and never raises one.
        ("heartbeat = { timeout = 8 }", "heartbeat = 5", "", 5, 5),
        ("heartbeat = { timeout = 2 }", "heartbeat = 5", "", 5, 2),
        ("heartbeat = { timeout = '8s' }", "heartbeat = 5", "", 5, 5),
        ("", "heartbeat = 5", "bybit_v5", 5, 5),
        ("", "heartbeat = 15", "bybit_v5", 15, 10),
        # An explicit timeout at a later level wins.
        ("heartbeat = 5", "heartbeat = { timeout = 9 }", "", 5, 9),
        # The lowering goes with the number: a later interval has room for the usual timeout.
        ("heartbeat = 5", "heartbeat = { interval = 60 }", "", 60, 10),
        ("heartbeat = 5", "heartbeat = { first = 1 }", "", 5, 5),
        ("heartbeat = 5", "heartbeat = 60", "", 60, 10),
        # A text with a unit is as good as a number.
        ("", "heartbeat = '5s'", "", 5, 5),
        ("heartbeat = '1m'", "", "", 60, 10),
    ],
)
def test_a_number_sets_the_interval(read, defaults, own, exchange, interval, timeout):
    beat = beats(read, defaults, own, exchange)
    assert (beat.interval_ns, beat.timeout_ns) == (interval * SECOND_NS, timeout * SECOND_NS)


def test_a_number_over_a_profile_keeps_its_way_of_pinging(read):
    beat = beats(read, "", "heartbeat = 5", "bybit_v5")
    assert beat.application
    assert beat.payload == b'{"op":"ping"}'


def test_a_crash_loop_that_was_switched_off_comes_back_as_it_was(read):
    text = "[defaults.restart.crash_loop]\ndeaths = 9\n"
    off = read(text + MINIMAL + "restart = { crash_loop = false }").connections[0]
    assert off.restart.crash_loop is None
    on = read(text + MINIMAL + "restart = { crash_loop = { floor = 1 } }").connections[0]
    assert (on.restart.crash_loop.deaths, on.restart.crash_loop.floor_ns) == (9, SECOND_NS)


def test_matchers_and_secrets_written_as_tables_are_one_value(read):
    text = """
    [defaults]
    headers = { A = { env = "A" }, B = "b" }
    secrets = { key = { file = "/key" } }
    proxy = { env = "P" }
    ack = { match = { text = "below" }, error = { text = "no" }, timeout = 3 }
    [[connection]]
    name = "a"
    url = "ws://h/"
    headers = { A = { file = "/a" } }
    secrets = { key = { credential = "key" } }
    proxy = { credential = "p" }
    ack = { match = "id", error = { text = "never" } }
    """
    spec = read(text).connections[0]
    headers = dict(spec.headers)
    assert (headers["A"].kind, headers["A"].value) == ("file", "/a")
    assert headers["B"] == "b"
    assert [(name, secret.kind) for name, secret in spec.secrets] == [("key", "credential")]
    assert spec.proxy.kind == "credential"
    ack = spec.subscribe.ack
    assert (ack.match.kind, ack.match.value) == (MatchKind.JMESPATH, "id")
    assert (ack.error.value, ack.timeout_ns) == ("never", 3 * SECOND_NS)


LEAVES = st.integers(0, 3) | st.booleans() | st.text("ab", max_size=2)
TABLES = st.recursive(
    st.dictionaries(st.sampled_from("abc"), LEAVES, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), LEAVES | inner, max_size=3),
    max_leaves=6,
)


@given(TABLES, TABLES, TABLES)
def test_merging_goes_key_by_key_and_the_last_word_wins(one, two, three):
    assert merge([one]) == one
    assert merge([one, one]) == one
    assert merge([one, two, three]) == merge([merge([one, two]), three])
    for key, value in three.items():
        if not isinstance(value, dict):
            assert merge([one, two, three])[key] == value


# Every fault at once -----------------------------------------------------------------------------


def test_a_fault_of_shape_does_not_hide_those_of_relation_elsewhere(faults):
    text = """[fleet]
name = "budget"
colour = "red"
[[connection]]
name = "broken"
url = 5
[[connection]]
name = "fleet"
url = "ws://user@h/"
[[connection]]
name = "broken"
url = "ws://h/"
hang = { warn_after = 5, timeout = 5 }
[budget."h:1"]
connects = 0
[simulator]
host = "\\u0000"
"""
    found = [(line, key) for line, key, _message in faults(text)]
    assert found == [
        (3, "fleet.colour"),
        (6, "connection[0].url"),
        (8, "connection[1].name"),
        (9, "connection[1].url"),
        (11, "connection[2].name"),
        (13, "connection[2].hang.timeout"),
        (14, "budget.h:1"),
        (15, "budget.h:1.connects"),
        (17, "simulator.host"),
    ]


def test_a_relation_is_told_where_the_key_was_written(faults):
    beat = "[defaults]\nheartbeat = { pong_id = 'id' }\n"
    line, key, _message = only(faults(beat + MINIMAL + MINIMAL.replace('"a"', '"b"')))
    assert (line, key) == (2, "defaults.heartbeat.pong_id")
    own = "[defaults]\nheartbeat = { interval = 9 }\n" + MINIMAL + "heartbeat = -1\n"
    line, key, _message = only(faults(own))
    assert (line, key) == (6, "connection[0].heartbeat.interval")


def test_a_fault_in_a_list_is_told_where_the_list_was_written(faults):
    rules = "server_ping = [{ match = 'a[', reply = 'x' }]\n"
    inherited = only(faults(f"[defaults]\n{rules}{MINIMAL}"))
    assert inherited[:2] == (2, "defaults.server_ping[0].match")
    good = rules.replace("a[", "a")
    own = only(faults(f"[defaults]\n{good}{MINIMAL}{rules}"))
    assert own[:2] == (6, "connection[0].server_ping[0].match")


@pytest.mark.parametrize(
    ("host", "tables", "connects"),
    [
        ("h", "", 5),
        ("h", '[budget."h"]\nconnects = 9\n', 9),
        ("h:9443", '[budget."h"]\nconnects = 9\n', 9),
        ("H", '[budget."h"]\nconnects = 9\n', 9),
        ("127.0.0.1", "", None),
        ("localhost", "", None),
        ("[::1]", "", None),
        ("127.0.0.1", '[budget."127.0.0.1"]\nconnects = 9\n', 9),
    ],
)
def test_every_host_has_a_budget_but_this_machine(read, host, tables, connects):
    budget = read(MINIMAL.replace("ws://h/", f"ws://{host}/") + tables).connections[0].budget
    assert (budget and budget.connects) == connects


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("heartbeat = true", "must be a table or false or its interval (seconds"),
        ("proxy = 5", "must be text or a table {env = ...}"),
        ("headers = { X = 5 }", "must be text or a table"),
        ("headers = { str = 5 }", "must be text or a table"),
        ("headers = { X = { evn = 'A' } }", "unknown key"),
        ("ready = 5", "must be text or a table {text = ...}, got 5"),
        ("restart = { crash_loop = 5 }", "must be a table or false"),
        ("publish = 5", "must be a table, got 5"),
    ],
)
def test_a_value_of_the_wrong_kind_is_one_fault_that_says_what_is_wanted(faults, written, words):
    line, key, message = only(faults(MINIMAL + written))
    assert words in message
    assert line == 4
    assert "Table" not in key + message


def test_an_unknown_key_in_a_secret_brings_the_known_one(read):
    with pytest.raises(FleetFileError) as caught:
        read(MINIMAL + "headers = { X = { evn = 'A' } }")
    assert caught.value.faults[0].hint == 'did you mean "env"?'


# No traceback ------------------------------------------------------------------------------------

INTEGERS = {"400 digits": "9" * 400, "5000 digits": "9" * 5000, "5000 hex": "0x" + "f" * 5000}
VALUES_OF_ANY_KIND = [
    *INTEGERS.values(), "-" + "9" * 400, "nan", "-inf", "1e400", "true", "[]", "{}", "''",
    '"\\u0000"', "1979-05-27", "07:32:00", f"'{'9' * 5000}s'", f"'{'9' * 400}GiB'",
    "[" * 3000 + "]" * 3000, "[" * 300 + "]" * 300, "{a=" * 3000 + "1" + "}" * 3000,
    "{a=" * 200 + "1" + "}" * 200, f"'{'(' * 3000}'", f"'{'a.' * 3000}a'",
]  # fmt: skip
ANY_KEY = [
    "heartbeat", "heartbeat.interval", "heartbeat.pong_matcher", "headers", "headers.X",
    "secrets.x", "proxy", "ready", "ack", "ack.match", "server_ping", "topics", "login",
    "topics_per_message", "limits.max_message", "publish.sndhwm", "publish.stats.ring",
    "publish.journal", "publish.journal.size", "publish.sndbytes",
    "reconnect.refusals", "restart.stable_after", "restart.crash_loop", "tls.ca", "exchange",
    "socket.source_address", "socket.receive_buffer", "socket.busy_poll", "process", "process.cpu",
    "process.zmq_cpu", "process.nice", "process.scheduler", "liveness.max_silence",
    "outbound.messages", "decode", "colour",
    ".".join("a" * 1200), "restart." + ".".join("a" * 1200),
]  # fmt: skip


def told(reading, *arguments):
    """Return the faults that a reading raises, none if it makes a fleet; nothing else may come."""
    try:
        assert reading(*arguments).connections
    except FleetFileError as error:
        return error.faults
    return ()


@pytest.mark.parametrize("key", ANY_KEY, ids=lambda key: key[:30])
def test_whatever_a_key_holds_the_answer_is_a_fleet_or_faults(read, key):
    for value in VALUES_OF_ANY_KIND:
        for text in (
            MINIMAL + f"{key} = {value}\n",
            f"[defaults]\n{key} = {value}\n{MINIMAL}",
            f"[defaults]\n{key} = {value}\n{MINIMAL}{key} = {value}\n",
        ):
            assert all(len(str(fault)) < 1000 for fault in told(read, text))


@pytest.mark.parametrize(
    "key",
    ["version", "fleet", "fleet.name", "fleet.runtime_dir", "defaults", "connection", "budget",
     "budget.h", "budget.h.per", "simulator", "simulator.rate", "simulator.seed",
     "simulator.host", "simulator.answer_delay"],
)  # fmt: skip
def test_whatever_the_head_of_a_file_holds_the_answer_is_a_fleet_or_faults(read, key):
    for value in VALUES_OF_ANY_KIND:
        for rest in (MINIMAL, ""):
            assert all(map(str, told(read, f"{key} = {value}\n{rest}")))


@given(st.text("[]{}=.,'\"#\\\n\r \tabc019-_+:T\u2028", max_size=40))
def test_any_text_after_a_good_connection_is_a_fleet_or_faults(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes((MINIMAL + text).encode())
    lines = (MINIMAL + text).count("\n") + 1
    assert all(0 <= fault.line <= lines for fault in told(load, path))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_fleet_or_faults(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "bytes.toml"
    path.write_bytes(raw)
    with pytest.raises(FleetFileError):
        load(path)


def test_an_integer_of_too_many_digits_has_its_line(faults):
    line, key, message = only(faults(MINIMAL + "topics_per_message = " + "9" * 5000))
    assert (line, key) == (4, "")
    assert "4300 digits" in message


def test_the_home_of_nobody_is_a_fault_with_its_line(faults):
    text = f'[fleet]\nruntime_dir = "~nosuchuser/x"\n{MINIMAL}'
    assert only(faults(text))[:2] == (2, "fleet.runtime_dir")


def test_a_file_named_like_the_budgets_needs_another_name(faults):
    assert only(faults(MINIMAL, name="budget.toml"))[1] == "fleet.name"


@pytest.mark.parametrize("name", ["missing.toml", "", "nul\0.toml"])
def test_an_unreadable_file_has_no_line(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(FleetFileError) as caught:
        load(path)
    (fault,) = caught.value.faults
    assert fault.line == 0
    assert str(fault) == f"{path}: {fault.message}"


def test_a_fault_with_a_line_tells_it():
    assert str(Fault("f", 3, "a.b", "is bad", "mend")) == "f:3: a.b: is bad (mend)"


def test_what_is_no_utf_8_has_its_line(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(b"# one\n# two\n\xff\n")
    with pytest.raises(FleetFileError) as caught:
        load(path)
    assert caught.value.faults[0].line == 3


def test_a_file_without_end_is_refused():
    with pytest.raises(FleetFileError, match="more than 16 MiB"):
        load(Path("/dev/zero"))


# Lines -------------------------------------------------------------------------------------------


def test_a_long_array_costs_time_in_proportion():
    text = MINIMAL + "topics = [\n" + "'x',\n" * 30_000 + "]\nlogin = 'a:b'\n"
    began = time.perf_counter()
    assert line_numbers(text)[("connection", 0, "login")] == 30_006
    assert time.perf_counter() - began < 5  # 0.1 s; by trying line after line it was minutes


def test_lines_end_where_toml_says(faults):
    separators = '# \u2028 \x85 \u2029\na = \'\u2028\'\r\nb = """\n\n"""\n'
    found = faults(separators + MINIMAL + "colour = 1\n")
    assert [(line, key) for line, key, _message in found] == [
        (2, "a"), (3, "b"), (9, "connection[0].colour")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value",
    ['"""a"""', '"""a\n"b""c"""', '"""a\n\\""""', '"""\n"""""', "'''a\n'b''c'''''", '"#["', "'[{'",
     "[ # ]\n1, '''\n]''',\n]", '{ a = "}", b = [\n1] }', '"\\"["', '"""\\\n  x"""', "''", '""'],
)  # fmt: skip
def test_what_can_hide_a_line_end_does_not_move_the_lines_after_it(value):
    text = f"a = {value} # [ ''' \n# x = [\nlast = 1\n"
    tomllib.loads(text)
    assert line_numbers(text)[("last",)] == text.count("\n")


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
