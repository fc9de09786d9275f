"""Measurements beside peers: ``make bench``. What each number means stands in docs/performance.md."""
