"""Reasons: why a connection is in its state, what happens next, and what an operator can do.

Pure: facts of the fleet's table and of the connection's segment become sentences.
"""

from dataclasses import dataclass
from typing import Any

from supervisor.restart_state import State
from supervisor.screens import age, ending, since_s
from supervisor.slot import Slot
from worker.announcement import Cause
from worker.exits import Exit
from worker.spec import SECOND_NS

RUN_AGAIN = "run the fleet again: supervisor run FILE"
STOPPED_BY: dict[str, str] = {
    "": "it was never started",
    Cause.OPERATOR: "an operator stopped it",
    Cause.SHUTDOWN: "the fleet was ended",
}
MENDS = {
    Exit.CREDENTIALS: "renew the secret that the exchange refuses, then: supervisor start {name}",
    Exit.CONFIGURATION: "read its last words in the supervisor's log, mend fleet.toml, "
    "supervisor reload, then: supervisor start {name}",
}
DOING: dict[str, str] = {
    "idle": "it has not begun to dial",
    "dialing": "it resolves the name and opens the socket",
    "handshaking": "the WebSocket handshake is under way",
    "subscribing": "it waits for answers to its login and subscriptions",
    "draining": "the last session is being closed",
    "closed": "its session is closed for good",
}


@dataclass(frozen=True, slots=True)
class Session:
    """
    The exchange session as its worker shows it; times of CLOCK_MONOTONIC, 0 for never.

    ``down`` is the last ``down`` event: its JSON and when it was.
    """

    state: str
    since_ns: int = 0
    stamp_ns: int = 0
    last_message_ns: int = 0
    down: dict[str, Any] | None = None
    down_ns: int = 0


@dataclass(frozen=True, slots=True)
class Reason:
    """``next`` is expected ``in_s`` seconds from now, ``None`` where nobody knows."""

    why: str
    next: str = "nothing: it goes on"
    in_s: float | None = None
    mend: str | None = None


def reason(state: str, slot: Slot, session: Session, *, watched: bool, now_ns: int) -> Reason:
    """
    Say why.

    Args:
        state: As ``status`` names it.
        slot: The connection's line of the fleet's table.
        session: Of its segment.
        watched: Whether the supervisor lives.
        now_ns: CLOCK_MONOTONIC.

    """
    match state:
        case "stopped":
            who = STOPPED_BY.get(slot.life.stop_cause, f"stopped: {slot.life.stop_cause}")
            mend = f"supervisor start {slot.name}" if watched else RUN_AGAIN
            return Reason(f"{who}{_ago(slot, now_ns)}", "nothing, until it is started", mend=mend)
        case "failed":
            return _failed(slot, now_ns, watched=watched)
        case "backoff" | "crash_loop":
            return _waiting(slot, now_ns, watched=watched)
        case "stopping" | "hung":
            return _ending(slot, session, now_ns, watched=watched)
        case "starting":
            turned = "has turned" if slot.life.stamped else "has not turned yet"
            why = f"forked{_ago(slot, now_ns)}; its loop {turned}, it does not serve yet"
            limit = "ready_timeout" if slot.life.stamped else "start_timeout"
            return Reason(
                why, f"{limit} ends it, if it does not serve by then", _left(slot, now_ns)
            )
        case "connecting":
            return _connecting(slot, session, now_ns)
        case "stale":
            silent_s = since_s(session.last_message_ns, now_ns)
            silence = "" if silent_s is None else f" for {age(silent_s)}"
            why = f"subscribed, and the exchange sends no data{silence}"
            return Reason(why, "fresh with the next message; pings go on and decide on the session")
        case _:
            return _up(slot, session, now_ns)


def _failed(slot: Slot, now_ns: int, *, watched: bool) -> Reason:
    code = None if slot.last_exit is None else slot.last_exit.announcement.detail.get("code")
    if slot.state is State.FAILED and code in MENDS:
        named = Exit(code)
        why = f"its worker ended with {code} ({named.name.lower()}){_ago(slot, now_ns)}"
        return Reason(
            f"{why}: that mends no restart",
            "nothing: it is not retried",
            mend=MENDS[named].format(name=slot.name),
        )
    if not watched:
        why = "its worker died, and no supervisor is there to replace it"
        return Reason(why, "nothing, until the fleet is run again", mend=RUN_AGAIN)
    return Reason("it failed", "nothing", mend=f"supervisor start {slot.name}")


def _waiting(slot: Slot, now_ns: int, *, watched: bool) -> Reason:
    life = slot.life
    why = f"no process: {last_exit(slot)}"
    if life.why.startswith(Cause.SPAWN_FAILED):
        why = f"no process: the fork was refused ({life.why.partition(': ')[2]})"
    elif life.why == Cause.STORM:
        why += "; too many workers are replaced at this moment, it waits for its turn"
    if slot.crash_loop:
        why += (
            f"; a crash loop, {len(life.deaths)} deaths of late: retried all the same, less often"
        )
    if not watched:
        return Reason(why, "nothing: no supervisor is there to start it", mend=RUN_AGAIN)
    mend = f"read its last words in the supervisor's log; at once: supervisor restart {slot.name}"
    if slot.last_exit is not None and slot.last_exit.announcement.cause == Cause.OOM:
        mend = (
            f"give the machine or its cgroup more memory; at once: supervisor restart {slot.name}"
        )
    left_s = _until(slot.next_attempt_ns, now_ns)
    return Reason(why, f"try number {life.attempt + 1} since it was last well", left_s, mend)


def _ending(slot: Slot, session: Session, now_ns: int, *, watched: bool) -> Reason:
    life = slot.life
    if slot.state in (State.STOPPING, State.KILLING):
        why = f"it is being ended{_ago(slot, now_ns)}: {life.kill_cause or 'unknown'}"
        after = ", then a fresh process" if slot.wanted else ""
        return Reason(why, f"SIGKILL, if it is not gone by then{after}", _left(slot, now_ns))
    silent_ns = now_ns - session.stamp_ns if session.stamp_ns else 0
    why = f"its loop gave no sign for {age(silent_ns / SECOND_NS)}"
    if not watched:
        return Reason(why, "nothing: no supervisor is there to replace it", mend=RUN_AGAIN)
    left_s = _until(life.hang_timeout_ns, silent_ns) if life.hang_timeout_ns else None
    return Reason(
        why, "SIGABRT for its stacks, SIGKILL, and a fresh process (hang.timeout)", left_s
    )


def _connecting(slot: Slot, session: Session, now_ns: int) -> Reason:
    down = session.down
    why = "its process serves, its exchange session is not up"
    if down is not None:
        facts = ", ".join(f"{key} {value}" for key, value in _told(down).items())
        why += f"; the last one ended{_moment(session.down_ns, now_ns)}: {down['cause']}"
        why += f" ({facts})" if facts else ""
    if session.state != "waiting":
        return Reason(why, DOING.get(session.state, session.state))
    if down is not None and down.get("delay_s") is not None:
        planned_ns = session.down_ns + round(down["delay_s"] * SECOND_NS)
        if planned_ns > now_ns:
            return Reason(why, "it dials again", (planned_ns - now_ns) / SECOND_NS)
    return Reason(
        f"{why}; it waits{_moment(session.since_ns, now_ns)} for the connect budget of the host",
        'it dials when the budget allows ([budget."host"])',
    )


def _up(slot: Slot, session: Session, now_ns: int) -> Reason:
    why = f"subscribed{_moment(session.since_ns, now_ns)}"
    life = slot.life
    if slot.crash_loop and life.up_since_ns:
        left_s = _until(life.up_since_ns + life.reset_after_ns, now_ns)
        return Reason(f"{why}; the crash loop is not forgotten yet", "it is forgotten", left_s)
    return Reason(why)


def last_exit(slot: Slot) -> str:
    """Return how its last process ended."""
    if slot.last_exit is None:
        return "it has not run yet"
    said = slot.last_exit.announcement
    how = ending(said.cause, said.detail.get("code"), said.detail.get("signal"))
    return f"the last one ended by {how}"


def _told(down: dict[str, Any]) -> dict[str, Any]:
    """Return what a ``down`` event tells beyond numbers of the session."""
    wanted = ("status", "code", "reason", "error")
    return {key: down["detail"][key] for key in wanted if down["detail"].get(key)}


def _left(slot: Slot, now_ns: int) -> float | None:
    deadline_ns = slot.life.deadline_ns
    return None if deadline_ns is None else _until(deadline_ns, now_ns)


def _until(then_ns: int, now_ns: int) -> float:
    return max(0.0, (then_ns - now_ns) / SECOND_NS)


def _ago(slot: Slot, now_ns: int) -> str:
    past_s = since_s(slot.life.since_ns, now_ns)
    return "" if past_s is None else f" {age(past_s)} ago"


def _moment(then_ns: int, now_ns: int) -> str:
    past_s = since_s(then_ns, now_ns)
    return "" if past_s is None else f" since {age(past_s)}"
