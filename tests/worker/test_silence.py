import pytest

from worker.announcement import Cause
from worker.heartbeat_facts import Looked
from worker.silence import Heard, Silence, TopicSilence, Verdict
from worker.spec import LivenessSpec, Match, MatchKind, ServerHeartbeat

UP = 1000
BEAT = Match(kind=MatchKind.TEXT, value="beat")


def looked(silence, at, heard, unread=0):
    """Return the judgement at ``at`` after the look into the socket that it asks for."""
    assert silence.judge(at, heard).look
    assert silence.deadline_ns is None
    silence.looked(Looked(unread))
    assert silence.deadline_ns == 0, "judged at once"
    return silence.judge(at, heard)


def test_with_nothing_configured_nothing_is_due_and_nothing_dies():
    silence = Silence(LivenessSpec(), None, UP)
    assert silence.deadline_ns is None
    assert silence.judge(10**15, Heard()) == Verdict(age_ns=10**15 - UP)


@pytest.mark.parametrize(
    ("liveness", "heartbeat", "cause"),
    [
        (LivenessSpec(max_silence_ns=50), None, Cause.SILENCE),
        (LivenessSpec(first_data_timeout_ns=50), None, Cause.NO_FIRST_DATA),
        (LivenessSpec(), ServerHeartbeat(match=BEAT, max_gap_ns=50), Cause.HEARTBEAT_GAP),
    ],
)
def test_each_clock_runs_from_up_and_kills_at_its_deadline_by_its_own_cause(
    liveness, heartbeat, cause
):
    silence = Silence(liveness, heartbeat, UP)
    assert silence.deadline_ns == UP + 50
    assert silence.judge(UP + 49, Heard()).dead is None
    assert looked(silence, UP + 50, Heard()) == Verdict(dead=cause, age_ns=50, looked=Looked())


def test_each_clock_hears_its_own_kind_only():
    liveness = LivenessSpec(max_silence_ns=50, first_data_timeout_ns=60)
    silence = Silence(liveness, ServerHeartbeat(match=BEAT, max_gap_ns=70), UP)
    pong = Heard(frame_ns=UP + 40)
    assert looked(silence, UP + 60, pong).dead is Cause.NO_FIRST_DATA
    data = Heard(frame_ns=UP + 40, data_ns=UP + 40)
    assert silence.judge(UP + 60, data).dead is None
    assert silence.deadline_ns == UP + 70
    assert looked(silence, UP + 70, data).dead is Cause.HEARTBEAT_GAP


def test_data_counts_for_a_heartbeat_that_comes_only_when_idle():
    idle = ServerHeartbeat(match=BEAT, max_gap_ns=50, idle_only=True)
    silence = Silence(LivenessSpec(), idle, UP)
    assert silence.judge(UP + 60, Heard(data_ns=UP + 40)).dead is None
    assert silence.deadline_ns == UP + 90


def test_what_was_heard_before_this_session_counts_from_its_start():
    silence = Silence(LivenessSpec(max_silence_ns=50, first_data_timeout_ns=50), None, UP)
    assert silence.judge(UP + 49, Heard(frame_ns=1, data_ns=1)).dead is None
    assert looked(silence, UP + 50, Heard(frame_ns=1, data_ns=UP - 1)).dead is Cause.SILENCE


def test_silence_of_data_is_stale_once_and_due_no_more_until_data_comes():
    silence = Silence(LivenessSpec(data_silence_ns=50), None, UP)
    assert looked(silence, UP + 50, Heard()) == Verdict(stale=True, age_ns=50)
    assert silence.deadline_ns is None
    assert silence.judge(UP + 60, Heard(data_ns=UP + 55)) == Verdict(age_ns=5)
    assert silence.deadline_ns == UP + 105


def test_what_waited_in_the_socket_ends_the_silence_and_what_could_not_be_read_makes_us_busy():
    silence = Silence(LivenessSpec(max_silence_ns=50), None, UP)
    assert silence.judge(UP + 50, Heard()).look
    silence.looked(Looked())
    assert silence.judge(UP + 51, Heard(frame_ns=UP + 51)) == Verdict(age_ns=51)
    late = looked(silence, UP + 101, Heard(frame_ns=UP + 51), unread=7)
    assert late == Verdict(dead=Cause.BUSY, age_ns=50, looked=Looked(7))


def test_a_loop_that_stood_for_half_of_the_silence_makes_us_busy():
    silence = Silence(LivenessSpec(max_silence_ns=10**9), None, UP)
    assert silence.judge(UP + 10**9, Heard()).look
    stood = Looked(lag_ns=5 * 10**8)
    silence.looked(stood)
    verdict = silence.judge(UP + 10**9, Heard())
    assert verdict == Verdict(dead=Cause.BUSY, age_ns=10**9, looked=stood)


def test_data_that_comes_during_a_look_ends_the_staleness_and_not_the_look():
    silence = Silence(LivenessSpec(data_silence_ns=50, max_silence_ns=500), None, UP)
    assert looked(silence, UP + 50, Heard()).stale
    assert silence.judge(UP + 500, Heard()).look
    silence.data_seen(UP + 501)
    assert not silence.stale
    silence.looked(Looked())
    assert silence.judge(UP + 502, Heard(frame_ns=UP + 501, data_ns=UP + 501)) == Verdict(age_ns=1)


def test_each_topic_is_told_once_when_it_falls_silent_and_once_when_it_speaks():
    topics = TopicSilence(50)
    assert topics.scan(100, {"a": 90, "b": 40}, 10) == [("b", True, 60)]
    assert topics.scan(110, {"a": 90, "b": 40}, 10) == []
    assert topics.scan(140, {"a": 90, "b": 120}, 10) == [("a", True, 50), ("b", False, 20)]


def test_changes_beyond_the_limit_are_told_by_the_next_scans_each_once():
    topics, last = TopicSilence(50), {str(number): 0 for number in range(25)}
    scans = [topics.scan(100 + number, last, 10) for number in range(4)]
    assert [len(changes) for changes in scans] == [10, 10, 5, 0]
    assert {key for changes in scans for key, stale, _age in changes if stale} == set(last)
