"""Runs the command in its arguments as a process that may neither hurry nor poll devices."""

import ctypes
import os
import resource
import sys

CAP_NET_ADMIN, CAP_SYS_NICE, PR_CAPBSET_DROP = 12, 23, 24  # capabilities(7), prctl(2)

if __name__ == "__main__":
    libc = ctypes.CDLL(None)
    for capability in (CAP_NET_ADMIN, CAP_SYS_NICE):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused to those who have none
    for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE):
        resource.setrlimit(limit, (0, 0))
    os.execv(sys.argv[1], sys.argv[1:])
