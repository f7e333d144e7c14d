"""What can be wrong with a question about cohorts."""

from __future__ import annotations


class CohortError(Exception):
    """A question that cannot be answered as it was asked. The text says what to do, and names no person."""


class FieldUnknown(CohortError):
    """Raised when a field is neither one of ours nor a DICOM element, or not of the level that it was asked of."""


class FieldRefused(CohortError):
    """Raised when a field cannot be asked so: a range of text, a histogram of codes, a value of the wrong kind."""


class PositionUnknown(CohortError):
    """Raised when a position is asked for that the read model has not reached."""
