"""Sections: one module each; ``SECTIONS`` has the functions that take their figures down."""

from bench.sections import (
    adoption,
    connections,
    cycles,
    fleet,
    growth,
    heartbeat,
    hot,
    latency,
    losses,
    matcher,
    restart,
    shared_memory,
)

SECTIONS = {
    "hot": hot.run,
    "throughput": hot.run_throughput,
    "latency": latency.run,
    "heartbeat": heartbeat.run,
    "matcher": matcher.run,
    "memory": shared_memory.run,
    "restart": restart.run,
    "adoption": adoption.run,
    "losses": losses.run,
    "fleet": fleet.run,
    "growth": growth.run,
    "connections": connections.run,
    "cycles": cycles.run,
}
