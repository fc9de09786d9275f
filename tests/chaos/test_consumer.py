"""That the consumer sees what is out of order."""

import json

import pytest

from chaos.consumer import Consumer
from supervisor.items import LOST, Gap, Message, SessionChange


def message(seq, number, epoch=1):
    payload = json.dumps({"t": number}).encode()
    return Message("a", epoch, seq, seq, "data.a", payload, 0, 0, False, True)


@pytest.fixture
def consumer(tmp_path, monkeypatch):
    monkeypatch.setenv("FEEDWARDEN_SHM", str(tmp_path))
    made = Consumer("none")
    yield made
    made.end()
    made.run()


def taken(consumer, *items):
    for item in items:
        consumer._take(item)
    return consumer


def test_what_comes_in_order_is_right(consumer):
    change = SessionChange("a", 2)
    taken(consumer, message(1, 7), message(2, 8), change, message(3, 20, 2), message(4, 21, 2))
    assert (consumer.wrongs, consumer.jumps.total(), consumer.gaps) == ([], 0, [])
    assert consumer.delivered["a"].total() == 4


def test_a_number_left_out_or_given_twice_is_wrong(consumer):
    taken(consumer, message(1, 7), message(3, 8), message(3, 9))
    assert consumer.wrongs == ["a: number 3 where 2 was due", "a: number 3 where 4 was due"]


def test_a_gap_is_noted(consumer):
    taken(consumer, message(1, 7), Gap("a", 1, 2, 3, LOST, 2), message(4, 8))
    assert (consumer.wrongs, len(consumer.gaps)) == ([], 1)


def test_numbers_of_the_exchange_that_are_missing_amid_a_session_are_counted(consumer):
    taken(consumer, message(1, 7), message(2, 10), message(3, 10))
    assert consumer.jumps == {"a": 2}
    assert consumer.wrongs == ["a: the exchange's number 10 after 10"]
