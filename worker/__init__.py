"""The process that owns one exchange connection."""
