"""Options of a run, and what this tree and this machine have of what it wants."""

import contextlib
import importlib.util
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from bench.children import ROOT
from bench.figures import Figures
from supervisor.errors import FleetFileError
from supervisor.fleetfile import load

# The fleet is named, or else the file's stem would be its name, and a temporary one may not do.
HEAD = (
    'version = 1\n[fleet]\nname = "probe"\n[[connection]]\nname = "a"\nurl = "ws://127.0.0.1:1/"\n'
)
VENVS = ROOT / ".venv-peers"


@dataclass(frozen=True, slots=True)
class Options:
    """
    How a run is done.

    Attributes:
        quick: Fewer rounds and messages.
        folder: For files of the run; in memory, so that no disk is measured.
        figures: Where to take down what was measured.
        seed: Of the generated traffic.
        recording: Traffic by recording instead, if set.

    """

    quick: bool
    folder: Path
    figures: Figures
    seed: int = 1
    recording: Path | None = None

    @property
    def rounds(self) -> int:
        """How often everybody has a turn."""
        return 2 if self.quick else 5

    @property
    def traffic(self) -> dict:
        """Which messages, as the exchange's process takes it."""
        if self.recording is not None:
            return {"recording": str(self.recording.resolve())}
        return {"seed": self.seed}

    def subfolder(self) -> Path:
        """Return a new directory with a short path."""
        return Path(tempfile.mkdtemp(dir=self.folder))


@contextlib.contextmanager
def certificates(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield files: of the authority, of the exchange's certificate, of its key."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    ca, certificate, key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    yield str(ca), str(certificate), str(key)


def accepts(toml: str) -> bool:
    """Return whether fleet.toml knows these keys of a connection."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(HEAD + toml)
        file.flush()
        try:
            load(Path(file.name))
        except FleetFileError:
            return False
    return True


def has_library() -> bool:
    """Return whether there is a supervisor.subscriber."""
    return importlib.util.find_spec("supervisor.subscriber") is not None


def peer_python(venv: str, package: str) -> Path | None:
    """Return the interpreter of a peers' environment if a package is installed there."""
    found = list((VENVS / venv).glob(f"lib/python*/site-packages/{package}"))
    return VENVS / venv / "bin" / "python" if found else None
