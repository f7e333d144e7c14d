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


class RecordErased(DomainError):
    """Raised when a clinical record is changed whose content went with an erased subject."""


class RecordOfAnotherSubject(DomainError):
    """Raised when a clinical record would become one of another subject than it is of."""


class SubjectUnknown(DomainError):
    """Raised when something is said of a subject that was never registered."""


class FindingUnknown(DomainError):
    """Raised when a finding is reviewed that no standing index holds."""


class ReviewIsObsolete(DomainError):
    """Raised when a review is of an index that another one has replaced since."""


class NotSignable(DomainError):
    """Raised when something is to be signed that is not signed, or by somebody who cannot sign."""


class AlreadySigned(DomainError):
    """Raised when the same person signs the same event with the same meaning again."""


class SignerUnknown(DomainError):
    """Raised when a principal signs, or revokes a key, without having one: enroll first."""


class SubjectIsErased(DomainError):
    """Raised when something comes, or is asked, of a subject that was erased."""


class SubjectHasImages(DomainError):
    """Raised when the Patient of somebody is to be deleted whose images are here."""


class SubjectOnHold(DomainError):
    """Raised when a subject is to be erased while a legal hold stands."""


class LegalHoldUnknown(DomainError):
    """Raised when a legal hold is lifted that does not stand."""


class ErasureNotRequested(DomainError):
    """Raised when an erasure is confirmed, withdrawn or carried out that nobody asked for (or confirmed)."""


class ErasureUnderway(DomainError):
    """Raised when an erasure that is being carried out is to be stopped: it cannot be."""


class SamePerson(DomainError):
    """Raised when the person who asked for an erasure also wants to confirm it."""


class PersonNeeded(DomainError):
    """Raised when a device asks for what only a person may decide."""


class TagRefused(DomainError):
    """Raised when a tag's name is not one, or its value is too long."""


class TagUnknown(DomainError):
    """Raised when a tag is removed that does not stand."""


class ProjectRefused(DomainError):
    """Raised when a project's id is not one, or is that of another project."""


class ProjectUnknown(DomainError):
    """Raised when something is said of a project that nobody created."""


class NotAMember(DomainError):
    """Raised when somebody does in a project what only its members (of a role) may."""


class OwnerNeeded(DomainError):
    """Raised when the last owner would leave a project."""


class CohortUnknown(DomainError):
    """Raised when something is said of a saved cohort that is not there, or not any more."""


class CohortRefused(DomainError):
    """Raised when a cohort would be saved without a name, or changed by somebody who may only see it."""


class DatasetRefused(DomainError):
    """Raised when a dataset cannot be as it was asked for: a name or license that is none, a version that is not the next."""


class DatasetUnknown(DomainError):
    """Raised when something is said of a dataset, or of a version of one, that is not there."""


class DatasetIsEmpty(DomainError):
    """Raised when a query that finds nothing is to be frozen."""


class SplitRefused(DomainError):
    """Raised when a split cannot be as it was asked for: parts without a name or a share, shares that are none."""


class SubjectWouldLeak(DomainError):
    """Raised when a subject would be in another part of a dataset than before, or one person in two."""


class LicenseMissing(DomainError):
    """Raised when a dataset is to leave without saying under which license."""


class UseNotIntended(DomainError):
    """Raised when a dataset is to be used for what it is not meant for."""


class ConsentWithdrawn(DomainError):
    """Raised when subjects of a dataset do not meet, any more, what it asks of their consent."""


class NothingLeft(DomainError):
    """Raised when erasures and withdrawn consent leave nothing of a dataset."""
