"""The versions that matter in a bug report."""

import importlib.metadata
import json
import platform

import zmq

from supervisor.exit_codes import OK

PACKAGES = ("websockets", "picows", "uvloop", "pyzmq", "msgspec", "jmespath", "numpy", "pydantic")


def document() -> dict[str, object]:
    """Return the document of ``version --json``."""
    return {
        "schema": 1,
        "feedwarden": importlib.metadata.version("feedwarden"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "libzmq": zmq.zmq_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def show(as_json: bool) -> int:
    """Print the versions; return the exit code."""
    facts = document()
    if as_json:
        print(json.dumps(facts))
        return OK
    packages = facts["packages"]
    assert isinstance(packages, dict)
    listed = ", ".join(f"{name} {number}" for name, number in packages.items())
    print(f"feedwarden {facts['feedwarden']} (Python {facts['python']}, Linux {facts['kernel']}, "
          f"libzmq {facts['libzmq']}, {listed})")  # fmt: skip
    return OK
