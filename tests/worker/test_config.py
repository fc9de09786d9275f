import pytest

from worker import HeartbeatConfig
from worker.config import BackoffConfig, heartbeat_of
from worker.spec import ConnectionSpec, Decode, LivenessSpec, Match, MatchKind, ServerPing

PLAIN = ConnectionSpec(name="x", url="ws://h/", heartbeat=None)


def pings(config):
    """Return our pings as the machines take them."""
    return config.onto(PLAIN).heartbeat


def application(**keys):
    given = {"use_ws_ping": False, "use_application_ping": True, "payload": b"ping"}
    return HeartbeatConfig(**given | {"pong_matcher": {"text": "pong"}} | keys)


def test_seconds_become_nanoseconds_and_an_empty_payload_none():
    spec = pings(HeartbeatConfig(interval=0.25, timeout=1e-9, first=2))
    assert (spec.interval_ns, spec.timeout_ns, spec.first_ns) == (250_000_000, 1, 2_000_000_000)
    assert spec.payload is None
    assert pings(HeartbeatConfig(payload=b"x")).payload == b"x"


@pytest.mark.parametrize(("interval", "first_ns"), [(30, 10**9), (1, 10**9), (0.2, 2 * 10**8)])
def test_the_first_ping_leaves_after_a_second_or_an_interval_that_is_shorter(interval, first_ns):
    assert pings(HeartbeatConfig(interval=interval, timeout=0.1)).first_ns == first_ns


@pytest.mark.parametrize(
    ("matcher", "match"),
    [
        ({"text": "pong"}, Match(kind=MatchKind.TEXT, value="pong")),
        ("op == 'pong'", Match(kind=MatchKind.JMESPATH, value="op == 'pong'", hint="pong")),
        (str.isalpha, Match(kind=MatchKind.CALLABLE, value="given")),
    ],
)
def test_each_kind_of_matcher_is_what_the_dialect_takes(matcher, match):
    assert pings(application(pong_matcher=matcher)).pong_matcher == match


@pytest.mark.parametrize("wanted", [1e-9, 0.00099])
def test_pings_closer_than_timers_are_fine_are_refused(wanted):
    with pytest.raises(ValueError, match=r"interval must be at least 0\.001 s"):
        HeartbeatConfig(interval=wanted, timeout=wanted)
    with pytest.raises(ValueError, match=r"interval must be at least 0\.001 s"):
        heartbeat_of(wanted)
    assert HeartbeatConfig(interval=0.001, timeout=0.001).interval == 0.001


def test_answers_that_can_be_told_apart_may_take_longer_than_the_interval():
    late = {"interval": 1, "timeout": 5, "misses": 3}
    numbered = pings(application(payload=b"${seq}", pong_id="id", **late))
    assert (numbered.misses, numbered.pong_id) == (3, "id")
    assert pings(HeartbeatConfig(**late)).misses == 3
    assert pings(HeartbeatConfig(payload=b"a${seq}", **late)).timeout_ns == 5 * 10**9


def test_what_the_exchange_does_of_its_own_is_what_the_machines_take():
    spec = HeartbeatConfig(
        use_ws_ping=False,
        decode="gzip",
        server_ping=[{"match": "ping", "reply": "${ping}"}],
        server_heartbeat={"match": {"text": "hb"}, "max_gap": 0.5, "idle_only": True},
        max_silence=3,
        data_silence=2,
    ).onto(PLAIN)
    assert spec.heartbeat is None
    assert spec.decode is Decode.GZIP
    match = Match(kind=MatchKind.JMESPATH, value="ping", hint="ping")
    assert spec.server_ping == (ServerPing(match=match, reply="${ping}"),)
    assert (spec.server_heartbeat.max_gap_ns, spec.server_heartbeat.idle_only) == (5 * 10**8, True)
    assert spec.liveness == LivenessSpec(max_silence_ns=3 * 10**9, data_silence_ns=2 * 10**9)


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


def test_silence_that_would_kill_a_session_in_good_health_is_refused():
    with pytest.raises(
        ValueError, match="max_silence must be above the heartbeat's interval and first"
    ):
        HeartbeatConfig(max_silence=30)
    with pytest.raises(ValueError, match="interval and first"):
        HeartbeatConfig(max_silence=40, first=40)
    assert HeartbeatConfig(max_silence=31).onto(PLAIN).liveness.max_silence_ns == 31 * 10**9
    assert HeartbeatConfig(max_silence=1, use_ws_ping=False).onto(PLAIN).heartbeat is None


@pytest.mark.parametrize("field", ["${sq}", "${seq", "${}"])
def test_a_field_that_no_ping_fills_is_refused(field):
    with pytest.raises(ValueError, match="which is no field; there are"):
        application(payload=b"${seq} " + field.encode())
    with pytest.raises(ValueError, match="which is no field; there are"):
        HeartbeatConfig(payload=field.encode())


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ([{"match": "ping", "reply": "${ping"}], "reply holds .*which is no path"),
        ([{"match": "ping"}], "must be a mapping with match and reply, got"),
        ({"match": "ping", "reply": "x"}, "server_ping must be a list of mappings"),
    ],
)
def test_a_ping_of_the_exchange_that_cannot_be_answered_is_refused(rules, text):
    with pytest.raises(ValueError, match=text):
        HeartbeatConfig(server_ping=rules)


def test_a_matcher_beside_ping_frames_is_told_both_ways_out():
    with pytest.raises(ValueError, match="leave it out, or switch use_ws_ping off"):
        HeartbeatConfig(pong_matcher={"text": "pong"})


def test_a_heartbeat_of_the_exchange_that_is_idle_only_or_not_but_nothing_else():
    with pytest.raises(ValueError, match="server_heartbeat idle_only must be True or False"):
        HeartbeatConfig(server_heartbeat={"match": "beat", "max_gap": 5, "idle_only": "no"})
