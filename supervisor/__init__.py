"""The process that starts, watches, kills and restarts workers, and its command line."""
