"""Outlet: the XPUB socket of a worker, on the listener that the zygote holds.

It knows who is subscribed, so that nothing is sent to nobody; it holds the first frames back until
the predecessor's subscribers are here again; and it tells subscribers that are too slow apart from
the others, whom they do not harm. Plain socket, integer flags: an XPUB's send never waits.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable

import zmq

from shm.layout import Counter, Word
from shm.stats import StatsWriter
from worker import peers
from worker.announcement import Announcement
from worker.backlog import Backlog
from worker.slow import SlowWatch, listed, slow
from worker.spec import PublishSpec
from worker.subscriptions import Subscriptions

DONTWAIT = int(zmq.DONTWAIT)
SEQ, SUBSCRIBERS = int(Word.SEQ), int(Word.SUBSCRIBERS)
REFUSED, QUEUES_FULL = int(Counter.SUBSCRIPTIONS_REFUSED), int(Counter.QUEUES_FULL)
BYTES, SUBSCRIBERS_CUT = int(Counter.BYTES), int(Counter.SUBSCRIBERS_CUT)

DRAIN_BUDGET = 64
SUBSCRIPTION_BYTES_MAX = 4096
LINGER_MS = 100
HANDSHAKE_MS = 5_000
FAREWELLS = 10  # looks: libzmq's thread tells the end first, and closes the connection then
HOLD_S = 0.02  # a subscriber that reads is back within a millisecond or two
HELD_BYTES_MAX = 16 * 1024 * 1024

Send = Callable[[bytes, int], object]


class Outlet:
    """
    Where frames leave the worker.

    Args:
        context: The worker's ZeroMQ context.
        connection: Whose data it is.
        spec: Bounds of the queues.
        stats: The connection's segment: counters and the gauge of subscriptions.
        listener: The inherited listening socket's descriptor; libzmq takes it over.
        endpoint: ``ipc://`` path of that socket.
        on_subscribed: Called when somebody has subscribed to something.

    Attributes:
        send_data: Sends a frame of data without waiting, given it and ``DONTWAIT``; on
            ``zmq.Again`` hand the frame to ``full``. ``None`` while nobody is subscribed to data.

    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        connection: str,
        spec: PublishSpec,
        stats: StatsWriter,
        listener: int,
        endpoint: str,
        on_subscribed: Callable[[], None],
    ) -> None:
        self._words, self._counters = stats.words, stats.counters
        self._on_subscribed = on_subscribed
        self._subscriptions = Subscriptions(connection)
        self._address = _address_of(listener)
        self._backlog = Backlog(spec.sndbytes)
        self._slow = SlowWatch(lambda: peers.stuck(self._address))
        self._xpub = xpub = context.socket(zmq.XPUB)
        xpub.setsockopt(zmq.SNDHWM, spec.sndhwm)
        xpub.setsockopt(zmq.XPUB_VERBOSER, 1)
        xpub.setsockopt(zmq.XPUB_NODROP, 1)
        xpub.setsockopt(zmq.MAXMSGSIZE, SUBSCRIPTION_BYTES_MAX)
        xpub.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        xpub.setsockopt(zmq.LINGER, LINGER_MS)
        xpub.setsockopt(zmq.USE_FD, listener)
        # Without the wrapper in Python, which is for socket types that are not ours: it doubles
        # the cost of a send.
        self._raw_send: Send = super(zmq.Socket, xpub).send
        self.send_data: Send | None = None
        self._wanted = stats.former_subscriptions
        self._farewells = 0
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._looked_at = self._counters[BYTES]
        self._has_sent = False
        self._loop = asyncio.get_running_loop()
        self._hold_timer: asyncio.TimerHandle | None = None
        if self._wanted:
            self.send_data = self._hold
            self._hold_timer = self._loop.call_later(HOLD_S, self._release)
        self._endpoint = endpoint

    def open(self, hello: bytes) -> None:
        """Let subscribers in; ``hello`` is what each is told first."""
        self._xpub.setsockopt(zmq.XPUB_WELCOME_MSG, hello)
        self._xpub.bind(self._endpoint)
        self._loop.add_reader(self._xpub.fileno(), self.drain)

    @property
    def holding(self) -> bool:
        """Whether frames wait for the predecessor's subscribers."""
        return self._hold_timer is not None

    @property
    def busy(self) -> bool:
        """
        Whether it must be looked at often: since the last look something was sent.

        Sending eats what the descriptor would tell, and fills queues.
        """
        return self._has_sent or self.holding or self._slow.active

    def greet(self, hello: bytes) -> None:
        """Tell this to each new peer from now on; frames held back come after it."""
        if not self.holding:
            self._xpub.setsockopt(zmq.XPUB_WELCOME_MSG, hello)

    def send(self, frame: bytes) -> None:
        """Send a frame that is no data, in its place behind those held back."""
        if self.holding:
            self._hold(frame)
        else:
            self._send(frame)

    def _send(self, frame: bytes) -> None:
        """
        Send to whoever has subscribed; those whose queue is full lose it, and only they.

        libzmq drops silently. With NODROP it refuses instead, for all, if one queue is full. Then
        it is let drop once, which takes that subscriber out until it has read half of its queue.
        """
        try:
            self._raw_send(frame, DONTWAIT)
        except zmq.Again:
            self.full(frame, self._words[SEQ])

    def full(self, frame: bytes, seq: int) -> None:
        """Send a frame past a subscriber whose queue is full; ``seq`` is the head meanwhile."""
        self._xpub.setsockopt(zmq.XPUB_NODROP, 0)
        self._raw_send(frame, DONTWAIT)
        self._xpub.setsockopt(zmq.XPUB_NODROP, 1)
        self._counters[QUEUES_FULL] += 1
        self._slow.full(seq, time.monotonic_ns())

    # The predecessor's subscribers -------------------------------------------------------------

    def _hold(self, frame: bytes, _flags: int = DONTWAIT) -> None:
        self._held.append(frame)
        self._held_bytes += len(frame)
        if self._held_bytes > HELD_BYTES_MAX:
            self._release()

    def _release(self) -> None:
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
            held, self._held = self._held, []
            for frame in held:
                self._send(frame)
            self._heard()

    # Subscribers -------------------------------------------------------------------------------

    def drain(self) -> None:
        """
        Read what subscribers sent, a bounded number.

        Called when the descriptor tells of something, and on a timer besides: it is edge-triggered,
        and sending eats the edges. While nothing is sent, it tells at once.
        """
        is_new = False
        for _ in range(DRAIN_BUDGET):
            try:
                frame = self._xpub.recv(DONTWAIT)
            except zmq.Again:
                break
            is_new |= self._subscriptions.take(frame)
        else:
            self._loop.call_soon(self._drain_on)
        self._heard()
        if is_new:
            self._on_subscribed()

    def _drain_on(self) -> None:
        if not self._xpub.closed:
            self.drain()

    def _heard(self) -> None:
        subscriptions = self._subscriptions
        if subscriptions.refused:
            self._counters[REFUSED] += subscriptions.refused
            subscriptions.refused = 0
        if self.holding:
            if subscriptions.total < self._wanted:
                return
            self._release()
        self._words[SUBSCRIBERS] = subscriptions.total
        self.send_data = self._raw_send if subscriptions.wants_data else None

    def _forget_the_gone(self) -> None:
        """Count nothing that was subscribed if nobody is left; libzmq does not tell all ends."""
        subscriptions = self._subscriptions
        if subscriptions.ended:
            subscriptions.ended, self._farewells = False, FAREWELLS
        if not self._farewells:
            return
        self._farewells -= 1
        if subscriptions.total and not peers.count(self._address):
            subscriptions.clear()
            self._heard()

    # Slow ones ---------------------------------------------------------------------------------

    def look(self) -> list[Announcement]:
        """Bound what waits for those who do not read; return what there is to announce."""
        self._forget_the_gone()
        told = []
        published, head = self._counters[BYTES], self._words[SEQ]
        self._has_sent = self.send_data is not None and published != self._looked_at
        self._looked_at = published
        if self._backlog.due(published):
            over = self._backlog.looked(published, set(peers.stuck(self._address)))
            if over:
                # ZMQ_SNDHWM could be lowered instead, but libzmq 4.3.5 then writes to a pipe that a
                # subscriber's end has freed at that moment.
                pids = peers.cut(self._address, over)
                self._counters[SUBSCRIBERS_CUT] += len(over)
                told.append(slow(cut=True, last=head, pids=listed(pids)))
        if self._slow.active:
            announcement = self._slow.look(head, time.monotonic_ns())
            if announcement is not None:
                told.append(announcement)
        return told

    def close(self) -> None:
        """Send what is held back, then close after at most 100 ms of sending what is queued."""
        self._release()
        self._loop.remove_reader(self._xpub.fileno())
        self._xpub.close()


def _address_of(listener: int) -> str:
    with socket.socket(fileno=os.dup(listener)) as bound:
        return str(bound.getsockname())
