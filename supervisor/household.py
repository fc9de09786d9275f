"""Household: what the keepers of a fleet share, and how they tell an event in one line."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from supervisor.calm import CalmWorkers
from supervisor.oom import OomKills
from supervisor.pace import Pace
from worker.announcement import Announcement, Origin
from worker.spec import Assignment, ConnectionSpec


class EventSink(Protocol):
    """Where announcements go; ``supervisor.bus.Bus`` is one."""

    def publish(
        self,
        announcement: Announcement,
        origin: Origin,
        *,
        wall_ns: int | None = None,
        monotonic_ns: int | None = None,
    ) -> None:
        """Publish one event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Household:
    """
    What every keeper of a fleet shares.

    ``spawn`` takes name, incarnation and a memfd. ``keep``: workers outlive their supervisor.
    ``calm`` has those of whom nothing but two words has to be read. ``oom_kills`` tells whose
    memory ran out.
    """

    fleet: str
    runtime_dir: Path
    shm_dir: Path
    pid: int
    start_ticks: int
    events: EventSink
    spawn: Callable[[str, int, int], None]
    pace: Pace
    calm: CalmWorkers = field(default_factory=CalmWorkers)
    oom_kills: OomKills = field(default_factory=OomKills)
    keep: bool = False

    def fork(self, spec: ConnectionSpec, incarnation: int) -> None:
        """
        Ask for the process of an incarnation.

        Raises:
            OSError: If what it is told has no room.
            FleetError: If there is nobody to be asked.

        """
        assignment = Assignment(
            fleet=self.fleet,
            incarnation=incarnation,
            runtime_dir=str(self.runtime_dir),
            shm_dir=str(self.shm_dir),
            supervisor_pid=self.pid,
            supervisor_start_ticks=self.start_ticks,
            spec=spec,
            keep=self.keep,
        )
        memory = os.memfd_create(f"assignment-{spec.name}", os.MFD_CLOEXEC)
        try:
            os.write(memory, msgspec.msgpack.encode(assignment))
            self.spawn(spec.name, incarnation, memory)
        finally:
            os.close(memory)


def describe(announcement: Announcement, name: str = "", pid: int = 0) -> str:
    """Return one log line of an event: what, who, and the facts as key=value."""
    facts = [announcement.kind.label]
    if name:
        facts.append(f"connection={name}")
    if pid:
        facts.append(f"pid={pid}")
    if announcement.cause:
        facts.append(f"cause={announcement.cause}")
    facts += [f"{key}={value}" for key, value in announcement.detail.items()]
    if announcement.delay_s is not None:
        facts.append(f"delay_s={announcement.delay_s:.3f}")
    return " ".join(facts)
