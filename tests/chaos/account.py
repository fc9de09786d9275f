"""Account: what was done to the fleet, and what became of its messages and of what it held."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chaos.leaks import Leaks

SHOWN = 20  # of each complaint


@dataclass
class Account:
    """
    Attributes:
        seconds, seed: Of the run.
        log: Where the supervisor's log was kept, if anything was wrong.
        faults, missed: Injected by kind, and those that found nothing to befall.
        received: What workers' journals took, all messages of all incarnations.
        counted: The same as the workers' own counters have it. A killed one has not counted what it
            took in its last read.
        delivered, repaired: Given to the subscriber; of these, from a journal.
        lost: Taken or counted, and never given to the subscriber, whether it was told or not.
        changes: Sessions told as new to the subscriber.
        replaced, supervisors: Workers that followed another; supervisors that ran.
        untold: Numbers of the exchange that are missing where no new session was told. No worker
            took them, and the subscriber does not know.
        wrongs: Everything else that must not be: order, errors of the fleet, failures of the run.

    """

    seconds: float
    seed: int
    log: Path | None = None
    faults: Counter = field(default_factory=Counter)
    missed: Counter = field(default_factory=Counter)
    received: int = 0
    counted: int = 0
    delivered: int = 0
    repaired: int = 0
    changes: int = 0
    replaced: int = 0
    supervisors: int = 0
    untold: list = field(default_factory=list)
    lost: list = field(default_factory=list)
    wrongs: list = field(default_factory=list)
    leaks: Leaks = field(default_factory=Leaks)

    @property
    def is_clean(self):
        return not (
            self.lost
            or self.untold
            or self.wrongs
            or self.leaks.descriptors
            or self.leaks.files
            or self.leaks.processes
        )

    @property
    def lost_count(self):
        return sum(count for count, _what in self.lost)

    @property
    def untold_count(self):
        return sum(count for count, _what in self.untold)

    def table(self):
        """Return everything as lines of name and number."""
        rows = [(f"faults in {self.seconds:.0f} s", self.faults.total())]
        rows += [(f"  {kind}", count) for kind, count in sorted(self.faults.items())]
        rows += [
            ("  (found nothing to befall)", self.missed.total()),
            ("workers replaced", self.replaced),
            ("supervisors", self.supervisors),
            ("sessions told as new", self.changes),
            ("messages received by workers", self.received),
            ("  by their own counters", self.counted),
            ("  delivered", self.delivered),
            ("  of these repaired", self.repaired),
            ("  lost", self.lost_count),
            ("missing of the exchange's, untold", self.untold_count),
            ("wrongs", len(self.wrongs)),
            ("leaked descriptors", len(self.leaks.descriptors)),
            ("leaked files", len(self.leaks.files)),
            ("leaked processes", len(self.leaks.processes)),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {count:>11,}" for name, count in rows)

    def complaints(self):
        """Return what is not as it must be, a line each."""
        lists = {
            "untold": [f"{count}: {what}" for count, what in self.untold],
            "lost": [f"{count}: {what}" for count, what in self.lost],
            "wrong": self.wrongs,
            "leaked descriptor": self.leaks.descriptors,
            "leaked file": self.leaks.files,
            "leaked process": self.leaks.processes,
        }
        lines = [f"{what}: {line}" for what, found in lists.items() for line in found[:SHOWN]]
        lines += [f"the supervisor's log: {self.log}"] if self.log else []
        return "\n".join(lines)


def settle(account, found, counted, left_out, doubts):
    """
    Note what was lost, and every other wrong.

    Args:
        account: Where it is noted.
        found: The witness's findings.
        counted: By connection, what the workers' counters say.
        left_out: By connection, how many messages the exchange has kept to itself.
        doubts: By connection, how many the counters may have counted twice.

    """
    account.received, account.delivered = found.taken.total(), found.given.total()
    account.counted = sum(counted.values())
    account.repaired, account.changes = found.repaired, found.changes
    account.lost += [
        (count, f"{name}: not delivered, of numbers {first} to {last}")
        for name, (count, first, last) in found.missing.items()
    ]
    account.lost += found.gaps
    account.lost += [
        (count - found.taken[name], f"{name}: counted by its workers, in no journal")
        for name, count in counted.items()
        if count - doubts.get(name, 0) > found.taken[name]
    ]
    account.untold += [
        (
            jumped - left_out.get(name, 0),
            f"{name}: beyond the {left_out.get(name, 0)} that the exchange left out; "
            f"{', '.join(found.places.get(name, ()))}",
        )
        for name, jumped in found.jumps.items()
        if jumped > left_out.get(name, 0)
    ]
    account.wrongs += [
        f"{name}: {count} delivered that no journal had" for name, count in found.foreign.items()
    ]
    account.wrongs += found.wrongs
