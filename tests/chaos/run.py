"""Run: a fleet is started, loaded, treated badly, calmed down and ended."""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from exchange import running_exchange
from faulty import faulty_fleet, names
from fleet import PATIENCE_S

from chaos.account import Account, settle
from chaos.faults import FUNCTIONS, WEIGHTS, Missed
from chaos.leaks import gained, left, steady
from chaos.plan import plan
from chaos.scene import SETTINGS, Scene, toml_of
from chaos.witness import Witness
from shm.layout import Counter as Of
from shm.view import StatsView
from worker.overlap import HOLD_NS
from worker.pair import MIND_S
from worker.spec import SECOND_NS

BREATH_S = 0.05
# A worker killed while two sessions brought the same has told neither all that came twice, nor what
# it held back of the second.
DOUBT_S = MIND_S + HOLD_NS / SECOND_NS


@dataclass(frozen=True)
class Options:
    """What is wanted; ``only`` takes faults whose names contain one of these."""

    seconds: float
    workers: int
    seed: int
    rate: float
    only: tuple[str, ...] = ()

    def weights(self):
        wanted = self.only or ("",)
        return {k: w for k, w in WEIGHTS.items() if any(part in k for part in wanted)}


def run(options):
    """Do it all; return the account."""
    account = Account(options.seconds, options.seed)
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/dev/shm"))
    try:
        with running_exchange(rate=options.rate, shared=True, seed=options.seed) as exchange:
            settings = {name: dict(SETTINGS) for name in names(options.workers)}
            name = f"chaos{os.getpid()}"
            with faulty_fleet(folder, toml_of(exchange, settings), name) as fleet:
                _play(options, account, fleet, exchange, settings)
    finally:
        if not account.is_clean:
            account.log = Path(tempfile.gettempdir(), f"{folder.name}.log")
            shutil.copy(folder / "log", account.log)
        shutil.rmtree(folder)
    return account


def _play(options, account, fleet, exchange, settings):
    fleet.wait_up(timeout_s=2 * PATIENCE_S)
    with contextlib.closing(Witness(fleet, settings)) as witness:
        scene = Scene(fleet, exchange, witness, settings)
        before = steady(fleet)
        witness.begin()
        _inject(scene, account, options)
        try:
            scene.calm()
        except AssertionError as error:
            account.wrongs.append(f"not calm at the end: {error}")
        gained(fleet, before, account.leaks)
        deaths = {name: row["incarnation"] - 1 for name, row in fleet.rows().items()}
        account.replaced = sum(deaths.values())
        account.supervisors = scene.births
        counted = _end(scene, account)
        left_out = exchange.command("left_out")
        doubts = {name: int(DOUBT_S * options.rate * deaths[name]) for name in scene.rotated}
        settle(account, witness.findings(2 * PATIENCE_S), counted, left_out, doubts)


def _end(scene, account):
    """End the fleet orderly; return by connection what its workers have counted."""
    fleet = scene.fleet
    with contextlib.ExitStack() as stack:
        views = {
            name: stack.enter_context(StatsView.open(fleet.shm_dir, name)) for name in scene.names
        }
        if (code := fleet.stop(2 * PATIENCE_S)) != 0:
            account.wrongs.append(f"the supervisor ended with {code}")
        counted = {name: _counted(view) for name, view in views.items()}
    left(fleet, account.leaks)
    said = fleet.said()
    if "Traceback" in said:
        account.wrongs.append("a traceback: " + said[said.index("Traceback") :][:2000])
    return counted


def _counted(view):
    """Return how many different messages came to the workers of a connection."""
    return view.counters[Of.MESSAGES] - view.counters[Of.OVERLAP_DUPLICATES]


def _inject(scene, account, options):
    """Let the plan's faults happen, and end those that last."""
    steps = plan(options.seed, options.seconds, scene.names, options.weights())
    began_s = time.monotonic()
    while (now_s := time.monotonic() - began_s) < options.seconds:
        _do_due(scene, account)
        if not steps or steps[0].at_s > now_s:
            time.sleep(BREATH_S)
            continue
        step = steps.pop(0)
        try:
            FUNCTIONS[step.kind](scene, step)
            account.faults[step.kind] += 1
        except Missed:
            account.missed[step.kind] += 1
        except (AssertionError, OSError) as error:
            account.wrongs.append(f"{now_s:.1f} s, {step.kind} of {step.name}: {error!r:.2000}")
            _revive(scene)


def _do_due(scene, account):
    now_s = time.monotonic()
    due = sorted((pair for pair in scene.due if pair[0] <= now_s), key=lambda pair: pair[0])
    scene.due = [pair for pair in scene.due if pair[0] > now_s]
    for _at_s, call in due:
        try:
            call()
        except AssertionError as error:
            account.wrongs.append(f"the end of a fault: {error!r:.2000}")


def _revive(scene):
    """Have a supervisor after a fault that went wrong."""
    scene.exchange.process.send_signal(signal.SIGCONT)
    if scene.fleet.process.poll() is not None:
        with contextlib.suppress(AssertionError):
            scene.run_again()
