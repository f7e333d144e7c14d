"""Whether a dataset may leave: who asks, for what, on which terms, and who of its subjects is still there and still consents."""

from __future__ import annotations

import msgspec

from domain import dataset
from domain.condition import All, Condition, Has, Level, Not, OneOf, Query, decode, encode
from domain.dataset import DatasetFrozen, DatasetTermsSet, Leaving, Purpose
from domain.errors import DatasetRefused
from domain.principal import Principal
from domain.project import Role
from projections.cohort.engine import Asked
from server.cohorts.access import require_member
from server.cohorts.members import dataset_state, erased_among, frozen_series
from server.cohorts.questions import Curating, check_kept, latest, subjects_in


def _consent(decision: str) -> Has:
    said = (OneOf("resource_type", ("Consent",)), OneOf("status", ("active",)), OneOf("value_code", (decision,)))
    return Has(level=Level.FACT, where=All(said))


CONSENTS = Query(level=Level.SUBJECT, where=All((_consent("permit"), Not(_consent("deny")))))
"""The usual policy: an active FHIR Consent permits, and none denies."""


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """On which terms a version may leave now, and without whom. ``checked_at``: the position as of which consent was asked for."""

    version: DatasetFrozen
    terms: DatasetTermsSet
    purpose: Purpose
    checked_at: int
    subjects_left: int
    erased: frozenset[str]
    """Subjects that were erased since the freeze; `members_of` leaves them out by itself."""
    withdrawn: frozenset[str]
    """Subjects that do not meet what the terms ask of consent: to be handed to `members_of` as ``without``."""


async def may_export(
    services: Curating, dataset_id: str, version: int | None, purpose: Purpose, principal: Principal, *, without_withdrawn: bool = False
) -> Permit:
    """Asks for leave to export a version of a dataset (None: the latest) for a purpose. To be asked anew for every export.

    ``without_withdrawn``: go without those who do not consent any more, rather than be refused. Raises DatasetUnknown, NotAMember,
    LicenseMissing, UseNotIntended, ConsentWithdrawn, NothingLeft, and ListLost where the archive has lost the list.
    """
    state = await dataset_state(services.log, dataset_id)
    await require_member(services.log, state, dataset_id, principal, Role.VIEWER)
    frozen = dataset.version_of(state, dataset_id, version)
    subjects = {one.subject_id async for batch in frozen_series(services, frozen) for one in batch}
    erased = await erased_among(services.log, subjects)
    position = await latest(services)
    consenting = await _consenting(services, state.terms.consent if state.terms else "", position)
    withdrawn = frozenset() if consenting is None else frozenset(subjects - erased - consenting)
    leaving = Leaving(subjects=frozenset(subjects), erased=erased, withdrawn=withdrawn)
    dataset.permit_export(state, dataset_id, frozen.version, purpose, leaving, without_withdrawn=without_withdrawn)
    assert state.terms is not None
    return Permit(
        version=frozen,
        terms=state.terms,
        purpose=purpose,
        checked_at=position,
        subjects_left=len(leaving.left),
        erased=erased,
        withdrawn=withdrawn,
    )


def consent_text(condition: Condition | None) -> str:
    """What terms keep of a condition on subjects. Raises FieldUnknown, CohortRefused."""
    if condition is None:
        return ""
    query = Query(level=Level.SUBJECT, where=condition)
    check_kept(query)
    return encode(query).decode("utf-8")


async def _consenting(services: Curating, consent: str, position: int) -> frozenset[str] | None:
    """Who meets what is asked of consent; None where nothing is asked."""
    if not consent:
        return None
    try:
        query = decode(consent.encode("utf-8"))
    except msgspec.ValidationError as error:
        raise DatasetRefused(f"what the terms ask of consent cannot be read ({error}): set them again") from None
    asked = Asked(query=query, position=position)
    return frozenset([one async for batch in subjects_in(services.log.pool, services.cohorts, asked) for one in batch])
