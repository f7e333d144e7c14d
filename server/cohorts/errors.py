"""What can go wrong with saved cohorts and datasets beyond what the domain refuses."""

from __future__ import annotations

from server.errors import ServerError


class CurationError(ServerError):
    """The root of what can go wrong here."""


class ListLost(CurationError):
    """Raised when the list of a dataset's version, or of a split, is not in the archive, or not whole."""


class ListDiffers(CurationError):
    """Raised when a list that was made again is not the one that an event names: what it was of has been erased since, or changed."""


class StrataTooMany(CurationError):
    """Raised when a dataset is to be split by a field with too many values to be alike in."""


class TargetUnknown(CurationError):
    """Raised when a tag is to be put on something that is not in the archive."""


class TooManyAtOnce(CurationError):
    """Raised when one request would tag, or list, more than it may."""


class LevelRefused(CurationError):
    """Raised when something is asked of a cohort of a level that it is not told of."""
