"""Figures: what the worker of a connection has counted and measured, as ``status`` tells it."""

from typing import Any

from shm.layout import Word
from shm.reader import Reader
from supervisor.screens import since_s
from worker.session import State as SessionState

# Of each leg: where its state, session, start and lag stand, and what counts its wins.
LEGS = (
    (
        Word.LEG_1_STATE,
        Word.LEG_1_SESSION,
        Word.LEG_1_UP_SINCE_NS,
        Word.LEG_1_LAG_NS,
        "leg_1_wins",
    ),
    (
        Word.LEG_2_STATE,
        Word.LEG_2_SESSION,
        Word.LEG_2_UP_SINCE_NS,
        Word.LEG_2_LAG_NS,
        "leg_2_wins",
    ),
)


def figures(reader: Reader | None, now_ns: int) -> dict[str, Any]:
    """
    Return what ``status --json`` tells of a segment.

    Args:
        reader: Of the segment; ``None`` if there is none: then nothing was counted.
        now_ns: CLOCK_MONOTONIC.

    """
    words = reader.view.words if reader is not None else [0] * 64
    counts = reader.counters() if reader is not None else {}
    percentiles = reader.percentiles("rtt", (50, 99, 100)) if reader is not None else {}

    def count(name: str) -> int:
        return counts.get(name, 0)

    return {
        "uptime_s": since_s(words[Word.UP_SINCE_NS], now_ns),
        "messages": count("messages"),
        "bytes": count("bytes"),
        "last_message_age_s": since_s(words[Word.LAST_MESSAGE_NS], now_ns),
        "rtt_ms": {
            "last": _ms(words[Word.RTT_LAST_NS]),
            "avg": _ms(words[Word.RTT_AVG_NS]),
            "p50": _ms(percentiles.get(50, 0)),
            "p99": _ms(percentiles.get(99, 0)),
            "max": _ms(percentiles.get(100, 0)),
            "count": int(reader.histogram("rtt").sum()) if reader is not None else 0,
        },
        "pings": count("pings"),
        "pongs": count("pongs"),
        "late_pongs": count("late_pongs"),
        "timeouts": count("timeouts"),
        "reconnects": count("reconnects"),
        "legs": _legs(words, counts, now_ns),
        "counters": counts,
    }


def _legs(words: Any, counts: dict[str, int], now_ns: int) -> list[dict[str, Any]]:
    """Return what is known of each of two sessions that are kept up, none if there is one."""
    if not words[Word.LEG_1_SESSION]:
        return []
    return [
        {
            "state": SessionState(words[state]).name.lower(),
            "session": words[session],
            "uptime_s": since_s(words[since], now_ns),
            "wins": counts.get(wins, 0),
            "lag_ms": _ms(words[lag]),
        }
        for state, session, since, lag, wins in LEGS
    ]


def _ms(nanoseconds: int) -> float | None:
    return nanoseconds / 1e6 if nanoseconds else None
