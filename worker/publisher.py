"""Publisher: what a worker lets subscribers have, as frames, in the journal and on its endpoint.

A message is kept in the journal first, then the head sequence number is stored, then it is sent:
whatever ends this process, no number is given out twice, and what was sent can be repaired from.
"""

import time
from dataclasses import dataclass
from typing import Any

import msgspec
import zmq

from shm.journal import Journal
from shm.layout import Word
from shm.stats import StatsWriter
from worker.announcement import Announcement, Origin, event_topic, render
from worker.envelope import HEADER, VERSION, Flag, Kind, topic_prefix
from worker.outlet import Outlet
from worker.session_state import CONNECTED
from worker.spec import ConnectionSpec
from worker.stream import Data, make_stream

TEXT, SEQ = int(Flag.TEXT), int(Word.SEQ)
KEYS_MAX = 10_000


@dataclass(slots=True)
class _Topic:
    data: Data
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
        self._origin, self._words, self._epoch = origin, stats.words, stats.epoch
        self._data_topic = f"data.{spec.name}"
        self._state_prefix = topic_prefix(f"state.{spec.name}")
        self._keyed: dict[str, _Topic] = {}
        self._event_seq = 0
        self._event_topics: dict[bytes, int] = {}
        self._state_seqs = 0
        self._state_flags, self._session = TEXT, 0  # the latter: that gave data last, or can now
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
        self._stream = make_stream(stats, journal, self._outlet)
        self._data = self._stream.on_topic(self._data_topic)
        self._outlet.open(self._state_frame(Kind.HELLO))

    @property
    def data(self) -> Data:
        """What publishes a message on the connection's topic (``worker/stream.py``)."""
        return self._data

    def data_of_key(
        self, key: str, payload: bytes, is_text: bool, now_ns: int, wall_ns: int
    ) -> None:
        """Publish a message on the topic of a key, or on the plain one if there are too many."""
        topic = self._keyed.get(key)
        if topic is None:
            if len(self._keyed) >= KEYS_MAX:
                self._data(payload, is_text, now_ns, wall_ns)
                return
            topic = _Topic(self._stream.on_topic(f"{self._data_topic}.{key}"))
            self._keyed[key] = topic
        topic.last_ns = now_ns
        topic.data(payload, is_text, now_ns, wall_ns)

    def flush(self) -> None:
        """Send what a read brought, and make the head sequence number visible."""
        self._stream.flush()

    def state(self, state: str, session: int) -> None:
        """Publish a change of state; what another session brings is another stretch."""
        if state in CONNECTED and session != self._session:
            if self._session:
                self._state_flags = TEXT | self._stream.break_off()
            self._session = session
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
        self._stream.flush()
        head = self._words[SEQ]
        now_ns = time.monotonic_ns()
        header = HEADER.pack(
            VERSION,
            kind,
            self._state_flags,
            self._epoch,
            head,
            self._state_seqs,
            time.time_ns(),
            now_ns,
        )
        return self._state_prefix + header + msgspec.json.encode(self._state | {"seq": head})

    def event(self, announcement: Announcement, wall_ns: int, monotonic_ns: int) -> None:
        """Publish one of the session's events."""
        self._stream.flush()  # what came before it goes before it
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

        Called on a timer: every 20 ms while ``busy``, else with each liveness frame, whose sending
        may have eaten what the endpoint's descriptor had to tell.
        """
        self._outlet.drain()
        return self._outlet.look()

    @property
    def busy(self) -> bool:
        """Whether data was sent since the last look, or a subscriber is being waited for."""
        return self._outlet.busy

    def close(self) -> None:
        """Close after at most 100 ms of sending what is queued."""
        self._stream.flush()
        self._outlet.close()
        self._context.term()
