"""Sections: one module each; ``SECTIONS`` has the functions that take their figures down."""

from bench.sections import hot

SECTIONS = {
    "hot": hot.run,
    "throughput": hot.run_throughput,
}
