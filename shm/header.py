"""Header: what a segment says of itself and of its writer, as a record and as bytes.

Pure. Nothing of a file is believed before ``checked`` has found it to be what it claims.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from shm.errors import SegmentForeign, SegmentTruncated, SegmentVersion
from shm.layout import (
    ENDIAN_TAG,
    HEADER,
    HEADER_BYTES,
    HEADER_FIELDS,
    MAGIC,
    MAJOR,
    MINOR,
    SegmentKind,
)

INCARNATION_MAX = 1 << 40  # more than any connection lives to see; above it a header is garbage


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says of itself. Times: see shm/layout.py."""

    kind: int
    flags: int
    layout_hash: int
    total_bytes: int
    boot_id: bytes
    pid: int
    start_ticks: int
    incarnation: int
    created_wall_ns: int
    created_monotonic_ns: int
    name: str


def packed(header: Header) -> bytes:
    """Return the bytes of a header, the magic included."""
    return HEADER.pack(
        MAGIC,
        MAJOR,
        MINOR,
        HEADER_BYTES,
        header.layout_hash,
        header.total_bytes,
        ENDIAN_TAG,
        header.kind,
        header.flags,
        header.boot_id,
        header.pid,
        header.start_ticks,
        header.incarnation,
        header.created_wall_ns,
        header.created_monotonic_ns,
        header.name.encode(),
    )


def unpacked(raw: bytes) -> Header:
    """Return what ``HEADER.size`` bytes say, whether they are a header of ours or not."""
    said = _fields(raw)
    said["name"] = said["name"].rstrip(b"\0").decode("utf-8", "replace")
    return Header(**{field.name: said[field.name] for field in fields(Header)})


def _fields(raw: bytes) -> dict[str, Any]:
    return dict(zip(HEADER_FIELDS, HEADER.unpack(raw), strict=True))


def checked(path: Path, raw: bytes, file_bytes: int, kind: SegmentKind, layout_hash: int) -> Header:
    """
    Return what the head of a file says, if it is a segment that this program can read.

    Args:
        path: The file, for errors.
        raw: Its first bytes, ``HEADER.size`` of them or all that it has.
        file_bytes: How long it is.
        kind: What it must hold.
        layout_hash: Of the layout that it must have.

    Raises:
        SegmentForeign: If it is not a segment of ours, or of another kind.
        SegmentVersion: If its layout or incarnation is not this program's.
        SegmentTruncated: If the file is shorter than it says.

    """
    if raw[: len(MAGIC)] != MAGIC:
        raise SegmentForeign(path, "is not a feedwarden segment; move it away")
    if len(raw) < HEADER.size or file_bytes < HEADER_BYTES:
        raise SegmentTruncated(path, f"has {file_bytes} bytes, less than its header")
    said, header = _fields(raw), unpacked(raw)
    if said["endian_tag"] != ENDIAN_TAG:
        raise SegmentForeign(path, "was written on a machine of the other byte order")
    if header.kind != kind:
        raise SegmentForeign(path, f"is a segment of kind {header.kind}, not {int(kind)}")
    if said["major"] != MAJOR:
        found = f"{said['major']}.{said['minor']}"
        raise SegmentVersion(path, f"has version {found}, this program reads {MAJOR}.x")
    if header.layout_hash != layout_hash:
        raise SegmentVersion(
            path,
            f"has another byte layout (hash {header.layout_hash:016x}, ours {layout_hash:016x})",
        )
    if file_bytes < header.total_bytes or header.total_bytes < HEADER_BYTES:
        raise SegmentTruncated(path, f"has {file_bytes} of {header.total_bytes} bytes")
    if not 0 < header.incarnation <= INCARNATION_MAX:
        raise SegmentVersion(path, f"says that it is of incarnation {header.incarnation}")
    return header
