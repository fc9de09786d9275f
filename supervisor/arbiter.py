"""Arbiter: the supervisor's loop. Owns the keepers, obeys orders and signals, ends orderly.

Policy per worker is ``restart.WorkerLife``, judgement of stamps ``liveness``; here facts from the
outside world are only handed to the right keeper. The message path does not pass through here.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine

import zmq

from shm.process import start_ticks
from supervisor import descriptors
from supervisor.adoption import read_estate
from supervisor.bus import Bus
from supervisor.calm import CalmWorkers
from supervisor.commands import Commands
from supervisor.control import Control
from supervisor.errors import ZygoteError
from supervisor.exchange_process import ExchangeProcess
from supervisor.exit_codes import INTERRUPTED, OK
from supervisor.file_watch import FileWatch
from supervisor.fleet import Fleet
from supervisor.forks import Forks
from supervisor.household import Household, describe
from supervisor.keeper import Keeper
from supervisor.linux import become_subreaper
from supervisor.listener import listen
from supervisor.liveness import SCAN_NS, HostStall
from supervisor.oom import OomKills
from supervisor.pace import Pace, Storm
from supervisor.premises import Premises
from supervisor.registry import Registry
from supervisor.reloading import Reloading
from supervisor.roster import Roster
from supervisor.scanner import Scanner
from supervisor.stop_signals import StopSignals
from supervisor.succession import Succession
from supervisor.winding_down import WindingDown
from worker.announcement import Announcement, EventKind, Origin

log = logging.getLogger("supervisor.arbiter")

ZYGOTE_END_S = 2.0
ROUNDS_NS = 2_000_000_000  # what is also looked at when there is news of it, or is in no hurry
REFRESH_NS = 3600 * 1_000_000_000


class Arbiter:
    """
    One fleet's supervisor on the running asyncio loop.

    Args:
        fleet: What is wanted.
        premises: Its directories, locked.
        signals: Notes the stop signals.
        exchange: The simulated exchange, if the fleet has one.
        keep_orphans: Whether workers go on that lose us.

    """

    def __init__(
        self,
        fleet: Fleet,
        premises: Premises,
        signals: StopSignals,
        exchange: ExchangeProcess | None = None,
        *,
        keep_orphans: bool = False,
    ) -> None:
        self._fleet, self._premises = fleet, premises
        self._signals, self._exchange = signals, exchange
        self._keep_orphans = keep_orphans
        self._loop = asyncio.get_running_loop()
        self._keepers: dict[str, Keeper] = {}
        self._stop_asked = asyncio.Event()
        self._forks = Forks(
            premises,
            self._keepers,
            self._stop_asked.is_set,
            lambda: exchange.pid if exchange is not None else 0,
            self._note_rest,
        )
        self._pace, self._oom_kills = Pace(), OomKills()
        self._calm = CalmWorkers()
        self._scanner = Scanner(self._keepers, self._calm, self._pace, self._stalled, self._storm)
        self._winding_down = WindingDown(self._keepers, self._forks, self._scanner.guarded)
        self._succession: Succession | None = None
        self._bus: Bus | None = None
        self._roster: Roster | None = None
        self._kill_asked = self._keep_asked = False
        self._signals_seen = 0
        self._rounds_due_ns = self._refresh_due_ns = 0
        self._origin = Origin(fleet=fleet.name, connection=None, incarnation=0, pid=os.getpid())

    @classmethod
    async def run_fleet(
        cls,
        fleet: Fleet,
        premises: Premises,
        signals: StopSignals,
        exchange: ExchangeProcess | None,
        on_ready: Callable[[], None],
        *,
        keep_orphans: bool = False,
    ) -> int:
        """Make an arbiter on the running loop and run it."""
        arbiter = cls(fleet, premises, signals, exchange, keep_orphans=keep_orphans)
        return await arbiter.run(on_ready)

    async def run(self, on_ready: Callable[[], None]) -> int:
        """
        Run the fleet until a signal or an order ends it; return the exit code of ``run``.

        However it ends, an exception included: no worker and no fork helper is left. Only
        ``shutdown --keep`` leaves all of them, and an end before the workers of an earlier life
        were taken over leaves those.

        Raises:
            ZygoteError: If the fork helper cannot be started or an endpoint cannot be bound.
            RuntimeDirectoryRefused: If something foreign stands where a socket must be.

        """
        become_subreaper()  # a dead zygote's workers become our children, so we can reap them
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._signals.heard(self._loop, self._signalled))
            try:
                if await self._unless_stopped(self._open(stack)):
                    self._publish(EventKind.SUPERVISOR_UP)
                    on_ready()
                    await self._stop_asked.wait()
            finally:
                await self._end()
        return INTERRUPTED if self._kill_asked else OK

    async def _unless_stopped(self, opening: Coroutine[None, None, None]) -> bool:
        """Do it, unless a stop is asked for first; return whether it was done."""
        work = asyncio.ensure_future(opening)
        stop = asyncio.ensure_future(self._stop_asked.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, stop):
                task.cancel()
            results = await asyncio.gather(work, stop, return_exceptions=True)
        error = results[0]
        if isinstance(error, Exception):
            raise error
        return error is None and not self._stop_asked.is_set()

    # Opening ---------------------------------------------------------------------------------

    async def _open(self, stack: contextlib.ExitStack) -> None:
        premises = self._premises
        names = [connection.name for connection in self._fleet.connections]
        estate = read_estate(premises.shm_dir)
        # First of all: from here on orphans find their new supervisor.
        self._registry = Registry.create(
            premises.shm_dir,
            self._fleet.name,
            premises.runtime_dir,
            names,
            former=estate.former,
            after=max(estate.epoch, premises.epoch),
            keep=self._keep_orphans,
        )
        stack.callback(self._registry.close)
        self._registry.tick(time.monotonic_ns())  # or who stands before his first look is not seen
        premises.note_epoch(self._registry.epoch)
        await self._forks.open()
        self._succession = Succession(estate, premises, self._forks, time.monotonic_ns())
        stack.callback(self._succession.close)
        living = self._succession.find(names)
        lent = await self._forks.zygote.listen("events", premises.events_socket, lend=True)
        if lent is None:
            raise ZygoteError("the fork helper could not lend the listener of events.sock")
        stack.callback(lent.close)
        for name in names:
            if name not in living:  # the path of a living one changes hands when it is replaced
                await self._forks.listen(name)
        roster = self._open_endpoints(stack, lent)
        roster.admit(self._fleet.connections, estate.former)
        self._take_over()
        self._files = FileWatch(premises.shm_dir)
        stack.callback(self._files.close)
        self._scan_timer = self._loop.call_later(SCAN_NS / 1e9, self._scan)
        stack.callback(self._stop_scanning)

    def _open_endpoints(self, stack: contextlib.ExitStack, lent: socket.socket) -> Roster:
        """Open where events go out and orders and news of workers come in; return who is kept."""
        premises = self._premises
        context = stack.enter_context(zmq.Context())
        needed = descriptors.needed_by(len(self._fleet.connections))
        self._bus = Bus(context, lent, premises.events_socket, self._registry.epoch, needed)
        stack.callback(self._bus.close)
        household = self._household(self._bus)
        self._roster = Roster(self._keepers, premises, self._forks, self._registry, household)
        stack.callback(self._roster.close)
        door = listen(premises.control_socket)
        commands = self._commands(self._roster)
        self._control = Control(context, door, premises.control_socket, commands.obey, needed)
        stack.callback(self._control.close)
        self._read(stack, self._control.fileno(), self._control.drain)
        for gate in (self._bus.gate, self._control.gate):
            self._read(stack, gate.fileno(), gate.look)
        wake = stack.enter_context(listen(premises.wake_socket, socket.SOCK_DGRAM))
        self._read(stack, wake.fileno(), lambda: self._woken(wake))
        return self._roster

    def _commands(self, roster: Roster) -> Commands:
        stopping = self._stop_asked.is_set
        reloading = Reloading(self._fleet, roster, self._premises, stopping, self._announce)
        return Commands(self._fleet.file, roster, reloading, self._stop_asked, self._shut_down)

    def _read(
        self, stack: contextlib.ExitStack, descriptor: int, on_read: Callable[[], None]
    ) -> None:
        self._loop.add_reader(descriptor, on_read)
        stack.callback(self._loop.remove_reader, descriptor)

    def _household(self, events: Bus) -> Household:
        pid = os.getpid()
        return Household(
            fleet=self._fleet.name,
            runtime_dir=self._premises.runtime_dir,
            shm_dir=self._premises.shm_dir,
            pid=pid,
            start_ticks=start_ticks(pid),
            events=events,
            spawn=self._forks.spawn,
            pace=self._pace,
            calm=self._calm,
            oom_kills=self._oom_kills,
            keep=self._keep_orphans,
        )

    def _take_over(self) -> None:
        assert self._succession is not None
        now_ns = time.monotonic_ns()
        adopted = self._succession.take_over(self._keepers, self._scanner.guarded, now_ns)
        self._premises.keep(False)  # from here on the workers are ours to end
        if adopted:
            log.info("adopted workers=%d epoch=%d", adopted, self._registry.epoch)

    # Scanning --------------------------------------------------------------------------------

    def _woken(self, wake: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for _ in range(len(self._keepers) + 1):
                name = wake.recv(256).decode("ascii", "replace")
                keeper = self._keepers.get(name)
                if keeper is not None:
                    self._scanner.guarded(name, keeper.relay)

    def _scan(self) -> None:
        self._scan_timer = self._loop.call_later(SCAN_NS / 1e9, self._scan)
        now_ns = time.monotonic_ns()
        disturbed = self._files.disturbed()
        self._scanner.scan(closely=disturbed)
        self._scanner.guarded("", self._attend, now_ns, disturbed)
        self._note_rest()

    def _attend(self, now_ns: int, disturbed: bool) -> None:
        """Look after everything but the workers."""
        if disturbed:
            self._registry.mend()
        self._registry.tick(now_ns)
        if now_ns >= self._rounds_due_ns:
            self._rounds_due_ns = now_ns + ROUNDS_NS
            self._forks.mind(now_ns)
            self._control.drain()
            self._oom_kills.look()
            if now_ns >= self._refresh_due_ns:
                self._refresh_due_ns = now_ns + REFRESH_NS
                self._premises.refresh()
            self._control.gate.look()
            if self._bus is not None:
                self._bus.drain()
                self._bus.gate.look()
        if self._succession is not None:
            self._succession.look(self._keepers, now_ns)
        if self._exchange is not None and not self._stop_asked.is_set():
            self._exchange.look(now_ns)

    def _stop_scanning(self) -> None:
        self._scan_timer.cancel()

    def _stalled(self, stall: HostStall) -> None:
        late_s = round(stall.late_ns / 1e9, 3)
        self._publish(EventKind.HOST_STALL, late_s=late_s, hung=stall.hung, judged=stall.judged)

    def _storm(self, storm: Storm) -> None:
        self._publish(EventKind.STORM, waiting=storm.waiting)

    def _publish(self, kind: EventKind, **detail: object) -> None:
        self._announce(Announcement(kind=kind, detail=detail))

    def _announce(self, announcement: Announcement) -> None:
        log.info("%s", describe(announcement))
        if self._bus is not None:
            self._bus.publish(announcement, self._origin)

    # Orders and the end ----------------------------------------------------------------------

    def _signalled(self) -> None:
        fresh = self._signals.asked[self._signals_seen :]
        self._signals_seen += len(fresh)
        for number in fresh:
            log.info("stopping signal=%s", number.name)
            if self._stop_asked.is_set() and number is signal.SIGINT:
                self._kill_asked = True
                self._winding_down.kill()
            self._stop_asked.set()

    def _shut_down(self, keep: bool) -> None:
        self._keep_asked = keep and not self._stop_asked.is_set()
        self._stop_asked.set()

    async def _end(self) -> None:
        self._stop_asked.set()
        if self._keep_asked and not self._kill_asked:
            self._leave()
            return
        if self._premises.kept:  # workers of an earlier life live, and never were ours
            self._forks.leave()
            return
        try:
            await self._winding_down.stop()
            if self._keepers:  # it had been up
                self._publish(EventKind.SUPERVISOR_DOWN)
        finally:
            if self._succession is not None:
                self._succession.leftovers.end()
            await self._forks.end(ZYGOTE_END_S)

    def _leave(self) -> None:
        """End alone: everything else stays for the next supervisor, as after our death."""
        self._publish(EventKind.SUPERVISOR_DOWN, kept=True)
        self._registry.let_live()
        self._premises.keep()
        self._forks.leave()

    def _note_rest(self) -> None:
        if self._roster is not None:
            self._roster.settle()
        if self._stop_asked.is_set():
            self._winding_down.look()
