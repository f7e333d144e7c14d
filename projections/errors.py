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


class ProjectionIncomplete(ProjectionError):
    """Raised when a read model that has never held the whole log is to be read: it would show a part as if it were all."""

    def __init__(self, name: str, percent: int, paused: bool) -> None:
        how = "is paused while being built" if paused else "is being built"
        super().__init__(f"the read model {name} {how} and holds {percent} % of the log: try again later")
        self.name = name
        self.percent = percent


class WorkLeft(ProjectionError):
    """Raised when a read model is to be compared while some of it is still made in the background."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the read model {name} is at work on search parameters that were added: `anamnesis projections parameters` shows how far")


class CheckpointMoved(ProjectionError):
    """Raised when another runner moved this projection's checkpoint: this one is the leader no more."""


class UnknownProjection(ProjectionError):
    """Raised when a projection is named that does not exist."""


class RebuildRunning(ProjectionError):
    """Raised when a rebuild or a verification of a projection is asked for while another one runs: wait until it ends."""
