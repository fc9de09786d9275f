"""Sections: one module each; ``SECTIONS`` has the functions that take their figures down."""

from bench.sections import fleet, hot, latency, restart, shared_memory

SECTIONS = {
    "hot": hot.run,
    "throughput": hot.run_throughput,
    "latency": latency.run,
    "memory": shared_memory.run,
    "restart": restart.run,
    "fleet": fleet.run,
}
