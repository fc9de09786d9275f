"""Arbiter: the supervisor's loop. Owns the keepers, scans stamps, obeys orders, ends orderly.

Policy per worker is ``restart.WorkerLife``, judgement of stamps ``liveness``; here facts from the
outside world are only handed to the right keeper. The message path does not pass through here.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

import zmq

from supervisor.bus import Bus
from supervisor.control import Control, Order
from supervisor.errors import ZygoteError
from supervisor.fleetfile import Fleet
from supervisor.keeper import Household, Keeper
from supervisor.listener import listen
from supervisor.liveness import SCAN_NS, HostGuard, Verdict
from supervisor.premises import Premises
from supervisor.registry import Registry
from supervisor.restart import NO_PROCESS
from supervisor.restart_facts import (
    Event,
    Hung,
    KillWanted,
    RestartWanted,
    StartWanted,
    StopWanted,
    Tick,
)
from supervisor.zygote_client import ZygoteClient
from supervisor.zygote_link import Listen, SpawnWorker, WorkerExited, WorkerSpawned
from worker.announcement import Announcement, Cause, EventKind, Origin
from worker.linux import become_subreaper, start_ticks

log = logging.getLogger("supervisor.arbiter")

ZYGOTE_RETRY_S = 0.1
ZYGOTE_END_S = 2.0
STILL_UP_S = 2.0
OK, KILLED_AT_ONCE = 0, 130


class Arbiter:
    """
    One fleet's supervisor on the running asyncio loop.

    Args:
        fleet: What is wanted.
        premises: Its directories, locked.

    """

    def __init__(self, fleet: Fleet, premises: Premises) -> None:
        self._fleet, self._premises = fleet, premises
        self._loop = asyncio.get_running_loop()
        self._zygote = ZygoteClient(
            premises.zygote_socket, self._spawned, self._exited, self._zygote_lost
        )
        self._listened: set[str] = set()
        self._keepers: dict[str, Keeper] = {}
        self._guard = HostGuard()
        self._stop_asked = asyncio.Event()
        self._kill_asked = False
        self._at_rest = asyncio.Event()
        self._origin = Origin(fleet=fleet.name, connection=None, incarnation=0, pid=os.getpid())

    @classmethod
    async def run_fleet(cls, fleet: Fleet, premises: Premises, on_ready: Callable[[], None]) -> int:
        """Make an arbiter on the running loop and run it."""
        return await cls(fleet, premises).run(on_ready)

    async def run(self, on_ready: Callable[[], None]) -> int:
        """
        Run the fleet until a signal or an order ends it; return the exit code of ``run``.

        Raises:
            ZygoteError: If the fork helper cannot be started or an endpoint cannot be bound.
            RuntimeDirectoryRefused: If something foreign stands where a socket must be.

        """
        become_subreaper()  # a dead zygote's workers become our children, so we can reap them
        self._zygote.start()
        with contextlib.ExitStack() as stack:
            try:
                await self._open(stack)
                self._hear_signals(stack)
                for keeper in self._keepers.values():
                    keeper.handle(StartWanted())
                self._publish(EventKind.SUPERVISOR_UP)
                on_ready()
                await self._stop_asked.wait()
                return await self._wind_down()
            finally:
                await self._zygote.end(ZYGOTE_END_S)

    # Opening ---------------------------------------------------------------------------------

    async def _open(self, stack: contextlib.ExitStack) -> None:
        premises = self._premises
        lent = await self._zygote.listen("events", premises.events_socket, lend=True)
        assert lent is not None
        for connection in self._fleet.connections:
            await self._listen(connection.name)
        context = stack.enter_context(zmq.Context())
        names = [connection.name for connection in self._fleet.connections]
        self._registry = Registry.create(
            premises.shm_dir, self._fleet.name, premises.runtime_dir, names
        )
        stack.callback(self._registry.close)
        self._bus = Bus(context, lent, premises.events_socket, self._registry.epoch)
        stack.callback(self._bus.close)
        self._control = Control(
            context, listen(premises.control_socket), premises.control_socket, self._obey
        )
        stack.callback(self._control.close)
        self._loop.add_reader(self._control.fileno(), self._control.drain)
        stack.callback(self._loop.remove_reader, self._control.fileno())
        wake = stack.enter_context(listen(premises.wake_socket, socket.SOCK_DGRAM))
        self._loop.add_reader(wake, self._woken, wake)
        stack.callback(self._loop.remove_reader, wake)
        self._admit_connections(stack)
        self._scan_timer = self._loop.call_later(SCAN_NS / 1e9, self._scan)
        stack.callback(self._stop_scanning)

    async def _listen(self, name: str) -> None:
        await self._zygote.listen(name, self._premises.data_socket(name))
        self._listened.add(name)

    def _admit_connections(self, stack: contextlib.ExitStack) -> None:
        pid = os.getpid()
        household = Household(
            fleet=self._fleet.name,
            runtime_dir=self._premises.runtime_dir,
            shm_dir=self._premises.shm_dir,
            pid=pid,
            start_ticks=start_ticks(pid),
            events=self._bus,
            spawn=self._spawn,
        )
        for index, connection in enumerate(self._fleet.connections):
            keeper = Keeper(connection, household, self._registry.slot_writer(index))
            self._keepers[connection.name] = keeper
            stack.callback(keeper.close)

    def _hear_signals(self, stack: contextlib.ExitStack) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._loop.add_signal_handler(number, self._stop, number)
            stack.callback(self._loop.remove_signal_handler, number)

    # The zygote and its children -------------------------------------------------------------

    def _spawn(self, name: str, incarnation: int, assignment: int) -> None:
        try:
            if name not in self._listened:  # a new zygote: the path changes hands only now
                self._zygote.request(Listen(name, str(self._premises.data_socket(name))))
                self._listened.add(name)
            self._zygote.request(SpawnWorker(name, incarnation), assignment)
        except ZygoteError as error:
            self._loop.call_soon(self._keepers[name].spawn_failed, str(error))

    def _spawned(self, report: WorkerSpawned, pidfd: int) -> None:
        keeper = self._keepers[report.name]
        if report.pid:
            keeper.spawned(report.pid, pidfd)
        else:
            keeper.spawn_failed(report.error)

    def _exited(self, report: WorkerExited) -> None:
        for keeper in self._keepers.values():
            if keeper.pid == report.pid:
                keeper.exited(report.code, report.signal or None)
                self._note_rest()
                return

    def _zygote_lost(self) -> None:
        log.error("the fork helper ended; workers live on, a new one is started")
        self._listened.clear()
        for keeper in self._keepers.values():
            if keeper.spawning:
                keeper.spawn_failed("the fork helper ended")
        self._loop.call_later(ZYGOTE_RETRY_S, self._renew_zygote)

    def _renew_zygote(self) -> None:
        try:
            self._zygote.start()
        except OSError as error:
            log.error("cannot start the fork helper: %s", error)
            self._loop.call_later(1.0, self._renew_zygote)

    # Scanning --------------------------------------------------------------------------------

    def _woken(self, wake: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(len(self._keepers) + 1):
                keeper = self._keepers.get(wake.recv(256).decode("ascii", "replace"))
                if keeper is not None:
                    keeper.relay()

    def _scan(self) -> None:
        self._scan_timer = self._loop.call_later(SCAN_NS / 1e9, self._scan)
        now_ns = time.monotonic_ns()
        verdicts: list[tuple[Keeper, Verdict]] = []
        for keeper in self._keepers.values():
            keeper.relay()
            keeper.handle(Tick(), now_ns)
            verdict = keeper.judge(now_ns)
            if verdict is not None:
                verdicts.append((keeper, verdict))
        hung = sum(verdict is not Verdict.FRESH for _keeper, verdict in verdicts)
        patience_ns = max(c.hang.timeout_ns for c in self._fleet.connections)
        stall = self._guard.scanned(
            now_ns, hung=hung, judged=len(verdicts), patience_ns=patience_ns
        )
        if stall is not None:
            self._publish(
                EventKind.HOST_STALL,
                late_s=round(stall.late_ns / 1e9, 3),
                hung=stall.hung,
                judged=stall.judged,
            )
        if now_ns >= self._guard.excused_until_ns:
            for keeper, verdict in verdicts:
                if verdict is Verdict.DEAD:
                    keeper.handle(Hung(keeper.liveness.age_ns), now_ns)
        self._registry.tick(now_ns)
        self._bus.drain()
        self._control.drain()
        self._note_rest()

    def _stop_scanning(self) -> None:
        self._scan_timer.cancel()

    def _publish(self, kind: EventKind, **detail: object) -> None:
        self._bus.publish(Announcement(kind=kind, detail=detail), self._origin)

    # Orders and the end ----------------------------------------------------------------------

    def _obey(self, order: Order) -> str:
        if order.verb == "shutdown":
            self._stop_asked.set()
            return ""
        if self._stop_asked.is_set():
            return "the fleet is being shut down"
        unknown = [name for name in order.names if name not in self._keepers]
        if unknown:
            return f"no connection {', '.join(unknown)}"
        if order.verb == "kill" and order.signal not in signal.Signals.__members__:
            return f"no signal {order.signal!r}"
        events: dict[str, Event] = {
            "start": StartWanted(),
            "stop": StopWanted(),
            "restart": RestartWanted(),
            "kill": KillWanted(order.signal),
        }
        event = events[order.verb]
        for name in order.names:
            self._keepers[name].handle(event)
        return ""

    def _stop(self, number: signal.Signals) -> None:
        if self._stop_asked.is_set() and number is signal.SIGINT:
            self._kill_asked = True
            for keeper in self._keepers.values():
                keeper.handle(KillWanted("SIGKILL"))
        self._stop_asked.set()

    async def _wind_down(self) -> int:
        for keeper in self._keepers.values():
            keeper.handle(StopWanted(Cause.SHUTDOWN))
        self._note_rest()
        while not self._at_rest.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._at_rest.wait(), STILL_UP_S)
            if up := self._still_up():
                print(f"still up: {', '.join(up)} (Ctrl-C again kills)", file=sys.stderr)
        self._publish(EventKind.SUPERVISOR_DOWN)
        return KILLED_AT_ONCE if self._kill_asked else OK

    def _still_up(self) -> list[str]:
        return [
            name for name, keeper in self._keepers.items() if keeper.life.state not in NO_PROCESS
        ]

    def _note_rest(self) -> None:
        if self._stop_asked.is_set() and not self._still_up():
            self._at_rest.set()
