"""Kills of the OOM killer, by the counters of cgroups as they stand in files."""

import pytest

from supervisor.oom import OomKills

V1 = "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n"
V2 = "0::/a/b\n"
LAYOUTS = {
    "version 2": (V2, "sys/fs/cgroup/a/b/memory.events", "low 0\noom 7\noom_kill {}\n"),
    "version 1": (V1, "sys/fs/cgroup/memory/a/b/memory.oom_control", "under_oom 0\noom_kill {}\n"),
    "in a container": (V1, "sys/fs/cgroup/memory/memory.oom_control", "oom_kill {}\n"),
}


class Machine:
    """Files of /proc and /sys, and who looks at them."""

    def __init__(self, root, groups, counter, text):
        (root / "proc/7").mkdir(parents=True)
        (root / "proc/7/cgroup").write_text(groups)
        self.file, self._text = root / counter, text
        self.file.parent.mkdir(parents=True)
        self.count(3)
        self.kills = OomKills(root)

    def count(self, kills):
        self.file.write_text(self._text.format(kills))


@pytest.fixture(params=LAYOUTS)
def machine(request, tmp_path):
    return Machine(tmp_path, *LAYOUTS[request.param])


def test_a_kill_since_the_process_began_is_claimed_once(machine):
    counter = machine.kills.counter_of(7)
    assert counter == machine.file
    assert not machine.kills.claim(counter), "what was before it is none of its"
    machine.count(5)
    assert [machine.kills.claim(counter) for _ in range(3)] == [True, True, False]


def test_another_process_of_the_cgroup_takes_no_kill_away(machine):
    counter = machine.kills.counter_of(7)
    machine.count(4)
    assert machine.kills.counter_of(7) == counter
    assert machine.kills.claim(counter)


def test_a_kill_that_no_death_followed_is_forgotten_by_the_second_look(machine):
    counter = machine.kills.counter_of(7)
    machine.count(5)
    machine.kills.look()
    assert machine.kills.claim(counter), "the look may come between the kill and the death"
    machine.kills.look()
    assert not machine.kills.claim(counter)
    machine.count(6)
    machine.kills.look()
    assert machine.kills.claim(counter)


def test_a_cgroup_that_is_gone_counts_nothing(machine):
    counter = machine.kills.counter_of(7)
    machine.file.unlink()
    machine.kills.look()
    assert not machine.kills.claim(counter)


@pytest.mark.parametrize("groups", ["", V1, V2, "3:cpu:/a\n"])
def test_without_a_counter_nothing_is_claimed(tmp_path, groups):
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/cgroup").write_text(groups)
    kills = OomKills(tmp_path)
    assert kills.counter_of(7) is None
    assert kills.counter_of(8) is None, "gone already"
    assert not kills.claim(None)
