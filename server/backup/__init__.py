"""Backups: all that is true and cannot be built again, sealed, consistent at one position of the log, and back from there."""
