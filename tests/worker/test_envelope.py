import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.envelope import (
    HEADER,
    TOPIC_LENGTH_MAX,
    Envelope,
    EnvelopeError,
    Flag,
    Kind,
    decode,
    encode,
    topic_prefix,
)

U64, I64 = st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1)
TOPICS = st.text(st.characters(min_codepoint=1, max_codepoint=127), min_size=1, max_size=255)
ENVELOPES = st.builds(
    Envelope,
    TOPICS,
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    U64,
    U64,
    I64,
    I64,
    st.binary(max_size=200),
)


@given(ENVELOPES)
def test_what_is_encoded_decodes_to_the_same(envelope):
    assert decode(encode(envelope)) == envelope


def test_the_bytes_are_those_of_the_contract():
    frame = encode(Envelope("data.x", Kind.DATA, Flag.TEXT, 2, 3, 4, 5, 6, b"\0body"))
    head = struct.pack("<HBBIQQqq", 1, 1, 1, 2, 3, 4, 5, 6)
    assert len(head) == HEADER.size == 40
    assert frame == b"data.x\0" + head + b"\0body"


@given(st.binary(max_size=400))
def test_any_bytes_decode_or_are_refused_by_name(frame):
    with contextlib.suppress(EnvelopeError):
        assert encode(decode(frame)) == frame


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"", "no topic"),
        (b"\0" + bytes(40), "no topic"),
        (b"x" * 400, "no topic"),
        (b"x\0" + bytes(39), "39 of 40"),
        (b"x\0" + bytes(40), "version 0"),
        (b"\xff\0" + struct.pack("<H", 1) + bytes(38), "not ASCII"),
    ],
)
def test_a_refusal_says_what_is_wrong(frame, why):
    with pytest.raises(EnvelopeError, match=why):
        decode(frame)


@pytest.mark.parametrize("topic", ["", "a\0b", "é", "x" * (TOPIC_LENGTH_MAX + 1)])
def test_a_topic_that_cannot_be_told_from_the_header_is_refused(topic):
    with pytest.raises(EnvelopeError):
        topic_prefix(topic)


def test_a_subscription_to_one_connection_does_not_match_a_longer_name():
    assert not topic_prefix("data.btcusdt").startswith(topic_prefix("data.btc"))
