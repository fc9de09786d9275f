import json

from worker.announcement import NOT_RELAYED, Announcement, EventKind, Origin, event_topic, render

ORIGIN = Origin(fleet="majors", connection="btc", incarnation=3, pid=42)
FLEET = Origin(fleet="majors", connection=None, incarnation=0, pid=42)


def test_an_event_is_the_json_of_the_contract():
    announcement = Announcement(
        kind=EventKind.DOWN, cause="reset", detail={"code": 1006}, delay_s=0.5
    )
    event = json.loads(
        render(announcement, ORIGIN, seq=9, wall_ns=1_700_000_000_000_001_999, monotonic_ns=123)
    )
    assert event == {
        "seq": 9,
        "time": "2023-11-14T22:13:20.000001Z",
        "monotonic_ns": 123,
        "fleet": "majors",
        "connection": "btc",
        "incarnation": 3,
        "pid": 42,
        "kind": "down",
        "cause": "reset",
        "detail": {"code": 1006},
        "delay_s": 0.5,
    }


def test_topics_name_the_connection_else_the_fleet():
    assert event_topic(ORIGIN, EventKind.LATE_PONG) == "event.btc.late_pong"
    assert event_topic(FLEET, EventKind.SUPERVISOR_UP) == "event.fleet.supervisor_up"


def test_only_pings_and_pongs_stay_with_the_worker():
    assert {kind.label for kind in NOT_RELAYED} == {"ping", "pong"}


def test_numbers_of_kinds_are_for_ever():
    """They stand in shared memory that an older program may have written."""
    labels = (
        "spawn ready up down ping pong late_pong timeout stale fresh slow gap_possible hung kill "
        "exit restart backoff crash_loop failed stop rotate adopted orphaned host_stall config "
        "supervisor_up supervisor_down storm memory leg_up leg_down"
    )
    assert [(kind.value, kind.label) for kind in EventKind] == list(enumerate(labels.split(), 1))
