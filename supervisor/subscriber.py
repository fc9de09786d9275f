"""Subscriber: a fleet's messages in a trading process, blocking or under asyncio.

In order, without duplicates, and without silent losses: what the wire did not bring is taken from
the journal, and what the journal has not is told as a ``Gap``. docs/subscriber.md is for users.

One thread uses a subscriber, or one task; ``stop`` and ``close`` may be called from anywhere. It
has no thread of its own but ZeroMQ's.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

from supervisor.age import AgeWatch, Policy
from supervisor.errors import ForeignProcess, StreamEnded, TopicRefused
from supervisor.fleet_watch import FleetWatch
from supervisor.intake import Intake, Wish
from supervisor.items import Event, Gap, Item, Message, SessionChange
from supervisor.loop_watch import LoopWatch
from supervisor.sequencer import Join, Sequencer
from supervisor.topic_sequencer import TopicSequencer

__all__ = ["Event", "Gap", "Item", "Message", "SessionChange", "Subscriber"]

log = logging.getLogger("supervisor.subscriber")

TICK_S = 0.1
BUDGET = 256  # frames of one connection before another has its turn
BUDGET_AGED = 32  # the same with ``max_age``: what was read is not skipped any more
KEY_MAX = 200


class Subscriber:
    """
    Messages of a fleet's connections in one stream of items; iterable and async-iterable.

    Args:
        fleet: Its name.
        globs: Names of connections, ``*`` and ``?`` are welcome; none means all. Connections that
            appear later are taken in, those that a reload removes are let go.
        topics: Keys of ``publish.key``, such as ``BTCUSDT``; none means all messages.
        events: Whether events of fleet and workers come in the same stream.
        wait: Whether to wait for a fleet and for connections that are not there.
        until_fleet_ends: Whether the stream ends when neither supervisor nor worker is left;
            by default it waits for the fleet's next run.
        last_value: Give the last message of each topic from the journal before live ones.
        replay: Give everything that the journal has before live ones.
        since: The last ``seq`` that is known already, of all or by connection: give what came after
            it, from the journal, and say so if something of it is gone.
        max_age: Seconds after its arrival at this host at which a message is too old.
        on_age: What to do then: ``warn`` logs, ``skip`` leaves out what waits and tells a ``Gap``
            with cause ``overrun``, ``raise`` raises ``FellBehind``; each once until caught up.

    Raises:
        NoSuchFleet: Without ``wait``, if the fleet is not there.
        NoSuchConnection: Without ``wait``, if a glob matches none of its connections.
        TopicRefused: If a topic is not the key alone.
        ValueError: If ``last_value``, ``replay`` and ``since`` exclude each other, or ``since``,
            ``max_age`` or ``on_age`` is impossible.

    """

    def __init__(
        self,
        fleet: str,
        *globs: str,
        topics: str | Sequence[str] = (),
        events: bool = False,
        wait: bool = True,
        until_fleet_ends: bool = False,
        last_value: bool = False,
        replay: bool = False,
        since: int | Mapping[str, int] | None = None,
        max_age: float | None = None,
        on_age: Policy = "warn",
    ) -> None:
        if last_value + replay + (since is not None) > 1:
            raise ValueError("last_value, replay and since exclude each other: choose one")
        self._topics = tuple(map(_checked, (topics,) if isinstance(topics, str) else topics))
        known = since.values() if isinstance(since, Mapping) else (since,)
        if any(seq is not None and seq < 0 for seq in known):
            raise ValueError(f"since is a seq, 0 or above, got {since!r}")
        self._since = since
        self._join = Join.REPLAY if replay else Join.LAST_VALUE if last_value else Join.LIVE
        self._age = None if max_age is None else AgeWatch(max_age, on_age)
        self._reading = threading.RLock()
        self._closing = False
        self._pid = os.getpid()
        watch = FleetWatch(fleet, globs)
        if not wait:
            watch.require()
        wish = Wish(
            prefixes=self._prefixes,
            sequencer=self._sequencer,
            past=since is not None or self._join is not Join.LIVE,
            events=events,
            until_fleet_ends=until_fleet_ends,
            budget=BUDGET if max_age is None else BUDGET_AGED,
        )
        self._intake = Intake(watch, wish)
        self._ready = self._intake.ready
        self._loop_watch = LoopWatch(self._intake.fd, self._read)
        self._intake.pump(0)

    @property
    def connections(self) -> tuple[str, ...]:
        """The connections that are listened to at the moment."""
        return self._intake.connections

    def stats(self, connection: str | None = None) -> dict[str, int]:
        """
        Return counters since the beginning, of one connection or of all.

        Returns:
            ``received``: messages from the wire; ``repaired``: from the journal; ``lost``: told to
            be missing, cause ``lost``; ``overruns``: the same, cause ``overrun``; ``gaps``: items
            that told so; ``duplicates``: messages left out, since they had been delivered or told
            to be missing; ``malformed``: frames of no known kind, version or form, left out;
            ``resyncs``: numbers that began anew; ``session_changes``: items of that name;
            ``behind``: times that a message was older than ``max_age``; ``journal_errors``:
            journals and frames in them that could not be read. Of all, also ``events`` heard and
            ``events_lost``.

        Raises:
            NoSuchConnection: If it never was listened to.

        """
        return self._intake.stats(connection)

    def stop(self) -> None:
        """
        End the stream after what is read already.

        Safe to call from any thread and from a signal handler. In a forked child it does nothing.
        """
        if os.getpid() == self._pid:
            self._intake.stop()

    def close(self) -> None:
        """
        End the stream now and close every socket and mapping; a second call does nothing.

        Safe to call from any thread and from a signal handler: if somebody reads this moment, it is
        he who closes, as soon as he is done, within 0.1 s. A forked child lets go of what it
        inherited, and its parent's subscriber goes on.
        """
        if os.getpid() != self._pid:
            self._intake.forsake()
            return
        self._closing = True
        loop = self._loop_watch.loop
        if loop is not None and loop.is_running() and loop is not _running_loop():
            loop.call_soon_threadsafe(self.close)
            return
        self._intake.stop()  # wakes who waits in another thread
        if not self._reading.acquire(blocking=False):
            return
        try:
            if not self._intake.is_pumping:  # else this is a signal's handler amid a read
                self._loop_watch.detach()
                self._intake.close()
        finally:
            self._reading.release()
        self._loop_watch.interrupt(loop)

    # Blocking --------------------------------------------------------------------------------

    def recv(self, timeout: float | None = None) -> Item | None:
        """
        Return the next item.

        Args:
            timeout: Seconds to wait for it at most; by default for ever.

        Returns:
            ``None`` if there was none in time.

        Raises:
            StreamEnded: If there will be none any more.
            ForeignProcess: In a forked child: it needs a subscriber of its own.
            FellBehind: If it is older than ``max_age`` and ``on_age`` is ``raise``. The next call
                returns it.

        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ready:
            left_s = TICK_S if deadline is None else deadline - time.monotonic()
            self._pump(min(TICK_S, max(left_s, 0)))
            if not self._ready and left_s <= 0:
                return None
        return self._next()

    def __iter__(self) -> Iterator[Item]:
        """Yield items until the stream ends."""
        ready = self._ready
        while True:
            try:
                if not ready:
                    self._pump(TICK_S)
                while ready:
                    yield ready.popleft() if self._age is None else self._next()
            except (StreamEnded, IndexError):  # the other thread that closes takes what is ready
                return

    def __enter__(self) -> "Subscriber":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Under asyncio ---------------------------------------------------------------------------

    async def recv_async(self, timeout: float | None = None) -> Item | None:
        """Return the next item, as ``recv`` does. A cancelled call has taken nothing."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ready:
            self._pump(0)
            if self._ready:
                await asyncio.sleep(0)  # others have their turn, however much there is to read
                break
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                return None
            await self._readable(left_s)
        return self._next()

    def __aiter__(self) -> "Subscriber":
        return self

    async def __anext__(self) -> Item:
        try:
            item = await self.recv_async()
        except StreamEnded:
            raise StopAsyncIteration from None
        assert item is not None
        return item

    async def __aenter__(self) -> "Subscriber":
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def _readable(self, timeout_s: float | None) -> None:
        """Wait until there is something to read, or for that long."""
        if self._loop_watch.is_waited_for:
            raise RuntimeError("another task reads from this subscriber")
        with self._reading:  # whoever closes meanwhile leaves it to us
            if not self._closing:
                self._loop_watch.attach(asyncio.get_running_loop())
        if self._closing:
            self.close()
            return
        await self._loop_watch.wait(timeout_s)

    def _read(self) -> bool:
        self._pump(0)
        return bool(self._ready) or self._intake.has_more

    # Inside ----------------------------------------------------------------------------------

    def _pump(self, timeout_s: float) -> None:
        """Read; and close, if that was wanted meanwhile."""
        if os.getpid() != self._pid:
            raise ForeignProcess(self._pid)
        try:
            with self._reading:
                self._intake.pump(timeout_s)
        finally:
            if self._closing:
                self.close()

    def _next(self) -> Item:
        """Take the next item; there is one, unless another thread closes."""
        try:
            return self._take()
        except IndexError:
            raise StreamEnded from None

    def _take(self) -> Item:
        age = self._age
        if age is not None and (late := age.judge(self._ready[0])) is not None:
            if age.is_new(late.connection):
                self._intake.count_behind(late.connection)
                if age.policy == "raise":
                    raise late
                log.warning("%s", late)
            if age.policy == "skip":
                self._intake.skip_old(late.connection, age.max_age_ns)
        return self._ready.popleft()

    def _prefixes(self, connection: str) -> tuple[bytes, ...]:
        data = f"data.{connection}"
        wanted = [f"{data}.{key}\0" for key in self._topics] or [f"{data}\0", f"{data}."]
        return tuple(prefix.encode() for prefix in (*wanted, f"state.{connection}\0"))

    def _sequencer(self, connection: str) -> Sequencer | TopicSequencer:
        since = self._since.get(connection) if isinstance(self._since, Mapping) else self._since
        kind = TopicSequencer if self._topics else Sequencer
        return kind(connection, self._join, since)


def _checked(key: str) -> str:
    usable = isinstance(key, str) and key.isascii() and 0 < len(key) <= KEY_MAX and "\0" not in key
    if not usable:
        raise TopicRefused(key)
    return key


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
