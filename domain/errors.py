"""What may not happen, by name. Messages never hold a person's data: tags, UIDs, keys and positions only."""

from __future__ import annotations


class DomainError(Exception):
    """Raised when a command may not be carried out in the state that the aggregate is in."""


class EventTypeError(TypeError):
    """Raised when an event type is declared in a way that the log could not honour."""


class InstanceOfOtherStudy(DomainError):
    """Raised when instances name a series that is already known to belong to another study."""


class SeriesIsEmpty(DomainError):
    """Raised when indexing is requested for a series of which nothing is stored."""


class IndexingNotRequested(DomainError):
    """Raised when a result comes for an indexing that nobody requested."""


class IndexingIsObsolete(DomainError):
    """Raised when a result was computed from other instances than those that the request names."""


class FindingsDisagree(DomainError):
    """Raised when the findings of one index name the same structure twice."""


class RecordNotFound(DomainError):
    """Raised when a clinical record that does not exist, or is deleted, is changed."""


class RecordVersionConflict(DomainError):
    """Raised when a clinical record changed since the version that the command names."""


class SubjectUnknown(DomainError):
    """Raised when something is said of a subject that was never registered."""
