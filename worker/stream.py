"""Stream: the hot path of a worker, from a message to its frame in the journal and on its way out.

One function per topic, made once, its variables in cells: a call and two stores into shared memory
for each message, and nothing looked up that could have been before (``tests/bench``, section hot).

What need not be done for each message is done once a read (``Stream.flush``). Sending is of that
kind: libzmq's thread sleeps as soon as it has nothing to do, and to wake it for each message of a
burst costs more than the message (docs/decisions/0014).
"""

import struct
from collections.abc import Callable
from typing import NamedTuple, Protocol

import zmq

from shm.journal import Journal
from shm.journal_layout import HEAD, PUBLISH
from shm.layout import LOW_HALF, Counter, Word
from shm.stats import StatsWriter
from worker.envelope import (
    HEADER,
    STRETCH_SHIFT,
    STRETCHES,
    VERSION,
    Flag,
    Kind,
    topic_prefix,
)

DONTWAIT = int(zmq.DONTWAIT)
TEXT, FIRST_OF_EPOCH = int(Flag.TEXT), int(Flag.FIRST_OF_EPOCH)
SEQ, FRAMES_SKIPPED = int(Word.SEQ), int(Counter.FRAMES_SKIPPED)
HEAD_BYTES = HEAD.size
CONSTANT = struct.Struct("<HBBI")  # version, kind, flags, epoch: how the header begins
VARIABLE = "QQqq"  # seq, topic seq, wall ns, monotonic ns: how it goes on
assert HEADER.format == CONSTANT.format + VARIABLE

Data = Callable[[bytes, bool, int, int], None]


class Outlet(Protocol):
    """Where frames leave; ``worker.outlet.Outlet`` is one."""

    send_data: Callable[[bytes, int], object] | None

    def full(self, frame: bytes, seq: int) -> None:
        """Send frame number ``seq`` past a subscriber whose queue is full."""


class Stream(NamedTuple):
    """
    The data of one connection.

    ``on_topic`` returns the function that publishes messages of a topic: given payload, whether it
    is text, and when its bytes arrived (CLOCK_MONOTONIC and CLOCK_REALTIME, ns). ``flush`` shows
    the head sequence number and sends; call it at the end of each read. ``break_off`` begins
    another stretch: the exchange may have sent what nobody saw. It returns the flags of what comes
    from here on.
    """

    on_topic: Callable[[str], Data]
    flush: Callable[[], None]
    break_off: Callable[[], int]


def make_stream(stats: StatsWriter, journal: Journal | None, outlet: Outlet) -> Stream:
    """
    Return the stream that goes on from the head word.

    With a journal, a kill within a read leaves the head word behind; the successor reads the last
    number from the journal. Without one the head word is stored for each message. Either way that
    is before the message is sent.
    """
    words, counters = stats.words, stats.counters
    seq = words[SEQ]
    skipped = 0  # the latest number that the journal does not have
    is_first = True
    stretch = 0
    renewals: list[Callable[[], None]] = []  # of the topics
    at = quick_end = position = quick_max = 0
    slots = 1
    if journal is not None:
        memory, index, slots = journal.memory, journal.index, journal.slots
        ring, quick_max = journal.words, journal.quick_max
        at, quick_end, position = journal.at, journal.quick_end, journal.position

    def constant_of(flags: int) -> bytes:
        flags |= stretch << STRETCH_SHIFT
        return CONSTANT.pack(VERSION, Kind.DATA, flags, stats.epoch)

    of_text, of_binary = constant_of(TEXT), constant_of(0)
    unsent: list[bytes] = []  # records of this read

    def break_off() -> int:
        nonlocal stretch, of_text, of_binary
        stretch = (stretch + 1) % STRETCHES
        of_text, of_binary = constant_of(TEXT), constant_of(0)
        for renew in renewals:
            renew()
        return stretch << STRETCH_SHIFT

    def flush() -> None:
        words[SEQ] = seq
        # A number that is told leads to a record, or the journal counts as damaged.
        if journal is not None and seq != skipped:
            journal.tell(seq)
        if unsent:
            send_all()

    def keep(frame: bytes) -> None:
        """Keep a frame the long way: there is no room announced for it, or it is long."""
        nonlocal at, quick_end, position, skipped
        if journal is None:
            words[SEQ] = seq
            return
        journal.at, journal.position = at, position
        is_kept = journal.append(seq, frame)
        at, quick_end, position = journal.at, journal.quick_end, journal.position
        if not is_kept:
            counters[FRAMES_SKIPPED] += 1
            words[SEQ] = skipped = seq  # no record tells of it
            # The next one comes this way, too, and tells its number: a successor looks for the
            # newest record number by number, and would stop here.
            quick_end = at

    def send_all() -> None:
        records = unsent.copy()
        unsent.clear()
        for number, record in enumerate(records, seq - len(records) + 1):
            send = outlet.send_data
            if send is None:  # the last subscriber has gone
                return
            frame = record[HEAD_BYTES:]
            try:
                send(frame, DONTWAIT)
            except zmq.Again:
                outlet.full(frame, number)

    def on_topic(topic: str) -> Data:
        prefix = topic_prefix(topic)
        text, binary = prefix + of_text, prefix + of_binary

        def renew() -> None:
            nonlocal text, binary
            text, binary = prefix + of_text, prefix + of_binary

        renewals.append(renew)
        # The journal's head, topic and header in one go.
        packer = struct.Struct(f"{HEAD.format}{len(text)}s{VARIABLE}")
        pack, head_bytes = packer.pack, packer.size - HEAD_BYTES
        topic_seq, send_later = 0, unsent.append

        def data(payload: bytes, is_text: bool, now_ns: int, wall_ns: int) -> None:
            nonlocal seq, topic_seq, at, position, is_first
            seq += 1
            topic_seq += 1
            length = head_bytes + len(payload)
            constant = text if is_text else binary
            if is_first:
                is_first = False
                constant = prefix + constant_of(FIRST_OF_EPOCH | is_text * TEXT)
            record = (
                pack(length, seq & LOW_HALF, constant, seq, topic_seq, wall_ns, now_ns) + payload
            )
            end = at + HEAD_BYTES + length
            if end > quick_end or length > quick_max:
                keep(record[HEAD_BYTES:])
            else:  # as Journal.append
                memory[at:end] = record
                index[seq % slots] = position
                position += length + 15 & -8
                ring[PUBLISH] = position
                at = end + 7 & -8
            if outlet.send_data is not None:
                send_later(record)

        return data

    return Stream(on_topic, flush, break_off)
