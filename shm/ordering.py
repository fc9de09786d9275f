"""Memory ordering between a writer and its readers, paid for by the reader.

x86-64 keeps stores in order and loads in order (TSO), so program order is enough and the order
point is nothing. On other machines the writer registers once for membarrier(2) and the reader
issues it between its loads: every running registered writer passes a full barrier meanwhile.
Verified by torture on x86-64 only; on arm64 it rests on argument (docs/shm-layout.md).
"""

import ctypes
import platform

from shm.layout import FLAG_MEMBARRIER

TOTAL_STORE_ORDER = platform.machine() in {"x86_64", "AMD64", "i686"}
SYSCALL_MEMBARRIER = {"x86_64": 324, "aarch64": 283}.get(platform.machine(), 0)
CMD_GLOBAL_EXPEDITED = 1 << 1
CMD_REGISTER_GLOBAL_EXPEDITED = 1 << 2

_libc = ctypes.CDLL(None, use_errno=True)


def register_writer() -> int:
    """Let readers order our stores; return the header flag to set, 0 if the kernel refuses."""
    if not SYSCALL_MEMBARRIER:
        return 0
    refused = _libc.syscall(SYSCALL_MEMBARRIER, CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0)
    return 0 if refused else FLAG_MEMBARRIER


def order_point() -> None:
    """Order a reader's loads before and after this call against every writer's stores."""
    if not TOTAL_STORE_ORDER:
        _libc.syscall(SYSCALL_MEMBARRIER, CMD_GLOBAL_EXPEDITED, 0, 0)
