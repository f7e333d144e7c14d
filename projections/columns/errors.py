"""What columns cannot do themselves."""

from __future__ import annotations

from projections.cohort.errors import CohortError


class NotAColumn(CohortError):
    """Raised when a field is no column, and nothing else is there to look into the rows. The text says how to make it one."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not kept in memory: add it as a facet, or ask again where the rows can be read")


class ColumnsNotReady(CohortError):
    """Raised when columns are asked for before they hold what was asked."""


class SnapshotRefused(Exception):
    """Raised when a snapshot is damaged, of another version, or of another log. It is to be thrown away."""
