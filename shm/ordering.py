"""Memory ordering between a writer and its readers, paid for by the reader.

x86-64 keeps stores in order and loads in order (TSO), so program order is enough and the order
point is nothing. On other machines the writer registers once for membarrier(2) and the reader
issues it between its loads: every running registered writer passes a full barrier meanwhile.
Verified by torture on x86-64 only; on arm64 it rests on argument (docs/shm-layout.md).
"""

import ctypes
import platform
import sys

from shm.layout import FLAG_MEMBARRIER

if platform.machine() not in {"x86_64", "AMD64", "aarch64"} or sys.byteorder != "little":
    raise ImportError(f"feedwarden knows x86-64 and arm64, not {platform.machine()}")

TOTAL_STORE_ORDER = platform.machine() != "aarch64"
SYSCALL_MEMBARRIER = 283 if platform.machine() == "aarch64" else 324
CMD_GLOBAL_EXPEDITED = 1 << 1
CMD_REGISTER_GLOBAL_EXPEDITED = 1 << 2

_libc = ctypes.CDLL(None, use_errno=True)


def register_writer() -> int:
    """Let readers order our stores; return the header flag to set, 0 if the kernel refuses."""
    refused = _libc.syscall(SYSCALL_MEMBARRIER, CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0)
    return 0 if refused else FLAG_MEMBARRIER


def order_point() -> None:
    """Order a reader's loads before and after this call against every writer's stores."""
    if not TOTAL_STORE_ORDER:
        _libc.syscall(SYSCALL_MEMBARRIER, CMD_GLOBAL_EXPEDITED, 0, 0)
