"""Chart: the figures of a run as one PNG. The only importer of matplotlib."""

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from bench import names
from bench.figures import Figures, Measure

BARS = (
    names.CPU,
    names.RATE_CPU,
    names.RATE,
    names.ONE_WAY,
    names.END_TO_END,
    names.RESTART,
    names.FLEET,
)
LINES = (names.BY_SIZE, names.BY_SUBSCRIBERS, names.BY_CONNECTIONS, names.MANY)
WIDTH, HEIGHT, ACROSS = 7, 3.2, 3
OURS_COLOUR, OTHER_COLOUR = "#1f6fb4", "#b0b4ba"


def draw(figures: Figures, file: Path) -> None:
    """Write the chart: bars by table and column, lines for what grows; nothing without values."""
    panels = [
        (title, measured)
        for title, measures in figures.tables()
        if title in BARS + LINES and (measured := [m for m in measures if m.values])
    ]
    if not panels:
        return
    whole: list[tuple[str, Sequence[Measure]]] = []
    for title, measures in panels:
        if title in LINES:
            whole.append((title, measures))
        else:
            whole += [
                (f"{title}\n{column}", [m for m in measures if m.column == column])
                for column in dict.fromkeys(measure.column for measure in measures)
            ]
    down = -(-len(whole) // ACROSS)
    figure, grid = plt.subplots(
        down, ACROSS, figsize=(WIDTH * ACROSS, HEIGHT * down), squeeze=False
    )
    for axes in grid.flat[len(whole) :]:
        axes.axis("off")
    for axes, (title, measures) in zip(grid.flat, whole, strict=False):
        axes.set_title(title, fontsize=10)
        (_lines if title in LINES else _bars)(axes, measures)
    figure.tight_layout()
    figure.savefig(file, dpi=80)
    plt.close(figure)


def _bars(axes: Axes, measures: Sequence[Measure]) -> None:
    labels = [measure.contender for measure in measures][::-1]
    medians = [measure.median for measure in measures][::-1]
    ranges = [(min(measure.values), max(measure.values)) for measure in measures][::-1]
    reach = [
        [middle - low for middle, (low, _) in zip(medians, ranges, strict=True)],
        [high - middle for middle, (_, high) in zip(medians, ranges, strict=True)],
    ]
    colours = [OURS_COLOUR if name.startswith(names.OURS) else OTHER_COLOUR for name in labels]
    axes.barh(range(len(labels)), medians, xerr=reach, color=colours, capsize=3)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlim(left=0)


def _lines(axes: Axes, measures: Sequence[Measure]) -> None:
    for name in dict.fromkeys(measure.contender for measure in measures):
        mine = [measure for measure in measures if measure.contender == name]
        at = [int(re.sub(r"\D", "", measure.column)) for measure in mine]
        axes.plot(at, [measure.median for measure in mine], marker="o", label=name)
    if max(int(re.sub(r"\D", "", measure.column)) for measure in measures) > 1000:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
