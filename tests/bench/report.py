"""Report: figures as Markdown and JSON, and as the generated part of docs/performance.md. Pure."""

from collections.abc import Sequence
from typing import Any

from bench.figures import Figures, Goal, Measure

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def number(value: float) -> str:
    """Return three significant digits, thousands with commas."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        digits = len(str(int(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{decimals}f}"


def cell(measure: Measure | None) -> str:
    """Return median and range, or why there is none."""
    if measure is None:
        return ""
    if not measure.values:
        return measure.note or "not measured"
    low, high = min(measure.values), max(measure.values)
    text = number(measure.median)
    if low != high:
        text += f" ({number(low)} to {number(high)})"
    return f"{text}, {measure.note}" if measure.note else text


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def table(measures: Sequence[Measure], base: str | None) -> list[str]:
    """Return a Markdown table: a line a contender, a column a load; ratios to ``base`` beside."""
    figures = Figures(list(measures))
    columns = list(dict.fromkeys(measure.column for measure in measures))
    contenders = list(dict.fromkeys(measure.contender for measure in measures))
    cells = {(measure.contender, measure.column): measure for measure in measures}
    rows = []
    for contender in contenders:
        row = [contender]
        for column in columns:
            text = cell(cells.get((contender, column)))
            if base is not None and contender != base:
                ratio = figures.ratio(measures[0].table, column, contender, base)
                text += "" if ratio is None else f", ×{ratio:.2f}"
            row.append(text)
        rows.append(row)
    return _lines(["", *columns], rows)


def goal_table(goals: Sequence[Goal]) -> list[str]:
    """Return the goals as a Markdown table."""
    rows = []
    for goal in goals:
        reached = "not measured" if goal.reached is None else f"{number(goal.reached)} {goal.unit}"
        limit = f"{'≥' if goal.at_least else '≤'} {number(goal.limit)} {goal.unit}"
        met = {None: "not available", True: "met", False: "**not met**"}[goal.met]
        rows.append([goal.what, reached.strip(), limit.strip(), met])
    return _lines(["goal", "reached", "wanted", ""], rows)


def markdown(
    figures: Figures, goals: Sequence[Goal], machine: dict[str, str], bases: dict[str, str]
) -> str:
    """
    Return the whole report.

    Args:
        figures: What was measured.
        goals: What was wanted.
        machine: What it was measured on and how, told as it is.
        bases: By table, the contender that ratios are told to.

    """
    lines = ["; ".join(f"{name} {value}" for name, value in machine.items()) + ".", ""]
    if goals:
        lines += [*goal_table(goals), ""]
    for title, measures in figures.tables():
        base = bases.get(title)
        lines += [f"**{title}**" + (f" (× to {base})" if base else ""), ""]
        lines += [*table(measures, base), ""]
    return "\n".join(lines)


def document(
    figures: Figures, goals: Sequence[Goal], machine: dict[str, str], options: dict[str, Any]
) -> dict[str, Any]:
    """Return the JSON document: every round of every measure."""
    return {
        "schema": 1,
        "machine": machine,
        "options": options,
        "measures": [
            {
                "table": measure.table,
                "column": measure.column,
                "contender": measure.contender,
                "values": list(measure.values),
                "median": measure.median if measure.values else None,
                "note": measure.note,
            }
            for measure in figures.measures
        ],
        "goals": [
            {
                "what": goal.what,
                "reached": goal.reached,
                "limit": goal.limit,
                "unit": goal.unit,
                "at_least": goal.at_least,
                "met": goal.met,
            }
            for goal in goals
        ],
    }


def spliced(page: str, report: str) -> str:
    """
    Return a page with the report between its markers.

    Raises:
        ValueError: If the page does not have both markers, in order.

    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} followed by {END}: put both where it shall go")
    return f"{before}{BEGIN}\n{report.strip()}\n{END}{after}"
