"""Tables and lines for people. What is shown is gathered elsewhere."""

from collections.abc import Callable, Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

STYLES = {
    "up": "green",
    "connecting": "yellow",
    "starting": "yellow",
    "stale": "yellow",
    "stopping": "yellow",
    "stopped": "dim",
    "backoff": "red",
    "crash_loop": "bold red",
    "hung": "bold red",
    "failed": "bold red",
}


def status_table(document: dict[str, Any]) -> Table:
    """Return one line a connection, worst first."""
    supervisor = document["supervisor"]
    rows = document["connections"]
    up = sum(row["state"] == "up" for row in rows)
    if supervisor["alive"]:
        keeper = f"supervisor {supervisor['pid']}"
    else:
        keeper = "supervisor DEAD, workers are on their own"
    title = f"{document['fleet']}: {up} of {len(rows)} up, {keeper}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("CONNECTION", no_wrap=True)
    table.add_column("STATE", no_wrap=True)
    for heading in ("PID", "UPTIME", "RESTARTS", "MESSAGES", "LAST MSG", "RTT p50", "RTT p99"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("NOTE")
    for row in rows:
        rtt = row["rtt_ms"]
        table.add_row(
            row["name"],
            Text(row["state"], STYLES[row["state"]]),
            _or_dash(row["pid"], str),
            _or_dash(row["uptime_s"], age),
            str(row["restarts"]),
            f"{row['messages']:,}",
            _or_dash(row["last_message_age_s"], age),
            _or_dash(rtt["p50"], milliseconds),
            _or_dash(rtt["p99"], milliseconds),
            _note(row),
        )
    return table


def _note(row: dict[str, Any]) -> str:
    notes = []
    if row["next_attempt_s"] is not None:
        notes.append(f"next try in {row['next_attempt_s']:.1f} s")
    if row["last_exit"] is not None and row["state"] != "up":
        last = row["last_exit"]
        how = last["signal"] or (f"code {last['code']}" if last["code"] is not None else "")
        notes.append(f"last exit: {last['cause']} {how}".rstrip())
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


def milliseconds(value: float) -> str:
    """Return a round-trip time; microseconds where they matter."""
    return f"{value * 1000:.0f}µs" if value < 1 else f"{value:.1f}ms"


def event_line(event: dict[str, Any]) -> str:
    """Return one line of an event's JSON document."""
    who = event["connection"] or event["fleet"]
    facts: Iterable[str] = (f"{key}={value}" for key, value in event["detail"].items())
    parts = [event["time"], f"{who:<20}", f"{event['kind']:<10}"]
    parts += [event["cause"]] if event["cause"] else []
    parts += facts
    if event["delay_s"] is not None:
        parts.append(f"delay_s={event['delay_s']:.3f}")
    return " ".join(parts)
