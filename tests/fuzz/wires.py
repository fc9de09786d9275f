"""Targets: a subscriber's sockets, fed by a publisher gone mad."""

import time
from collections import Counter, deque

import zmq

from fuzz.damage import damaged
from fuzz.envelopes import bad_frame, frame
from fuzz.target import Target
from supervisor.event_inlet import EventInlet
from supervisor.heads import head_of
from supervisor.inlet import Counts, Inlet
from supervisor.items import Gap, Message, SessionChange
from supervisor.repairs import message_of
from supervisor.sequencer import Join, Sequencer
from supervisor.topic_sequencer import TopicSequencer
from worker.endpoints import EVENTS
from worker.envelope import TOPIC_LENGTH_MAX, Envelope, Flag, Kind, encode

PATIENCE_S = 20.0
LAST = b"no envelope at all, and the last of its case"
EVENT = (
    b'{"fleet":"f","connection":"a","kind":"up","cause":"","detail":{},"delay_s":null,'
    b'"incarnation":1,"pid":7,"seq":9,"time":"2026-01-01T00:00:00.000000Z","monotonic_ns":5}'
)


def genuine(seq):
    """A message as a worker of epoch 1 publishes it."""
    now_ns = time.monotonic_ns()
    body = b'{"n":%d}' % seq
    return encode(Envelope("data.a", Kind.DATA, Flag.TEXT, 1, seq, seq, now_ns, now_ns, body))


def is_malformed(given):
    """Return whether a frame is neither a message nor a state."""
    end = given.find(b"\0", 0, TOPIC_LENGTH_MAX + 1)
    is_state = end > 0 and head_of(given, end + 1) is not None
    return message_of("a", given) is None and not is_state


class Publishing(Target):
    """Has a publishing socket, and sends to it whatever a case wants."""

    def __init__(self, folder):
        super().__init__(folder)
        self.context = zmq.Context()

    def publisher(self, endpoint):
        xpub = self.context.socket(zmq.XPUB)
        for option, value in ((zmq.SNDHWM, 0), (zmq.LINGER, 0), (zmq.XPUB_VERBOSE, 1)):
            xpub.setsockopt(option, value)
        xpub.bind(endpoint)
        return xpub

    def close(self):
        self.context.term()


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "what was sent was not read"
        time.sleep(0.0005)


class Wire(Publishing):
    """
    Data and state frames.

    Among malformed frames alone every genuine message is delivered, once and in order, and each
    malformed one is counted. Among frames that pass for genuine nobody can tell; still nothing is
    delivered that was not published so.
    """

    def run(self, rng):
        endpoint = f"inproc://wire-{rng.random()}"
        kind = rng.choice((Sequencer, Sequencer, TopicSequencer))
        counts = Counts()
        xpub = self.publisher(endpoint)
        sequencer = kind("a", rng.choice(list(Join)))
        inlet = Inlet(self.context, endpoint, self.folder, sequencer, counts, (b"",))
        try:
            assert xpub.poll(PATIENCE_S * 1000)
            xpub.recv()
            strict = kind is Sequencer and rng.random() < 0.5
            sent = self._sent(rng, strict=strict)
            malformed = sum(map(is_malformed, sent)) + 1
            for given in [*sent, LAST]:
                xpub.send(given)
            out = deque()
            if rng.random() < 0.2:
                inlet.skip_old(out, rng.choice((0, 1 << 60)))
                strict = False
            wait_for(lambda: inlet.drain(out, 17) and counts.malformed >= malformed)
            assert counts.malformed == malformed
            self._judge(sent, out, strict=strict)
            return "strict" if strict else "anything"
        finally:
            inlet.close()
            xpub.close()

    def _sent(self, rng, *, strict):
        sent, seq = [], 0
        for _ in range(rng.randrange(60)):
            if rng.random() < 0.5:
                seq += 1
                sent.append(genuine(seq))
                continue
            given = rng.choice((bad_frame, frame))(rng)
            if not strict or is_malformed(given):
                sent.append(given)
        return sent

    def _judge(self, sent, out, *, strict):
        messages = [item for item in out if isinstance(item, Message)]
        assert all(isinstance(item, Message | Gap | SessionChange) for item in out)
        published = [message_of("a", given) for given in sent]
        if strict:
            assert messages == [message for message in published if message is not None]
            assert not any(isinstance(item, Gap) for item in out)
        left = Counter(message for message in published if message is not None)
        left.subtract(messages)
        assert not any(count < 0 for count in left.values()), "delivered and never published"


class EventWire(Publishing):
    """Events: those that are none are counted, the others come as they are."""

    def __init__(self, folder):
        super().__init__(folder)
        self._xpub = self.publisher(f"ipc://{folder / EVENTS}")
        self._counts, self._heard = Counter(), []
        self._inlet = EventInlet(self.context, folder, self._hear, self._counts)
        assert self._xpub.poll(PATIENCE_S * 1000)
        self._xpub.recv()

    def _hear(self, event):
        self._heard.append(event)
        return True

    def run(self, rng):
        self._heard.clear()
        before = self._counts["events"] + self._counts["malformed"]
        for _ in range(count := rng.randrange(1, 40)):
            body = EVENT if rng.random() < 0.3 else damaged(rng, EVENT)
            if rng.random() < 0.05:
                body = b"[" * 100_000
            kind = rng.choice((5, 5, 5, 1, 77))
            given = encode(Envelope("event.a.up", kind, 0, 1, 1, 1, 1, 1, body))
            head = given.index(b"\0") + 41
            if rng.random() < 0.2:
                given = b"event." + damaged(rng, given[6:head]) + given[head:]
            self._xpub.send(given[: rng.randrange(6, head)] if rng.random() < 0.1 else given)
        out = deque()
        wait_for(lambda: self._inlet.drain(out, 64) and self._read() >= before + count)
        assert self._read() == before + count
        assert list(out) == self._heard
        return "heard" if self._heard else "none"

    def _read(self):
        return self._counts["events"] + self._counts["malformed"]

    def close(self):
        self._inlet.close()
        self._xpub.close()
        super().close()
