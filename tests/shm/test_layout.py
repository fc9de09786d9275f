"""The numbers two processes agree on."""

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm import layout
from shm.journal_layout import JOURNAL_HASH
from shm.layout import BUCKETS, VALUE_MAX, Counter, Word, bucket_edges, bucket_index, stats_layout

# Changes exactly when the byte layout does: bump MAJOR or MINOR with it.
GOLDEN = "5f40eadfa8a8040a"


def test_the_layout_is_the_one_this_version_promised():
    assert f"{layout.LAYOUT_HASH:016x}" == GOLDEN


def test_sections_follow_each_other_on_pages_and_never_overlap():
    sections = stats_layout(2048)
    ordered = [
        sections.hot,
        sections.counters,
        sections.counter_meta,
        sections.histograms,
        sections.events,
        sections.samples,
    ]
    assert ordered[0].offset == layout.HEADER_BYTES
    for section, following in itertools.pairwise(ordered):
        assert section.end <= following.offset
    assert sections.samples.end <= sections.total
    assert all(section.offset % 64 == 0 for section in ordered)
    assert sections.total % layout.PAGE == 0


@pytest.mark.parametrize("slots", [0, 1023, 1000, 3000, 1 << 21])
def test_a_ring_that_is_no_power_of_two_in_range_is_refused(slots):
    with pytest.raises(ValueError, match="power of two"):
        stats_layout(slots)


def test_words_fit_their_page_and_groups_have_cache_lines_of_their_own():
    assert max(Word) < layout.WORDS_IN_PAGE
    assert len({int(word) for word in Word}) == len(Word)
    assert Word.SAMPLE_INTENT // 8 != Word.EVENT_INTENT // 8 != Word.LIVENESS_NS // 8


def test_every_counter_says_its_unit_and_meaning():
    assert set(layout.COUNTER_HELP) == set(Counter)
    assert max(Counter) < layout.COUNTER_SLOTS
    for counter, (unit, text) in layout.COUNTER_HELP.items():
        packed = layout.COUNTER_META.pack(unit.encode(), counter.name.encode(), text.encode())
        assert text.encode() in packed, "not cut off"


@given(st.integers(0, VALUE_MAX))
def test_a_value_lies_in_its_bucket_and_no_bucket_is_wider_than_a_128th(value):
    low, high = bucket_edges(bucket_index(value))
    assert low <= value <= high
    assert (high - low) * 128 <= low


def test_buckets_are_contiguous_from_zero_to_the_top():
    edges = [bucket_edges(index) for index in range(BUCKETS)]
    assert edges[0] == (0, 0)
    assert edges[-1][1] == VALUE_MAX
    assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(edges))


@pytest.mark.parametrize(("value", "index"), [(-1, 0), (VALUE_MAX + 1, BUCKETS - 1)])
def test_values_outside_go_to_the_ends(value, index):
    assert bucket_index(value) == index


def test_the_layout_page_shows_every_word_counter_and_offset():
    page = (Path(__file__).parent.parent.parent / "docs" / "shm-layout.md").read_text()
    sections = stats_layout(16_384)
    for section in (sections.hot, sections.counters, sections.counter_meta, sections.histograms):
        assert re.search(rf"\| 0x{section.offset:06x} \|.*{section.name}", page), section
    for section in (sections.events, sections.samples):
        assert re.search(rf"\| 0x{section.offset:06x} \|.*{section.name}", page), section
    for number in (layout.LAYOUT_HASH, JOURNAL_HASH, layout.ENDIAN_TAG):
        assert f"0x{number:016x}" in page, "who reads without our code has nothing else to compare"
    for word in Word:
        assert f"| {int(word)} | `{word.name.lower()}` |" in page, word
    for counter in Counter:
        assert f"`{counter.name.lower()}`" in page, counter
    for name, _type in layout.SAMPLE_FIELDS:
        assert f"`{name}`" in page, name
