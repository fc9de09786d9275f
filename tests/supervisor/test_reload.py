"""What a changed file asks of a running fleet."""

from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.reload import Plan, ReloadRefused, plan
from worker.spec import ConnectionSpec, SubscribeSpec

A = ConnectionSpec(name="a", url="ws://h/", subscribe=SubscribeSpec(messages=("x",)))
B = ConnectionSpec(name="b", url="ws://h/")


def by_name(*specs):
    return {spec.name: spec for spec in specs}


def test_an_unchanged_file_asks_for_nothing():
    found = plan(by_name(A, B), by_name(B, A), None)
    assert found == Plan(())
    assert found.lines() == ["nothing has changed"]


def test_a_changed_subscription_is_done_live():
    changed = replace(A, subscribe=SubscribeSpec(messages=("x", "y")))
    assert plan(by_name(A, B), by_name(changed, B), None) == Plan((changed,))


def test_whatever_needs_more_is_refused_whole_and_every_reason_told():
    changed = replace(A, subscribe=SubscribeSpec(), stop_timeout_ns=1, compression=True)
    with pytest.raises(ReloadRefused) as refused:
        plan(by_name(A, B), by_name(changed, replace(B, name="c")), Path("/elsewhere"))
    assert refused.value.reasons == (
        "a: compression, stop_timeout changed",
        "b is gone",
        "c is new",
        "fleet.runtime_dir is now /elsewhere",
    )
