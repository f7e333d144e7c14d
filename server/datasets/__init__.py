"""Frozen datasets on their way out: planned from the log, written as files in several layouts, kept and served as jobs."""
