from hypothesis import given
from hypothesis import strategies as st

from worker.outbox import Outbox, places_for_pings
from worker.spec import OutboundLimit

TEXTS = tuple(b"%d" % number for number in range(10))


def test_without_a_limit_all_leave_at_once_in_order():
    outbox = Outbox(None)
    assert outbox.deadline_ns is None
    outbox.add(*TEXTS)
    assert (outbox.deadline_ns, len(outbox)) == (0, 10)
    assert outbox.take(5) == TEXTS
    assert (outbox.deadline_ns, len(outbox)) == (None, 0)


def test_what_waits_leaves_a_place_for_a_ping():
    outbox = Outbox(OutboundLimit(messages=5, per_ns=100))
    outbox.add(*TEXTS)
    assert outbox.take(1000) == TEXTS[:4]
    assert outbox.deadline_ns == 1100
    assert outbox.take(1099) == ()
    assert outbox.take(1100) == TEXTS[4:8]


def test_a_limit_of_one_lets_one_pass():
    outbox = Outbox(OutboundLimit(messages=1, per_ns=100))
    outbox.add(*TEXTS[:2])
    assert outbox.take(0) == TEXTS[:1]
    assert outbox.deadline_ns == 100


def test_every_ping_of_the_limits_time_has_its_place():
    assert places_for_pings(100, 0) == 1, "for a pong"
    assert [places_for_pings(100, interval) for interval in (2000, 100, 99, 50, 30)] == [
        1,
        1,
        2,
        2,
        4,
    ]
    outbox = Outbox(OutboundLimit(messages=5, per_ns=100), places=3)
    outbox.add(*TEXTS)
    assert outbox.take(0) == TEXTS[:2]


def test_pongs_are_counted_and_never_wait():
    outbox = Outbox(OutboundLimit(messages=3, per_ns=100))
    outbox.note(10)
    outbox.note(20)
    outbox.add(b"x")
    assert outbox.take(30) == ()
    assert outbox.deadline_ns == 110


def test_what_was_meant_for_a_session_is_forgotten_and_what_was_sent_is_not():
    outbox = Outbox(OutboundLimit(messages=2, per_ns=100))
    outbox.add(*TEXTS[:3])
    assert outbox.take(0) == TEXTS[:1]
    outbox.clear()
    outbox.add(b"next session")
    assert outbox.take(50) == ()
    assert outbox.take(100) == (b"next session",)


@given(
    messages=st.integers(1, 6),
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), max_size=40),
)
def test_no_window_holds_more_than_allowed_and_order_is_kept(messages, steps):
    outbox, now_ns, said, left = Outbox(OutboundLimit(messages=messages, per_ns=100)), 0, 0, []
    for wait_ns, more in steps:
        now_ns += wait_ns
        outbox.add(*(b"%d" % number for number in range(said, said + more)))
        said += more
        left += [(now_ns, text) for text in outbox.take(now_ns)]
    while (deadline_ns := outbox.deadline_ns) is not None:
        now_ns = max(now_ns, deadline_ns)
        left += [(now_ns, text) for text in outbox.take(now_ns)]
    assert [text for _, text in left] == [b"%d" % number for number in range(said)]
    for begin_ns, _ in left:
        inside = sum(begin_ns <= sent_ns < begin_ns + 100 for sent_ns, _ in left)
        assert inside <= max(1, messages - 1)
