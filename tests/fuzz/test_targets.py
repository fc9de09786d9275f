"""A short run of each fuzz target, always the same; and that the runner tells what it must."""

import pytest

from fuzz import runner
from fuzz.targets import TARGETS

CASES = {"envelope": 2000, "subscriptions": 100, "wire": 60, "events": 100}


@pytest.mark.parametrize("target", TARGETS)
def test_bad_input_is_a_named_error_or_a_counted_skip(target):
    cases = CASES.get(target, 50)
    report = runner.run(target, seed=1, cases=cases)
    assert report.fault == ""
    assert report.cases == cases
    assert len(report.outcomes) > 1 or target == "journal-live", "every case went the same way"


def test_a_crash_is_told_with_its_signal():
    assert "died of SIGBUS" in runner.run("crash", seed=1, cases=1).fault


def test_an_unnamed_error_is_told_with_its_case():
    fault = runner.run("unnamed", seed=1, cases=10).fault
    assert fault.startswith("case 3: ")
    assert "IndexError: out of something" in fault


def test_an_endless_loop_is_told_with_its_place(monkeypatch):
    monkeypatch.setattr(runner, "STUCK_S", 2.0)
    fault = runner.run("endless", seed=1, cases=1).fault
    assert "stuck for 2 s" in fault
    assert "controls.py" in fault
