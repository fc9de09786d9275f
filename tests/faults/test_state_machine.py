"""Fault 34: anything at any step, in simulated time, over the real decisions.

Always the same examples; FAULTS_FULL=1 looks for new ones, for some minutes.
"""

from faulty import FULL
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from simulated_fleet import MS, S, World

from supervisor.restart_facts import KillWanted, RestartWanted, StartWanted, StopWanted

NAMES = ("a", "b", "c")
SETTLE_NS = 25 * S  # the longest delay, floor and timeouts of all attempts that are left
NAME = st.sampled_from(NAMES)
ORDERS = st.sampled_from(
    [StartWanted(), StopWanted(), RestartWanted(), KillWanted("SIGKILL"), KillWanted("SIGTERM")]
)


class Fleet(RuleBasedStateMachine):
    """Orders and faults between stretches of time, short and long."""

    def __init__(self):
        super().__init__()
        self.world = World(*NAMES)
        self.intent = dict.fromkeys(NAMES, True)

    def supervised(self):
        return self.world.supervisor is not None

    @rule(steps=st.sampled_from((1, 2, 5, 30, 120, 700)))
    def time_passes(self, steps):
        self.world.run(steps * 10 * MS)

    @precondition(supervised)
    @rule(name=NAME, order=ORDERS)
    def somebody_orders(self, name, order):
        if isinstance(order, KillWanted):
            process = self.world.supervisor.keepers[name].process
            if process is not None:
                process.unwell = True
        else:
            self.intent[name] = not isinstance(order, StopWanted)
        self.world.supervisor.keepers[name].handle(order)

    @rule(name=NAME, end=st.sampled_from(((0, None), (1, None), (69, None), (75, None))))
    def a_worker_ends(self, name, end):
        self._befalls(name, lambda process: setattr(process, "end", end))

    @rule(name=NAME, code=st.sampled_from((77, 78)))
    def a_worker_ends_for_good(self, name, code):
        self._befalls(name, lambda process: setattr(process, "end", (code, None)))

    @rule(name=NAME, signal=st.sampled_from(("SIGKILL", "SIGSEGV", "SIGSTOP", "SIGCONT")))
    def a_worker_gets_a_signal(self, name, signal):
        self._befalls(name, lambda process: process.signal(signal))

    @rule(name=NAME)
    def a_worker_hangs(self, name):
        self._befalls(name, lambda process: setattr(process, "sick", True))

    def _befalls(self, name, what):
        process = self.world.living(name)
        if process is not None:
            process.unwell = True
            what(process)

    @rule(name=NAME, count=st.integers(1, 3))
    def forks_to_come_never_turn(self, name, count):
        self.world.sick[name] = count

    @rule(name=NAME, code=st.sampled_from((1, 75, 78)))
    def the_next_fork_ends_at_once(self, name, code):
        self.world.doomed[name] = code

    @rule(count=st.integers(1, 4))
    def forks_are_refused(self, count):
        self.world.refusals = count

    @rule(seconds=st.sampled_from((0.4, 1, 2.5, 4, 60)), supervisor_first=st.booleans())
    def the_machine_stands(self, seconds, supervisor_first):
        self.world.stand(int(seconds * S), supervisor_first=supervisor_first)

    @precondition(supervised)
    @rule(seconds=st.sampled_from((0.4, 1, 4, 20)))
    def the_supervisor_stands(self, seconds):
        self.world.supervisor_until_ns = self.world.now_ns + int(seconds * S)

    @precondition(supervised)
    @rule(name=NAME)
    def a_reload_changes_a_connection(self, name):
        self.world.respecify(name)
        if self.world.supervisor.keepers[name].process and self.intent[name]:
            self.world.supervisor.keepers[name].handle(RestartWanted())

    @rule()
    def the_fork_helper_dies(self):
        self.world.kill_helper()

    @precondition(supervised)
    @rule()
    def the_supervisor_dies(self):
        self.world.kill_supervisor()

    @precondition(lambda self: not self.supervised())
    @rule()
    def another_supervisor_comes(self):
        self.world.start_supervisor()

    @invariant()
    def what_holds_at_every_moment(self):
        self.world.check()

    def teardown(self):
        """Leave it alone, and it must become what is wanted."""
        if not self.supervised():
            self.world.start_supervisor()
        self.world.run(SETTLE_NS)
        self.world.check_settled()
        wanted = {n: k.life.wanted for n, k in self.world.supervisor.keepers.items()}
        assert wanted == self.intent


Fleet.TestCase.settings = settings(
    max_examples=3000 if FULL else 60,
    stateful_step_count=60 if FULL else 40,
    deadline=None,
    derandomize=not FULL,
    print_blob=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink) if FULL else (Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


class TestF34(Fleet.TestCase):
    """Kill at each step of start, and everything else at any other."""
