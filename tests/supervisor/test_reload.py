"""What a changed file asks of a running fleet."""

from dataclasses import fields, replace

import pytest
from fleet_reference import cost_of_key, rows
from hypothesis import given
from hypothesis import strategies as st

from supervisor.fleetfile import load
from supervisor.reload import KEYS, Doing, Plan, Step, key_of, needs_new_run, plan
from worker.respec import COSTS, Change, changed_keys, cost
from worker.spec import (
    AckSpec,
    ConnectionSpec,
    HangSpec,
    HeartbeatSpec,
    Match,
    MatchKind,
    PublishSpec,
    SubscribeSpec,
)

A = ConnectionSpec(name="a", url="ws://h/", subscribe=SubscribeSpec(messages=("x",)))
B = ConnectionSpec(name="b", url="ws://h/")


def by_name(*specs):
    return {spec.name: spec for spec in specs}


def test_an_unchanged_file_asks_for_nothing():
    found = plan(by_name(A, B), by_name(B, A))
    assert found == Plan(())
    assert found.lines() == ["nothing has changed"]


def test_each_connection_gets_the_dearest_step_of_its_changes():
    live = replace(A, subscribe=SubscribeSpec(messages=("x", "y")), stop_timeout_ns=1)
    again = replace(B, url="ws://g/", hang=HangSpec(warn_after_ns=5))
    former = by_name(A, B, replace(A, name="c"), replace(A, name="d"))
    wanted = by_name(
        live, again, replace(A, name="c", url="ws://g/", engine="picows"), replace(A, name="e")
    )
    found = plan(former, wanted)
    assert found.steps == (
        Step("a", Doing.LIVE, ("stop_timeout", "subscribe"), live),
        Step("b", Doing.RECONNECT, ("hang.warn_after", "url"), again),
        Step("c", Doing.RESTART, ("engine", "url"), wanted["c"]),
        Step("d", Doing.STOP, (), None),
        Step("e", Doing.START, (), wanted["e"]),
    )
    assert found.lines() == [
        "a: stop_timeout, subscribe (live)",
        "b: hang.warn_after, url (new session)",
        "c: engine, url (new process)",
        "d: gone, is stopped",
        "e: new, is started",
    ]
    assert found.summary() == {
        "start": ["e"], "stop": ["d"], "live": ["a"], "reconnect": ["b"], "restart": ["c"],
    }  # fmt: skip


SPECS = st.builds(
    ConnectionSpec,
    name=st.just("x"),
    url=st.sampled_from(["ws://h/", "ws://g/"]),
    subscribe=st.builds(
        SubscribeSpec,
        messages=st.sampled_from([(), ("x",)]),
        ack=st.sampled_from([None, AckSpec(match=Match(kind=MatchKind.TEXT, value="ok"))]),
    ),
    engine=st.sampled_from(["auto", "picows"]),
    heartbeat=st.sampled_from([None, HeartbeatSpec(), HeartbeatSpec(interval_ns=5)]),
    hang=st.sampled_from([HangSpec(), HangSpec(timeout_ns=9)]),
    publish=st.sampled_from([PublishSpec(), PublishSpec(journal=0)]),
    stop_timeout_ns=st.integers(1, 2),
)
FLEETS = st.dictionaries(st.sampled_from("abcd"), SPECS).map(
    lambda found: {name: replace(spec, name=name) for name, spec in found.items()}
)


@given(FLEETS, FLEETS)
def test_a_plan_is_complete_and_touches_nothing_else(former, wanted):
    found = plan(former, wanted)
    after = dict(former)
    for step in found.steps:
        if step.spec is None:
            assert step.doing is Doing.STOP
            del after[step.name]
        else:
            assert (step.doing is Doing.START) == (step.name not in after)
            after[step.name] = step.spec
    assert after == wanted
    assert {step.name for step in found.steps} == {
        name for name in former.keys() | wanted.keys() if former.get(name) != wanted.get(name)
    }
    assert plan(after, wanted) == Plan(())


@given(SPECS, SPECS)
def test_what_a_change_costs_is_the_same_both_ways_and_nothing_only_for_equals(one, other):
    assert cost(one, other) is cost(other, one)
    assert (cost(one, other) is Change.NONE) == (one == other)


def test_every_field_has_its_cost():
    assert {name for name in COSTS if "." not in name} == {
        field.name for field in fields(ConnectionSpec) if field.name != "name"
    }


def test_what_concerns_the_fleet_needs_a_new_run():
    former = {"name": "f", "runtime_dir": "/a", "simulator": None}
    assert needs_new_run(former, dict(former)) == []
    wanted = {"name": "g", "runtime_dir": "/a", "simulator": object()}
    assert needs_new_run(former, wanted) == [
        'fleet.name is "g" now, it was "f"',
        "[simulator] has changed",
    ]


# One other value for every key of a connection; what it costs is what the reference says.
CHANGES = {
    "headers": '{ "X-A" = "b" }',
    "secrets": '{ k = { env = "K" } }',
    "login": '"a.b:c"',
    "proxy": '"http://p:1"',
    "socket.source_address": '"127.0.0.1"',
    "socket.receive_buffer": "4096",
    "socket.send_buffer": "4096",
    "socket.busy_poll": "5",
    "socket.quickack": "true",
    "process.cpu": "0",
    "process.zmq_cpu": "0",
    "process.nice": "3",
    "process.scheduler": '"other"',
    "ready": '{ text = "hello" }',
    "ack": '{ match = "ok" }',
    "outbound": "{ messages = 50 }",
    "subscribe_template": "'${topics}'",
    "unsubscribe_template": "'no${topics}'",
    "topics_per_message": "7",
    "subprotocols": '["a"]',
    "engine": '"websockets"',
    "compression": "true",
    "decode": '"gzip"',
    "server_ping": '[{ match = "ping", reply = "pong" }]',
    "server_heartbeat": '{ match = "beat", max_gap = 9 }',
    "liveness.max_silence": "99",
    "liveness.data_silence": "99",
    "liveness.first_data_timeout": "99",
    "tls.ca": '"/etc/ca.pem"',
    "heartbeat.interval": "31",
    "heartbeat.timeout": "9",
    "heartbeat.first": "2",
    "heartbeat.payload": "'p${seq}'",
    "heartbeat.misses": "2",
    "reconnect.enabled": "false",
    "reconnect.max_attempts": "3",
    "restart.max_delay": "31",
    "restart.crash_loop": "false",
    "hang.warn_after": "2",
    "hang.timeout": "6",
    "publish.control": "true",
    "publish.key": '"s"',
    "publish.sndhwm": "9",
    "publish.sndbytes": '"32MiB"',
    "publish.journal.size": '"1MiB"',
    "publish.stats.ring": "1024",
    "limits.max_message": '"1MiB"',
    "stop_timeout": "6",
    "start_timeout": "21",
    "ready_timeout": "31",
    "url": '"ws://other.test/"',
    "exchange": '"binance_spot"',
    "subscribe": '["x"]',
    "topics": '["x"]',
}
NEEDED = {
    "topics": {"subscribe_template": "'${topics}'"},
    "unsubscribe_template": {"subscribe_template": "'${topics}'"},
    "process.scheduler": {},
}


def spec_of(folder, keys):
    url = keys.get("url", '"ws://h.test/"')
    lines = [f"{key} = {value}" for key, value in keys.items() if key != "url"]
    file = folder / "f.toml"
    file.write_text(
        "\n".join(["version = 1", "[[connection]]", 'name = "a"', f"url = {url}", *lines])
    )
    (connection,) = load(file).connections
    return connection


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_key_costs_what_the_reference_says(key, tmp_path):
    common = NEEDED.get(key, {})
    former = spec_of(tmp_path, common)
    changed = changed_keys(former, spec_of(tmp_path, common | {key: CHANGES[key]}))
    if key == "exchange":  # it brings keys of its own
        assert changed["exchange"] is Change.LIVE
        return
    assert key in {known for field in changed for known in (key_of(field), field)}
    assert max(changed.values()).name.lower() == cost_of_key(key)


def test_the_reference_says_for_every_key_what_a_change_of_it_costs():
    said = {}
    for row in rows():
        if row.startswith("| `"):
            key, _default, costs, *_meaning = row.removeprefix("| ").split(" | ")
            said[key.strip("`")] = costs
    assert all(said.values()), said
    assert {key_of(field) for field in KEYS} <= said.keys()
