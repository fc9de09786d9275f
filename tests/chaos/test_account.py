"""That the account tells what it must, and that a seed repeats its faults."""

from collections import Counter

import pytest

from chaos.account import Account, settle
from chaos.faults import FUNCTIONS, WEIGHTS
from chaos.plan import plan
from chaos.witness import Findings

NAMES = ("a", "b")


def settled(counted=(10, 5), left_out=None, doubts=None, **found):
    """The account of a run in which 15 messages were taken and delivered, but for what is given."""
    whole = {"taken": Counter(a=10, b=5), "given": Counter(a=10, b=5)}
    account = Account(1, 1)
    counters = dict(zip(NAMES, counted, strict=True))
    settle(account, Findings(**whole | found), counters, left_out or {}, doubts or {})
    return account


def test_what_was_taken_and_delivered_is_clean():
    account = settled()
    assert account.is_clean
    assert (account.received, account.counted, account.delivered) == (15, 15, 15)
    assert settled(counted=(9, 5)).is_clean, "a killed worker has not counted its last read"
    assert settled(counted=(12, 5), doubts={"a": 2}).is_clean
    assert settled(jumps=Counter(a=3), left_out={"a": 3}).is_clean


@pytest.mark.parametrize(
    ("how", "lost"),
    [
        ({"missing": {"a": (2, 4, 5)}}, 2),
        ({"counted": (12, 5)}, 2),
        ({"gaps": [(2, "a: a gap")]}, 2),
    ],
)
def test_each_kind_of_loss_is_counted_and_told(how, lost):
    account = settled(**how)
    assert not account.is_clean
    assert account.lost_count == lost
    assert account.complaints().startswith("lost: 2: a: ")
    assert ["lost", str(lost)] in [line.split() for line in account.table().splitlines()]


def test_what_no_worker_took_amid_a_session_is_told():
    account = settled(jumps=Counter(a=3), left_out={"a": 1, "b": 9}, places={"a": ["3 before 9"]})
    assert not account.is_clean
    assert account.complaints().startswith("untold: 2: a: ")
    assert settled(jumps=Counter(a=3), left_out={"a": 3}).complaints() == ""


def test_whatever_else_is_wrong_is_told():
    assert not settled(foreign={"a": 1}).is_clean
    assert not settled(wrongs=["a: number 3 where 2 was due"]).is_clean
    for kind in ("descriptors", "files", "processes"):
        account = settled()
        getattr(account.leaks, kind).append("this")
        assert not account.is_clean
        assert "this" in account.complaints()


def test_a_seed_repeats_its_faults_and_another_has_others():
    names = tuple(f"c{number}" for number in range(20))
    steps = plan(1, 60, names, WEIGHTS)
    assert steps == plan(1, 60, names, WEIGHTS)
    assert steps != plan(2, 60, names, WEIGHTS)
    assert {step.kind for step in steps} == set(FUNCTIONS), "each kind comes"
    assert all(0 < step.at_s < 60 and step.name in names for step in steps)
