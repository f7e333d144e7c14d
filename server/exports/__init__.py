"""Exports as jobs, whatever is exported: asked for, made in the background through kills, kept for a while, taken away by erasures."""
