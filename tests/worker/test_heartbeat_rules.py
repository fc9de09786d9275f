from dataclasses import replace

import pytest

from worker.heartbeat_rules import PingSettings, contradictions

FRAMES = PingSettings(
    second=1,
    interval=20,
    timeout=10,
    payload=b"",
    use_ws_ping=True,
    use_application_ping=False,
    has_matcher=False,
    pong_id=None,
    misses=1,
)
MESSAGES = replace(
    FRAMES, use_ws_ping=False, use_application_ping=True, has_matcher=True, payload=b"ping"
)
NUMBERED = replace(MESSAGES, payload=b"${seq}", pong_id="id")
LATE = {"timeout": 30}


@pytest.mark.parametrize(
    "settings",
    [
        FRAMES,
        MESSAGES,
        NUMBERED,
        replace(FRAMES, payload=b"\xff"),
        replace(FRAMES, **LATE, misses=3),
        replace(FRAMES, **LATE, misses=3, payload=b"${seq}"),
        replace(NUMBERED, **LATE, misses=3),
        replace(FRAMES, interval=0.001, timeout=1e-9),
        replace(FRAMES, second=10**9, interval=10**6, timeout=1),
        replace(FRAMES, use_ws_ping=False),  # no pings of ours at all
    ],
)
def test_what_can_be_is_no_contradiction(settings):
    assert list(contradictions(settings)) == []


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (replace(MESSAGES, use_ws_ping=True), ["use_application_ping"]),
        (replace(MESSAGES, payload=b"", has_matcher=False), ["payload", "pong_matcher"]),
        (replace(MESSAGES, payload=b"\xff"), ["payload"]),  # the exchange would close with 1007
        (replace(MESSAGES, **LATE, misses=2), ["timeout", "misses"]),
        (replace(NUMBERED, payload=b"ping"), ["pong_id"]),
        (replace(FRAMES, payload=b"x" * 126), ["payload"]),
        (replace(FRAMES, has_matcher=True, pong_id="id"), ["pong_matcher", "pong_id"]),
        (replace(FRAMES, **LATE, misses=2, payload=b"same"), ["timeout", "misses"]),
        (replace(FRAMES, interval=1e-9, timeout=1e-9), ["interval"]),
        (replace(FRAMES, second=10**9, interval=10**6 - 1, timeout=1), ["interval"]),
    ],
)
def test_each_contradiction_is_told_by_the_name_of_its_setting(settings, names):
    found = list(contradictions(settings))
    assert [name for name, _why in found] == names
    assert all(why for _name, why in found)
