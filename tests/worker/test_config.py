import pytest

from worker import HeartbeatConfig
from worker.config import BackoffConfig, heartbeat_of
from worker.spec import Match, MatchKind


def application(**keys):
    given = {"use_ws_ping": False, "use_application_ping": True, "payload": b"ping"}
    return HeartbeatConfig(**given | {"pong_matcher": {"text": "pong"}} | keys)


def test_seconds_become_nanoseconds_and_an_empty_payload_none():
    spec = HeartbeatConfig(interval=0.25, timeout=1e-9, first=2).spec()
    assert (spec.interval_ns, spec.timeout_ns, spec.first_ns) == (250_000_000, 1, 2_000_000_000)
    assert spec.payload is None
    assert HeartbeatConfig(payload=b"x").spec().payload == b"x"


@pytest.mark.parametrize(("interval", "first_ns"), [(30, 10**9), (1, 10**9), (0.2, 2 * 10**8)])
def test_the_first_ping_leaves_after_a_second_or_an_interval_that_is_shorter(interval, first_ns):
    assert HeartbeatConfig(interval=interval, timeout=0.1).spec().first_ns == first_ns


@pytest.mark.parametrize(
    ("matcher", "match"),
    [
        ({"text": "pong"}, Match(kind=MatchKind.TEXT, value="pong")),
        ("op == 'pong'", Match(kind=MatchKind.JMESPATH, value="op == 'pong'")),
        (str.isalpha, Match(kind=MatchKind.CALLABLE, value="given")),
    ],
)
def test_each_kind_of_matcher_is_what_the_dialect_takes(matcher, match):
    assert application(pong_matcher=matcher).spec().pong_matcher == match


def test_answers_that_can_be_told_apart_may_take_longer_than_the_interval():
    numbered = application(payload=b"${seq}", pong_id="id", interval=1, timeout=5, misses=3)
    assert (numbered.spec().misses, numbered.spec().pong_id) == (3, "id")
    assert HeartbeatConfig(interval=1, timeout=5, misses=3).spec().misses == 3
    assert HeartbeatConfig(interval=1, timeout=5, payload=b"a${seq}").spec().timeout_ns == 5 * 10**9


def test_what_a_user_may_say_for_a_heartbeat():
    config = HeartbeatConfig(interval=3, timeout=2)
    assert heartbeat_of(config) is config
    assert heartbeat_of(None) is None
    assert heartbeat_of("trading") == HeartbeatConfig.preset("trading")
    assert (heartbeat_of(15).interval, heartbeat_of(15).timeout) == (15, 10)
    assert (heartbeat_of(0.5).interval, heartbeat_of(0.5).timeout) == (0.5, 0.5)


def test_a_backoff_is_what_the_session_takes():
    spec = BackoffConfig(initial=0.5, maximum=4, factor=3, stable_after=0, max_attempts=7).spec(
        enabled=True, connect_timeout=2.5, close_timeout=0.25
    )
    assert (spec.initial_delay_ns, spec.max_delay_ns, spec.factor) == (5 * 10**8, 4 * 10**9, 3.0)
    assert (spec.stable_after_ns, spec.max_attempts, spec.enabled) == (0, 7, True)
    assert (spec.connect_timeout_ns, spec.close_timeout_ns) == (2_500_000_000, 250_000_000)
