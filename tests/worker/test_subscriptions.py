import pytest

from worker.subscriptions import PREFIX_BYTES_MAX, PREFIXES_MAX, Subscriptions


def told(*frames):
    subscriptions = Subscriptions("x")
    for frame in frames:
        subscriptions.take(frame)
    return subscriptions


@pytest.mark.parametrize("prefix", [b"", b"d", b"data.x", b"data.x\0", b"data.x.", b"data.x.BTC\0"])
def test_what_can_match_data_wants_it_until_its_end(prefix):
    subscriptions = told(b"\x01" + prefix, b"\x01" + prefix)
    assert (subscriptions.wants_data, subscriptions.total) == (True, 2)
    subscriptions.take(b"\x00" + prefix)
    assert subscriptions.wants_data, "each peer's counts"
    subscriptions.take(b"\x00" + prefix)
    assert (subscriptions.wants_data, subscriptions.total, subscriptions.refused) == (False, 0, 0)


@pytest.mark.parametrize("prefix", [b"state.", b"event.x.", b"data.xy", b"data.x2\0", b"data.y"])
def test_what_cannot_match_data_does_not(prefix):
    subscriptions = told(b"\x01" + prefix)
    assert (subscriptions.wants_data, subscriptions.total) == (False, 1)


@pytest.mark.parametrize(
    "frame", [b"", b"\x02data.x", b"data.x", b"\x00data.x", b"\x01" + b"d" * (PREFIX_BYTES_MAX + 1)]
)
def test_what_is_no_subscription_is_counted(frame):
    subscriptions = told(frame)
    assert (subscriptions.refused, subscriptions.total) == (1, 0)
    assert not subscriptions.wants_data


def test_the_end_of_what_nobody_has_takes_nobody_s():
    subscriptions = told(b"\x01data.x\0", b"\x00data.x.")
    assert (subscriptions.wants_data, subscriptions.refused) == (True, 1)


def test_too_many_prefixes_are_counted_and_their_data_is_sent_all_the_same():
    subscriptions = told(*(b"\x01s%d" % n for n in range(PREFIXES_MAX + 1)))
    assert (subscriptions.total, subscriptions.refused) == (PREFIXES_MAX, 1)
    assert not subscriptions.wants_data
    subscriptions.take(b"\x01data.x\0")
    assert (subscriptions.refused, subscriptions.wants_data) == (2, True)
    subscriptions.take(b"\x00data.x\0")
    assert subscriptions.wants_data, "how many there are is not known any more"
    assert subscriptions.take(b"\x01s1"), "one more of a known prefix"


def test_nothing_is_left_of_those_who_are_gone():
    subscriptions = told(b"\x01data.x\0", b"\x01data.x\0")
    assert not subscriptions.ended
    subscriptions.take(b"\x00data.x\0")
    assert (subscriptions.ended, subscriptions.wants_data) == (True, True)
    subscriptions.clear()
    assert (subscriptions.wants_data, subscriptions.total) == (False, 0)
    subscriptions.take(b"\x01data.x\0")
    assert (subscriptions.wants_data, subscriptions.total) == (True, 1)
