"""Tables and lines for people. What is shown is gathered elsewhere."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from typing import Any

from worker.spec import SECOND_NS

# SGR codes (console_codes(4)): what is well is green, what an operator must look at is red.
COLOURS = {
    "up": "32",
    "connecting": "33",
    "starting": "33",
    "stale": "33",
    "stopping": "33",
    "stopped": "2",
    "backoff": "31",
    "crash_loop": "1;31",
    "hung": "1;31",
    "failed": "1;31",
}
HEADINGS = (
    "CONNECTION", "STATE", "PID", "UPTIME", "RESTARTS", "MESSAGES", "LAST MSG", "RTT p50",
    "RTT p99", "NOTE",
)  # fmt: skip
LEFT = {"CONNECTION", "STATE", "NOTE"}
# What a narrow terminal goes without, in this order; the rest is never cut.
DISPENSABLE = ("RTT p99", "MESSAGES", "RTT p50", "UPTIME", "RESTARTS", "LAST MSG", "PID")
GAP = "  "
SIGN_OLD_S = 2.0  # a loop that gave no sign for so long does not turn
# What an exchange wrote must not reach the terminal as commands (ECMA-48: C0, DEL and C1).
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def status_lines(document: dict[str, Any], width: int | None, *, colour: bool) -> list[str]:
    """
    Return a title and one line a connection.

    Args:
        document: Of ``status --json``.
        width: Columns of the terminal; columns are left out until lines fit. ``None``: no limit.
        colour: Whether to paint states.

    """
    rows = [_cells(row, document["supervisor"]["alive"]) for row in document["connections"]]
    table = [dict(zip(HEADINGS, HEADINGS, strict=True)), *rows]
    columns = list(HEADINGS)
    for name in DISPENSABLE:
        if width is None or _width(table, columns) <= width:
            break
        columns.remove(name)
    lines = [_title(document)]
    for cells in table:
        widths = {name: max(len(line[name]) for line in table) for name in columns}
        shown = [
            cells[name].ljust(widths[name]) if name in LEFT else cells[name].rjust(widths[name])
            for name in columns
        ]
        if colour and (code := COLOURS.get(cells["STATE"])):
            shown[1] = f"\x1b[{code}m{shown[1]}\x1b[0m"
        lines.append(GAP.join(shown).rstrip())
    return lines


def _width(table: list[dict[str, str]], columns: list[str]) -> int:
    widths = [max(len(line[name]) for line in table) for name in columns]
    return sum(widths) + len(GAP) * (len(columns) - 1)


def _title(document: dict[str, Any]) -> str:
    rows, supervisor = document["connections"], document["supervisor"]
    wanted = sum(row["desired"] == "running" for row in rows)
    up = sum(row["state"] in ("up", "stale") for row in rows)
    stopped = f", {len(rows) - wanted} stopped" if wanted < len(rows) else ""
    age_s = supervisor["tick_age_s"]
    if supervisor["alive"] and age_s is not None and age_s > SIGN_OLD_S:
        keeper = f"supervisor {supervisor['pid']} HUNG, no sign of it for {age(age_s)}"
    elif supervisor["alive"]:
        keeper = f"supervisor {supervisor['pid']}"
    elif any(row["pid"] for row in rows):
        keeper = "supervisor DEAD, workers are on their own"
    else:
        keeper = "supervisor DEAD, its workers have ended"
    return f"{document['fleet']}: {up} of {wanted} up{stopped}, {keeper}"


def _cells(row: dict[str, Any], supervised: bool) -> dict[str, str]:
    rtt = row["rtt_ms"]
    cells = (
        row["name"],
        row["state"],
        _or_dash(row["pid"], str),
        _or_dash(row["uptime_s"], age),
        str(row["restarts"]),
        f"{row['messages']:,}",
        _or_dash(row["last_message_age_s"], age),
        _or_dash(rtt["p50"], milliseconds),
        _or_dash(rtt["p99"], milliseconds),
        plain(_note(row)) if supervised or row["pid"] else "nobody is there to start it",
    )
    return dict(zip(HEADINGS, cells, strict=True))


def _note(row: dict[str, Any]) -> str:
    notes = []
    if row["next_attempt_s"] is not None:
        notes.append(f"next try in {row['next_attempt_s']:.1f} s")
    if row["last_exit"] is not None and row["state"] != "up":
        last = row["last_exit"]
        notes.append(f"last exit: {ending(last['cause'], last['code'], last['signal'])}")
    if row["note"]:
        notes.append(row["note"])
    notes += [
        f"{option} {fact['state']}: {fact['error']}"
        for option, fact in row["tuning"].items()
        if fact["state"] != "applied"
    ]
    return ", ".join(notes)


def _or_dash(value: Any, show: Callable[[Any], str]) -> str:
    return "-" if value is None else show(value)


def age(seconds: float) -> str:
    """Return a duration in the unit that reads best."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 100:
        return f"{seconds:.1f}s"
    if seconds < 6000:
        return f"{seconds / 60:.0f}m"
    if seconds < 360_000:
        return f"{seconds / 3600:.0f}h"
    return f"{seconds / 86400:.0f}d"


def since_s(then_ns: int, now_ns: int) -> float | None:
    """Return how long ago a moment of CLOCK_MONOTONIC was, in seconds; ``None`` for 0, never."""
    return max(0.0, (now_ns - then_ns) / SECOND_NS) if then_ns else None


def milliseconds(value: float) -> str:
    """Return a round-trip time; microseconds where they matter."""
    return f"{value * 1000:.0f}µs" if value < 1 else f"{value:.1f}ms"


def ending(cause: str, code: int | None, signal: str | None) -> str:
    """Return how a process ended: by what, and with what."""
    return f"{cause} {signal or ('' if code is None else f'code {code}')}".rstrip()


def terminal() -> tuple[int | None, bool]:
    """Return the columns of the terminal that stdout is, if it is one, and whether to paint it."""
    if not sys.stdout.isatty():
        return None, False
    return shutil.get_terminal_size().columns, not os.environ.get("NO_COLOR")  # no-color.org


def event_line(event: dict[str, Any]) -> str:
    """Return one line of an event's JSON document."""
    who = event["connection"] or event["fleet"]
    facts: Iterable[str] = (f"{key}={value}" for key, value in event["detail"].items())
    parts = [event["time"], f"{who:<20}", f"{event['kind']:<10}"]
    parts += [event["cause"]] if event["cause"] else []
    parts += facts
    if event["delay_s"] is not None:
        parts.append(f"delay_s={event['delay_s']:.3f}")
    return plain(" ".join(parts))


def plain(text: str) -> str:
    """Return a text with control characters as ``\\x1b``."""
    return text.translate(_CONTROLS)
