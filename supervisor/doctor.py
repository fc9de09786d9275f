"""Doctor: whether this machine is fit for a fleet, each check with its mend."""

import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from supervisor import doctor_fleet, doctor_kernel, doctor_process, screens
from supervisor.exit_codes import FAILED, OK
from supervisor.fleet import Fleet
from supervisor.fleetfile import load
from supervisor.host import Finding, Health, Host

COLOURS = {Health.OK: "32", Health.WARN: "33", Health.FAIL: "1;31", Health.UNKNOWN: "2"}
# What is wrong stands at the end, where a terminal stops.
ORDER = (Health.OK, Health.UNKNOWN, Health.WARN, Health.FAIL)
WIDTH_MIN = 40


def examine(host: Host, fleet: Fleet | None) -> list[Finding]:
    """Return every finding about a host, and about a fleet on it."""
    return [
        *doctor_kernel.checks(host),
        *doctor_process.checks(host),
        *doctor_fleet.checks(host, fleet),
    ]


def doctor(path: Path | None, *, as_json: bool, host: Host | None = None) -> int:
    """
    Print what is found; return the exit code, 1 if something needs attention.

    Raises:
        FleetFileError: If the file has faults.

    """
    fleet = load(path) if path is not None else None
    return show(examine(host or Host(), fleet), path, as_json=as_json)


def show(findings: Sequence[Finding], path: Path | None, *, as_json: bool) -> int:
    """Print findings; return the exit code."""
    fine = all(finding.state in (Health.OK, Health.UNKNOWN) for finding in findings)
    if as_json:
        rows = [asdict(finding) for finding in findings]
        file = str(path) if path is not None else None
        print(json.dumps({"schema": 1, "ok": fine, "file": file, "checks": rows}))
    else:
        width, colour = screens.terminal()
        print("\n".join(lines(findings, width, colour=colour)))
    return OK if fine else FAILED


def lines(findings: Sequence[Finding], width: int | None, *, colour: bool) -> list[str]:
    """Return a line a finding, worst last, with what is expected and its mend below the bad."""
    columns = max(len(finding.name) for finding in findings)
    states = max(len(state) for state in ORDER)
    indent = " " * (columns + states + 2 * len(screens.GAP))
    room = max(WIDTH_MIN, width - len(indent)) if width is not None else sys.maxsize
    shown = []
    for finding in sorted(findings, key=lambda finding: ORDER.index(finding.state)):
        state = finding.state.ljust(states)
        if colour:
            state = f"\x1b[{COLOURS[finding.state]}m{state}\x1b[0m"
        texts = [finding.found]
        if finding.state in (Health.WARN, Health.FAIL):
            texts += [f"expected: {finding.expected}"] * bool(finding.expected)
            texts += [finding.mend] * bool(finding.mend)
        wrapped = [part for text in texts for part in textwrap.wrap(screens.plain(text), room)]
        shown.append(screens.GAP.join((finding.name.ljust(columns), state, wrapped[0])))
        shown += [indent + part for part in wrapped[1:]]
    return shown
