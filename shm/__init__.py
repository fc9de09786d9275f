"""Shared-memory segments: what workers write, what anybody may read.

``shm.attach(fleet, connection)`` is the public door for readers. Everything a worker or the
supervisor needs for writing lives in the submodules and imports no numpy.
"""

from typing import TYPE_CHECKING, Any

from shm.errors import SegmentError

if TYPE_CHECKING:
    from shm.reader import Reader, attach

__all__ = ["Reader", "SegmentError", "attach"]


if not TYPE_CHECKING:  # a type checker shall miss what is not there

    def __getattr__(name: str) -> Any:
        # Lazy (PEP 562): a worker imports ``shm`` for writing and must not pay for numpy.
        if name in {"Reader", "attach"}:
            import shm.reader as reader

            return getattr(reader, name)
        raise AttributeError(f"module 'shm' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
