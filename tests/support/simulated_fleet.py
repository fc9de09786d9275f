"""A machine with a fleet on it, in simulated time: processes, a fork helper, a supervisor.

The decisions are the real ones: ``WorkerLife``, ``Liveness``, ``HostGuard`` and ``Scanner``,
``Pace``, and the slots of the registry with what a successor recalls from them. Simulated is what
surrounds them: the keeper's shell, pidfds, signals and shared memory, in steps of 10 to 50 ms.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace

from supervisor import scanner
from supervisor.liveness import SCAN_NS, Liveness, Verdict
from supervisor.pace import Pace
from supervisor.restart import WorkerLife
from supervisor.restart_facts import (
    Announce,
    Exited,
    Ready,
    Signal,
    Spawn,
    Spawned,
    SpawnFailed,
    Stamped,
    StartWanted,
    Tick,
    Up,
)
from supervisor.restart_state import State
from supervisor.slot import ExitRecord, Slot, pack, restore, unpack
from worker.announcement import Cause, EventKind
from worker.spec import ConnectionSpec, CrashLoopSpec, HangSpec, RestartSpec

MS, S = 1_000_000, 1_000_000_000
STEP_NS = 10 * MS
STAMP_NS, READY_NS, UP_NS = 20 * MS, 30 * MS, 80 * MS  # after the fork, if all is well
HELPER_BACK_NS = 100 * MS


def spec_of(name):
    """A connection with short times, so that little simulated time tells everything."""
    return ConnectionSpec(
        name=name,
        url="ws://nowhere/",
        restart=RestartSpec(
            initial_delay_ns=100 * MS,
            max_delay_ns=2 * S,
            stable_after_ns=1 * S,
            reset_after_ns=6 * S,
            crash_loop=CrashLoopSpec(deaths=4, within_ns=10 * S, floor_ns=2 * S),
        ),
        hang=HangSpec(warn_after_ns=1 * S, timeout_ns=3 * S),
        stop_timeout_ns=1 * S,
        start_timeout_ns=2 * S,
        ready_timeout_ns=3 * S,
    )


@dataclass
class Process:
    """A worker. It is well until something befalls it."""

    name: str
    incarnation: int
    pid: int
    born_ns: int
    sick: bool = False  # its loop stands: no stamps, and deaf to SIGTERM
    stopped: bool = False  # SIGSTOP
    unwell: bool = False  # something befell it
    stamp_ns: int = 0
    serving: bool = False
    up_ns: int = 0
    end: tuple | None = None  # (code, signal)
    ending: bool = False
    pending: list = field(default_factory=list)

    @property
    def alive(self):
        return self.end is None

    def signal(self, name):
        """Take a signal as the kernel delivers it."""
        if not self.alive:
            return
        if name == "SIGKILL":
            self.end = (None, name)
        elif name == "SIGSTOP":
            self.stopped = self.unwell = True
        elif name == "SIGCONT":
            self.stopped = False
            pending, self.pending = self.pending, []
            for held in pending:
                self.signal(held)
        elif self.stopped:
            self.pending.append(name)
        elif name in ("SIGABRT", "SIGSEGV"):
            self.end = (None, name)
        elif name == "SIGTERM" and not self.sick:
            self.ending = True  # it closes its session first

    def turn(self, now_ns):
        """Do what its loop does."""
        if not self.alive or self.stopped or self.sick:
            return
        if self.ending:
            self.end = (0, None)
            return
        age_ns = now_ns - self.born_ns
        if age_ns >= STAMP_NS:
            self.stamp_ns = now_ns
        self.serving = self.serving or age_ns >= READY_NS
        if not self.up_ns and age_ns >= UP_NS:
            self.up_ns = now_ns


class Keeper:
    """The shell of one life, as ``supervisor.keeper``: what the scanner and the supervisor use."""

    def __init__(self, supervisor, spec):
        self.supervisor, self.world, self.spec = supervisor, supervisor.world, spec
        self.life = WorkerLife(spec, supervisor.pace)
        self.liveness = Liveness(spec.hang)
        self.process, self.incarnation, self.spawning = None, 0, False
        self.waiting, self.adopted_ns, self.told = [], 0, set()
        self.exit_record = None

    def handle(self, event, now_ns=None):
        for action in self.life.handle(self.world.now_ns if now_ns is None else now_ns, event):
            match action:
                case Spawn():
                    self._spawn()
                case Signal(name):
                    self.signal(name)
                case Announce(said):
                    self.world.tell(self.spec.name, said, self.incarnation)
        self.save()

    def _spawn(self):
        self.incarnation += 1
        self.liveness = Liveness(self.spec.hang)
        self.waiting.clear()
        self.adopted_ns, self.spawning, self.told = 0, True, set()
        self.world.requests.append((self.spec.name, self.incarnation))

    def signal(self, name):
        if self.process is None:
            if name not in self.waiting:
                self.waiting.append(name)
            return
        self.world.sent(self.process, name, self.life)
        self.process.signal(name)

    def spawned(self, process):
        self.process, self.spawning = process, False
        self.handle(Spawned())
        for name in self.waiting:
            self.signal(name)
        self.waiting.clear()

    def spawn_failed(self, why):
        if self.spawning:
            self.spawning = False
            self.handle(SpawnFailed(why))

    def adopt(self, process):
        self.process, self.incarnation = process, process.incarnation
        self.adopted_ns = self.world.now_ns
        self.life.found(self.world.now_ns)
        self.world.adopted[process.name, process.incarnation] += 1
        self.relay()
        self.save()

    def look(self):
        """See a death, as the pidfd tells it, and obey a timer."""
        if self.process is not None and not self.process.alive:
            self.relay()
            code, signal = self.process.end
            self.handle(Exited(code, signal, self.world.draw()))
            self.process = None
            self.save()
        deadline_ns = self.life.deadline_ns
        if deadline_ns is not None and self.world.now_ns >= deadline_ns:
            self.relay()
            self.handle(Tick())

    def relay(self):
        """Hear what the worker wrote into shared memory."""
        process = self.process
        if process is None:
            return
        for fact, is_so, at_ns in (
            (Stamped, process.stamp_ns, None),
            (Ready, process.serving, None),
            (Up, process.up_ns, process.up_ns),
        ):
            if is_so and fact not in self.told:
                self.told.add(fact)
                self.handle(fact(), at_ns)

    def judge(self, now_ns):
        if self.life.state is not State.RUNNING or self.process is None:
            return None
        return self.liveness.judge(now_ns, max(self.process.stamp_ns, self.adopted_ns))

    def weigh(self):
        """Its memory is no matter here."""

    def save(self):
        """Write the line of the table as bytes: what a successor reads."""
        life = self.life
        if life.last_exit is not None:
            self.exit_record = ExitRecord(life.last_exit, 1)
        self.world.table[self.spec.name] = pack(
            Slot(
                name=self.spec.name,
                exchange="",
                pid=self.process.pid if self.process is not None else 0,
                start_ticks=1,
                incarnation=self.incarnation,
                state=life.state,
                wanted=life.wanted,
                hung=self.liveness.verdict is not Verdict.FRESH,
                crash_loop=life.crash_loop,
                restarts=life.restarts,
                next_attempt_ns=0,
                last_exit=self.exit_record,
                life=life.remembered(),
            )
        )


class Scanner(scanner.Scanner):
    """The real one, but what goes wrong within is not survived."""

    def guarded(self, name, look, *arguments):
        look(*arguments)


class Supervisor:
    """One life of the supervisor: takes over, then turns."""

    def __init__(self, world):
        self.world, self.pace = world, Pace()
        self.keepers = {name: Keeper(self, spec) for name, spec in world.specs.items()}
        self.stalls = []
        self.scanner = Scanner(self.keepers, {}, self.pace, self.stalls.append, lambda _storm: None)
        self.next_scan_ns = world.now_ns + SCAN_NS
        self.reports = []
        for name, keeper in self.keepers.items():
            self._go_on(name, keeper)

    def _go_on(self, name, keeper):
        """As ``supervisor.succession``."""
        world = self.world
        packed = world.table.get(name)
        slot = unpack(packed) if packed is not None else None
        if slot is not None:
            restore(keeper.life, slot)
            keeper.exit_record, keeper.incarnation = slot.last_exit, slot.incarnation
        living = world.living(name)
        if living is not None:
            keeper.adopt(living)
        elif slot is not None:
            if slot.state in (State.STOPPED, State.BACKOFF, State.FAILED):
                keeper.handle(Tick())
            elif not slot.pid:
                keeper.handle(SpawnFailed("the supervisor that asked for it died"))
            else:
                keeper.handle(Exited(*(world.end_of(slot.pid)), world.draw()))
        if not keeper.life.wanted and keeper.life.stop_cause != Cause.OPERATOR:
            keeper.handle(StartWanted())

    def turn(self):
        reports, self.reports = self.reports, []
        for name, incarnation, process in reports:
            keeper = self.keepers[name]
            if process is None:
                keeper.spawn_failed("refused")
            elif keeper.spawning and incarnation == keeper.incarnation:
                keeper.spawned(process)
            else:
                process.unwell = True
                process.signal("SIGKILL")
        for keeper in self.keepers.values():
            keeper.look()
        if self.world.now_ns >= self.next_scan_ns:
            self.next_scan_ns = self.world.now_ns + SCAN_NS
            self.scanner.scan(closely=True)

    def helper_lost(self):
        for keeper in self.keepers.values():
            keeper.spawn_failed("the fork helper ended")


class World:
    """
    The machine.

    Attributes:
        told: How often each event was told, by (name, incarnation, kind).
        unjust: Signals that ended a worker which nothing had befallen, though nobody wanted that.

    """

    def __init__(self, *names):
        self.now_ns = S
        self.specs = {name: spec_of(name) for name in names}
        self.table, self.requests, self.processes = {}, [], []
        self.told, self.adopted, self.unjust = Counter(), Counter(), []
        self.pids = itertools.count(100)
        self.refusals = 0
        self.sick = Counter()  # by name: so many of the next forks never turn
        self.doomed = {}  # by name: the code with which the next fork ends at once
        self.helper_ns = 0  # since when there is one; None: as soon as a supervisor starts one
        self.supervisor_until_ns = 0  # it stands until then
        self.supervisor_first = False
        self._draws = itertools.cycle((0.0, 0.9, 0.3, 0.6))
        self.supervisor = Supervisor(self)

    def draw(self):
        return next(self._draws)

    def tell(self, name, said, incarnation):
        self.told[name, incarnation, said.kind] += 1

    def sent(self, process, name, life):
        """Note a signal that the supervisor sends of its own accord."""
        ordered = life.remembered().operator_signal == name
        deadly = name in ("SIGABRT", "SIGKILL") and not ordered
        if deadly and process.alive and not process.unwell and life.wanted:
            self.unjust.append((self.now_ns, process, name, life.state))

    def living(self, name):
        alive = [p for p in self.processes if p.name == name and p.alive]
        return max(alive, key=lambda p: p.incarnation) if alive else None

    def end_of(self, pid):
        """How a process ended, if its parent, the fork helper, still knows."""
        ends = [p.end for p in self.processes if p.pid == pid]
        return ends[0] if ends and ends[0] and self.helper_ns is not None else (None, None)

    # Time ----------------------------------------------------------------------------------------

    def stand(self, duration_ns, *, supervisor_first):
        """Nothing on the machine runs, and the clock goes on. Then somebody is the first to run."""
        self.now_ns += duration_ns
        self.supervisor_first = supervisor_first
        self.run(STEP_NS)

    def run(self, duration_ns):
        """Everything runs; in longer stretches in longer steps."""
        end_ns = self.now_ns + duration_ns
        step_ns = STEP_NS if duration_ns <= S else 5 * STEP_NS
        real, scanner.time = scanner.time, self
        try:
            while self.now_ns < end_ns:
                self.now_ns += step_ns
                self._turn()
        finally:
            scanner.time = real

    def monotonic_ns(self):
        return self.now_ns

    def _turn(self):
        if self.supervisor_first:
            self.supervisor_first = False
            self._turn_of_supervisor()
        self._fork()
        for process in self.processes:
            process.turn(self.now_ns)
        self._turn_of_supervisor()

    def _turn_of_supervisor(self):
        if self.supervisor is not None and self.now_ns >= self.supervisor_until_ns:
            if self.helper_ns is None:
                self.helper_ns = self.now_ns + HELPER_BACK_NS
            self.supervisor.turn()

    def _fork(self):
        """The fork helper does what it was asked for."""
        if self.helper_ns is None or self.now_ns < self.helper_ns:
            return
        requests, self.requests = self.requests, []
        for name, incarnation in requests:
            process = None
            if self.refusals:
                self.refusals -= 1
            else:
                process = Process(name, incarnation, next(self.pids), self.now_ns)
                if self.sick[name]:
                    self.sick[name] -= 1
                    process.sick = process.unwell = True
                if name in self.doomed:
                    process.unwell, process.end = True, (self.doomed.pop(name), None)
                self.processes.append(process)
            if self.supervisor is not None:
                self.supervisor.reports.append((name, incarnation, process))

    # What befalls --------------------------------------------------------------------------------

    def kill_helper(self):
        self.helper_ns = None
        if self.supervisor is None:
            return
        for _name, _incarnation, process in self.supervisor.reports:  # forked and not told
            if process is not None and process.alive:
                process.unwell = True
                process.signal("SIGKILL")
        self.supervisor.reports.clear()
        self.requests.clear()
        self.supervisor.helper_lost()

    def kill_supervisor(self):
        self.supervisor = None
        self.requests.clear()

    def start_supervisor(self):
        self.supervisor_until_ns = 0
        self.supervisor = Supervisor(self)

    def respecify(self, name):
        """A reload changes what needs a new process."""
        spec = self.specs[name]
        self.specs[name] = replace(spec, stop_timeout_ns=3 * S - spec.stop_timeout_ns)
        if self.supervisor is not None:
            keeper = self.supervisor.keepers[name]
            keeper.spec = keeper.life.spec = self.specs[name]
            keeper.handle(Tick())

    # What must hold ------------------------------------------------------------------------------

    def check(self):
        """What holds at every moment."""
        alive = Counter(process.name for process in self.processes if process.alive)
        assert not alive or max(alive.values()) == 1, alive
        assert not self.unjust, self.unjust
        for process in self.processes:
            key = process.name, process.incarnation
            assert self.told[*key, EventKind.EXIT] <= (not process.alive)
            assert self.told[*key, EventKind.SPAWN] <= 1

    def check_settled(self):
        """What holds when nothing befell for long enough."""
        self.check()
        for name, keeper in self.supervisor.keepers.items():
            living, life = self.living(name), keeper.life
            if life.wanted and life.state is not State.FAILED:
                assert life.state is State.RUNNING, (name, life.state, life.deadline_ns)
                assert living is keeper.process, name
                assert living is not None, name
            else:
                assert life.state in (State.STOPPED, State.FAILED), (name, life.state)
                assert living is None, name
        for process in self.processes:
            key = process.name, process.incarnation
            heard = self.told[*key, EventKind.SPAWN] + self.adopted[key] > 0
            assert heard or not process.alive, key
            assert self.told[*key, EventKind.EXIT] == (heard and not process.alive), key
