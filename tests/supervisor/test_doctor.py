"""Doctor: machines as written down in trees of files, and this one as it is."""

import json
import os
import resource
import socket
import subprocess
import sys

import pytest

from shm.directory import make_private, user_directory
from shm.stats import StatsWriter
from supervisor import doctor, doctor_fleet, doctor_kernel, doctor_process
from supervisor.fleetfile import load
from supervisor.host import Finding, Health, Host
from supervisor.linux import clock_state

CPU = "sys/devices/system/cpu"
CLOCK = "sys/devices/system/clocksource/clocksource0/current_clocksource"
HUGE = "sys/kernel/mm/transparent_hugepage/enabled"
LAST_CPU = max(os.sched_getaffinity(0))


@pytest.fixture
def machine(tmp_path):
    """Return a function that writes a machine down and finds one thing about it."""

    def machine(files, name, module=doctor_kernel, fleet=None):
        root = tmp_path / "machine"
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text + "\n")
        host = Host(root)
        found = module.checks(host, fleet) if module is doctor_fleet else module.checks(host)
        (finding,) = [finding for finding in found if finding.name == name]
        return finding

    return machine


@pytest.fixture
def fleet(tmp_path):
    """Return a function that loads a fleet of one table a connection."""

    def fleet(*tables):
        file = tmp_path / "f.toml"
        file.write_text(
            "".join(
                f'[[connection]]\nname = "c{number}"\nurl = "ws://127.0.0.1:1/"\n{table}\n'
                for number, table in enumerate(tables)
            )
        )
        return load(file)

    return fleet


@pytest.fixture(autouse=True)
def shared_memory(tmp_path, monkeypatch):
    base = tmp_path / "shm"
    base.mkdir()
    monkeypatch.setenv("FEEDWARDEN_SHM", str(base))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return base


# The kernel ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "files", "state", "found"),
    [
        ("kernel", {"proc/sys/kernel/osrelease": "5.4.0-42-generic"}, "ok", "5.4.0-42-generic"),
        ("kernel", {"proc/sys/kernel/osrelease": "6.18"}, "ok", "6.18"),
        ("kernel", {"proc/sys/kernel/osrelease": "5.3.18"}, "fail", "5.3.18"),
        ("kernel", {"proc/sys/kernel/osrelease": "4.18.0"}, "fail", "4.18.0"),
        ("clock_source", {CLOCK: "tsc"}, "ok", "tsc"),
        ("clock_source", {CLOCK: "arch_sys_counter"}, "ok", "arch_sys_counter"),
        ("clock_source", {CLOCK: "hpet"}, "warn", "hpet"),
        ("transparent_huge_pages", {HUGE: "[always] madvise never"}, "warn", "always"),
        ("transparent_huge_pages", {HUGE: "always [madvise] never"}, "ok", "madvise"),
        (
            "cpu_governor",
            {
                f"{CPU}/cpu0/cpufreq/scaling_governor": "performance",
                f"{CPU}/cpu1/cpufreq/scaling_governor": "powersave",
            },
            "warn",
            "performance, powersave",
        ),
        (
            "cpu_governor",
            {f"{CPU}/cpu11/cpufreq/scaling_governor": "performance"},
            "ok",
            "performance",
        ),
        ("isolated_cpus", {f"{CPU}/isolated": "2-7"}, "ok", "2-7"),
        ("isolated_cpus", {f"{CPU}/isolated": ""}, "ok", "none"),
        ("swap", {"proc/meminfo": "MemTotal: 5 kB\nSwapTotal:       0 kB"}, "ok", "0 kB"),
        ("swap", {"proc/meminfo": "SwapTotal:       2097148 kB"}, "warn", "2097148 kB"),
    ],
)
def test_a_kernel_setting_is_judged(machine, name, files, state, found):
    finding = machine(files, name)
    assert (finding.state, finding.found) == (state, found)
    assert bool(finding.mend) == (state != "ok")


@pytest.mark.parametrize(
    ("quotas", "state"),
    [
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "max 100000"}, "ok"),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, "warn"),
        ({}, "unknown"),
    ],
)
def test_a_quota_of_any_cgroup_around_us_counts(machine, quotas, state):
    files = {f"sys/fs/cgroup/{path}": text for path, text in quotas.items()}
    finding = machine(files | {"proc/self/cgroup": "1:cpu:/x\n0::/a/b"}, "cpu_quota")
    assert finding.state == state
    if state == "warn":
        assert finding.found == "150000 100000 (sys/fs/cgroup/a/cpu.max)"


def test_what_a_container_does_not_show_is_unknown_and_no_fault(tmp_path):
    found = list(doctor_kernel.checks(Host(tmp_path)))
    assert {finding.state for finding in found} == {Health.UNKNOWN}
    for finding in [
        *doctor_process.checks(Host(tmp_path)),
        *doctor_fleet.checks(Host(tmp_path), None),
    ]:
        assert finding.found


# The process -----------------------------------------------------------------------------------


def test_this_very_process_is_described():
    found = {finding.name: finding for finding in doctor_process.checks(Host())}
    assert found["python"].state is Health.OK
    assert "pyzmq" in found["packages"].found
    assert found["import_packages"].state is Health.OK
    assert 1 < float(found["clock_read"].found.split()[0]) < 1e6
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    assert found["memory_lock"].found.startswith(doctor_process.limit_text(soft))


def test_capabilities_are_read_from_the_mask(machine):
    named = {"proc/self/status": "CapEff:\t0000000000801000"}
    assert machine(named, "capabilities", doctor_process).found == "CAP_NET_ADMIN, CAP_SYS_NICE"
    none = {"proc/self/status": "CapEff:\t0000000000000000"}
    assert machine(none, "capabilities", doctor_process).found == "none of use"


def test_the_wall_clock_says_what_the_kernel_knows():
    status, error_us = clock_state()
    (finding,) = [f for f in doctor_process.checks(Host()) if f.name == "wall_clock"]
    assert 0 <= error_us <= 16_000_000  # NTP_PHASE_LIMIT
    assert (finding.state is Health.WARN) == bool(status & 0x40)


# The fleet -------------------------------------------------------------------------------------


def test_a_buffer_above_the_limit_is_told_with_the_sysctl(machine, fleet):
    wanted = fleet('socket = { receive_buffer = "4MiB" }', "socket = { send_buffer = 1000 }")
    limits = {"proc/sys/net/core/rmem_max": "212992", "proc/sys/net/core/wmem_max": "212992"}
    finding = machine(limits, "rmem_max", doctor_fleet, wanted)
    assert finding.state is Health.WARN
    assert finding.mend == "sysctl -w net.core.rmem_max=4194304"
    assert machine(limits, "wmem_max", doctor_fleet, wanted).state is Health.OK
    assert machine(limits, "rmem_max", doctor_fleet, None).state is Health.OK


def test_busy_poll_needs_a_sysctl_only_if_a_connection_wants_it(machine, fleet):
    off, on = {"proc/sys/net/core/busy_poll": "0"}, {"proc/sys/net/core/busy_poll": "50"}
    wanted = fleet("socket = { busy_poll = 50 }")
    assert machine(off, "busy_poll", doctor_fleet, wanted).state is Health.WARN
    assert machine(off, "busy_poll", doctor_fleet, fleet("")).state is Health.OK
    assert machine(on, "busy_poll", doctor_fleet, wanted).state is Health.OK


def test_two_loops_on_one_cpu_and_a_free_realtime_loop_are_told(machine, fleet):
    pinned = f"process = {{ cpu = {LAST_CPU} }}"
    assert machine({}, "placing", doctor_fleet, fleet(pinned)).state is Health.OK
    finding = machine(
        {}, "placing", doctor_fleet, fleet(pinned, pinned, 'process = { scheduler = "fifo:5" }')
    )
    assert finding.state is Health.WARN
    assert finding.found == f"CPU {LAST_CPU}: c0, c1; realtime and not pinned: c2"


def test_urgency_needs_a_right_or_a_limit(machine, fleet):
    rights = {"proc/self/status": "CapEff:\t0000000000800000"}
    none = {"proc/self/status": "CapEff:\t0000000000000000"}
    hasty = fleet('process = { scheduler = "fifo:5" }', "process = { nice = -3 }")
    assert machine(rights, "urgency", doctor_fleet, hasty).state is Health.OK
    if 0 <= resource.getrlimit(resource.RLIMIT_RTPRIO)[0] < 5:
        finding = machine(none, "urgency", doctor_fleet, hasty)
        assert finding.state is Health.WARN
        assert "LimitRTPRIO=5" in finding.mend
    assert machine(none, "urgency", doctor_fleet, fleet("process = { nice = 3 }")).state == "ok"


def test_a_fleet_that_does_not_fit_is_told(machine, fleet, monkeypatch):
    ours = fleet("publish = { stats = { ring = 1048576 } }")
    assert machine({}, "shared_memory", doctor_fleet, ours).state is Health.OK
    monkeypatch.setenv("FEEDWARDEN_SHM", "/proc")  # a file system without room
    finding = machine({}, "shared_memory", doctor_fleet, ours)
    assert finding.state is Health.FAIL
    assert "0 of 1 connections would fit" in finding.found


def test_the_memory_limit_is_the_tightest_around_us(machine):
    files = {
        "proc/self/cgroup": "0::/a/g",
        "sys/fs/cgroup/a/g/memory.max": "max",
        "sys/fs/cgroup/a/memory.max": "1048576",
    }
    assert machine(files, "memory_limit", doctor_fleet).found.startswith("1 MiB")


def test_segments_of_a_dead_fleet_are_leftovers_and_those_of_a_living_one_are_not():
    def leftovers():
        (found,) = [f for f in doctor_fleet.checks(Host(), None) if f.name == "leftovers"]
        return found

    assert leftovers().state is Health.OK
    directory = user_directory() / "gone"
    make_private(directory)
    worker = StatsWriter.create(directory, "a", incarnation=1, ring_slots=1024)
    assert str(directory) not in leftovers().found
    worker.close()
    assert leftovers().state is Health.WARN
    assert str(directory) in leftovers().found


def test_a_runtime_directory_where_nobody_answers_is_a_leftover(tmp_path):
    path = tmp_path / "run" / "feedwarden" / "gone"
    path.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path / "events.sock"))
        listener.listen()
        assert list(doctor_fleet._dead_sockets()) == []
    assert path in list(doctor_fleet._dead_sockets())


# The verb --------------------------------------------------------------------------------------


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-P", "-m", "supervisor", "doctor", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )


def test_the_exit_code_says_whether_something_needs_attention(tmp_path, fleet):
    file = fleet("socket = { receive_buffer = 500_000_000 }").file
    done = run(str(file), "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert document["schema"] == 1
    assert document["ok"] is False
    assert document["file"] == str(file)
    (row,) = [row for row in document["checks"] if row["name"] == "rmem_max"]
    assert row["state"] == "warn"
    assert set(row) == {"name", "state", "found", "expected", "mend"}
    assert len({row["name"] for row in document["checks"]}) == len(document["checks"]) > 20
    table = run(str(file))
    assert table.returncode == 1
    assert "sysctl -w net.core.rmem_max=500000000" in table.stdout
    assert "\x1b" not in table.stdout
    file.write_text("nonsense")
    assert run(str(file)).returncode == 5


def test_what_is_fine_or_unknown_is_0_and_the_rest_is_1(capsys):
    states = [Finding(state, state, "x") for state in Health]
    assert doctor.show(states[:1] + states[3:], None, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert doctor.show(states[:2], None, as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False
    assert doctor.show(states[2:3], None, as_json=False) == 1


def test_the_worst_stands_last_with_its_mend_below():
    shown = doctor.lines(
        [
            Finding("bad", Health.FAIL, "found", "expected", "do " + "this " * 30),
            Finding("good", Health.OK, "fine \x1b[2J"),
        ],
        60,
        colour=False,
    )
    assert shown[0] == "good  ok       fine \\x1b[2J"
    assert shown[1] == "bad   fail     found"
    assert shown[2].strip() == "expected: expected"
    assert all(len(line) <= 60 for line in shown)
