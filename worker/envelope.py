"""Envelope: the one ZeroMQ frame in which everything is published.

Pure. ``topic || 0x00 || header || payload``, the payload exactly as the exchange sent it. The byte
layout is described for other languages in docs/wire-format.md.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

VERSION = 1
HEADER = struct.Struct("<HBBIQQqq")
TOPIC_LENGTH_MAX = 255
# The flags of data and of state frames also count the stretch that the stream is in, modulo 16.
STRETCH_SHIFT, STRETCHES = 4, 16


class Kind(IntEnum):
    """What a frame carries. Only data consumes sequence numbers; the others carry the head."""

    DATA = 1
    LIVENESS = 2
    HELLO = 3
    STATE = 4
    EVENT = 5


class Flag(IntFlag):
    """Bits of the header's flags byte; the upper four are the stretch."""

    TEXT = 1
    REPAIRED = 2
    FIRST_OF_EPOCH = 4


class EnvelopeError(ValueError):
    """A frame is not an envelope of this version. The text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """
    One decoded frame.

    ``wall_ns`` is CLOCK_REALTIME and ``monotonic_ns`` CLOCK_MONOTONIC of the publishing host, both
    taken when the bytes arrived from the exchange (of an event: when it happened).
    """

    topic: str
    kind: int
    flags: int
    epoch: int
    seq: int
    topic_seq: int
    wall_ns: int
    monotonic_ns: int
    payload: bytes


def topic_prefix(topic: str) -> bytes:
    """
    Return the bytes of a topic with the NUL that ends it.

    Raises:
        EnvelopeError: If the topic is empty, too long, holds a NUL or is not ASCII.

    """
    if not topic.isascii() or "\0" in topic or not 0 < len(topic) <= TOPIC_LENGTH_MAX:
        raise EnvelopeError(
            f"a topic is 1 to {TOPIC_LENGTH_MAX} ASCII characters without NUL, got {topic!r:.80}"
        )
    return topic.encode("ascii") + b"\0"


def encode(envelope: Envelope) -> bytes:
    """Return the frame of ``envelope``. The hot path packs ``HEADER`` itself."""
    header = HEADER.pack(
        VERSION,
        envelope.kind,
        envelope.flags,
        envelope.epoch,
        envelope.seq,
        envelope.topic_seq,
        envelope.wall_ns,
        envelope.monotonic_ns,
    )
    return topic_prefix(envelope.topic) + header + envelope.payload


def decode(frame: bytes) -> Envelope:
    """
    Return what ``frame`` holds.

    Raises:
        EnvelopeError: If there is no NUL within the longest topic, the topic is not ASCII, the
            header is cut short, or its version is not ours. An unknown kind is not an error: later
            versions may add kinds, and a reader skips those it does not know.

    """
    end = frame.find(b"\0", 0, TOPIC_LENGTH_MAX + 1)
    if end <= 0:
        raise EnvelopeError(f"no topic ended by NUL in the first {TOPIC_LENGTH_MAX + 1} bytes")
    body = end + 1 + HEADER.size
    if len(frame) < body:
        raise EnvelopeError(f"header cut short: {len(frame) - end - 1} of {HEADER.size} bytes")
    version, kind, flags, epoch, seq, topic_seq, wall_ns, monotonic_ns = HEADER.unpack_from(
        frame, end + 1
    )
    if version != VERSION:
        raise EnvelopeError(f"envelope version {version}, this program reads {VERSION}")
    topic = frame[:end]
    if not topic.isascii():
        raise EnvelopeError(f"topic is not ASCII: {topic!r:.80}")
    return Envelope(
        topic.decode("ascii"),
        kind,
        flags,
        epoch,
        seq,
        topic_seq,
        wall_ns,
        monotonic_ns,
        frame[body:],
    )
