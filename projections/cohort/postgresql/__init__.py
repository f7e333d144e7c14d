"""Cohorts answered by PostgreSQL, on the rows of the projection: whatever is asked, at whatever position, and text by index."""

from projections.cohort.postgresql.engine import PostgresEngine, text_matches

__all__ = ["PostgresEngine", "text_matches"]
