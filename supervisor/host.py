"""Host: what /proc and /sys say, and a finding about it. What there is not is unknown, no error."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Health(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"  # works, and could work better
    FAIL = "fail"  # does not work like that
    UNKNOWN = "unknown"  # not to be seen from here, as in a container


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, what is expected, and how to get there."""

    name: str
    state: Health
    found: str
    expected: str = ""
    mend: str = ""


def judged(
    name: str, fine: bool, found: str, expected: str, mend: str, worst: Health = Health.WARN
) -> Finding:
    """Return the finding of a check that is either fine or ``worst``."""
    if fine:
        return Finding(name, Health.OK, found, expected)
    return Finding(name, worst, found, expected, mend)


def unknown(name: str, why: str) -> Finding:
    """Return the finding of a check that cannot be made here."""
    return Finding(name, Health.UNKNOWN, why)


class Host:
    """
    The files in which a kernel describes itself.

    Args:
        root: Where /proc and /sys are; another than ``/`` for a machine that was written down.

    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def text(self, path: str) -> str | None:
        """Return a file's text without blanks around it, ``None`` if it cannot be read."""
        try:
            return (self.root / path).read_text(errors="replace").strip()
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """Return the number in a file, ``None`` if it holds none."""
        text = self.text(path)
        return int(text) if text is not None and text.lstrip("-").isdecimal() else None

    def field(self, path: str, name: str) -> str | None:
        """Return the value of a ``name: value`` line, ``None`` if there is none."""
        for line in (self.text(path) or "").splitlines():
            key, separator, value = line.partition(":")
            if separator and key.strip() == name:
                return value.strip()
        return None

    def glob(self, pattern: str) -> list[Path]:
        """Return the files that match, sorted."""
        return sorted(self.root.glob(pattern))

    def cgroups(self) -> list[str]:
        """Return our cgroup (v2) and those around it, innermost first; empty without any."""
        for line in (self.text("proc/self/cgroup") or "").splitlines():
            if line.startswith("0::"):
                inner = Path(line[3:].lstrip("/"))
                return [f"sys/fs/cgroup/{group}" for group in (inner, *inner.parents)]
        return []
