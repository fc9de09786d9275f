"""Plan: which fault befalls whom, and when. The same seed gives the same plan."""

import random
from dataclasses import dataclass
from fractions import Fraction

PAUSE_S = 0.35  # mean time between two faults
SOME = Fraction(1, 4)  # of the workers, where a fault takes several at once


@dataclass(frozen=True)
class Step:
    """
    One fault.

    Attributes:
        at_s: When, in seconds from the start.
        kind: Its name (``chaos.faults.KINDS``).
        name: The connection that it befalls, where it befalls one.
        some: Connections, where it befalls several.
        strength: 0 to 1: how long it lasts, or how hard it is.

    """

    at_s: float
    kind: str
    name: str
    some: tuple[str, ...]
    strength: float

    def between(self, low, high):
        """Return a number between two by the strength."""
        return low + (high - low) * self.strength


def plan(seed, seconds, names, weights):
    """
    Return the steps in order of time.

    Args:
        seed: Decides everything.
        seconds: The time for all of them.
        names: The connections.
        weights: How often each kind comes in a round; every round has each of them.

    """
    rng = random.Random(seed)
    steps, deck, at_s = [], [], 0.0
    while (at_s := at_s + rng.expovariate(1 / PAUSE_S)) < seconds:
        if not deck:
            deck = [kind for kind, weight in weights.items() for _ in range(weight)]
            rng.shuffle(deck)
        several = max(1, int(len(names) * SOME))
        steps.append(
            Step(
                at_s, deck.pop(), rng.choice(names), tuple(rng.sample(names, several)), rng.random()
            )
        )
    return steps
