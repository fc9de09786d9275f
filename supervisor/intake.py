"""Intake: the endpoints of a fleet that a subscriber listens to, whatever becomes of the fleet.

One descriptor, ``fd``, becomes readable when any of them has something: an epoll over ZeroMQ's
descriptors. Those are edge-triggered, and any call on a socket may eat the edge, so a source counts
as dirty until it was read to its end.
"""

import contextlib
import logging
import os
import select
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path

import zmq

from supervisor.errors import NoSuchConnection, StreamEnded
from supervisor.event_inlet import EventInlet
from supervisor.fleet_watch import FleetWatch
from supervisor.inlet import Counts, Inlet
from supervisor.items import Event, Item
from supervisor.sequencer import Sequencer
from supervisor.topic_sequencer import TopicSequencer
from worker.endpoints import data_endpoint

log = logging.getLogger("supervisor.subscriber")

TICK_NS = 100_000_000
LOOK_NS, LOOK_ABSENT_NS = 1_000_000_000, 250_000_000  # for connections; for a fleet not there
SILENT_NS = 300_000_000  # three liveness frames
NEWS = ("spawn", "supervisor_up", "config")  # after these there may be other connections
ENDS = ("exit", "supervisor_down")  # after these nobody may come to tell the last number


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """
    What a subscriber wants.

    Attributes:
        prefixes: Makes the prefixes to subscribe to, of a connection.
        sequencer: Makes what puts a connection in order.
        past: Whether what was published before joining is wanted.
        events: Whether events are items, too.
        until_fleet_ends: Whether to end with the fleet.
        budget: Frames of one connection before another has its turn.

    """

    prefixes: Callable[[str], tuple[bytes, ...]]
    sequencer: Callable[[str], Sequencer | TopicSequencer]
    past: bool
    events: bool
    until_fleet_ends: bool
    budget: int


class Intake:
    """
    Reads; never waits unless told to.

    Args:
        watch: Knows the fleet.
        wish: What is wanted of it.

    Attributes:
        ready: Items that were read and not handed out.
        is_pumping: Whether it reads this moment: it must not be closed under its own hands.
        fd: Readable when ``pump`` has something to do.

    """

    def __init__(self, watch: FleetWatch, wish: Wish) -> None:
        self.ready: deque[Item] = deque()
        self.is_pumping = False
        self._watch, self._wish = watch, wish
        self._inlets: dict[str, Inlet] = {}
        # What is known of a connection stays when it is let go: its numbers tell whether it is the
        # same when it comes back.
        self._known: dict[str, tuple[Sequencer | TopicSequencer, Counts]] = {}
        self._event_inlet: EventInlet | None = None
        self._event_counts = Counter(events=0, events_lost=0)
        self._sources: dict[int, Inlet | EventInlet] = {}
        self._dirty: dict[int, None] = {}
        self._tick_ns = self._look_ns = 0
        self._ended = False
        self._unmatched: frozenset[str] = frozenset()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._waking = threading.RLock()  # a signal's handler may come amid its own thread's
        self._epoll.register(self._wake, select.EPOLLIN)
        self.fd = self._epoll.fileno()

    @property
    def connections(self) -> tuple[str, ...]:
        """The connections that are listened to."""
        return tuple(self._inlets)

    @property
    def has_more(self) -> bool:
        """Whether ``pump`` has something to do although ``fd`` may not tell."""
        return bool(self._dirty) or self._ended

    def pump(self, timeout_s: float) -> None:
        """
        Read what there is, a bounded number from each, and do what is due.

        Args:
            timeout_s: How long to wait for something to read if there is nothing.

        Raises:
            StreamEnded: If nothing was read, and nothing will be.

        """
        if self._ended and not self.ready:
            raise StreamEnded
        try:
            self.is_pumping = True
            self._pump(timeout_s)
        finally:
            self.is_pumping = False

    def _pump(self, timeout_s: float) -> None:
        now_ns = time.monotonic_ns()
        if now_ns >= self._tick_ns:
            self._tick_ns = now_ns + TICK_NS
            self._tick(now_ns)
        for fd, _events in self._epoll.poll(0 if self._dirty or self.ready else timeout_s):
            if fd in self._sources:
                self._dirty[fd] = None
            elif fd == self._wake:
                self._ended = True
        for fd in tuple(self._dirty):
            source = self._sources.get(fd)
            if source is None or source.drain(self.ready, self._wish.budget):
                self._dirty.pop(fd, None)

    # What is due -----------------------------------------------------------------------------

    def _tick(self, now_ns: int) -> None:
        if now_ns >= self._look_ns:
            found = self._watch.look()
            self._look_ns = now_ns + (LOOK_NS if found else LOOK_ABSENT_NS)
            if found:
                self._follow_fleet()
            if self._wish.until_fleet_ends and self._watch.has_ended():
                self._end()
        for inlet in self._inlets.values():
            if inlet.is_suspicious:
                self._dirty[inlet.fd] = None
            elif now_ns - inlet.heard_ns > SILENT_NS:
                inlet.suspect(wants_past=self._wish.past)

    def _follow_fleet(self) -> None:
        """Listen to the connections that are meant now, where they are now."""
        shm_dir, runtime_dir = self._watch.shm_dir, self._watch.runtime_dir
        if shm_dir is None or runtime_dir is None:
            return
        if self._event_inlet is None or self._event_inlet.runtime_dir != runtime_dir:
            self._drop(self._event_inlet)
            self._event_inlet = EventInlet(
                self._context, runtime_dir, self._heard, self._event_counts
            )
            self._add(self._event_inlet)
        places = {name: data_endpoint(runtime_dir, name) for name in self._watch.names}
        for name, inlet in tuple(self._inlets.items()):
            if (places.get(name), shm_dir) != (inlet.endpoint, inlet.shm_dir):
                inlet.drain(self.ready, self._wish.budget)
                self._drop(self._inlets.pop(name))
        for name in places.keys() - self._inlets.keys():
            self._inlets[name] = self._inlet(name, places[name], shm_dir)
            self._add(self._inlets[name])
        for glob in self._watch.unmatched - self._unmatched:
            log.warning("%s; it is waited for", NoSuchConnection(glob, ()))
        self._unmatched = self._watch.unmatched

    def _inlet(self, name: str, endpoint: str, shm_dir: Path) -> Inlet:
        if name not in self._known:
            self._known[name] = self._wish.sequencer(name), Counts()
        sequencer, counts = self._known[name]
        return Inlet(self._context, endpoint, shm_dir, sequencer, counts, self._wish.prefixes(name))

    def _heard(self, event: Event) -> bool:
        """Take an event; return whether it is delivered."""
        inlet = self._inlets.get(event.connection or "")
        if event.kind in NEWS:
            self._look_ns = self._tick_ns = 0
        elif event.kind in ENDS:
            for ended in (inlet,) if inlet is not None else self._inlets.values():
                ended.suspect(wants_past=self._wish.past)
        return self._wish.events and (event.connection is None or inlet is not None)

    def _end(self) -> None:
        """Read to the end what the fleet has left, then end."""
        for inlet in self._inlets.values():
            while not inlet.drain(self.ready, self._wish.budget):
                pass
            inlet.conclude(self.ready, wants_past=self._wish.past)
        self._ended = True

    # Sources ---------------------------------------------------------------------------------

    def _add(self, source: Inlet | EventInlet) -> None:
        self._sources[source.fd] = source
        self._dirty[source.fd] = None  # its edge may have been before
        self._epoll.register(source.fd, select.EPOLLIN)

    def _drop(self, source: Inlet | EventInlet | None) -> None:
        if source is not None:
            with contextlib.suppress(OSError):  # an interrupted close is done once more
                self._epoll.unregister(source.fd)
            self._dirty.pop(source.fd, None)
            source.close()
            self._sources.pop(source.fd, None)

    def skip_old(self, connection: str, max_age_ns: int) -> None:
        """Leave out what waits of a connection and is older than that."""
        inlet = self._inlets.get(connection)
        if inlet is not None:
            self._dirty[inlet.fd] = None
            inlet.skip_old(self.ready, max_age_ns)

    def count_behind(self, connection: str) -> None:
        """Count that the consumer fell behind on a connection."""
        inlet = self._inlets.get(connection)
        if inlet is not None:
            inlet.counts.behind += 1

    def stats(self, connection: str | None) -> dict[str, int]:
        """Return counters of one connection, or of all and of the events."""
        if connection is not None and connection not in self._known:
            raise NoSuchConnection(connection, tuple(get_close_matches(connection, self._known)))
        if connection is not None:
            return asdict(self._known[connection][1])
        total = Counter(asdict(Counts()))
        for _sequencer, counts in self._known.values():
            total.update(asdict(counts))
        total.update(self._event_counts)
        return dict(total)

    def stop(self) -> None:
        """End; safe to call from any thread and from a signal handler."""
        with self._waking:
            if self._wake >= 0:  # a number once closed may be anybody's
                os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Close everything; a second call does nothing."""
        if self._context.closed:
            return
        self._ended = True
        self.ready.clear()
        for source in tuple(self._sources.values()):
            self._drop(source)
        self._inlets.clear()
        self._event_inlet = None
        with self._waking:  # not in a forked child: who holds it may not be there
            self.forsake()
        self._context.destroy(0)

    def forsake(self) -> None:
        """
        Let go of our own descriptors and nothing else, as a forked child must.

        What the epoll watches is the parent's: a child that took something out of it would take it
        out of the parent's. ZeroMQ closes nothing in a process that did not open it.
        """
        self._ended = True
        self.ready.clear()
        self._epoll.close()
        wake, self._wake = self._wake, -1
        if wake >= 0:
            os.close(wake)
