"""Errors of shared-memory segments.

SegmentError                 root
├── DirectoryRefused         the directory is a symbolic link, foreign, or open to others
├── SegmentForeign           the file is not one of ours
├── SegmentTruncated         the file is shorter than it says
├── SegmentVersion           another layout than this program's
├── SegmentLocked            another process owns it
└── SegmentUnavailable       the system cannot give it at the moment; worth another try
    └── SegmentSpace         it does not fit into the file system
"""

from pathlib import Path


class SegmentError(Exception):
    """Root. ``path`` names the file or directory."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


class DirectoryRefused(SegmentError):
    """A directory that is not safely ours."""


class SegmentForeign(SegmentError):
    """A file that does not carry our magic: it is left as it is."""


class SegmentTruncated(SegmentError):
    """A file shorter than its header says; reading on would be SIGBUS."""


class SegmentVersion(SegmentError):
    """A segment of another version or byte layout."""


class SegmentLocked(SegmentError):
    """A segment whose owner lives. ``pid`` is what its header says."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(path, f"in use by pid {pid}")
        self.pid = pid


class SegmentUnavailable(SegmentError):
    """Refused by the system for now: no descriptors, no memory, its directory gone."""


class SegmentSpace(SegmentUnavailable):
    """No room. ``needed`` and ``free`` are bytes."""

    def __init__(self, path: Path, needed: int, free: int) -> None:
        super().__init__(
            path, f"needs {needed:,} bytes, {free:,} are free; free some or run fewer connections"
        )
        self.needed, self.free = needed, free
