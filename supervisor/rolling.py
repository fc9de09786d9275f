"""Rolling: workers renewed one at a time, the next only when the last is up again."""

import sys
from collections.abc import Sequence

from supervisor import orders
from supervisor.exit_codes import OK
from supervisor.explain import explained
from supervisor.fleets import find, opened, select, slots_of

PATIENCE_S = 60.0  # for each, where the operator names no other


class RollingStopped(orders.TimedOut):
    """One did not come up, so the others were left alone."""


def restart(patterns: Sequence[str], *, fleet: str | None, wait_s: float) -> int:
    """
    Renew the workers that match, in the order of the fleet's table; what is stopped stays stopped.

    Args:
        patterns: Names or globs.
        fleet: Its name, ``None`` for the only one.
        wait_s: How long each may take to be up again; 0 for ``PATIENCE_S``.

    Raises:
        RollingStopped: If one does not come up in time; those behind it were not touched.
        FleetError: As ``orders.give``.

    """
    shm_dir = find(fleet, running=True)
    with opened(shm_dir) as registry:
        slots = {slot.name: slot for slot in slots_of(registry, shm_dir)}
    chosen = select(patterns, list(slots))
    names = [name for name in chosen if slots[name].wanted]
    for name in chosen:
        if name not in names:
            print(f"{name}: stopped, and stays so", file=sys.stderr)
    patience_s = wait_s or PATIENCE_S
    for number, name in enumerate(names, 1):
        try:
            orders.give("restart", [name], fleet=shm_dir.name, wait_s=patience_s)
        except orders.TimedOut as error:
            (found,) = explained(shm_dir, [name])
            left = ", ".join(names[number:]) or "nobody"
            raise RollingStopped(
                f"{name} did not come up: {error} ({found['state']}: {found['why']}); "
                f"not restarted: {left}"
            ) from error
        print(f"{name}: up again ({number} of {len(names)})", flush=True)
    return OK
