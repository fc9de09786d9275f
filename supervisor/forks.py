"""Forks: the children of the fork helper, and the helper itself, on behalf of the arbiter.

Leads each report to its keeper, and replaces a helper that died or answers nobody. A helper that
outlived its supervisor is gone on with; one of another build only reaps the children that it has,
for what it would fork would run that build.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping

from supervisor.errors import FleetError, ZygoteError
from supervisor.keeper import Keeper
from supervisor.leftovers import kill_strays
from supervisor.premises import Premises
from supervisor.program import program
from supervisor.zygote_client import ZygoteClient
from supervisor.zygote_link import (
    End,
    Kept,
    Listen,
    SpawnWorker,
    Unlisten,
    WorkerExited,
    WorkerSpawned,
)

log = logging.getLogger("supervisor.forks")

ZYGOTE_RETRY_S = 0.1
ANSWER_NS = 5_000_000_000  # a fork is answered within this while the fleet ends


class Forks:
    """
    The fork helper of a fleet.

    Args:
        premises: Where it is reached.
        keepers: By name; may still be filled.
        stopping: Whether the fleet ends, so that nobody is forked any more.
        exchange_pid: The simulated exchange: a child of ours, but none of the helper's.
        on_death: Called when a worker has gone.

    """

    def __init__(
        self,
        premises: Premises,
        keepers: Mapping[str, Keeper],
        stopping: Callable[[], bool],
        exchange_pid: Callable[[], int],
        on_death: Callable[[], None],
    ) -> None:
        self._premises, self._keepers = premises, keepers
        self._stopping, self._exchange_pid, self._on_death = stopping, exchange_pid, on_death
        self._loop = asyncio.get_running_loop()
        self.zygote = self._client(self._lost)
        self._elders: list[ZygoteClient] = []
        self._ends: dict[int, WorkerExited] = {}  # of processes that no keeper has
        self._listened: set[str] = set()
        self._asked: set[str] = set()  # for whom a fork may be awaited
        self._answered_ns = 0

    def _client(self, on_lost: Callable[[], None]) -> ZygoteClient:
        return ZygoteClient(
            self._premises.zygote_socket, self._spawned, self._exited, self._unheard, on_lost
        )

    async def open(self) -> None:
        """
        Go on with the fork helper of an earlier life, or start one.

        Raises:
            FleetError: As ``ZygoteClient.start``.

        """
        client = self._client(self._lost)
        found = await client.attach(self._premises.former_helpers)
        if found == program():
            self.zygote = client
            self._listened = {
                kept.name
                for kept in client.kept
                if not kept.pid and self._premises.data_socket(kept.name).exists()
            }
            return
        if found is not None:
            log.info("the fork helper is of another build; it reaps pid=%d", client.pid)
            client.on_lost = lambda: None
            with contextlib.suppress(ZygoteError):
                client.request(End())  # as soon as it has no children
            self._elders.append(client)
        self.start()

    @property
    def helpers(self) -> set[int]:
        """The fork helpers that are in use, each its process."""
        return {client.pid for client in (self.zygote, *self._elders) if client.pid}

    @property
    def kept(self) -> dict[str, Kept]:
        """The youngest child of each name that the helpers of an earlier life have."""
        children = [kept for c in (*self._elders, self.zygote) for kept in c.kept if kept.pid]
        children.sort(key=lambda kept: kept.incarnation)
        return {kept.name: kept for kept in children}

    def end_of(self, pid: int) -> WorkerExited | None:
        """Return how a process ended that no keeper had then."""
        return self._ends.get(pid)

    async def end(self, timeout_s: float) -> None:
        """End all helpers; their children must be gone."""
        await asyncio.gather(*(client.end(timeout_s) for client in self._all()))

    def leave(self) -> None:
        """Part from the helpers; they and their children go on."""
        for client in self._all():
            client.leave()

    def kill(self) -> None:
        """SIGKILL all helpers."""
        for client in self._all():
            client.kill()

    def _all(self) -> list[ZygoteClient]:
        return [self.zygote, *self._elders]

    def spawn(self, name: str, incarnation: int, assignment: int) -> None:
        """Ask for a fork; the answer goes to the keeper of the name."""
        self._asked.add(name)
        try:
            if name not in self._listened:  # a new zygote: the path changes hands only now
                self._listened.add(name)
                self.zygote.request(Listen(name, str(self._premises.data_socket(name))))
            self.zygote.request(SpawnWorker(name, incarnation), assignment)
        except ZygoteError as error:
            self._loop.call_soon(self._keepers[name].spawn_failed, str(error))

    def _spawned(self, report: WorkerSpawned, pidfd: int) -> None:
        self._answered_ns = time.monotonic_ns()
        keeper = self._keepers.get(report.name)
        if not report.pid:
            if keeper is not None:
                keeper.spawn_failed(report.error)
            return
        try:
            # It may have got lost on the way, for want of a descriptor.
            pidfd = os.pidfd_open(report.pid) if pidfd == -1 else pidfd
        except OSError as error:
            with contextlib.suppress(ProcessLookupError):
                os.kill(report.pid, signal.SIGKILL)
            if keeper is not None:
                keeper.spawn_failed(f"pidfd_open: {error.strerror}")
            return
        if keeper is not None and keeper.spawning and report.incarnation == keeper.incarnation:
            keeper.spawned(report.pid, pidfd)
            return
        with contextlib.suppress(ProcessLookupError):  # nobody waits for it any more
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)

    def _exited(self, report: WorkerExited) -> None:
        for keeper in self._keepers.values():
            if keeper.pid == report.pid:
                keeper.exited(report.code, report.signal or None)
                self._on_death()
                return
        self._ends[report.pid] = report

    def _unheard(self, name: str, error: str) -> None:
        # The spawn that follows fails for want of a listener, and the next asks for it again.
        log.error("cannot bind connection=%s error=%s", name, error)
        self._listened.discard(name)

    async def listen(self, name: str) -> None:
        """Have the data endpoint of a connection bound, if it is not."""
        if name in self._listened:
            return
        await self.zygote.listen(name, self._premises.data_socket(name))
        self._listened.add(name)

    def unlisten(self, name: str) -> None:
        """Have the data endpoint of a connection that is gone closed; its path is left."""
        self._listened.discard(name)
        with contextlib.suppress(ZygoteError):  # none runs, so nothing listens
            self.zygote.request(Unlisten(name))

    def start(self) -> None:
        """
        Start a fork helper, and write it down for the next life.

        Raises:
            FleetError: As ``ZygoteClient.start``.

        """
        self.zygote.start()
        self._premises.note_helper(self.zygote.pid)

    def _lost(self) -> None:
        log.error("the fork helper ended; workers live on")
        self._listened.clear()
        known = {keeper.pid for keeper in self._keepers.values()}
        kill_strays(known | {self._exchange_pid()})
        for keeper in self._keepers.values():
            if keeper.spawning:
                keeper.spawn_failed("the fork helper ended")
        self._on_death()
        self._loop.call_later(ZYGOTE_RETRY_S, self._renew_zygote)

    def _renew_zygote(self) -> None:
        if self._stopping():  # nobody is forked any more
            return
        try:
            self.start()
            log.info("a new fork helper is started pid=%d", self.zygote.pid)
        except FleetError as error:
            log.error("%s", error)
            self._loop.call_later(1.0, self._renew_zygote)

    def mind(self, now_ns: int) -> None:
        """Kill a fork helper that answers nobody: a stopped one would be waited for for ever."""
        for name in list(self._asked):
            keeper = self._keepers.get(name)
            if keeper is None or keeper.asked_ns is None:
                self._asked.remove(name)
                continue
            stopping = self._stopping()
            patience_ns = ANSWER_NS if stopping else keeper.spec.start_timeout_ns
            if now_ns - max(keeper.asked_ns, self._answered_ns) > patience_ns:
                log.error("the fork helper does not answer: killed pid=%d", self.zygote.pid)
                self._answered_ns = now_ns
                self.zygote.kill()
                return
