import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.ping_payload import BODY_MAX, filled, is_fixed, longest

PARTS = st.sampled_from(
    [b"${seq}", b"${ts_s}", b"${ts_ms}", b"${uuid}", b"${other}", b"$", b"\xff"]
)
UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def test_fields_are_filled_and_nothing_else_is_touched():
    template = b'{"id":${seq},"s":${ts_s},"ms":${ts_ms},"u":"${uuid}","x":"${other}\xff"}'
    body = filled(template, 7, 1_700_000_000_123, lambda: UUID)
    assert body == (
        b'{"id":7,"s":1700000000,"ms":1700000000123,"u":"%s","x":"${other}\xff"}' % UUID.encode()
    )


def test_a_uuid_is_only_made_if_the_template_asks():
    assert filled(b"${seq}", 1, 0, lambda: pytest.fail("asked")) == b"1"


@given(st.lists(PARTS).map(b"".join), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_no_ping_is_longer_than_the_longest(template, seq, ts_ms):
    assert len(filled(template, seq, ts_ms, lambda: UUID)) <= longest(template)


@pytest.mark.parametrize("field", ["seq", "ts_s", "ts_ms", "uuid"])
def test_a_payload_with_a_field_is_not_fixed(field):
    assert not is_fixed(b"ping ${%s}" % field.encode())


def test_a_payload_without_a_field_that_is_filled_is_fixed():
    assert is_fixed(b"ping")
    assert is_fixed(b"${other}")


def test_the_limit_is_that_of_a_control_frame():
    assert BODY_MAX == 125
