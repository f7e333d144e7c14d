"""The record numbers in Patients that clients write: who has a number under which images come is one subject, whichever came first.

A number under which images come stands for a subject of its own (eventlog.vault). A Patient that names it takes it: the stream of that
subject begins with SubjectJoined, so the log itself lets one Patient alone have it, and none once images came. Which systems of FHIR
are which issuers of DICOM is the site's to say (``ANAMNESIS_PATIENT_ID_SYSTEMS``): an identifier of no system, or of another, joins nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from domain.event import Event
from domain.ids import subject_stream
from domain.subject import SubjectJoined, SubjectParted
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.errors import VersionConflict
from eventlog.log import EventLog
from projections.fhir.vocabulary import Json
from server.auth.principals import Authenticated
from server.fhir.identities import IDENTITIES_SCOPE
from server.fhir.outcome import FhirError


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The Patient of an id as it was and as it will be; None where it is not there. ``at`` is where it stands in what was sent."""

    patient_id: str
    before: Json | None
    after: Json | None
    at: str


class Numbers:
    """``systems``: issuer of Patient ID → system."""

    def __init__(self, log: EventLog, systems: Mapping[str, str]) -> None:
        self._log = log
        self._issuers = {system: issuer for issuer, system in systems.items()}

    async def appends(self, changes: Sequence[Change], asker: Authenticated, searched_at: int | None = None) -> list[StreamAppend]:
        """What is to be said of the numbers that Patients get and lose. Raises FhirError (409) for one that is somebody else's, and
        VersionConflict where it became so since ``searched_at``: a search for it might find them now."""
        gained: dict[str, tuple[Change, str]] = {}
        lost: dict[str, Change] = {}
        for change in changes:
            before, after = self._subjects(change.before), self._subjects(change.after)
            for subject_id, where in after.items():
                if subject_id in gained:
                    raise FhirError(409, "conflict", "two Patients of one Bundle have this number", f"{change.at}{where}")
                if subject_id != change.patient_id:
                    gained[subject_id] = (change, where)
            lost.update({subject_id: change for subject_id in before.keys() - after.keys() - {change.patient_id}})
        for subject_id in gained.keys() & lost.keys():
            change, where = gained[subject_id]
            raise FhirError(409, "conflict", "this number goes from one Patient to another: take it away first", f"{change.at}{where}")
        wanted = {subject_stream(subject_id): subject_id for subject_id in (*gained, *lost)}
        last = {wanted[one.stream]: one for one in (await self._log.read_last(list(wanted)) if wanted else ())}
        made: list[StreamAppend] = []
        for subject_id, (change, where) in gained.items():
            known = last.get(subject_id)
            if known is not None and isinstance(known.event, SubjectJoined) and known.event.into_subject_id == change.patient_id:
                continue
            if known is not None and not isinstance(known.event, SubjectParted):
                if searched_at is not None and known.position > searched_at:
                    raise VersionConflict(known.stream, 0, known.version)
                owner = known.event.into_subject_id if isinstance(known.event, SubjectJoined) else subject_id
                raise _taken(owner, asker, f"{change.at}{where}")
            event: Event = SubjectJoined(subject_id=subject_id, into_subject_id=change.patient_id)
            made.append(_append(subject_id, event, 0 if known is None else known.version))
        for subject_id, change in lost.items():
            known = last.get(subject_id)
            if known is not None and isinstance(known.event, SubjectJoined) and known.event.into_subject_id == change.patient_id:
                made.append(_append(subject_id, SubjectParted(subject_id=subject_id, from_subject_id=change.patient_id), known.version))
        return made

    def _subjects(self, patient: Json | None) -> dict[str, str]:
        """The subjects that a Patient's numbers stand for, each with the path of its identifier."""
        found: dict[str, str] = {}
        for nth, one in enumerate((patient or {}).get("identifier", ())):
            issuer, value = self._issuers.get(one.get("system", "")), one.get("value", "").strip()
            if issuer is not None and value:
                found[self._log.vault.subject_id(value, issuer, otherwise="")] = f".identifier[{nth}]"
        return found


def _append(subject_id: str, event: Event, version: int) -> StreamAppend:
    return StreamAppend(stream=subject_stream(subject_id), events=[NewEvent(event=event)], expected_version=version)


def _taken(owner: str, asker: Authenticated, where: str) -> FhirError:
    """Whose a number is, is told to those alone who may see identities."""
    if not asker.may(IDENTITIES_SCOPE):
        return FhirError(409, "conflict", "another Patient has this number: a person is one Patient", where)
    return FhirError(409, "conflict", f"this number is that of Patient/{owner}: write it there (PUT), since a person is one Patient", where)
