"""Status: what a fleet looks like now, read from shared memory alone.

Needs no supervisor: it answers when that is dead or hung. Gathers facts and names states; the
tables for people are in ``supervisor/screens.py``.
"""

import contextlib
import json
import struct
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from shm.errors import SegmentError
from shm.journal_reader import JournalReader
from shm.layout import Word
from shm.reader import Reader
from shm.segment_lock import is_locked
from shm.stats import stats_path
from supervisor import screens
from supervisor.exit_codes import NOT_UP, OK
from supervisor.figures import figures
from supervisor.fleets import opened, select, slots_of
from supervisor.restart_state import NO_PROCESS, State
from supervisor.screens import since_s
from supervisor.slot import Slot
from worker.announcement import utc_text
from worker.endpoints import data_endpoint, tuning_file
from worker.session import SERVING
from worker.session import State as SessionState
from worker.spec import SECOND_NS
from worker.tuning import read_tuning

UNREADABLE = (SegmentError, ValueError, IndexError, OverflowError, struct.error, OSError)
CLEAR = "\x1b[H\x1b[2J"  # console_codes(4)
# Worst first: what an operator must look at stands on top.
STATES = (
    "failed",
    "hung",
    "crash_loop",
    "backoff",
    "stale",
    "connecting",
    "starting",
    "stopping",
    "stopped",
    "up",
)


@dataclass(frozen=True, slots=True)
class Status:
    """A fleet's status document (``status --json``) and whether everything wanted is up."""

    document: dict[str, Any]
    all_up: bool


def gather(shm_dir: Path, patterns: Sequence[str] = ()) -> Status:
    """
    Return the status of the fleet of ``shm_dir``, of the connections that match.

    Raises:
        NoSuchFleet: If the fleet has ended.
        NoSuchConnection: If a pattern matches nothing.
        SegmentError: If the registry cannot be read.

    """
    with opened(shm_dir) as registry:
        now_ns = time.monotonic_ns()
        alive = registry.supervisor_alive()
        slots = slots_of(registry, shm_dir)
        chosen = set(select(patterns, [slot.name for slot in slots]))
        tick_age_s = since_s(registry.tick_ns, now_ns)
        unwatched = not alive or _is_old(tick_age_s)
        looks = [
            _look(shm_dir, slot if alive else _unattended(slot, shm_dir), now_ns)
            for slot in slots
            if slot.name in chosen
        ]
        rows = [_row(look, registry.runtime_dir, unwatched, now_ns) for look in looks]
        rows.sort(key=lambda row: (STATES.index(row["state"]), row["name"]))
        document = {
            "schema": 1,
            "fleet": registry.fleet,
            "supervisor": {
                "pid": registry.supervisor_pid,
                "alive": alive,
                "epoch": registry.epoch,
                "tick_age_s": tick_age_s,
            },
            "connections": rows,
        }
    # The states are the supervisor's word; the ages of its own sign and of the workers' are not.
    all_turn = not unwatched and not any(_is_old(look.stamp_age_s) for look in looks)
    all_up = all(row["state"] == "up" for row in rows if row["desired"] == "running")
    return Status(document, all_turn and all_up)


def _unattended(slot: Slot, shm_dir: Path) -> Slot:
    """Return a slot as it is without a supervisor: a worker that died stays dead."""
    with contextlib.suppress(SegmentError):
        if slot.pid and not is_locked(stats_path(shm_dir, slot.name)):
            return replace(slot, pid=0, state=State.FAILED, next_attempt_ns=0)
    return slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """
    What a connection's slot and segment say.

    ``journal``: where it is and its size, if there is one. ``stamp_age_s``: since its worker's loop
    last turned, ``None`` without a worker. ``tuning``: what became of its options, by option.
    ``note`` says why something could not be read.
    """

    slot: Slot
    session: SessionState
    measured: dict[str, Any]
    journal: dict[str, Any] | None
    stamp_age_s: float | None
    tuning: dict[str, dict[str, Any]]
    note: str


def _look(shm_dir: Path, slot: Slot, now_ns: int) -> Look:
    session, stamp_age_s, note = SessionState.IDLE, None, ""
    measured = figures(None, now_ns)
    try:
        with Reader(shm_dir, slot.name) as reader:
            words = reader.view.words
            if slot.pid and reader.epoch == slot.incarnation and words[Word.SERVING_NS]:
                stamp_age_s = since_s(words[Word.LIVENESS_NS], now_ns)
                session = SessionState(words[Word.SESSION_STATE])
            measured = figures(reader, now_ns)
    except FileNotFoundError:
        note = "has no segment" if slot.state is State.RUNNING else ""
    except UNREADABLE as error:
        note = f"its segment cannot be read: {error}"
    if session not in SERVING:
        measured["uptime_s"] = None
    tuning, unreadable = _tuning(shm_dir, slot)
    return Look(
        slot=slot,
        session=session,
        measured=measured,
        journal=_journal(shm_dir, slot.name),
        stamp_age_s=stamp_age_s,
        tuning=tuning,
        note=note or unreadable,
    )


def _journal(shm_dir: Path, name: str) -> dict[str, Any] | None:
    """Return where a connection's journal is and how many bytes of frames it holds."""
    try:
        with JournalReader.open(shm_dir, name) as journal:
            return {"path": str(journal.path), "size": journal.size}
    except UNREADABLE:
        return None


def _tuning(shm_dir: Path, slot: Slot) -> tuple[dict[str, dict[str, Any]], str]:
    """Return what the system made of a worker's options, and why it cannot be read."""
    try:
        tuned = read_tuning(tuning_file(shm_dir, slot.name))
    except (OSError, ValueError) as error:
        return {}, f"its tuning cannot be read: {error}"
    if tuned is None or not slot.pid or tuned.incarnation != slot.incarnation:
        return {}, ""
    facts = {fact.option: asdict(fact) for fact in tuned.facts}
    for fact in facts.values():
        del fact["option"]
    return facts, ""


def _row(look: Look, runtime_dir: Path, unwatched: bool, now_ns: int) -> dict[str, Any]:
    """Return a row; ``unwatched``: nobody there would call a worker hung."""
    slot = look.slot
    waiting = slot.next_attempt_ns > now_ns
    hung = unwatched and _is_old(look.stamp_age_s)
    return {
        "name": slot.name,
        "exchange": slot.exchange or None,
        "state": "hung" if hung else state_name(slot, look.session),
        "desired": "running" if slot.wanted else "stopped",
        "pid": slot.pid or None,
        "incarnation": slot.incarnation,
        "restarts": slot.restarts,
        **look.measured,
        "next_attempt_s": (slot.next_attempt_ns - now_ns) / SECOND_NS if waiting else None,
        "rss_mib": _rss_mib(slot.pid),
        "endpoint": data_endpoint(runtime_dir, slot.name),
        "journal": look.journal,
        "last_exit": _last_exit(slot),
        "tuning": look.tuning,
        "note": look.note or None,
    }


def _is_old(age_s: float | None) -> bool:
    return age_s is not None and age_s > screens.SIGN_OLD_S


def state_name(slot: Slot, session: SessionState) -> str:
    """Return the one word for a connection: the first that holds."""
    if slot.state in NO_PROCESS:
        if slot.state is State.FAILED:
            return "failed"
        if not slot.wanted:
            return "stopped"
        return "crash_loop" if slot.crash_loop else "backoff"
    if slot.state is State.STOPPING:
        return "stopping"
    if slot.hung or slot.state is State.KILLING:
        return "hung"
    if slot.state is State.STARTING:
        return "starting"
    if session is SessionState.STALE:
        return "stale"
    return "up" if session is SessionState.UP else "connecting"


def _rss_mib(pid: int) -> float | None:
    if not pid:
        return None
    try:
        return round(float(psutil.Process(pid).memory_info().rss) / 2**20, 1)
    except (psutil.Error, ValueError, OverflowError):  # gone, or a number that is no pid
        return None


def _last_exit(slot: Slot) -> dict[str, Any] | None:
    if slot.last_exit is None:
        return None
    said = slot.last_exit.announcement
    return {
        "cause": said.cause,
        "code": said.detail.get("code"),
        "signal": said.detail.get("signal"),
        "time": _time(slot.last_exit.wall_ns),
    }


def _time(wall_ns: int) -> str | None:
    try:
        return utc_text(wall_ns)
    except (ValueError, OverflowError, OSError):  # no year of ours
        return None


def show(
    shm_dir: Path, patterns: Sequence[str], *, as_json: bool, check: bool, every_s: float | None
) -> int:
    """
    Print the status, again and again if ``every_s``; return the exit code.

    Raises:
        NoSuchConnection: If a pattern matches nothing.
        NoSuchFleet: If the fleet ended meanwhile.

    """
    while True:
        status = gather(shm_dir, patterns)
        if as_json:
            print(json.dumps(status.document), flush=True)
        else:
            _print(status.document, clear=every_s is not None)
        if every_s is None:
            return NOT_UP if check and not status.all_up else OK
        time.sleep(every_s)


def _print(document: dict[str, Any], *, clear: bool) -> None:
    width, colour = screens.terminal()
    lines = screens.status_lines(document, width, colour=colour)
    print(CLEAR * (clear and width is not None) + "\n".join(lines), flush=True)
