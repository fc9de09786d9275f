"""Which fleet and which connections a command means."""

import os
import subprocess

import pytest

from shm.directory import make_private, user_directory
from shm.errors import SegmentError
from supervisor.errors import NoSuchConnection, NoSuchFleet
from supervisor.fleets import find, is_supervised, opened, select, slots_of
from supervisor.registry import Registry
from supervisor.registry_layout import WORD_SLOTS


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("FEEDWARDEN_SHM", str(tmp_path))
    return tmp_path


def a_fleet(name):
    directory = user_directory() / name
    make_private(directory)
    return Registry.create(directory, name, directory, ["a"])


def test_no_fleet_at_all_says_how_to_start_one(base):
    with pytest.raises(NoSuchFleet, match="supervisor run"):
        find(None, running=False)


def test_the_only_fleet_needs_no_name(base):
    registry = a_fleet("one")
    assert find(None, running=True).name == "one"
    registry.close()


def test_among_several_a_name_is_needed_and_they_are_told(base):
    registries = [a_fleet("one"), a_fleet("two")]
    with pytest.raises(NoSuchFleet, match="one, two"):
        find(None, running=True)
    assert find("two", running=True).name == "two"
    with pytest.raises(NoSuchFleet, match="no fleet 'three'"):
        find("three", running=True)
    for registry in registries:
        registry.close()


def test_a_fleet_whose_supervisor_is_dead_can_be_looked_at_but_not_ordered(base):
    registry = a_fleet("one")
    with subprocess.Popen(["true"]) as dead:
        pass
    registry._words[1] = dead.pid
    assert find(None, running=False).name == "one"
    with pytest.raises(NoSuchFleet):
        find(None, running=True)
    registry.close()


def test_a_directory_without_a_table_is_no_fleet(base):
    make_private(user_directory() / "empty")
    with pytest.raises(NoSuchFleet):
        find("empty", running=False)


def test_our_own_users_fleet_comes_before_anothers_of_the_same_name(base):
    if os.geteuid() != 0:
        pytest.skip("needs root to make another user's directory")
    registry = a_fleet("one")
    other = base / "feedwarden-54321" / "one"
    other.mkdir(parents=True)
    os.chown(other, 54321, 54321)
    Registry.create(other, "one", other, ["a"]).close()
    assert find("one", running=False) == user_directory() / "one"
    registry.close()


def test_globs_choose_in_their_order_and_never_twice():
    names = ["binance-btc", "binance-eth", "okx-btc"]
    assert select([], names) == names
    assert select(["*-btc", "binance-*"], names) == ["binance-btc", "okx-btc", "binance-eth"]


def test_a_name_that_matches_nothing_brings_a_hint():
    with pytest.raises(NoSuchConnection, match="did you mean okx-btc"):
        select(["okx-btcc"], ["binance-btc", "okx-btc"])
    with pytest.raises(NoSuchConnection, match=r"'zzz'$"):
        select(["zzz"], ["binance-btc", "okx-btc"])


def test_a_fleet_that_ended_this_moment_is_no_fleet(base):
    directory = user_directory() / "one"
    with pytest.raises(NoSuchFleet, match="no fleet 'one'"):
        opened(directory)
    assert not is_supervised(directory)


def test_a_table_of_impossible_numbers_is_an_error_with_its_path(base):
    registry = a_fleet("one")
    directory = user_directory() / "one"
    with opened(directory) as view:
        registry._words[WORD_SLOTS] = 2**40  # after it was looked at
        with pytest.raises(SegmentError, match="one/registry"):
            slots_of(view, directory)
    registry.close()


def test_a_dead_fleet_is_told_apart_from_none(base):
    registry = a_fleet("one")
    with subprocess.Popen(["true"]) as dead:
        pass
    registry._words[1] = dead.pid
    with pytest.raises(NoSuchFleet, match="the supervisor of one is dead"):
        find("one", running=True)
    with pytest.raises(NoSuchFleet, match="no fleet 'two'"):
        find("two", running=True)
    registry.close()


def test_several_fleets_are_a_matter_of_usage_and_none_is_not(base):
    assert NoSuchFleet(None, ("one", "two")).exit_code == 2
    assert NoSuchFleet("three", ("one", "two")).exit_code == 6
    assert NoSuchFleet(None, ()).exit_code == 6
