"""Layout: every offset, size and number that two processes must agree on.

Pure. Each offset is computed from the one before it; ``LAYOUT_HASH`` changes with any of them.
docs/shm-layout.md draws this file and a test compares the two. All numbers are little-endian.
"""

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum

MAGIC = b"FEEDWRDN"
MAJOR, MINOR = 1, 0
ENDIAN_TAG = 0x0102_0304_0506_0708
PAGE = 4096
WORD = 8

# Header of every segment, whatever its kind. The magic is stored last: a file without it is not
# finished. kind, name and incarnation say whose it is; pid with start ticks and boot id say who
# wrote it.
HEADER = struct.Struct("<8sHHIQQQII16sQQQqq64s")
HEADER_FIELDS = (
    "magic",
    "major",
    "minor",
    "header_bytes",
    "layout_hash",
    "total_bytes",
    "endian_tag",
    "kind",
    "flags",
    "boot_id",
    "pid",
    "start_ticks",
    "incarnation",
    "created_wall_ns",
    "created_monotonic_ns",
    "name",
)
HEADER_BYTES = PAGE
FLAG_KEEP = 2  # of a fleet's table: workers that lose its writer go on
FLAG_MEMBARRIER = 1  # the writer registered for membarrier(2), so readers can order its stores


class SegmentKind(IntEnum):
    """What a segment holds."""

    STATS = 1
    REGISTRY = 2
    JOURNAL = 3


class Word(IntEnum):
    """
    Hot words of the stats segment: index of an aligned 8-byte signed word, one store each.

    Words that are written together share a cache line of eight. Times are CLOCK_MONOTONIC
    nanoseconds, 0 for never.
    """

    SEQ = 0  # head sequence number; with a journal stored once a read, without before each send
    EPOCH = 1  # incarnation of the connection
    SUBSCRIBERS = 2  # prefixes subscribed at the data endpoint

    LIVENESS_NS = 8  # the loop's latest stamp
    LIVENESS_COUNT = 9
    LOOP_LAG_NS = 10  # how late the latest stamp was

    SERVING_NS = 16  # when the endpoint was bound and the loop ran
    SESSION_STATE = 17  # number of worker.session.State
    SESSION_SINCE_NS = 18
    SESSION = 19  # number of the session with which the stream began anew last, from 1
    UP_SINCE_NS = 20  # 0 while not up

    LAST_MESSAGE_NS = 24  # data
    LAST_FRAME_NS = 25  # anything the exchange sent
    LAST_PONG_NS = 26
    RTT_LAST_NS = 27
    RTT_AVG_NS = 28  # of the last ten; 0 without any

    SAMPLE_INTENT = 32
    SAMPLE_PUBLISH = 33
    SAMPLE_FIRST = 34  # no older record was ever in this file

    EVENT_INTENT = 40
    EVENT_PUBLISH = 41

    # With two sessions kept up; a lag is the mean of what came second, and of the last 64 or so.
    LEG_1_STATE = 48
    LEG_1_SESSION = 49
    LEG_1_UP_SINCE_NS = 50
    LEG_1_LAG_NS = 51

    LEG_2_STATE = 56
    LEG_2_SESSION = 57
    LEG_2_UP_SINCE_NS = 58
    LEG_2_LAG_NS = 59


class Counter(IntEnum):
    """Counters of the stats segment, totals over incarnations: index of an unsigned word."""

    MESSAGES = 0
    BYTES = 1
    CONTROL_MESSAGES = 2
    PINGS = 3
    PONGS = 4
    MISSED_PONGS = 5
    LATE_PONGS = 6
    FOREIGN_PONGS = 7
    TIMEOUTS = 8
    SERVER_PINGS = 9
    SESSIONS = 10
    RECONNECTS = 11
    DIALS_POSTPONED = 12
    CONNECT_FAILURES = 13
    MATCHER_ERRORS = 14
    DECODE_ERRORS = 15
    PROTOCOL_ERRORS = 16
    OVERSIZE = 17
    SUBSCRIPTIONS_REFUSED = 18
    EVENTS = 19
    FRAMES_SKIPPED = 20
    QUEUES_FULL = 21
    SUBSCRIBERS_CUT = 22
    ROTATIONS = 23
    NOTICES = 24
    OVERLAP_DUPLICATES = 25
    OVERLAP_UNMATCHED = 26
    OVERLAP_OVERFLOWS = 27
    LEG_1_WINS = 28
    LEG_2_WINS = 29


# Unit and meaning of each counter; written into the segment, so that a reader of another version
# still knows what it reads.
COUNTER_HELP: dict[Counter, tuple[str, str]] = {
    Counter.MESSAGES: ("messages", "data messages received"),
    Counter.BYTES: ("bytes", "payload of data messages as received"),
    Counter.CONTROL_MESSAGES: ("messages", "application pongs and pings recognised"),
    Counter.PINGS: ("pings", "pings sent to the exchange"),
    Counter.PONGS: ("pongs", "pings answered, by a pong in time or one read too late to measure"),
    Counter.MISSED_PONGS: ("pings", "pings without a pong in time that did not end the session"),
    Counter.LATE_PONGS: ("pongs", "pongs after their timeout"),
    Counter.FOREIGN_PONGS: ("pongs", "pongs that answer no ping of ours, or one twice"),
    Counter.TIMEOUTS: (
        "sessions",
        "sessions declared dead for silence: no pong, no frame, no data",
    ),
    Counter.SERVER_PINGS: ("pings", "pings of the exchange answered"),
    Counter.SESSIONS: ("sessions", "sessions that got up"),
    Counter.RECONNECTS: ("dials", "dials after the first of a process"),
    Counter.DIALS_POSTPONED: ("dials", "dials that had to wait for the host's connect budget"),
    Counter.CONNECT_FAILURES: ("dials", "dials that did not become a session"),
    Counter.MATCHER_ERRORS: ("errors", "pong matchers or rules that raised"),
    Counter.DECODE_ERRORS: ("errors", "payloads that did not decompress or exceeded the bound"),
    Counter.PROTOCOL_ERRORS: ("errors", "sessions ended for a breach of RFC 6455"),
    Counter.OVERSIZE: ("errors", "sessions ended for a message over the limit"),
    Counter.SUBSCRIPTIONS_REFUSED: (
        "frames",
        "subscribers' frames that are no subscription that could match, or one too many",
    ),
    Counter.EVENTS: ("events", "events announced"),
    Counter.FRAMES_SKIPPED: ("frames", "frames too long for the journal: sent, not kept"),
    Counter.QUEUES_FULL: ("times", "a subscriber's queue was full: it lost messages"),
    Counter.SUBSCRIBERS_CUT: ("connections", "cut: publish.sndbytes waited for a subscriber"),
    Counter.ROTATIONS: ("sessions", "replaced by a fresh one as planned, ordered or announced"),
    Counter.NOTICES: ("messages", "by which the exchange announced the end of a session"),
    Counter.OVERLAP_DUPLICATES: ("messages", "left out: another session had brought them"),
    Counter.OVERLAP_UNMATCHED: ("messages", "published, brought by one of two sessions only"),
    Counter.OVERLAP_OVERFLOWS: ("times", "memory full: messages may be published twice"),
    Counter.LEG_1_WINS: ("messages", "that leg 1 brought first, and leg 2 as well"),
    Counter.LEG_2_WINS: ("messages", "that leg 2 brought first, and leg 1 as well"),
}


class Histogram(IntEnum):
    """Latency histograms of the stats segment, of this incarnation, values in nanoseconds."""

    RTT = 0
    LOOP_LAG = 1
    CONNECT = 2


class SampleKind(IntEnum):
    """What a record of the sample ring measures; ``kind - 1`` is its histogram."""

    RTT = 1
    LOOP_LAG = 2
    CONNECT = 3


# Histogram: 0 to 255 ns exactly, then 128 buckets an octave up to 2^42 ns (73 minutes), as
# HdrHistogram with two digits: no bucket is wider than 1/128 of its lower edge.
SUB_BITS = 7
SUB_BUCKETS = 1 << SUB_BITS
VALUE_BITS_MAX = 42
BUCKETS = SUB_BUCKETS * (VALUE_BITS_MAX - SUB_BITS + 1)
VALUE_MAX = (1 << VALUE_BITS_MAX) - 1


def bucket_index(value_ns: int) -> int:
    """Return the bucket of a duration; negatives go to the first, giants to the last."""
    if value_ns > VALUE_MAX:
        return BUCKETS - 1
    if value_ns < 0:
        return 0
    shift = max(0, value_ns.bit_length() - SUB_BITS - 1)
    return (shift << SUB_BITS) + (value_ns >> shift)


def bucket_edges(index: int) -> tuple[int, int]:
    """Return the lowest and highest value of a bucket, nanoseconds, both inclusive."""
    shift = max(0, (index >> SUB_BITS) - 1)
    low = (index - (shift << SUB_BITS)) << shift
    return low, low + (1 << shift) - 1


WORD_MAX = 1 << 62  # no number of ours gets that far: beyond it a word is garbage
LOW_HALF = 0xFFFF_FFFF

# Records. The sequence number stands in the first eight bytes and its low half in the last four.
SAMPLE = struct.Struct("<QqqIHHqqIIII")
SAMPLE_FIELDS = (
    ("seq", "<u8"),
    ("time_ns", "<i8"),
    ("value_ns", "<i8"),
    ("stream", "<u4"),
    ("kind", "<u2"),
    ("flags", "<u2"),
    ("exchange_ns", "<i8"),
    ("aux", "<i8"),
    ("size", "<u4"),
    ("aux2", "<u4"),
    ("crc", "<u4"),
    ("seq_lo", "<u4"),
)
SAMPLE_BYTES = 64
assert SAMPLE.size == SAMPLE_BYTES
SAMPLE_SLOTS_MIN, SAMPLE_SLOTS_MAX = 1024, 1 << 20

EVENT_HEAD = struct.Struct("<QqqHHI")  # seq, monotonic_ns, wall_ns, kind, body length, zero
EVENT_TAIL = struct.Struct("<I")  # low half of seq
EVENT_BYTES = 512
EVENT_SLOTS = 256
EVENT_BODY_MAX = EVENT_BYTES - EVENT_HEAD.size - EVENT_TAIL.size


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of a segment: ``count`` items of ``stride`` bytes from ``offset``."""

    name: str
    offset: int
    count: int
    stride: int

    @property
    def end(self) -> int:
        """The offset behind the section."""
        return self.offset + self.count * self.stride


WORDS_IN_PAGE = PAGE // WORD
COUNTER_META = struct.Struct("<16s32s80s")  # unit, name, help
COUNTER_SLOTS = 128


@dataclass(frozen=True, slots=True)
class StatsLayout:
    """The sections of a stats segment with a sample ring of ``slots`` records."""

    hot: Section
    counters: Section
    counter_meta: Section
    histograms: Section
    events: Section
    samples: Section
    total: int


def stats_layout(slots: int) -> StatsLayout:
    """
    Return where everything stands.

    Raises:
        ValueError: If ``slots`` is not a power of two of 1,024 to 1,048,576.

    """
    if not SAMPLE_SLOTS_MIN <= slots <= SAMPLE_SLOTS_MAX or slots & (slots - 1):
        raise ValueError(
            f"a sample ring has a power of two of slots, {SAMPLE_SLOTS_MIN:,} to "
            f"{SAMPLE_SLOTS_MAX:,}, got {slots:,}"
        )
    hot = Section("hot words", HEADER_BYTES, WORDS_IN_PAGE, WORD)
    counters = Section("counters", hot.end, COUNTER_SLOTS, WORD)
    meta = Section("counter descriptions", counters.end, COUNTER_SLOTS, COUNTER_META.size)
    histograms = Section("histograms", _page(meta.end), len(Histogram), BUCKETS * WORD)
    events = Section("event ring", _page(histograms.end), EVENT_SLOTS, EVENT_BYTES)
    samples = Section("sample ring", _page(events.end), slots, SAMPLE_BYTES)
    return StatsLayout(hot, counters, meta, histograms, events, samples, _page(samples.end))


def stats_bytes(slots: int) -> int:
    """Return the size of a stats segment in bytes."""
    return stats_layout(slots).total


def _page(offset: int) -> int:
    return -(-offset // PAGE) * PAGE


def layout_hash(*description: object) -> int:
    """Return 64 bits that change with any part of a description."""
    text = "\n".join(map(repr, description)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


# Everything but the ring's size, which stands in the file.
LAYOUT_HASH = layout_hash(
    HEADER.format,
    HEADER_FIELDS,
    [(word.name, word.value) for word in Word],
    [(counter.name, counter.value) for counter in Counter],
    [(histogram.name, histogram.value) for histogram in Histogram],
    [(kind.name, kind.value) for kind in SampleKind],
    (SUB_BITS, VALUE_BITS_MAX),
    (SAMPLE.format, SAMPLE_FIELDS),
    (EVENT_HEAD.format, EVENT_TAIL.format, EVENT_BYTES, EVENT_SLOTS),
    (COUNTER_META.format, COUNTER_SLOTS),
    stats_layout(SAMPLE_SLOTS_MIN),
)
