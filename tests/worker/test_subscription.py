import dataclasses
import json

from hypothesis import given
from hypothesis import strategies as st

from worker.spec import Match, MatchKind, SubscribeSpec
from worker.subscription import Change, change, opening_messages

SPEC = SubscribeSpec(
    messages=('{"op":"hello"}',),
    topics=("a", "b", "c"),
    template='{"op":"sub","args":${topics},"id":${seq}}',
    cancel_template='{"op":"unsub","args":${topics},"id":${seq}}',
    topics_per_message=2,
)
TOPICS = st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=12)


def test_plain_messages_come_first_and_topics_in_batches_with_numbers():
    assert opening_messages(SPEC) == (
        b'{"op":"hello"}',
        b'{"op":"sub","args":["a","b"],"id":2}',
        b'{"op":"sub","args":["c"],"id":3}',
    )


def test_one_topic_a_message_is_a_json_string():
    spec = SubscribeSpec(topics=('q"x', "ä"), template="[${topic}]", topics_per_message=1)
    assert [json.loads(text) for text in opening_messages(spec)] == [['q"x'], ["ä"]]


def test_a_dollar_that_is_no_field_of_ours_stays():
    spec = SubscribeSpec(topics=("$seq",), template='{"price":"$5","x":"${other}","t":${topics}}')
    assert opening_messages(spec) == (b'{"price":"$5","x":"${other}","t":["$seq"]}',)


def test_topics_go_before_they_come_and_new_messages_last():
    wanted = dataclasses.replace(SPEC, topics=("b", "d"), messages=(*SPEC.messages, "more"))
    assert change(SPEC, wanted, 7) == Change(
        (
            b'{"op":"unsub","args":["a","c"],"id":7}',
            b'{"op":"sub","args":["d"],"id":8}',
            b"more",
        ),
        added=2,
        removed=2,
    )


def test_what_cannot_be_said_in_a_session_needs_another():
    fewer = dataclasses.replace(SPEC, topics=("a",))
    assert change(dataclasses.replace(SPEC, cancel_template=""), fewer, 1) is None
    mute = dataclasses.replace(SPEC, cancel_template="")
    assert change(mute, dataclasses.replace(mute, topics=("a",)), 1) is None
    assert change(SPEC, dataclasses.replace(SPEC, messages=()), 1) is None
    assert change(SPEC, dataclasses.replace(SPEC, template="x"), 1) is None
    ready = Match(kind=MatchKind.TEXT, value="hi")
    assert change(SPEC, dataclasses.replace(SPEC, ready=ready), 1) is None


@given(former=TOPICS, wanted=TOPICS)
def test_any_change_of_topics_leads_from_the_one_to_the_other(former, wanted):
    before = dataclasses.replace(SPEC, topics=tuple(former))
    found = change(before, dataclasses.replace(SPEC, topics=tuple(wanted)), 1)
    subscribed = set(former)
    for text in found.messages:
        said = json.loads(text)
        assert 1 <= len(said["args"]) <= 2
        if said["op"] == "sub":
            assert not subscribed & set(said["args"])
            subscribed |= set(said["args"])
        else:
            assert subscribed >= set(said["args"])
            subscribed -= set(said["args"])
    assert subscribed == set(wanted)
    assert (found.added, found.removed) == (
        len(set(wanted) - set(former)),
        len(set(former) - set(wanted)),
    )
