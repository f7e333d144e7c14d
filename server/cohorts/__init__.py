"""Cohorts at the server: tags, saved cohorts and what changed in them, datasets frozen, split and let go on their terms."""
