"""Publisher: the worker's data endpoint, an XPUB on the listener that the zygote holds.

Plain socket and integer flags, one frame a message. The head sequence number is stored in shared
memory before the send, so that it continues whatever happens to this process.
"""

import time
from dataclasses import dataclass

import msgspec
import zmq

from shm.layout import Counter, Word
from shm.stats import StatsWriter
from worker.announcement import Announcement, Origin, event_topic, render
from worker.envelope import HEADER, VERSION, Flag, Kind, topic_prefix
from worker.spec import ConnectionSpec

DONTWAIT = int(zmq.DONTWAIT)
DATA, TEXT, FIRST = int(Kind.DATA), int(Flag.TEXT), int(Flag.FIRST_OF_EPOCH)
SEQ = int(Word.SEQ)

DRAIN_BUDGET = 64
SUBSCRIPTION_BYTES_MAX = 4096
SUBSCRIBE, UNSUBSCRIBE = 1, 0
LINGER_MS = 100
KEYS_MAX = 10_000


@dataclass(slots=True)
class _Topic:
    prefix: bytes
    seq: int = 0
    last_ns: int = 0  # when it last had data, CLOCK_MONOTONIC


class Publisher:
    """
    Everything that leaves the worker over ZeroMQ.

    Args:
        spec: The connection.
        stats: Its segment; head word, counters and the subscriber gauge are written here.
        listener: The inherited listening socket's descriptor; libzmq takes it over.
        endpoint: ``ipc://`` path of that socket.
        origin: Named in events.

    """

    def __init__(
        self, spec: ConnectionSpec, stats: StatsWriter, listener: int, endpoint: str, origin: Origin
    ) -> None:
        self._stats, self._origin = stats, origin
        self._words, self._counters = stats.words, stats.counters
        self._epoch = stats.epoch
        self._data_topic = f"data.{spec.name}"
        self._state_prefix = topic_prefix(f"state.{spec.name}")
        self._plain = _Topic(topic_prefix(self._data_topic))
        self._keyed: dict[str, _Topic] = {}
        self._first_flag = FIRST
        self._event_seq = 0
        self._event_topics: dict[bytes, int] = {}
        self._state_seqs = 0
        self._state: dict[str, object] = {}
        self._subscriptions = 0
        self._context = zmq.Context()
        self._xpub = self._context.socket(zmq.XPUB)
        self._xpub.setsockopt(zmq.SNDHWM, spec.publish.sndhwm)
        self._xpub.setsockopt(zmq.XPUB_VERBOSER, 1)
        self._xpub.setsockopt(zmq.MAXMSGSIZE, SUBSCRIPTION_BYTES_MAX)
        self._xpub.setsockopt(zmq.LINGER, LINGER_MS)
        self._xpub.setsockopt(zmq.USE_FD, listener)
        self._xpub.bind(endpoint)
        self._send = self._xpub.send

    def data(
        self, payload: bytes, is_text: bool, now_ns: int, wall_ns: int, key: str | None = None
    ) -> None:
        """
        Publish one message as it was received.

        Args:
            payload: The message's bytes.
            is_text: Whether it was a text message.
            now_ns: CLOCK_MONOTONIC when its bytes arrived.
            wall_ns: CLOCK_REALTIME of the same moment.
            key: Last part of the topic, if the connection has one.

        """
        words = self._words
        topic = self._plain if key is None else self._topic_of(key)
        seq = words[SEQ] + 1
        topic.seq += 1
        frame = (
            topic.prefix
            + HEADER.pack(
                VERSION,
                DATA,
                (TEXT if is_text else 0) | self._first_flag,
                self._epoch,
                seq,
                topic.seq,
                wall_ns,
                now_ns,
            )
            + payload
        )
        self._first_flag = 0
        words[SEQ] = seq
        topic.last_ns = now_ns
        self._send(frame, DONTWAIT)

    def _topic_of(self, key: str) -> _Topic:
        topic = self._keyed.get(key)
        if topic is None:
            if len(self._keyed) >= KEYS_MAX:
                return self._plain
            topic = self._keyed[key] = _Topic(topic_prefix(f"{self._data_topic}.{key}"))
        return topic

    def state(self, state: str, session: int) -> None:
        """Publish a change of state."""
        self._state = {
            "connection": self._origin.connection,
            "state": state,
            "pid": self._origin.pid,
            "epoch": self._epoch,
            "session": session,
            "journal": None,
        }
        self._publish_state(Kind.STATE)

    def liveness(self) -> None:
        """Publish that the loop turns, with the head sequence number."""
        self._publish_state(Kind.LIVENESS)

    def _publish_state(self, kind: Kind) -> None:
        self._state_seqs += 1  # of the topic; a hello repeats that of the frame before it
        self._send(self._state_frame(kind), DONTWAIT)
        # What a new subscriber is told first; its head is at most one liveness frame old.
        self._xpub.setsockopt(zmq.XPUB_WELCOME_MSG, self._state_frame(Kind.HELLO))

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
        self._send(topic + header + payload, DONTWAIT)

    def topics(self) -> dict[str, int]:
        """Return when each key last had data, CLOCK_MONOTONIC ns."""
        return {key: topic.last_ns for key, topic in self._keyed.items()}

    def drain(self) -> None:
        """
        Read what subscribers sent, a bounded number, and keep the gauge of subscriptions.

        Called on a timer: the socket's descriptor is edge-triggered, and sending eats the edges.
        """
        for _ in range(DRAIN_BUDGET):
            try:
                frame = self._xpub.recv(DONTWAIT)
            except zmq.Again:
                break
            if not frame or frame[0] not in (SUBSCRIBE, UNSUBSCRIBE):
                self._counters[Counter.SUBSCRIPTIONS_REFUSED] += 1
                continue
            self._subscriptions += 1 if frame[0] == SUBSCRIBE else -1
        self._words[Word.SUBSCRIBERS] = max(0, self._subscriptions)

    def close(self) -> None:
        """Close after at most 100 ms of sending what is queued."""
        self._xpub.close()
        self._context.term()
