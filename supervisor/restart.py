"""Restart: decides when a worker process is started, stopped, killed, replaced or given up.

Pure. One ``WorkerLife`` per connection; it never ends, a new process is a new incarnation inside
it. It does not know pids or pidfds, does not judge liveness (``supervisor/liveness.py``) and draws
no random numbers: the shell is ``supervisor/keeper.py``.
"""

from supervisor.liveness import LATE_NS
from supervisor.pace import Pace
from supervisor.restart_backoff import RestartBackoff
from supervisor.restart_ending import Ending
from supervisor.restart_facts import (
    Action,
    Announce,
    Death,
    Down,
    Event,
    Exited,
    Hung,
    KillWanted,
    MemoryHigh,
    Ready,
    Remembered,
    RestartWanted,
    Spawn,
    Spawned,
    SpawnFailed,
    Stamped,
    StartWanted,
    StopWanted,
    Tick,
    Up,
    say,
)
from supervisor.restart_starting import Starting
from supervisor.restart_state import NO_PROCESS, TRANSITIONS, UNENDED, State
from worker.announcement import Announcement, Cause, EventKind
from worker.exits import PERMANENT, Exit
from worker.spec import SECOND_NS, ConnectionSpec

ABORT_GRACE_NS = SECOND_NS // 2  # from SIGABRT (stack dump) to SIGKILL
KILL_RETRY_NS = SECOND_NS  # from SIGKILL to another one: no state waits for ever
SPAWN_RETRY_NS = 2 * SECOND_NS  # a refused fork is the machine's trouble, not the connection's
EXITS_KEPT = 4
WHY_MAX = 80  # of an error's text


class WorkerLife:
    """
    Process policy of one connection.

    ``wanted`` is what the operator wants and is never overwritten by what happens; ``state`` is
    what is. How far a start has come, what is done to end a process, and how long a replacement
    waits, is known to its parts (``supervisor/restart_starting.py``, ``restart_ending.py``,
    ``restart_backoff.py``); of many that die together, all but a few wait for their turn besides
    (``supervisor/pace.py``).

    Args:
        spec: The connection.
        pace: Of the fleet; one life alone needs none.

    Attributes:
        restarts: Unexpected deaths that were replaced.
        stop_cause: Why nothing is wanted, "" if it is or never was: operator, shutdown.
        last_exit: Cause, code and signal of the last death, or ``None``.
        exits: The last few deaths, the oldest first.
        deadline_ns: When ``Tick`` has something to do, ``None`` for never.
        since_ns: When it came into this state.
        why: In BACKOFF the cause, and the error of a refused fork.

    """

    def __init__(self, spec: ConnectionSpec, pace: Pace | None = None) -> None:
        self.spec = spec
        self._pace = Pace() if pace is None else pace
        self.state = State.STOPPED
        self.wanted = False
        self.restarts = 0
        self.stop_cause = ""
        self.last_exit: Announcement | None = None
        self.deadline_ns: int | None = None
        self._replace = False  # a fresh process is wanted as soon as this one is gone
        self._has_turn = False  # among the fleet's replacements: ``deadline_ns`` is when
        self._renewing = False  # it holds too much memory: its end is no crash
        self.why = ""
        self.since_ns = 0
        self.exits: tuple[Death, ...] = ()
        self._starting, self._ending = Starting(), Ending()
        self._backoff = RestartBackoff()
        self._excused: set[State] = set()  # a successor may excuse once more

    @property
    def crash_loop(self) -> bool:
        """Whether its processes die too often; retries go on, at least a floor apart."""
        return self._backoff.crash_loop

    @crash_loop.setter
    def crash_loop(self, is_one: bool) -> None:
        self._backoff.crash_loop = is_one

    def remembered(self) -> Remembered:
        """Return what a life in another process needs to go on where this one stands."""
        return Remembered(
            stop_cause=self.stop_cause,
            replace=self._replace,
            kill_cause=self._ending.cause,
            operator_signal=self._ending.operator_signal,
            killed=self._ending.killed,
            forked_ns=self._starting.forked_ns,
            stamped=self._starting.stamped,
            has_turn=self._has_turn,
            renewing=self._renewing,
            why=self.why,
            since_ns=self.since_ns,
            exits=self.exits,
            hang_timeout_ns=self.spec.hang.timeout_ns,
            reset_after_ns=self.spec.restart.reset_after_ns,
            attempt=self._backoff.attempt,
            deaths=tuple(self._backoff.deaths),
            up_since_ns=self._backoff.up_since_ns,
            longest_up_ns=self._backoff.longest_up_ns,
            deadline_ns=self.deadline_ns,
        )

    def recall(self, state: State, remembered: Remembered) -> None:
        """
        Go on where a life of another process stood, in the same boot of the machine.

        To be called before any fact; what everybody may read (``wanted``, ``crash_loop``,
        ``restarts``, ``last_exit``) is set by the caller. Deadlines count as they were.
        """
        self.state = state
        self.stop_cause = remembered.stop_cause
        self._replace = remembered.replace
        self._starting.recall(remembered)
        self._ending.recall(remembered)
        self._has_turn, self._renewing = remembered.has_turn, remembered.renewing
        self.why, self.since_ns = remembered.why, remembered.since_ns
        self.exits = remembered.exits
        self._backoff.recall(remembered)
        self.deadline_ns = remembered.deadline_ns

    def found(self, now_ns: int) -> None:
        """Take over a process that lives, even if the life as recalled knows of none."""
        if self.state in NO_PROCESS:  # forked in the moment in which that was not yet written
            self._spawn(now_ns)

    def handle(self, now_ns: int, event: Event) -> tuple[Action, ...]:
        """
        Take one fact, return what the shell must do, in order. Late calls are safe.

        Args:
            now_ns: CLOCK_MONOTONIC, nanoseconds; for ``Up`` and ``Down`` when it happened.
            event: The fact.

        """
        before = self.state
        actions = self._step(now_ns, event)
        assert self.state is before or self.state in TRANSITIONS[before], (before, event)
        if self.state is not before:
            self.since_ns = now_ns
        return actions

    def _step(self, now_ns: int, event: Event) -> tuple[Action, ...]:
        match event:
            case StartWanted():
                return self._start(now_ns)
            case StopWanted(cause):
                return self._stop(now_ns, cause)
            case RestartWanted():
                return self._restart(now_ns)
            case KillWanted(signal):
                return self._kill(signal)
            case Spawned():
                return self._spawned(now_ns)
            case SpawnFailed(error):
                return self._spawn_failed(now_ns, error)
            case Stamped():
                self._stamped()
            case Ready():
                return self._ready()
            case Up():
                self._backoff.up(now_ns)
            case Down():
                self._backoff.down(now_ns, self.spec.restart)
            case Hung(age_ns):
                return self._hung(now_ns, age_ns)
            case MemoryHigh():
                return self._memory_high(now_ns)
            case Exited():
                return self._exited(now_ns, event)
            case Tick():
                return self._tick(now_ns)
        return ()

    # Orders ----------------------------------------------------------------------------------

    def _start(self, now_ns: int) -> tuple[Action, ...]:
        if self.wanted and self.state not in (State.FAILED, State.BACKOFF):
            return ()
        self.wanted, self.stop_cause = True, ""
        if self.state in NO_PROCESS:
            self._backoff.forgive()
            return self._spawn(now_ns)
        self._replace = self.state is State.STOPPING or self._replace
        return ()

    def _stop(self, now_ns: int, cause: str) -> tuple[Action, ...]:
        was_wanted, self.wanted = self.wanted, False
        # What an operator stopped stays his through the end of the fleet.
        self.stop_cause = cause if was_wanted else self.stop_cause or cause
        self._replace = False
        said = (say(EventKind.STOP, cause),) if was_wanted else ()
        if self.state in NO_PROCESS:
            self._rest()
            return said
        if self.state in UNENDED:
            return said + self._terminate(now_ns, cause)
        return said

    def _restart(self, now_ns: int) -> tuple[Action, ...]:
        self.wanted, self.stop_cause = True, ""
        self._backoff.forgive()
        if self.state in NO_PROCESS:
            return (say(EventKind.RESTART, Cause.OPERATOR), *self._spawn(now_ns))
        self._replace = True
        if self.state in UNENDED:
            return self._terminate(now_ns, Cause.OPERATOR)
        return ()

    def _kill(self, signal: str) -> tuple[Action, ...]:
        if self.state in NO_PROCESS:
            return ()
        return self._ending.inject(signal)

    # What happened ---------------------------------------------------------------------------

    def _spawned(self, now_ns: int) -> tuple[Action, ...]:
        self._starting.forked_ns = now_ns
        self._excused.clear()
        if self.state is State.STARTING:
            self.deadline_ns = self._starting.deadline_ns(self.spec)
        return (say(EventKind.SPAWN),)

    def _stamped(self) -> None:
        if self.state is State.STARTING and not self._starting.stamped:
            self._starting.stamped = True
            self.deadline_ns = self._starting.deadline_ns(self.spec)

    def _spawn_failed(self, now_ns: int, error: str) -> tuple[Action, ...]:
        if not self.wanted:
            self._rest()
            return ()
        self.state = State.BACKOFF
        self.deadline_ns = now_ns + SPAWN_RETRY_NS
        self.why = f"{Cause.SPAWN_FAILED}: {error[:WHY_MAX]}"
        return (
            say(EventKind.BACKOFF, Cause.SPAWN_FAILED, SPAWN_RETRY_NS / SECOND_NS, error=error),
        )

    def _ready(self) -> tuple[Action, ...]:
        if self.state is State.STARTING:
            self.state = State.RUNNING
            self.deadline_ns = None
        return ()

    def _hung(self, now_ns: int, age_ns: int) -> tuple[Action, ...]:
        if self.state not in UNENDED:
            return ()
        return self._abort(now_ns, Cause.HANG, age_s=round(age_ns / SECOND_NS, 3))

    def _memory_high(self, now_ns: int) -> tuple[Action, ...]:
        if self.state is not State.RUNNING:
            return ()
        self._renewing = True
        return self._terminate(now_ns, Cause.MEMORY)

    def _tick(self, now_ns: int) -> tuple[Action, ...]:
        self._backoff.pass_time(now_ns, self.spec.restart)
        if self.deadline_ns is None or now_ns < self.deadline_ns:
            return ()
        if self._is_excused(now_ns):
            return ()
        match self.state:
            case State.BACKOFF:
                return self._in_turn(now_ns, Cause.BACKOFF)
            case State.STARTING:
                return self._abort(now_ns, self._starting.limit_missed(self.spec))
            case State.STOPPING:
                return self._kill_now(now_ns, Cause.STOP_TIMEOUT)
            case State.KILLING:
                return self._kill_now(now_ns, self._ending.cause)
            case _:
                return ()

    def _is_excused(self, now_ns: int) -> bool:
        """
        Give a process its time once more if nobody looked when it was over.

        Whoever comes this late stood, and the process may have stood with it. Once for its start
        and once for its end, so that what really hangs is ended all the same.
        """
        limits_ns = {
            State.STARTING: self._starting.limit_ns(self.spec),
            State.STOPPING: self.spec.stop_timeout_ns,
        }
        late_ns = now_ns - (self.deadline_ns or now_ns)
        if late_ns < LATE_NS or self.state in self._excused or self.state not in limits_ns:
            return False
        self._excused.add(self.state)
        self.deadline_ns = now_ns + limits_ns[self.state]
        return True

    def _exited(self, now_ns: int, exited: Exited) -> tuple[Action, ...]:
        self._backoff.down(now_ns, self.spec.restart)
        code, signal, draw = exited.code, exited.signal, exited.draw
        cause = self._ending.cause_of_death(exited)
        detail = {"code": code} if code is not None else {"signal": signal} if signal else {}
        self.last_exit = Announcement(kind=EventKind.EXIT, cause=cause, detail=detail)
        self.exits = (*self.exits, Death(now_ns, str(cause), code, signal or ""))[-EXITS_KEPT:]
        said: tuple[Action, ...] = (Announce(self.last_exit),)
        if not self.wanted:
            self._rest()
            return said
        if self._replace:
            self._replace = False
            return (*said, say(EventKind.RESTART, Cause.OPERATOR), *self._spawn(now_ns))
        if self._renewing:
            return said + self._replace_after_death(now_ns, cause, draw, counts=False)
        if code in PERMANENT:
            self.state, self.deadline_ns = State.FAILED, None
            return (*said, say(EventKind.FAILED, Exit(code).name.lower(), code=code))
        self.restarts += 1
        counts = cause != Cause.OPERATOR
        return said + self._replace_after_death(now_ns, cause, draw, counts=counts)

    def _replace_after_death(
        self, now_ns: int, cause: str, draw: float, *, counts: bool
    ) -> tuple[Action, ...]:
        said: tuple[Action, ...] = ()
        if counts and self._backoff.died(now_ns, self.spec.restart):
            said = (self._say_crash_loop(),)
        delay_ns = self._backoff.delay_ns(draw, self.spec.restart)
        if delay_ns == 0:
            return said + self._in_turn(now_ns, cause)
        self.state = State.BACKOFF
        self.deadline_ns, self.why = now_ns + delay_ns, str(cause)
        return (
            *said,
            say(EventKind.BACKOFF, cause, delay_ns / SECOND_NS, attempt=self._backoff.attempt),
        )

    def _in_turn(self, now_ns: int, cause: str) -> tuple[Action, ...]:
        """Fork, unless too many of the fleet are replaced at this moment."""
        turn_ns = now_ns if self._has_turn else self._pace.turn(now_ns)
        if turn_ns == now_ns:
            return (say(EventKind.RESTART, cause), *self._spawn(now_ns))
        self.state, self.deadline_ns, self._has_turn = State.BACKOFF, turn_ns, True
        self.why = str(Cause.STORM)
        return (say(EventKind.BACKOFF, Cause.STORM, (turn_ns - now_ns) / SECOND_NS),)

    # Pieces ----------------------------------------------------------------------------------

    def _say_crash_loop(self) -> Announce:
        limit = self.spec.restart.crash_loop
        assert limit is not None
        return say(
            EventKind.CRASH_LOOP,
            Cause.DEATHS,
            deaths=len(self._backoff.deaths),
            within_s=limit.within_ns / SECOND_NS,
        )

    def _spawn(self, now_ns: int) -> tuple[Action, ...]:
        self.state = State.STARTING
        self._replace = self._has_turn = self._renewing = False
        self.why = ""
        self._excused.clear()
        self._starting.begin(now_ns)
        self._ending.begin()
        self._backoff.begin()
        self.deadline_ns = self._starting.deadline_ns(self.spec)
        return (Spawn(),)

    def _terminate(self, now_ns: int, cause: str) -> tuple[Action, ...]:
        self.state = State.STOPPING
        self.deadline_ns = now_ns + self.spec.stop_timeout_ns
        return self._ending.terminate(cause)

    def _abort(self, now_ns: int, cause: str, **detail: float) -> tuple[Action, ...]:
        self.state = State.KILLING
        self.deadline_ns = now_ns + ABORT_GRACE_NS
        return self._ending.abort(cause, **detail)

    def _kill_now(self, now_ns: int, cause: str) -> tuple[Action, ...]:
        self.state = State.KILLING
        self.deadline_ns = now_ns + KILL_RETRY_NS
        return self._ending.kill(cause)

    def _rest(self) -> None:
        self.state, self.deadline_ns, self._has_turn = State.STOPPED, None, False
