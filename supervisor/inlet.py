"""Inlet: one connection's endpoint, read as far as it goes and put in order.

The I/O shell of a sequencer. Messages in turn, of the known incarnation and stretch, take the short
way: they are handed over a run at a time without asking it.
"""

import struct
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import zmq

from supervisor.heads import WorkerWords, head_of
from supervisor.items import LOST, Gap, Item, Message
from supervisor.lineage import Head
from supervisor.repairs import Repairs, message_of
from supervisor.sequencer import Action, Look, Sequencer
from supervisor.sockets import DONTWAIT, subscribed
from supervisor.topic_sequencer import TopicSequencer
from worker.envelope import HEADER, STRETCH_SHIFT, TOPIC_LENGTH_MAX, VERSION, Flag, Kind

DATA, TEXT = int(Kind.DATA), int(Flag.TEXT)
SEARCH_END, BODY = TOPIC_LENGTH_MAX + 1, HEADER.size + 1
TOPICS_KEPT = 20_000
SETTLE_NS = 50_000_000  # what shared memory tells may still be on its way to us
unpack, new = HEADER.unpack_from, tuple.__new__


@dataclass(slots=True)
class Counts:
    """What became of one connection's frames; ``Subscriber.stats`` tells what each means."""

    received: int = 0
    repaired: int = 0
    lost: int = 0
    overruns: int = 0
    gaps: int = 0
    duplicates: int = 0
    malformed: int = 0
    resyncs: int = 0
    session_changes: int = 0
    behind: int = 0
    journal_errors: int = 0


class Inlet:
    """
    One connection.

    Args:
        context: Of the socket.
        endpoint: Where it publishes.
        shm_dir: The fleet's, for its journal and its head number.
        sequencer: Whose facts these are.
        counts: Go on over the inlets of a connection, as its sequencer does.
        prefixes: Of the topics that are wanted, and of its state.

    Attributes:
        fd: Readable when ``drain`` has something to do.
        heard_ns: When something last came, CLOCK_MONOTONIC.

    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        shm_dir: Path,
        sequencer: Sequencer | TopicSequencer,
        counts: Counts,
        prefixes: tuple[bytes, ...],
    ) -> None:
        self.connection = sequencer.connection
        self.endpoint, self.shm_dir, self.sequencer = endpoint, shm_dir, sequencer
        self.counts = counts
        self._socket = subscribed(context, endpoint, prefixes)
        self._recv = self._socket.recv
        self.fd = int(self._socket.getsockopt(zmq.FD))
        self._topics: dict[bytes, str] = {}
        self._repairs = Repairs(shm_dir, self.connection, prefixes)
        self._words = WorkerWords(shm_dir, self.connection)
        self._pid = 0  # of the worker heard last
        self._suspicion: Head | None = None
        self._run: list[Message] = []  # in turn, and not delivered
        self._delivered: list[Message] = []  # and what the sequencer does not know of yet
        self.heard_ns = time.monotonic_ns()

    # Reading ---------------------------------------------------------------------------------

    def drain(self, out: deque[Item], budget: int) -> bool:
        """
        Read at most so many frames; return whether there are no more.

        Only then will ``fd`` tell of the next one (zmq_getsockopt(3), ZMQ_FD, is edge-triggered).
        """
        before = len(out)
        empty = self._read(out, budget)
        if len(out) != before or not empty:
            self.heard_ns = time.monotonic_ns()
            self._suspicion = None
        elif (head := self._suspicion) and time.monotonic_ns() - head.at_ns >= SETTLE_NS:
            self.settle(out)
        return empty

    def _read(self, out: deque[Item], budget: int) -> bool:
        recv, topics, connection = self._recv, self._topics, self.connection
        sequencer = self.sequencer
        self._hand_over(out)  # what an interrupt left
        expected, turns = sequencer.expected, sequencer.turns
        known_epoch, known_stretch = sequencer.epoch, sequencer.stretch
        former_flags, is_text, stretch = -1, False, 0  # hardly ever others than those before
        append = self._run.append
        try:
            for _ in range(budget):
                frame = recv(DONTWAIT)
                end = frame.find(b"\0", 0, SEARCH_END)
                try:
                    version, kind, flags, epoch, seq, topic_seq, wall_ns, at_ns = unpack(
                        frame, end + 1
                    )
                except struct.error:
                    end = -1
                if end <= 0 or version != VERSION:
                    self.counts.malformed += 1
                    continue
                if kind == DATA:
                    name = frame[:end]
                    try:
                        topic = topics.get(name) or self._topic(name)
                    except UnicodeDecodeError:
                        self.counts.malformed += 1
                        continue
                    if flags != former_flags:
                        former_flags, is_text = flags, flags & TEXT == TEXT
                        stretch = flags >> STRETCH_SHIFT
                    fields = (
                        connection,
                        epoch,
                        seq,
                        topic_seq,
                        topic,
                        frame[end + BODY :],
                        wall_ns,
                        at_ns,
                        False,
                        is_text,
                        stretch,
                    )
                    message = new(Message, fields)  # a third of the cost of Message(*fields)
                    # An interrupt comes after a call: what is counted is appended, too.
                    if epoch == known_epoch and stretch == known_stretch:
                        if seq == expected:
                            expected = seq + 1
                            append(message)
                            continue
                        if turns.get(topic) == topic_seq:
                            turns[topic] = topic_seq + 1
                            append(message)
                            continue
                    self._hand_over(out)
                    self._take(message, out)
                else:
                    self._hand_over(out)
                    self._take_state(head_of(frame, end + 1), out)
                expected = sequencer.expected
                known_epoch, known_stretch = sequencer.epoch, sequencer.stretch
                append = self._run.append
        except zmq.Again:
            return True
        finally:
            self._hand_over(out)
        return False

    def _hand_over(self, out: deque[Item]) -> None:
        """
        Deliver the run of messages in turn, and have the sequencer know.

        An interrupt comes between two calls of functions, and these three statements are none: it
        finds a run delivered and noted, or neither. What it leaves is done at the next reading.
        """
        run = self._run
        if run:
            out += run
            self._delivered, self._run = run, []
        if self._delivered:
            self.sequencer.accept_run(self._delivered)
            self.counts.received += len(self._delivered)
            self._delivered = []

    def _topic(self, name: bytes) -> str:
        """Return a topic as text, one object for all its messages; UnicodeDecodeError if none."""
        topic = name.decode("ascii")
        if len(self._topics) < TOPICS_KEPT:
            self._topics[name] = topic
        return topic

    def _take(self, message: Message, out: deque[Item]) -> None:
        self._emit(self.sequencer.message(message), out)

    def _take_state(self, head: Head | None, out: deque[Item]) -> None:
        if head is None:
            self.counts.malformed += 1
            return
        self._emit(self.sequencer.head(head), out)
        self._heard(head)

    def _heard(self, head: Head) -> None:
        """Note that a worker speaks, and which."""
        self.heard_ns = time.monotonic_ns()
        self._suspicion = None  # it speaks for itself
        if head.pid != self._pid:
            self._pid = head.pid
            self._words.remap()
            self._repairs.open()

    def _emit(self, actions: Iterable[Action], out: deque[Item]) -> None:
        """Deliver what a sequencer says, and answer what it asks."""
        counts, sequencer = self.counts, self.sequencer
        if sequencer.resyncs != counts.resyncs:
            counts.resyncs = sequencer.resyncs
            self._repairs.close()  # it may be of the other beginning
        for action in actions:
            if isinstance(action, Look):
                self._emit(sequencer.found(self._repairs.search(action)), out)
                continue
            out.append(action)
            if isinstance(action, Message):
                counts.repaired += action.repaired
                counts.received += not action.repaired
            elif isinstance(action, Gap):
                counts.gaps += 1
                if action.cause == LOST:
                    counts.lost += action.missing or 0
                else:
                    counts.overruns += action.missing or 0
            else:
                counts.session_changes += 1
        counts.duplicates = sequencer.duplicates
        counts.journal_errors += self._repairs.take_errors()

    # Falling behind --------------------------------------------------------------------------

    def skip_old(self, out: deque[Item], max_age_ns: int) -> None:
        """Leave out what waits and is older than ``max_age_ns``, but for the last message."""
        self._hand_over(out)  # what an interrupt left
        message: Message | None = None
        head: Head | None = None
        while (fact := self._next_fact()) is not None:
            if isinstance(fact, Head):
                head = fact
                continue
            message = fact
            if time.monotonic_ns() - message.monotonic_ns <= max_age_ns:
                break
        if message is not None:
            passed = head if head is not None and head.seq < message.seq else None
            self._emit(self.sequencer.skip(message.seq, passed), out)
            if passed is not None:
                self._heard(passed)
                head = None
            self._take(message, out)
        if head is not None:
            self._take_state(head, out)

    def _next_fact(self) -> Message | Head | None:
        """Read one frame at leisure."""
        while True:
            try:
                frame = self._recv(DONTWAIT)
            except zmq.Again:
                return None
            end = frame.find(b"\0", 0, SEARCH_END)
            fact = message_of(self.connection, frame) or (
                head_of(frame, end + 1) if end > 0 else None
            )
            if fact is not None:
                return fact
            self.counts.malformed += 1

    # Shared memory ---------------------------------------------------------------------------

    def suspect(self, *, wants_past: bool) -> None:
        """
        Look in shared memory for messages that did not come.

        Args:
            wants_past: Whether those of a dead worker are wanted that was never heard.

        """
        if self._suspicion is not None:
            return
        words = self._words
        words.remap()
        if not self._pid and not wants_past:
            return
        head = words.head(self._pid, self.sequencer.epoch)
        if words.dead():
            # The fleet may have removed the segment of a successor that we never saw. All wrote
            # into one journal, and it is mapped.
            head = max(head or 0, self._repairs.last_seq())
        if head is not None:
            self._suspicion = Head(head, time.monotonic_ns())

    def settle(self, out: deque[Item]) -> None:
        """Take what shared memory told for true: whatever was on its way is here."""
        head, self._suspicion = self._suspicion, None
        if head is not None:
            self._emit(self.sequencer.head(head), out)

    def conclude(self, out: deque[Item], *, wants_past: bool) -> None:
        """Take what shared memory tells now: whoever was heard will say nothing any more."""
        self._suspicion = None
        self.suspect(wants_past=wants_past)
        self.settle(out)

    @property
    def is_suspicious(self) -> bool:
        """Whether a number from shared memory is waited for."""
        return self._suspicion is not None

    # The end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close everything."""
        self._socket.close(0)
        self._repairs.close()
        self._words.close()
