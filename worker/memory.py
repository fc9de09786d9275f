"""Memory: what a worker needs not keep for itself.

A page that a worker writes to is its own from then on, where it was shared with the fork helper and
all other workers before, or was not there at all.
"""

import ctypes
import mmap

PAGE = mmap.PAGESIZE
MADV_DONTNEED = 4  # of private memory: pages of zeros again, which take no room (madvise(2))
M_ARENA_MAX = -8  # mallopt(3)
GAP_MAX = 120 << 10  # less than M_MMAP_THRESHOLD (mallopt(3)), from which on no gap is used
GAPS_MAX = 16 << 20  # another malloc may order its memory in another way: no more than that

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_libc.malloc.argtypes, _libc.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
_libc.free.argtypes = (ctypes.c_void_p,)


def give_back_zeros(owner: object) -> int:
    """
    Give back the pages of a large object that hold nothing but zeros; return their bytes.

    What it holds stays the same. uvloop's loop has a read buffer of 250 KiB in it, zeroed at birth
    and hardly used: engines read into their own. No other thread may write to the object meanwhile.
    """
    address = id(owner)
    begin, end = -(-address // PAGE) * PAGE, (address + type(owner).__basicsize__) // PAGE * PAGE
    zeros, given = bytes(PAGE), 0
    for page in range(begin, end, PAGE):
        if ctypes.string_at(page, PAGE) == zeros and not _libc.madvise(page, PAGE, MADV_DONTNEED):
            given += PAGE
    return given


def share_one_arena() -> None:
    """
    Have threads that are made from now on allocate where the first one does.

    glibc gives each of ZeroMQ's two threads an arena of its own, for contention that is none: what
    they free was allocated by the loop's.
    """
    _libc.mallopt(M_ARENA_MAX, 1)


def fill_gaps() -> int:
    """
    Take up, for good, what is free between objects in use; return its bytes.

    Imports leave half a megabyte of it, scattered over all pages of the heap. A process forked from
    this one would allocate there, and each time have the page around it for its own; behind the
    heap it takes pages that hold nothing else. The largest first: they are not to be cut up.
    """
    end, taken = _libc.malloc(GAP_MAX), 0
    for size in range(GAP_MAX, 0, -ctypes.sizeof(ctypes.c_void_p) * 2):
        while (gap := _libc.malloc(size)) < end and taken < GAPS_MAX:
            taken += size
        _libc.free(gap)  # no gap
    _libc.free(end)
    return taken
