"""``make chaos``: a fleet under load, random faults on it, and an account at the end."""

import argparse
import os
import random
import sys

from chaos.run import Options, run

RATE = 200.0


def main():
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults")
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="repeats the sequence of faults")
    parser.add_argument("--rate", type=float, default=RATE, help="messages/s of each connection")
    parser.add_argument("--only", nargs="*", default=(), help="faults whose name contains this")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    options = Options(given.seconds, given.workers, seed, given.rate, tuple(given.only))
    print(f"seed {seed}", flush=True)
    account = run(options)
    print(account.table())
    if complaints := account.complaints():
        print(complaints)
    if account.is_clean:
        return 0
    print(f"again: make chaos CHAOS_SEED={seed} CHAOS_WORKERS={given.workers}")
    return 1


if __name__ == "__main__":
    os.chdir("/")  # nothing is imported from, or left in, where it was started
    sys.exit(main())
