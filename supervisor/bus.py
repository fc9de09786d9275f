"""Bus: the fleet's event stream, published by the supervisor on ``events.sock``.

Carries the supervisor's own events and the workers' relayed ones in one order with one ``seq``.
Nothing is decided here, and nothing depends on anybody hearing it.
"""

import socket
import time
from collections import Counter
from pathlib import Path

import zmq

from supervisor.gate import Gate, is_readable
from worker.announcement import Announcement, Origin, event_topic, render
from worker.envelope import HEADER, VERSION, Flag, Kind, topic_prefix

DONTWAIT = int(zmq.DONTWAIT)
DRAIN_BUDGET = 64
SUBSCRIPTION_BYTES_MAX = 4096


class Bus:
    """
    An XPUB on a lent listener.

    Args:
        context: The supervisor's ZeroMQ context.
        listener: A listening socket of ``path``; the bus owns it from here.
        path: ``<runtime_dir>/events.sock``.
        epoch: The supervisor's epoch, carried in each header.
        needed: Descriptors that the fleet itself needs (supervisor/gate.py).

    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        listener: socket.socket,
        path: Path,
        epoch: int,
        needed: int = 0,
    ) -> None:
        self._epoch = epoch
        self._seq = 0
        self._topic_seqs: Counter[str] = Counter()
        self.dropped = 0
        self._xpub = context.socket(zmq.XPUB)
        self._xpub.setsockopt(zmq.SNDHWM, 10_000)
        self._xpub.setsockopt(zmq.MAXMSGSIZE, SUBSCRIPTION_BYTES_MAX)
        self._xpub.setsockopt(zmq.LINGER, 100)
        self.gate = Gate(self._xpub, listener, path, needed)

    def publish(
        self,
        announcement: Announcement,
        origin: Origin,
        *,
        wall_ns: int | None = None,
        monotonic_ns: int | None = None,
    ) -> None:
        """Publish one event. Times default to now; a relayed event keeps those of its worker."""
        wall_ns = time.time_ns() if wall_ns is None else wall_ns
        monotonic_ns = time.monotonic_ns() if monotonic_ns is None else monotonic_ns
        self._seq += 1
        topic = event_topic(origin, announcement.kind)
        self._topic_seqs[topic] += 1
        header = HEADER.pack(
            VERSION,
            Kind.EVENT,
            Flag.TEXT,
            self._epoch,
            self._seq,
            self._topic_seqs[topic],
            wall_ns,
            monotonic_ns,
        )
        payload = render(
            announcement, origin, seq=self._seq, wall_ns=wall_ns, monotonic_ns=monotonic_ns
        )
        try:
            self._xpub.send(topic_prefix(topic) + header + payload, DONTWAIT)
        except zmq.Again:
            self.dropped += 1

    def drain(self) -> None:
        """Read what subscribers sent, so that it does not pile up. libzmq filters by itself."""
        for _ in range(DRAIN_BUDGET):
            if not is_readable(self._xpub):
                return
            self._xpub.recv(DONTWAIT)

    def close(self) -> None:
        """Close after at most 100 ms of sending what is queued."""
        self.gate.close()
        self._xpub.close()
