"""Endpoints: what is called how in a fleet's runtime directory.

Pure. Published in docs/wire-format.md; everybody who needs a path takes it from here.
"""

from pathlib import Path

DATA = "data"
EVENTS, CONTROL, WAKE, ZYGOTE = "events.sock", "control.sock", "wake.sock", "zygote.sock"
SOCKET_SUFFIX, STACK_SUFFIX, SPEC_SUFFIX = ".sock", ".stack", ".spec"
TUNING_SUFFIX = ".tuning"
TABLE = "registry"


def data_socket(runtime_dir: Path, connection: str) -> Path:
    """Return where a connection's data is published."""
    return runtime_dir / DATA / f"{connection}{SOCKET_SUFFIX}"


def data_endpoint(runtime_dir: Path, connection: str) -> str:
    """Return the same as a ZeroMQ endpoint."""
    return f"ipc://{data_socket(runtime_dir, connection)}"


def stack_file(runtime_dir: Path, connection: str) -> Path:
    """Return where a worker that is aborted writes the stacks of its threads."""
    return runtime_dir / f"{connection}{STACK_SUFFIX}"


def table_file(shm_dir: Path) -> Path:
    """Return the fleet's table, which its supervisor holds."""
    return shm_dir / TABLE


def spec_file(shm_dir: Path, connection: str) -> Path:
    """Return where a living worker finds a changed specification, beside its segment."""
    return shm_dir / f"{connection}{SPEC_SUFFIX}"


def tuning_file(shm_dir: Path, connection: str) -> Path:
    """Return where a worker writes what the system made of its options, beside its segment."""
    return shm_dir / f"{connection}{TUNING_SUFFIX}"
