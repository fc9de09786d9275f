"""Figures: what was measured, by round, and what it comes to. Pure."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Measure:
    """
    One cell of a table: a contender under a load.

    Attributes:
        table: Title of the table; it names the unit.
        column: The load.
        contender: Who.
        values: One a round, in the order of the rounds; empty if there is none.
        note: Why there is none, or what must be known of them.

    """

    table: str
    column: str
    contender: str
    values: tuple[float, ...]
    note: str = ""

    @property
    def median(self) -> float:
        """Of the rounds. Raises statistics.StatisticsError if there is none."""
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Goal:
    """
    A number to reach.

    Attributes:
        what: In words.
        reached: Median; ``None`` if it was not measured.
        limit: At most, or at least, so much.
        unit: Of both.
        at_least: Which of the two.

    """

    what: str
    reached: float | None
    limit: float
    unit: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it is reached; ``None`` if it was not measured."""
        if self.reached is None:
            return None
        return self.reached >= self.limit if self.at_least else self.reached <= self.limit


@dataclass(slots=True)
class Figures:
    """All measures of a run, in the order of their sections."""

    measures: list[Measure] = field(default_factory=list)

    def add(
        self, table: str, column: str, contender: str, values: Sequence[float], note: str = ""
    ) -> None:
        """Take down what a contender measured in all rounds."""
        self.measures.append(Measure(table, column, contender, tuple(values), note))

    def find(self, table: str, column: str, contender: str) -> Measure | None:
        """Return a measure that has values."""
        for measure in self.measures:
            if (measure.table, measure.column, measure.contender) == (table, column, contender):
                return measure if measure.values else None
        return None

    def median(self, table: str, column: str, contender: str) -> float | None:
        """Return the median of a measure, ``None`` without one."""
        measure = self.find(table, column, contender)
        return measure.median if measure else None

    def ratio(self, table: str, column: str, contender: str, base: str) -> float | None:
        """Return the median of the ratios by round, ``None`` if one of them is not there."""
        measure, other = self.find(table, column, contender), self.find(table, column, base)
        if measure is None or other is None:
            return None
        return ratio_by_round(measure.values, other.values)

    def tables(self) -> Iterator[tuple[str, list[Measure]]]:
        """Yield titles and their measures."""
        for title in dict.fromkeys(measure.table for measure in self.measures):
            yield title, [measure for measure in self.measures if measure.table == title]


def ratio_by_round(values: Sequence[float], base: Sequence[float]) -> float | None:
    """
    Return the median of ``values / base``, taken round by round: neighbours share the weather.

    ``None`` if no round has both, or a base is 0.
    """
    pairs = list(zip(values, base, strict=False))
    if not pairs or not all(below for _, below in pairs):
        return None
    return statistics.median(above / below for above, below in pairs)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that ``percent`` of the values do not exceed."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no percentile of nothing")
    rank = -(-len(ordered) * percent // 100)
    return ordered[min(len(ordered), max(1, int(rank))) - 1]


def alternated(names: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Yield (round, name): everybody once a round, another one first each time."""
    for number in range(rounds):
        first = number % len(names) if names else 0
        for name in [*names[first:], *names[:first]]:
            yield number, name
