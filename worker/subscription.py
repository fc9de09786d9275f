"""Subscription: from topics to the messages that subscribe them, and from a change to the rest.

Pure.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from worker.spec import SubscribeSpec
from worker.template import fill


@dataclass(frozen=True, slots=True)
class Change:
    """What must be said in a session that is up, to get from one subscription to another."""

    messages: tuple[bytes, ...]
    added: int
    removed: int


def opening_messages(spec: SubscribeSpec, first_seq: int = 1) -> tuple[bytes, ...]:
    """Return everything to be said to subscribe, in order."""
    plain = tuple(text.encode() for text in spec.messages)
    return plain + _filled(
        spec.template, spec.topics, spec.topics_per_message, first_seq + len(plain)
    )


def change(former: SubscribeSpec, wanted: SubscribeSpec, first_seq: int) -> Change | None:
    """
    Return the messages of a live change, ``None`` if it cannot be made without a new session.

    Topics come and go by their templates. A plain message can be added; one that is taken away
    cannot be unsaid.
    """
    if set(former.messages) - set(wanted.messages):
        return None
    fixed = (former.template, former.cancel_template, former.ready, former.ack)
    if fixed != (wanted.template, wanted.cancel_template, wanted.ready, wanted.ack):
        return None
    removed = [topic for topic in former.topics if topic not in set(wanted.topics)]
    if removed and not wanted.cancel_template:
        return None
    added = [topic for topic in wanted.topics if topic not in set(former.topics)]
    said = [text.encode() for text in wanted.messages if text not in set(former.messages)]
    size = wanted.topics_per_message
    cancelled = _filled(wanted.cancel_template, removed, size, first_seq)
    subscribed = _filled(wanted.template, added, size, first_seq + len(cancelled))
    return Change(
        (*cancelled, *subscribed, *said), added=len(added) + len(said), removed=len(removed)
    )


def _filled(template: str, topics: Sequence[str], size: int, first_seq: int) -> tuple[bytes, ...]:
    if not template:
        return ()
    seqs = itertools.count(first_seq)
    return tuple(_fill(template, batch, next(seqs)) for batch in _batches(topics, size))


def _batches(topics: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (topics[start : start + size] for start in range(0, len(topics), size))


def _fill(template: str, topics: Sequence[str], seq: int) -> bytes:
    fields = {
        "topics": msgspec.json.encode(list(topics)).decode(),
        "topic": msgspec.json.encode(topics[0]).decode(),
        "seq": str(seq),
    }
    return fill(template, fields).encode()
