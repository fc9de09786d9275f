"""Fleet: what a fleet.toml asks for, once it is checked. Plain data, without what checked it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from supervisor.exchange_spec import SimulatorSpec
from worker.spec import ConnectionSpec

Orphans = Literal["", "keep", "exit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """
    A validated fleet.

    ``orphans``: what workers do that lose their supervisor; "": as the terminal says.
    """

    name: str
    file: Path
    runtime_dir: Path
    connections: tuple[ConnectionSpec, ...]
    simulator: SimulatorSpec | None
    orphans: Orphans = ""
