import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_exchange import open_descriptors

from worker.budget import STATE, BudgetUnusable, ConnectBudget, file_name

S = 1_000_000_000
NOW = 1_000 * S
HOST = "stream.example.com"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "budgets"


def budget(directory, host=HOST, connects=3, per_ns=S * 3, concurrent=0):
    return ConnectBudget(directory, host, connects=connects, per_ns=per_ns, concurrent=concurrent)


def process(directory, body):
    """Start a Python process with a budget of 5 in 10 s, one lease, and a line to wait for."""
    script = f"""
import sys, time
from pathlib import Path
from worker.budget import ConnectBudget
budget = ConnectBudget(
    Path({str(directory)!r}), {HOST!r}, connects=5, per_ns=10_000_000_000, concurrent=1
)
print("ready", flush=True)
sys.stdin.readline()
{body}
"""
    started = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout.readline() == "ready\n"
    return started


# Rate --------------------------------------------------------------------------------------


def test_a_full_bucket_gives_its_burst_at_once_and_then_one_by_one(directory):
    waits = [budget(directory).take(NOW) for _ in range(6)]
    assert waits == [0, 0, 0, S, 2 * S, 3 * S]


def test_tokens_come_back_continuously(directory):
    mine = budget(directory)
    for _ in range(3):
        mine.take(NOW)
    assert mine.take(NOW + S // 2) == S // 2
    assert mine.take(NOW + 2 * S) == 0
    assert [mine.take(NOW + 60 * S) for _ in range(4)] == [0, 0, 0, S]


def test_hosts_have_budgets_of_their_own_whatever_their_case_or_trailing_dot(directory):
    assert budget(directory, connects=1).take(NOW) == 0
    assert budget(directory, "other.example.com", connects=1).take(NOW) == 0
    assert budget(directory, "Stream.Example.COM.", connects=1).take(NOW) == 3 * S


@settings(deadline=None)  # files: a busy disk is no failure
@given(
    connects=st.integers(1, 7),
    per_ns=st.integers(1, 20 * S),
    moments=st.lists(st.floats(0, 4), min_size=1, max_size=40),
)
def test_no_window_ever_sees_more_than_the_burst_and_the_rate(
    tmp_path_factory, connects, per_ns, moments
):
    """Moments are in periods, in no order: ``now_ns`` is read before the lock is obtained."""
    mine = budget(tmp_path_factory.mktemp("rate") / "b", connects=connects, per_ns=per_ns)
    dials = []
    for moment in moments:
        now_ns = NOW + int(moment * per_ns)
        wait_ns = mine.take(now_ns)
        assert wait_ns >= 0
        dials.append(now_ns + wait_ns)
    assert_bounded(dials, connects, per_ns)


def assert_bounded(dials, connects, per_ns):
    dials = sorted(dials)
    for first, start_ns in enumerate(dials):
        for last in range(first, len(dials)):
            window_ns = dials[last] - start_ns
            # count <= connects + rate * window, in integers
            assert (last - first + 1 - connects) * per_ns <= connects * window_ns


@settings(deadline=None)  # files: a busy disk is no failure
@given(st.lists(st.integers(0, 5 * S), min_size=1, max_size=30))
def test_who_keeps_to_the_rate_never_waits(tmp_path_factory, gaps):
    mine = budget(tmp_path_factory.mktemp("rate") / "b", connects=3, per_ns=3 * S)
    now_ns = NOW
    for gap in gaps:
        assert mine.take(now_ns) == 0
        now_ns += S + gap


@pytest.mark.timeout(60)
def test_eight_processes_at_once_share_one_budget(directory):
    body = """
for _ in range(25):
    now_ns = time.monotonic_ns()
    print(now_ns + budget.take(now_ns))
"""
    racers = [process(directory, body) for _ in range(8)]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    dials = [int(line) for racer in racers for line in racer.communicate(timeout=40)[0].split()]
    assert [racer.returncode for racer in racers] == [0] * 8
    assert len(dials) == len(set(dials)) == 200
    assert_bounded(dials, 5, 10 * S)
    # Nothing is lost either: 200 dials of 5 in 10 s end 390 s after the first, less the burst.
    assert max(dials) - min(dials) == pytest.approx(390 * S, abs=S)


def test_beyond_59_periods_nothing_more_is_reserved_and_no_burst_comes_of_it(directory):
    mine = budget(directory, connects=1, per_ns=S)
    waits = [mine.take(NOW) for _ in range(100)]
    assert waits[:60] == [number * S for number in range(60)]
    assert set(waits[60:]) == {59 * S}


# The file ----------------------------------------------------------------------------------


def test_the_file_is_64_bytes_and_private_and_its_name_is_safe(directory):
    old = os.umask(0)
    try:
        budget(directory, "../../etc/\0pass wd").take(NOW)
    finally:
        os.umask(old)
    (path,) = directory.iterdir()
    assert path.name.startswith("budget-.._.._etc__pass_wd-")
    assert path.stat().st_size == STATE.size == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_names_are_short_and_differ_where_hosts_do():
    hosts = ["a.b", "a_b", "a/b", "", "x" * 300, "x" * 301, "bücher", "bÜcherei", "\udcff"]
    names = [file_name(host) for host in hosts]
    assert len(set(names)) == len(hosts)
    assert all(len(name) < 100 and "/" not in name for name in names)


def damaged(raw):
    yield b""
    yield raw[:63]
    yield raw + b"\0"
    yield raw[:30]
    yield b"\xff" * 64
    yield b"something else entirely\n" * 1000
    yield raw[:8] + bytes(16) + raw[24:]  # another boot
    for offset in (0, 8, 24, 31, 32, 35):
        yield raw[:offset] + bytes([raw[offset] ^ 1]) + raw[offset + 1 :]


def test_a_damaged_foreign_or_older_file_is_a_full_bucket_and_is_rewritten(directory):
    mine = budget(directory, connects=1, per_ns=S)
    assert [mine.take(NOW), mine.take(NOW)] == [0, S]
    (path,) = directory.iterdir()
    for raw in damaged(path.read_bytes()):
        path.write_bytes(raw)
        assert [mine.take(NOW), mine.take(NOW)] == [0, S]
        assert path.stat().st_size == 64


def test_a_file_that_vanished_is_made_again(directory):
    mine = budget(directory, connects=1, per_ns=S)
    mine.take(NOW)
    next(directory.iterdir()).unlink()
    assert [mine.take(NOW), mine.take(NOW)] == [0, S]


def test_an_arrival_time_stuck_in_the_far_future_is_forgotten(directory):
    mine = budget(directory, connects=1, per_ns=S)
    mine.take(NOW)
    assert mine.take(NOW - 58 * S) == 59 * S
    assert [mine.take(NOW - 61 * S) for _ in range(2)] == [0, S]


def test_a_symbolic_link_is_refused_and_its_target_left_alone(directory, tmp_path):
    mine = budget(directory)
    target = tmp_path / "precious"
    target.write_text("precious")
    path = directory / file_name(HOST)
    path.symlink_to(target)
    with pytest.raises(BudgetUnusable, match="symbolic link; remove it") as caught:
        mine.take(NOW)
    assert caught.value.path == path
    assert target.read_text() == "precious"


@pytest.mark.timeout(10)
def test_a_fifo_or_a_directory_in_its_place_is_refused_without_waiting(directory):
    mine = budget(directory)
    path = directory / file_name(HOST)
    os.mkfifo(path)
    before = open_descriptors()
    with pytest.raises(BudgetUnusable, match="no regular file"):
        mine.take(NOW)
    path.unlink()
    path.mkdir()
    with pytest.raises(BudgetUnusable, match="Is a directory"):
        mine.take(NOW)
    assert open_descriptors() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_file_we_may_not_write_is_refused(directory):
    mine = budget(directory)
    mine.take(NOW)
    next(directory.iterdir()).chmod(0o400)
    with pytest.raises(BudgetUnusable, match="make it writable"):
        mine.take(NOW)


def test_a_directory_that_is_no_directory_or_open_to_others_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BudgetUnusable, match="no directory; name another"):
        budget(tmp_path / "file")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(BudgetUnusable, match="writable by others"):
        budget(tmp_path / "open")


@pytest.mark.timeout(30)
def test_a_process_stopped_with_the_lock_does_not_stop_others_for_long(directory):
    body = f"""
import fcntl, os
fcntl.flock(os.open({str(directory / file_name(HOST))!r}, os.O_RDWR), fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""
    mine = budget(directory)
    mine.take(NOW)
    holder = process(directory, body)
    try:
        holder.stdin.write("go\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "locked\n"
        before_s = time.monotonic()
        with pytest.raises(BudgetUnusable, match="locked by another process"):
            mine.take(NOW)
        assert 0.4 < time.monotonic() - before_s < 10
    finally:
        holder.kill()
        holder.communicate()
    assert mine.take(NOW) == 0


@pytest.mark.parametrize("wrong", [{"connects": 0}, {"per_ns": 0}, {"concurrent": -1}])
def test_numbers_out_of_range_are_refused(directory, wrong):
    with pytest.raises(ValueError, match="at least"):
        budget(directory, **wrong)


# Leases ------------------------------------------------------------------------------------


def test_as_many_leases_as_slots_and_a_released_one_is_free(directory):
    first, second, third = (budget(directory, concurrent=2) for _ in range(3))
    assert [first.lease(), second.lease(), third.lease()] == [True, True, False]
    assert first.lease()  # still the same one
    assert not third.lease()
    first.release()
    first.release()
    assert third.lease()
    assert not first.lease()
    second.release()
    third.release()


def test_without_a_limit_every_lease_is_given_and_no_file_made(directory):
    many = [budget(directory) for _ in range(50)]
    assert all(each.lease() for each in many)
    many[0].release()
    assert not list(directory.iterdir())


def test_leases_that_were_refused_or_released_keep_no_descriptor(directory):
    holder, other = budget(directory, concurrent=1), budget(directory, concurrent=1)
    before = open_descriptors()
    assert holder.lease()
    for _ in range(5):
        assert not other.lease()
    holder.release()
    assert open_descriptors() == before


def test_a_slot_that_is_a_symbolic_link_is_refused(directory, tmp_path):
    mine = budget(directory, concurrent=1)
    (directory / f"{file_name(HOST)}.slot0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BudgetUnusable, match="symbolic link"):
        mine.lease()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.timeout(30)
def test_a_killed_process_leaves_its_lease_to_others(directory):
    mine = budget(directory, concurrent=1)
    holder = process(directory, "print(budget.lease(), flush=True)\ntime.sleep(60)")
    try:
        holder.stdin.write("go\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "True\n"
        assert not mine.lease()
    finally:
        holder.kill()
        holder.communicate()
    assert mine.lease()
    mine.release()
