from hypothesis import given
from hypothesis import strategies as st

from worker.queue_bound import MESSAGES_MIN, OVERHEAD_BYTES, QueueBound

MIB = 1 << 20


def test_small_messages_have_the_whole_queue():
    bound = QueueBound(10_000, 64 * MIB)
    assert {bound.passed(100, 100 * 370) for _ in range(1000)} == {10_000}
    assert bound.passed(0, 0) == 10_000


def test_one_long_message_among_short_ones_changes_nothing():
    bound = QueueBound(10_000, 64 * MIB)
    assert bound.passed(1, 16 * MIB) == 10_000
    assert {bound.passed(100, 100 * 370) for _ in range(200)} == {10_000}


def test_long_messages_have_as_many_places_as_fit_and_short_ones_get_theirs_back():
    bound = QueueBound(10_000, 64 * MIB)
    marks = [bound.passed(1, MIB) for _ in range(300)]
    assert 60 <= marks[-1] <= 64
    marks = [bound.passed(100, 100 * 370) for _ in range(300)]
    assert marks == sorted(marks)
    assert marks[-1] == 10_000


def test_a_burst_within_one_look_is_bounded_by_its_mean():
    assert QueueBound(10_000, 64 * MIB).passed(1000, 1000 * MIB) == 63
    assert QueueBound(10_000, MIB).passed(1, 16 * MIB) == MESSAGES_MIN
    assert QueueBound(2, MIB).passed(1, 16 * MIB) == 2


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 3 * MIB)), min_size=1, max_size=100
    ),
    messages_max=st.integers(1, 500),
)
def test_the_latest_messages_of_a_full_queue_never_exceed_the_bytes(steps, messages_max):
    bytes_max = 8 * MIB
    bound = QueueBound(messages_max, bytes_max)
    sizes = []
    for messages, size in steps:
        mark = bound.passed(messages, messages * size)
        sizes += [size + OVERHEAD_BYTES] * messages
        assert 1 <= mark <= messages_max
        if mark > MESSAGES_MIN:
            assert sum(sizes[-mark:]) <= bytes_max
