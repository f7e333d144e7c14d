"""What can go wrong with projections, by name."""

from __future__ import annotations


class ProjectionError(Exception):
    """The root of the projections' errors."""


class ProjectionBehind(ProjectionError):
    """Raised when a projection did not reach a position in time: ask again, or look whether it is paused."""

    def __init__(self, name: str, position: int, reached: int) -> None:
        super().__init__(f"projection {name} is at position {reached}, not yet at {position}")
        self.position = position
        self.reached = reached


class CheckpointMoved(ProjectionError):
    """Raised when another runner moved this projection's checkpoint: this one is the leader no more."""


class UnknownProjection(ProjectionError):
    """Raised when a projection is named that does not exist."""
