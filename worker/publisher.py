"""Publisher: what a worker lets subscribers have, as frames, in the journal and on its endpoint.

A message is kept in the journal first, then the head sequence number is stored, then it is sent:
whatever ends this process, no number is given out twice, and what was sent can be repaired from.
"""

import struct
import time
from typing import Any

import msgspec
import zmq

from shm.journal import INTENT, LAST_SEQ, LOW_HALF, PUBLISH, Journal
from shm.journal_layout import HEAD
from shm.layout import Counter, Word
from shm.stats import StatsWriter
from worker.announcement import Announcement, Origin, event_topic, render
from worker.envelope import HEADER, VERSION, Flag, Kind, topic_prefix
from worker.outlet import DONTWAIT, Outlet
from worker.spec import ConnectionSpec

TEXT, FIRST = int(Flag.TEXT), int(Flag.FIRST_OF_EPOCH)
SEQ, FRAMES_SKIPPED = int(Word.SEQ), int(Counter.FRAMES_SKIPPED)
HEAD_BYTES = HEAD.size
CONSTANT = struct.Struct("<HBBI")  # version, kind, flags, epoch: how the header begins
VARIABLE = "QQqq"  # seq, topic seq, wall ns, monotonic ns: how it goes on
assert HEADER.format == CONSTANT.format + VARIABLE
KEYS_MAX = 10_000


class _Topic:
    """
    A topic of data, and all of its frames that does not change.

    ``pack`` makes the journal's head, topic and header in one go.
    """

    __slots__ = ("binary", "head_bytes", "last_ns", "pack", "seq", "text")

    def __init__(self, topic: str, epoch: int) -> None:
        prefix = topic_prefix(topic)
        self.binary, self.text = (
            prefix + CONSTANT.pack(VERSION, Kind.DATA, flags, epoch) for flags in (0, TEXT)
        )
        packer = struct.Struct(f"{HEAD.format}{len(self.text)}s{VARIABLE}")
        self.pack = packer.pack
        self.head_bytes = packer.size - HEAD_BYTES
        self.seq = 0
        self.last_ns = 0  # when it last had data, CLOCK_MONOTONIC


class Publisher:
    """
    Everything that leaves the worker over ZeroMQ.

    Args:
        spec: The connection.
        stats: Its segment; head word, counters and the subscriber gauge are written here.
        listener: The inherited listening socket's descriptor; libzmq takes it over.
        endpoint: ``ipc://`` path of that socket.
        origin: Named in events.
        journal: Where data is kept, if anywhere.

    """

    def __init__(
        self,
        spec: ConnectionSpec,
        stats: StatsWriter,
        listener: int,
        endpoint: str,
        origin: Origin,
        journal: Journal | None = None,
    ) -> None:
        self._stats, self._origin, self._journal = stats, origin, journal
        self._words, self._counters = stats.words, stats.counters
        self._epoch = stats.epoch
        self._data_topic = f"data.{spec.name}"
        self._state_prefix = topic_prefix(f"state.{spec.name}")
        self._plain = _Topic(self._data_topic, self._epoch)
        self._keyed: dict[str, _Topic] = {}
        self._is_first = True
        self._event_seq = 0
        self._event_topics: dict[bytes, int] = {}
        self._state_seqs = 0
        kept: dict[str, Any] | None = None
        if journal is not None:
            # A killed predecessor may have kept one message more than it counted.
            self._words[SEQ] = max(self._words[SEQ], journal.last_seq())
            kept = {"path": str(journal.path), "size": journal.size}
        self._journal_said = kept
        self._state = self._state_of("idle", 0)
        self._context = zmq.Context()
        self._outlet = Outlet(
            self._context, spec.name, spec.publish, stats, listener, endpoint, self.liveness
        )
        self._outlet.open(self._state_frame(Kind.HELLO))

    def data(
        self, payload: bytes, is_text: bool, now_ns: int, wall_ns: int, key: str | None = None
    ) -> None:
        """
        Publish one message as it was received. The hot path: no call that can be avoided.

        Args:
            payload: The message's bytes.
            is_text: Whether it was a text message.
            now_ns: CLOCK_MONOTONIC when its bytes arrived.
            wall_ns: CLOCK_REALTIME of the same moment.
            key: Last part of the topic, if the connection has one.

        """
        words, journal = self._words, self._journal
        topic = self._plain
        if key is not None:
            topic = self._topic_of(key)
            topic.last_ns = now_ns
        seq = words[SEQ] + 1
        topic.seq = topic_seq = topic.seq + 1
        length = topic.head_bytes + len(payload)
        constant = topic.text if is_text else topic.binary
        if self._is_first:
            constant = self._first(constant)
        record = (
            topic.pack(length, seq & LOW_HALF, constant, seq, topic_seq, wall_ns, now_ns) + payload
        )
        if journal is not None:
            at = journal.at
            end = at + HEAD_BYTES + length
            if end > journal.end or length > journal.quick_max:
                self._counters[FRAMES_SKIPPED] += not journal.append(seq, record[HEAD_BYTES:])
            else:  # as Journal.append
                ring, position = journal.words, journal.position
                following = position + (length + 15 & -8)
                ring[INTENT] = following
                journal.memory[at:end] = record
                journal.index[seq % journal.slots] = position
                ring[PUBLISH] = journal.position = following
                journal.at = end + 7 & -8
                ring[LAST_SEQ] = seq
        words[SEQ] = seq
        send = self._outlet.send_data
        if send is not None:
            frame = record[HEAD_BYTES:]
            try:
                send(frame, DONTWAIT)
            except zmq.Again:
                self._outlet.full(frame)

    def _first(self, constant: bytes) -> bytes:
        """Return how a frame begins with the flag of an epoch's first."""
        self._is_first = False
        at = len(constant) - CONSTANT.size
        version, kind, flags, epoch = CONSTANT.unpack_from(constant, at)
        return constant[:at] + CONSTANT.pack(version, kind, flags | FIRST, epoch)

    def _topic_of(self, key: str) -> _Topic:
        topic = self._keyed.get(key)
        if topic is None:
            if len(self._keyed) >= KEYS_MAX:
                return self._plain
            topic = self._keyed[key] = _Topic(f"{self._data_topic}.{key}", self._epoch)
        return topic

    def state(self, state: str, session: int) -> None:
        """Publish a change of state."""
        self._state = self._state_of(state, session)
        self._publish_state(Kind.STATE)

    def _state_of(self, state: str, session: int) -> dict[str, Any]:
        return {
            "connection": self._origin.connection,
            "state": state,
            "pid": self._origin.pid,
            "epoch": self._epoch,
            "session": session,
            "journal": self._journal_said,
        }

    def liveness(self) -> None:
        """Publish that the loop turns, with the head sequence number."""
        self._publish_state(Kind.LIVENESS)

    def _publish_state(self, kind: Kind) -> None:
        self._state_seqs += 1  # of the topic; a hello repeats that of the frame before it
        self._outlet.send(self._state_frame(kind))
        # What a new subscriber is told first; its head is at most one liveness frame old, and a
        # liveness frame follows as soon as its subscription is seen.
        self._outlet.greet(self._state_frame(Kind.HELLO))

    def _state_frame(self, kind: Kind) -> bytes:
        head = self._words[SEQ]
        now_ns = time.monotonic_ns()
        header = HEADER.pack(
            VERSION, kind, TEXT, self._epoch, head, self._state_seqs, time.time_ns(), now_ns
        )
        return self._state_prefix + header + msgspec.json.encode(self._state | {"seq": head})

    def event(self, announcement: Announcement, wall_ns: int, monotonic_ns: int) -> None:
        """Publish one of the session's events."""
        self._event_seq += 1
        topic = topic_prefix(event_topic(self._origin, announcement.kind))
        topic_seq = self._event_topics[topic] = self._event_topics.get(topic, 0) + 1
        header = HEADER.pack(
            VERSION,
            Kind.EVENT,
            TEXT,
            self._epoch,
            self._event_seq,
            topic_seq,
            wall_ns,
            monotonic_ns,
        )
        payload = render(
            announcement,
            self._origin,
            seq=self._event_seq,
            wall_ns=wall_ns,
            monotonic_ns=monotonic_ns,
        )
        self._outlet.send(topic + header + payload)

    def topics(self) -> dict[str, int]:
        """Return when each key last had data, CLOCK_MONOTONIC ns."""
        return {key: topic.last_ns for key, topic in self._keyed.items()}

    def look(self) -> list[Announcement]:
        """
        Hear subscribers, bound their queues; return what there is to announce of them.

        Called on a timer, every 20 ms.
        """
        self._outlet.drain()
        return self._outlet.look()

    def close(self) -> None:
        """Close after at most 100 ms of sending what is queued."""
        self._outlet.close()
        self._context.term()
