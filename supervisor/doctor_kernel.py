"""Doctor, the kernel's part: what of a machine's settings makes a connection late or uneven."""

import re
from collections.abc import Iterator

from supervisor.host import Finding, Health, Host, judged, unknown

KERNEL_MIN = (5, 4)
# Read in user space, by vDSO, without a system call.
FAST_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")
CPU = "sys/devices/system/cpu"


def checks(host: Host) -> Iterator[Finding]:
    """Yield what is found."""
    yield _kernel(host)
    yield _clock_source(host)
    yield _huge_pages(host)
    yield _governor(host)
    yield _isolated(host)
    yield _swap(host)
    yield _cpu_quota(host)


def _kernel(host: Host) -> Finding:
    release = host.text("proc/sys/kernel/osrelease")
    parsed = re.match(r"(\d+)\.(\d+)", release or "")
    if release is None or parsed is None:
        return unknown("kernel", "no version to be seen")
    fine = (int(parsed[1]), int(parsed[2])) >= KERNEL_MIN
    mend = "run a later Linux: pidfds are needed"
    return judged("kernel", fine, release, "5.4 or later", mend, Health.FAIL)


def _clock_source(host: Host) -> Finding:
    clock = host.text("sys/devices/system/clocksource/clocksource0/current_clocksource")
    if not clock:
        return unknown("clock_source", "not shown")
    return judged(
        "clock_source",
        clock in FAST_CLOCKS,
        clock,
        "one that is read without a system call",
        f"boot with clocksource=tsc if the processor's is stable; {clock} costs a microsecond a "
        "stamp",
    )


def _huge_pages(host: Host) -> Finding:
    text = host.text("sys/kernel/mm/transparent_hugepage/enabled")
    chosen = re.search(r"\[(\w+)\]", text or "")
    if chosen is None:
        return unknown("transparent_huge_pages", "not shown")
    return judged(
        "transparent_huge_pages",
        chosen[1] != "always",
        chosen[1],
        "madvise or never",
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled: collapsing pages stalls loops "
        "and inflates workers",
    )


def _governor(host: Host) -> Finding:
    files = host.glob(f"{CPU}/cpu[0-9]*/cpufreq/scaling_governor")
    governors = sorted({file.read_text().strip() for file in files})
    if not governors:
        return unknown("cpu_governor", "frequency is not ours to see")
    return judged(
        "cpu_governor",
        governors == ["performance"],
        ", ".join(governors),
        "performance",
        "cpupower frequency-set -g performance: a CPU that slept is slow for the first message",
    )


def _isolated(host: Host) -> Finding:
    isolated = host.text(f"{CPU}/isolated")
    if isolated is None:
        return unknown("isolated_cpus", "not shown")
    return Finding("isolated_cpus", Health.OK, isolated or "none")


def _swap(host: Host) -> Finding:
    total = host.field("proc/meminfo", "SwapTotal")
    if total is None:
        return unknown("swap", "not shown")
    return judged(
        "swap",
        total.split()[0] == "0",
        total,
        "none",
        "swapoff -a, or MemorySwapMax=0 in the unit: a page fetched from disk is milliseconds late",
    )


def _cpu_quota(host: Host) -> Finding:
    quotas = [(group, host.text(f"{group}/cpu.max")) for group in host.cgroups()]
    shown = [(group, quota) for group, quota in quotas if quota]
    limited = [f"{quota} ({group}/cpu.max)" for group, quota in shown if quota[:3] != "max"]
    if not shown:
        return unknown("cpu_quota", "no cgroup (v2) with a quota to be seen")
    return judged(
        "cpu_quota",
        not limited,
        ", ".join(limited) or "none",
        "none",
        "CPUQuota= of the unit must go: a group over its quota stands still until the next period",
    )
