"""Targets: a journal that is cut, damaged, of another version, or overwritten while it is read."""

import os
import signal
import subprocess
import sys
import zlib

from fuzz.damage import DamagedFile
from fuzz.target import Target, named
from shm.errors import SegmentError
from shm.journal import Journal, journal_path
from shm.journal_layout import SIZE_MIN, JournalWord, ring_offset
from shm.journal_reader import JournalReader
from shm.layout import HEADER, HEADER_BYTES, PAGE, WORD
from supervisor.repairs import Repairs
from supervisor.sequencer import Look
from worker.envelope import Envelope, Flag, Kind, encode

WORDS_END = HEADER_BYTES + WORD * (max(JournalWord) + 1)
RING = ring_offset(SIZE_MIN)
SPOTS = (
    (0, HEADER.size),
    (HEADER_BYTES, WORDS_END),
    (HEADER_BYTES, WORDS_END),
    (HEADER_BYTES + PAGE, RING),
    (RING, RING + SIZE_MIN),
)
HUGE = 1 << 62


def body_of(seq, length):
    """A payload that tells whether it is whole: number, noise, checksum."""
    noise = b"%d " % seq + bytes(seq * 7 + k & 255 for k in range(length))
    return noise + zlib.crc32(noise).to_bytes(4, "little")


def frame_of(seq, length):
    """A frame as a worker publishes it."""
    return encode(
        Envelope("data.a", Kind.DATA, Flag.TEXT, 1, seq, seq, seq, seq, body_of(seq, length))
    )


def is_whole(seq, frame):
    """Return whether a frame is one of ``frame_of``, of this number."""
    noise, checksum = frame[frame.index(b"\0") + 41 : -4], frame[-4:]
    return zlib.crc32(noise).to_bytes(4, "little") == checksum and noise.startswith(b"%d " % seq)


def explore(rng, reader):
    """Read with everything that a reader has; return what frames were found."""
    first = rng.choice((0, 1, rng.randrange(2000), HUGE - 1, -1))
    last = rng.choice((first, first + 10, first + 3000, HUGE))
    match rng.randrange(6):
        case 0 | 1:
            found = reader.frames(first, last)
            assert [seq for seq, _ in found] == sorted({seq for seq, _ in found})
            assert all(max(first, 1) <= seq <= last for seq, _ in found)
            return found
        case 2:
            assert all(size >= 0 for _seq, _position, size in reader.records())
        case 3:
            assert isinstance(reader.first_seq + reader.last_seq + reader.frames_skipped, int)
        case 4:
            follower = reader.follower(rng.choice((None, 0, first)))
            return [pair for _ in range(3) for pair in follower.poll()]
        case 5:
            for _ in reader.follow(rng.choice((0, first)), timeout_s=0):
                break
    return []


def damaged_file(folder):
    """Return a journal that its worker has left, to be damaged."""
    journal = Journal.take_over(folder, "a", size=SIZE_MIN, incarnation=1)
    for seq in range(1, 1200):
        journal.append(seq, frame_of(seq, seq % 97))
    journal.close()
    path = journal_path(folder, "a")
    return DamagedFile(path, path.read_bytes(), SPOTS)


class DamagedJournal(Target):
    """Whatever the file is: a named error, or frames."""

    def __init__(self, folder):
        super().__init__(folder)
        self._file = damaged_file(folder)

    def run(self, rng):
        self._file.damage(rng)
        repairs = Repairs(self.folder, "a", (b"data.a\0",))
        try:
            with JournalReader.open(self.folder, "a") as reader:
                for _ in range(4):
                    explore(rng, reader)
                    if rng.random() < 0.3:
                        self._file.disturb(rng)
            return "read"
        except SegmentError as error:
            return named(error)
        finally:
            found = repairs.search(Look(first := rng.randrange(1, 1300), first + 300))
            assert all(first <= message.seq <= first + 300 for message in found.messages)
            repairs.close()


class SuccessorJournal(Target):
    """The next incarnation goes on in it or begins anew, and what it then writes is read."""

    def __init__(self, folder):
        super().__init__(folder)
        self._file = damaged_file(folder)

    def run(self, rng):
        self._file.damage(rng)
        try:
            journal = Journal.take_over(self.folder, "a", size=SIZE_MIN, incarnation=2)
        except SegmentError as error:
            return named(error)
        try:
            begun = journal.last_seq()
            seqs = range(begun + 1, begun + rng.randrange(2, 400))
            for seq in seqs:
                journal.append(seq, frame_of(seq, seq % 50))
            with JournalReader.open(self.folder, "a") as reader:
                newest = reader.frames(seqs[-1], seqs[-1])
            assert newest == [(seqs[-1], frame_of(seqs[-1], seqs[-1] % 50))]
            return "went on" if begun else "began anew"
        finally:
            journal.close()


WRITER = """
import sys, time
from pathlib import Path
from fuzz.journals import frame_of
from shm.journal import Journal
from shm.journal_layout import SIZE_MIN
journal = Journal.take_over(Path(sys.argv[1]), "a", size=SIZE_MIN, incarnation=int(sys.argv[2]))
seq = journal.last_seq()
print("up", flush=True)
while True:
    seq += 1
    journal.append(seq, frame_of(seq, seq * seq % 499))
    if not seq % 3000:
        time.sleep(0.001)
"""


class LiveJournal(Target):
    """
    A ring of 64 KiB that a writer runs around in flat out, and is killed in now and then.

    Everything that is read is whole.
    """

    KILL_EVERY = 300

    def __init__(self, folder):
        super().__init__(folder)
        self._incarnation, self._writer, self._cases = 0, None, 0
        self._start()
        self._reader = JournalReader.open(folder, "a")
        self._follower = self._reader.follower(0)

    def _start(self):
        self._incarnation += 1
        self._writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(self.folder), str(self._incarnation)],
            env=os.environ,
            stdout=subprocess.PIPE,
        )
        assert self._writer.stdout.readline() == b"up\n"

    def _end(self):
        self._writer.send_signal(signal.SIGKILL)
        self._writer.wait()
        self._writer.stdout.close()

    def run(self, rng):
        self._cases += 1
        if self._cases % self.KILL_EVERY == 0:
            self._end()
            self._start()
        newest = self._reader.last_seq
        first = newest - rng.randrange(300)
        found = self._reader.frames(first, first + rng.choice((0, 5, 300)))
        found += self._follower.poll()
        found += explore(rng, self._reader)
        for seq, frame in found:
            assert is_whole(seq, frame), (seq, frame)
        assert self._reader.bad_records == 0
        return "read" if found else "overtaken"

    def close(self):
        self._reader.close()
        self._end()
