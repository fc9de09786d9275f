"""Reloading: has a running fleet take over a changed fleet.toml, all of it or nothing.

The file is read and checked by this process, for its environment, working directory and version
are those that count; and in a thread, for that takes longer than an order may wait for its answer.
Then everything that can be refused is tried before anything is changed.
"""

import asyncio
import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

from shm.errors import SegmentError
from supervisor import checked, descriptors
from supervisor.capacity import refuse_without_room
from supervisor.control import Reply, absolute
from supervisor.errors import Fault, FleetError, FleetFileError
from supervisor.exit_codes import CONFIGURATION
from supervisor.fleet import Fleet
from supervisor.keeper import Keeper
from supervisor.premises import Premises
from supervisor.program import is_on_disk
from supervisor.reload import Doing, Plan, Step, needs_new_run, plan
from supervisor.restart_facts import RestartWanted, StartWanted
from supervisor.restart_state import State
from supervisor.roster import Roster
from worker.announcement import Announcement, Cause, EventKind
from worker.spec import ConnectionSpec, MatchKind

log = logging.getLogger("supervisor.reloading")

READ_S = 20.0  # for a file on a file system that does not answer, and functions to be loaded
NOT_OF_THE_FLEET = ("file", "connections")

Checked = tuple[Fleet, bytes | None]  # and the key that it is kept under, if it is


class Refused(FleetError):
    """Why nothing is changed."""

    exit_code = CONFIGURATION


class Reloading:
    """
    Takes over files, one after the other.

    Args:
        fleet: As it was started.
        roster: Its connections.
        premises: Its directories.
        stopping: Whether the fleet ends.
        announce: Publishes an event of the fleet.

    """

    def __init__(
        self,
        fleet: Fleet,
        roster: Roster,
        premises: Premises,
        stopping: Callable[[], bool],
        announce: Callable[[Announcement], None],
    ) -> None:
        self._fleet, self._roster, self._premises = fleet, roster, premises
        self._stopping, self._announce = stopping, announce
        self._turn = asyncio.Lock()

    async def reload(self, path: Path, *, dry_run: bool) -> Reply:
        """Take over a file once those asked for before it are; ``dry_run``: only say how."""
        try:
            async with self._turn:
                with self._roster.held():
                    found, begun_ns = await self._take(path, dry_run=dry_run)
        except FleetFileError as error:
            return _refusal(path, error, error.faults)
        except (FleetError, SegmentError, OSError) as error:
            fault = Fault(str(path), 0, "", f"nothing is changed: {error}")
            return _refusal(path, Refused(fault.message), (fault,))
        document = {
            "schema": 1,
            "ok": True,
            "file": str(path),
            "dry_run": dry_run,
            "changes": found.rows(),
        }
        return Reply(lines=tuple(found.lines()), document=document, begun_ns=begun_ns)

    async def _take(self, path: Path, *, dry_run: bool) -> tuple[Plan, int]:
        """Return what is done, and when that began, 0 if nothing is."""
        in_use = _functions(keeper.spec for keeper in self._roster.staying.values())
        wanted, key = await _read(path, in_use)
        if reasons := needs_new_run(_as_a_whole(self._fleet), _as_a_whole(wanted)):
            raise Refused(f"a new run is needed: {'; '.join(reasons)}")
        kept = self._roster.staying
        former = {name: keeper.spec for name, keeper in kept.items()}
        found = plan(former, {spec.name: spec for spec in wanted.connections})
        new = found.specs(Doing.START)
        self._premises.check(spec.name for spec in new if spec.name not in self._roster.keepers)
        refuse_without_room(new, [(former[s.name], s) for s in found.specs(Doing.RESTART)])
        descriptors.refuse_too_many(len(kept) + len(new))
        begun_ns = 0
        if found.steps and not dry_run:
            await self._roster.bind(new)
            self._refuse_at_the_end()
            begun_ns = time.monotonic_ns()
            self._apply(found)
        if not dry_run and absolute(path) == absolute(self._fleet.file):
            checked.keep(wanted, key, self._premises.shm_dir)  # the next run knows it
        return found, begun_ns

    def _refuse_at_the_end(self) -> None:
        if self._stopping():
            raise Refused("the fleet is being shut down")

    def _apply(self, found: Plan) -> None:
        """Do it. What may fail for want of room comes first, so that all or nothing is done."""
        kept = self._roster.keepers
        changed = found.of(Doing.LIVE, Doing.RECONNECT, Doing.RESTART)
        new = found.specs(Doing.START)
        returning = {spec.name for spec in new if spec.name in kept}
        prepared = [spec for step in changed if (spec := step.spec) is not None] + [
            spec for spec in new if spec.name in returning
        ]
        try:
            for spec in prepared:
                kept[spec.name].handover.prepare(spec)
            self._roster.admit(new)
        except BaseException:
            for spec in prepared:
                kept[spec.name].handover.unprepare()
            self._roster.unbind(spec for spec in new if spec.name not in returning)
            raise
        self._announce(
            Announcement(kind=EventKind.CONFIG, cause=Cause.CONFIG, detail=found.summary())
        )
        for step in changed:
            _change(kept[step.name], step)
        for step in found.of(Doing.STOP):
            self._roster.dismiss(step.name)
        for spec in new:
            keeper = kept[spec.name]
            if spec.name in returning:  # it was going: what starts next is as the file says now
                keeper.respecify(spec)
            keeper.handle(StartWanted())


def _change(keeper: Keeper, step: Step) -> None:
    """Lead one connection over, as far as its state asks for something to be done at once."""
    assert step.spec is not None
    keeper.tell_change(step.doing.value, step.keys)
    life = keeper.life
    in_process = step.doing in (Doing.LIVE, Doing.RECONNECT)
    keeper.respecify(step.spec, to_worker=in_process)
    if not life.wanted:
        return
    if life.state is State.FAILED:  # what failed may be what has been mended
        keeper.handle(StartWanted())
    elif step.doing is Doing.RESTART and life.state is not State.BACKOFF:
        keeper.handle(RestartWanted())


def _as_a_whole(fleet: Fleet) -> dict[str, object]:
    """Return what concerns no single connection."""
    return {
        field.name: getattr(fleet, field.name)
        for field in fields(fleet)
        if field.name not in NOT_OF_THE_FLEET
    }


def _refusal(path: Path, error: FleetError, faults: tuple[Fault, ...]) -> Reply:
    listed = [asdict(fault) for fault in faults]
    document = {"schema": 1, "ok": False, "file": str(path), "faults": listed}
    return Reply(str(error), code=error.exit_code, document=document)


def _functions(specs: Iterable[ConnectionSpec]) -> frozenset[str]:
    """Return the operator's functions that are in use, whether or not they can be loaded."""
    found: set[str] = set()
    for spec in specs:
        matcher = spec.heartbeat.pong_matcher if spec.heartbeat else None
        found |= {spec.login} if spec.login else set()
        found |= {matcher.value} if matcher and matcher.kind is MatchKind.CALLABLE else set()
    return frozenset(found)


def _loaded(path: Path, known: frozenset[str]) -> Checked:
    # What checks a file takes a third of a second to import: not before it is asked for. Should
    # that fail, in a build half installed, it is one verb that fails.
    if "supervisor.fleetfile" not in sys.modules and not is_on_disk():
        raise Refused(
            "another build has been installed since this supervisor was started; let it take over "
            "(supervisor shutdown --keep, then run): it reads the file, too"
        )
    from supervisor.fleetfile import load

    return checked.checking(path, partial(load, known_functions=known))


async def _read(path: Path, known: frozenset[str]) -> Checked:
    """
    Return the fleet of a file and by what it is kept; meanwhile the loop turns.

    Raises:
        FleetError: As ``fleetfile.load``, or if the file does not come.

    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Checked] = loop.create_future()

    def settle(found: Checked | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        elif found is not None:
            future.set_result(found)

    def work() -> None:
        result: tuple[Any, BaseException | None]
        try:
            result = _loaded(path, known), None
        except Exception as error:
            result = None, error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, *result)

    # A daemon, not the loop's executor: one that hangs in read(2) must not keep us from ending.
    threading.Thread(target=work, name="reload", daemon=True).start()
    try:
        return await asyncio.wait_for(future, READ_S)
    except TimeoutError:
        raise Refused(f"{path} could not be read within {READ_S:g} s") from None
