"""A connection's journal: what a reader finds, over laps, deaths and damage."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shm.errors import SegmentForeign, SegmentLocked, SegmentTruncated, SegmentVersion
from shm.journal import FENCED_BYTES, Journal, journal_path
from shm.journal_layout import (
    HEAD,
    INTENT,
    LAST_SEQ,
    PUBLISH,
    SIZE_MAX,
    SIZE_MIN,
    JournalWord,
    journal_bytes,
    ring_size,
    whole_pages,
)
from shm.journal_reader import JournalReader
from shm.journal_ring import CHUNK

SIZE = SIZE_MIN


def take_over(directory, incarnation=1, size=SIZE):
    return Journal.take_over(directory, "a", size=size, incarnation=incarnation)


def frame(seq, length=100):
    return (b"%d " % seq) * (length // len(b"%d " % seq) + 1)


def fill(journal, first, last, length=100):
    for seq in range(first, last + 1):
        journal.append(seq, frame(seq, length))


def expected(first, last, length=100):
    return [(seq, frame(seq, length)) for seq in range(first, last + 1)]


def test_frames_are_found_by_sequence_number(tmp_path):
    journal = take_over(tmp_path)
    fill(journal, 1, 200)
    with JournalReader.open(tmp_path, "a") as reader:
        assert (reader.first_seq, reader.last_seq) == (1, 200)
        assert reader.frames(7, 7) == expected(7, 7)
        assert reader.frames(1, 200) == expected(1, 200)
        assert reader.frames(150, 10_000) == expected(150, 200)
        assert reader.frames(201, 300) == []
        assert reader.frames(0, 2) == expected(1, 2)
        assert reader.frames(5, 4) == []
    journal.close()


def test_an_empty_journal_has_no_frames(tmp_path):
    journal = take_over(tmp_path)
    with JournalReader.open(tmp_path, "a") as reader:
        assert (reader.first_seq, reader.last_seq) == (0, 0)
        assert reader.frames(1, 100) == []
        assert reader.follower(0).poll() == []
    journal.close()


def test_what_the_ring_came_around_to_is_not_returned(tmp_path):
    journal = take_over(tmp_path)
    fill(journal, 1, 5000)
    with JournalReader.open(tmp_path, "a") as reader:
        first = reader.first_seq
        assert 4000 < first < 5000
        assert reader.frames(1, 5000) == expected(first, 5000)
        assert reader.frames(1, first - 1) == []
    journal.close()


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, SIZE // 4 + 200), min_size=1, max_size=200))
def test_a_follower_gets_every_frame_of_any_length(tmp_path_factory, lengths):
    directory = tmp_path_factory.mktemp("journal")
    journal = take_over(directory)
    with JournalReader.open(directory, "a") as reader:
        follower, heard, kept = reader.follower(0), [], []
        for seq, length in enumerate(lengths, 1):
            body = bytes([seq % 251]) * length
            journal.append(seq, body)
            if length <= SIZE // 4:
                kept.append((seq, body))
            heard += follower.poll()
        assert heard == kept
        assert follower.lapped == reader.bad_records == 0
        assert reader.frames_skipped == len(lengths) - len(kept)
    journal.close()


def test_a_frame_too_long_is_counted_and_passed_over(tmp_path):
    journal = take_over(tmp_path)
    journal.append(1, b"one")
    journal.append(2, bytes(SIZE // 4 + 1))
    journal.append(3, b"three")
    with JournalReader.open(tmp_path, "a") as reader:
        assert reader.frames(1, 3) == [(1, b"one"), (3, b"three")]
        assert reader.frames(2, 3) == [(3, b"three")]
        assert reader.frames_skipped == journal.frames_skipped == 1
    journal.close()


def test_a_frame_longer_than_a_chunk_is_read_whole(tmp_path):
    journal = take_over(tmp_path, size=4 * 1024 * 1024)
    long = os.urandom(CHUNK * 3)
    for seq in range(1, 12):
        journal.append(seq, long if seq % 2 else b"short")
    with JournalReader.open(tmp_path, "a") as reader:
        found = reader.frames(8, 11)
        assert found == [(8, b"short"), (9, long), (10, b"short"), (11, long)]
    journal.close()


def test_a_lapped_follower_goes_on_and_tells(tmp_path):
    journal = take_over(tmp_path)
    fill(journal, 1, 10)
    with JournalReader.open(tmp_path, "a") as reader:
        follower = reader.follower()
        fill(journal, 11, 5000)
        assert follower.poll() == []
        assert follower.lapped == 1
        found = follower.poll()
        assert found == expected(found[0][0], 5000)
        assert found[0][0] > reader.first_seq, "a part of the ring ahead of the writer"
        fill(journal, 5001, 5003)
        assert follower.poll() == expected(5001, 5003)
    journal.close()


def test_numbers_beyond_32_bits_go_on(tmp_path):
    journal = take_over(tmp_path)
    first = (1 << 32) - 5
    fill(journal, first, first + 9)
    with JournalReader.open(tmp_path, "a") as reader:
        assert reader.frames(first, first + 9) == expected(first, first + 9)
        assert reader.first_seq == first
        follower = reader.follower(first + 3)
        assert follower.poll() == expected(first + 4, first + 9)
    journal.close()


def test_the_next_incarnation_goes_on_in_the_same_file(tmp_path):
    journal = take_over(tmp_path)
    fill(journal, 1, 100)
    with JournalReader.open(tmp_path, "a") as reader:
        follower = reader.follower(0)
        journal.close()
        successor = take_over(tmp_path, 2)
        assert successor.last_seq() == 100
        fill(successor, 101, 200)
        assert not reader.replaced()
        assert follower.poll() == expected(1, 200)
        assert reader.frames(50, 150) == expected(50, 150)
        successor.close()


def test_an_unfinished_record_is_covered_and_its_positions_are_not_used_again(tmp_path):
    journal = take_over(tmp_path)
    fill(journal, 1, 3)
    published = journal.words[PUBLISH]
    journal.words[INTENT] = published + 64  # killed here, half of the record written
    journal.memory[journal._start + published : journal._start + published + 20] = b"\xff" * 20
    journal.close()
    successor = take_over(tmp_path, 2)
    assert successor.words[PUBLISH] == successor.words[INTENT] == published + 64
    successor.append(4, b"four")
    with JournalReader.open(tmp_path, "a") as reader:
        assert reader.frames(1, 4) == [*expected(1, 3), (4, b"four")]
        assert reader.bad_records == 0
    successor.close()


def test_a_covered_record_is_no_frame_to_anybody(tmp_path):
    journal = take_over(tmp_path)
    journal.words[INTENT] = 64  # killed in its very first record, its index entry stored
    journal.close()
    successor = take_over(tmp_path, 2)
    fill(successor, 1, 3)
    with JournalReader.open(tmp_path, "a") as reader:
        assert reader.first_seq == 1
        assert [seq for seq, _, _ in reader.records()] == [1, 2, 3]
        assert reader.follower(0).poll() == expected(1, 3)
    successor.close()


def test_a_follower_that_knows_more_than_there_is_gets_what_comes(tmp_path):
    journal = take_over(tmp_path)
    fill(journal, 1, 5)
    with JournalReader.open(tmp_path, "a") as reader:
        follower = reader.follower(5_000)  # of another life of the fleet
        fill(journal, 6, 7)
        assert follower.poll() == []
        assert follower.lapped == reader.bad_records == 0
        late = reader.follower(6)
        assert late.poll() == expected(7, 7)
    journal.close()


def test_frames_over_the_fenced_length_and_at_the_very_end_of_the_ring_are_kept(tmp_path):
    journal = take_over(tmp_path, size=4 * FENCED_BYTES)
    lengths = [FENCED_BYTES, FENCED_BYTES - HEAD.size, FENCED_BYTES - 1, 2 * FENCED_BYTES, 1] * 3
    with JournalReader.open(tmp_path, "a") as reader:
        for seq, length in enumerate(lengths, 1):
            kept = journal.append(seq, bytes([seq]) * length)
            assert kept is (length <= FENCED_BYTES)
            assert reader.frames(seq, seq) == ([(seq, bytes([seq]) * length)] if kept else [])
    journal.close()


def test_a_record_published_but_not_yet_counted_is_not_given_out_again(tmp_path):
    journal = take_over(tmp_path)
    fill(journal, 1, 7)
    journal.words[LAST_SEQ] = 6  # killed between the two stores
    journal.close()
    successor = take_over(tmp_path, 2)
    assert successor.last_seq() == 7
    successor.close()


def test_another_size_makes_another_journal(tmp_path):
    journal = take_over(tmp_path)
    fill(journal, 1, 10)
    with JournalReader.open(tmp_path, "a") as reader:
        journal.close()
        successor = take_over(tmp_path, 2, size=2 * SIZE)
        assert reader.replaced()
        assert reader.frames(1, 10) == expected(1, 10), "the old mapping is as good as ever"
        assert successor.last_seq() == 0
        successor.close()


def test_one_journal_has_one_writer(tmp_path, monkeypatch):
    monkeypatch.setattr("shm.journal.LOCK_TIMEOUT_NS", 0)
    journal = take_over(tmp_path)
    with pytest.raises(SegmentLocked):
        take_over(tmp_path, 2)
    journal.close()
    take_over(tmp_path, 2).close()


@pytest.mark.parametrize("size", [0, SIZE - 4096, SIZE + 1, SIZE_MAX + 4096])
def test_impossible_sizes_are_refused(tmp_path, size):
    with pytest.raises(ValueError, match="bytes in whole pages"):
        take_over(tmp_path, size=size)
    assert not list(tmp_path.iterdir())


@given(pages=st.integers(SIZE_MIN // 4096, SIZE_MAX // 4096))
def test_the_size_of_the_ring_follows_from_the_size_of_the_file(pages):
    size = whole_pages(pages * 4096 - 1)
    assert size == pages * 4096
    assert ring_size(journal_bytes(size)) == size
    with pytest.raises(ValueError, match="no journal"):
        ring_size(journal_bytes(size) + 1)


def test_a_foreign_file_is_left_alone(tmp_path):
    journal_path(tmp_path, "a").write_bytes(b"precious")
    with pytest.raises(SegmentForeign):
        take_over(tmp_path)
    with pytest.raises(SegmentForeign):
        JournalReader.open(tmp_path, "a")
    assert journal_path(tmp_path, "a").read_bytes() == b"precious"


def test_a_journal_of_another_layout_is_refused_by_readers_and_replaced_by_writers(tmp_path):
    take_over(tmp_path).close()
    path = journal_path(tmp_path, "a")
    with path.open("r+b") as file:
        file.seek(16)
        file.write(b"\xee" * 8)
    with pytest.raises(SegmentVersion):
        JournalReader.open(tmp_path, "a")
    journal = take_over(tmp_path, 2)
    fill(journal, 1, 2)
    with JournalReader.open(tmp_path, "a") as reader:
        assert reader.frames(1, 2) == expected(1, 2)
    journal.close()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (JournalWord.INTENT, -8),
        (JournalWord.INTENT, 1 << 63 >> 1),
        (JournalWord.PUBLISH, 12),
        (JournalWord.LAST_SEQ, -1),
        (JournalWord.LAST_SEQ, 1 << 61),
    ],
)
def test_words_of_garbage_begin_a_new_journal(tmp_path, word, value):
    journal = take_over(tmp_path)
    fill(journal, 1, 5)
    journal.words[word] = value
    journal.close()
    successor = take_over(tmp_path, 2)
    fill(successor, 6, 8)
    with JournalReader.open(tmp_path, "a") as reader:
        assert reader.frames(1, 8) == expected(6, 8)
    successor.close()


def test_a_journal_cut_while_it_is_read_is_an_error_and_no_crash(tmp_path):
    journal = take_over(tmp_path)
    fill(journal, 1, 100)
    with JournalReader.open(tmp_path, "a") as reader:
        follower = reader.follower(0)
        os.truncate(journal_path(tmp_path, "a"), 4096)
        with pytest.raises(SegmentTruncated):
            reader.frames(1, 100)
        with pytest.raises(SegmentTruncated):
            follower.poll()
    with pytest.raises(SegmentTruncated):
        JournalReader.open(tmp_path, "a")


def test_a_damaged_record_is_counted_and_nothing_behind_it_is_believed(tmp_path):
    journal = take_over(tmp_path)
    fill(journal, 1, 10)
    position = journal.index[5]
    start = journal._start + position
    journal.memory[start : start + 8] = HEAD.pack(0x7FFF_FFFF, 5)
    with JournalReader.open(tmp_path, "a") as reader:
        assert reader.frames(1, 10) == expected(1, 4)
        assert reader.bad_records == 1
    journal.close()


def test_follow_yields_as_it_is_written_and_ends_after_its_timeout(tmp_path):
    journal = take_over(tmp_path)
    fill(journal, 1, 5)
    with JournalReader.open(tmp_path, "a") as reader:
        assert list(reader.follow(2, timeout_s=0.05)) == expected(3, 5)
        assert list(reader.follow(timeout_s=0.05, poll_s=0.001)) == []
        journal.close()
        journal_path(tmp_path, "a").unlink()
        assert list(reader.follow(0)) == expected(1, 5), "ends by itself once the file is gone"


WRITER = """
    import random, sys
    from pathlib import Path
    from shm.journal import Journal
    directory, incarnation = Path(sys.argv[1]), int(sys.argv[2])
    journal = Journal.take_over(directory, "a", size=65536, incarnation=incarnation)
    seq = journal.last_seq()
    print("writing", flush=True)
    chance = random.Random(incarnation)
    while True:
        seq += 1
        journal.append(seq, seq.to_bytes(8, "little") * chance.randrange(1, 60))
"""


def test_killed_writers_and_a_reader_that_is_lapped_never_give_mixed_bytes(tmp_path):
    whole, last = 0, 0
    for incarnation in range(1, 9):
        command = [sys.executable, "-c", textwrap.dedent(WRITER), tmp_path, str(incarnation)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline() == b"writing\n"
            with JournalReader.open(tmp_path, "a") as reader:
                follower, before = reader.follower(last), last
                deadline_s = time.monotonic() + 20
                while last < before + 2000 and time.monotonic() < deadline_s:
                    for seq, body in follower.poll():
                        assert seq > last
                        assert body == seq.to_bytes(8, "little") * (len(body) // 8)
                        whole, last = whole + 1, seq
                    middle = reader.last_seq - 50
                    for seq, body in reader.frames(middle, middle + 20):
                        assert body[:8] == seq.to_bytes(8, "little")
                        assert body == body[:8] * (len(body) // 8)
                        whole += 1
                writer.send_signal(signal.SIGKILL)
                writer.wait()
                rest = [seq for seq, _ in reader.frames(last + 1, 1 << 40)]
                assert not rest or rest == list(range(rest[0], rest[-1] + 1))
                assert reader.bad_records == 0
                last = rest[-1] if rest else last
    assert whole > 1000
    assert last > 8 * 2000
