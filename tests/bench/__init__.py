"""Measurements beside peers: ``make bench``; docs/performance.md says what is measured."""
