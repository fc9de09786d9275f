"""``make fuzz``: every target for its share of the time, and how to see a fault again."""

import argparse
import os
import random
import sys

from fuzz.runner import run
from fuzz.targets import TARGETS


def main():
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="in all")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", choices=sorted(TARGETS), nargs="*")
    parser.add_argument("--case", type=int, default=None, help="this case alone")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    names = options.only or list(TARGETS)
    print(f"seed {seed}", flush=True)
    faults = 0
    for name in names:
        if options.case is not None:
            report = run(name, seed, cases=1, first=options.case)
        else:
            report = run(name, seed, seconds=options.seconds / len(names))
        if report.fault:
            faults += 1
            case = report.fault.split(":")[0].removeprefix("case ")
            print(f"{name}: FAULT in {report.fault}")
            print(f"again: make fuzz FUZZ_SEED={seed} FUZZ_ONLY={name} FUZZ_CASE={case}")
        else:
            shares = ", ".join(f"{k} {v:,}" for k, v in sorted(report.outcomes.items()))
            print(f"{name}: {report.cases:,} cases: {shares}", flush=True)
    return min(faults, 1)


if __name__ == "__main__":
    os.chdir("/")  # nothing is imported from, or left in, where it was started
    sys.exit(main())
