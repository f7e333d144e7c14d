"""From interactions to one append: who is meant, what stands, what is decided; and again from the start when somebody was faster.

All streams of a call are appended to or none is, so a transaction is a call with many interactions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from domain.clinical_record import WriteRecord
from domain.errors import (
    DomainError,
    RecordErased,
    RecordNotFound,
    RecordOfAnotherSubject,
    RecordVersionConflict,
    SubjectHasImages,
    SubjectIsErased,
)
from domain.event import Event
from domain.ids import record_stream
from eventlog.envelope import NewEvent, StreamAppend, new_event_id
from eventlog.errors import EventTooLarge, SubjectKeyDestroyed, VersionConflict
from projections.errors import ProjectionBehind
from projections.fhir import guide
from projections.fhir.projection import CURATED, FhirProjection
from projections.fhir.vocabulary import Json
from server.auth.principals import Authenticated
from server.fhir.as_of import Given
from server.fhir.outcome import FhirError
from server.fhir.parameters import OWN_BASE
from server.fhir.writing import incoming, people, search_parameters, validity
from server.fhir.writing.acts import Acts
from server.fhir.writing.interaction import Interaction, Written
from server.fhir.writing.matching import caught_up, conditional_id, matches
from server.fhir.writing.numbers import Change, Numbers
from server.fhir.writing.records import Key, State, StoredPatient, content_of, delete, load_records, unwritten, write
from server.fhir.writing.references import Links, conditional_references
from server.fhir.writing.rights import Rights
from server.fhir.writing.told import about
from server.fhir.writing.whose import Patients
from server.services import Services

MAX_ATTEMPTS = 30
_REFUSALS: Mapping[type[DomainError], tuple[int, str]] = {
    RecordVersionConflict: (412, "conflict"),
    RecordErased: (410, "deleted"),
    RecordOfAnotherSubject: (422, "business-rule"),
    SubjectHasImages: (409, "business-rule"),
    SubjectIsErased: (410, "deleted"),
}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """``position``: None where nothing was new. ``is_readable``: the read model has it already."""

    written: list[Written]
    position: int | None = None
    is_readable: bool = True


class _Target(msgspec.Struct, kw_only=True):
    key: Key
    found_version: int = 0
    """Of what a condition found."""
    is_new: bool = False
    """An id that nobody has used: the stream has no event."""


async def commit(
    services: Services, asker: Authenticated, base: str, interactions: Sequence[Interaction], told: Interaction | None = None
) -> Outcome:
    """All of it or nothing; readable on return, unless the read model lags. ``told`` is a Provenance of what is written.

    Raises FhirError, ScopeMissing, and what the log raises.
    """
    OWN_BASE.set(base)  # conditions may name what is here by its URL
    rights = Rights(services, asker)
    for one in interactions:
        rights.check_type(one)
        _check_allowed(one)
    ids = [str(new_event_id()) for _ in range(len(interactions) + 1)]
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(VersionConflict),
        stop=stop_after_attempt(MAX_ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.002, max=0.1),
        reraise=True,
    ):
        with attempt:
            return await _Attempt(services, asker, base, interactions, ids, told).make()
    raise AssertionError("unreachable: the last attempt raises")


class _Attempt:
    def __init__(
        self,
        services: Services,
        asker: Authenticated,
        base: str,
        interactions: Sequence[Interaction],
        ids: Sequence[str],
        told: Interaction | None,
    ) -> None:
        self._services = services
        self._asker = asker
        self._base = base
        self._interactions = interactions
        self._ids = ids
        self._told = told
        self._links = Links()
        self._position: int | None = None
        self._rights = Rights(services, asker)

    async def make(self) -> Outcome:
        # Free ids are looked for before the search: who makes one in between is either found, or makes our append fail.
        free = [await self._free_id(one) for one in self._interactions]
        if any(one.condition is not None or _has_conditional_references(one) for one in self._interactions):
            self._position = await caught_up(self._services)
        targets = [await self._target(*one) for one in zip(self._interactions, self._ids, free, strict=False)]
        _refuse_overlap(self._interactions, targets)
        resources = await self._linked(targets)
        parts = zip(self._interactions, targets, strict=True)
        known = {target.key for one, target in parts if not target.is_new and not _is_answered(one, target)}
        states = {target.key: (unwritten(target.key), 0) for target in targets}
        if known:
            states.update(await self._standing_of(sorted(known)))
        for one, target in zip(self._interactions, targets, strict=True):
            if target.key in known:
                await self._rights.check_standing(one, target.key, _standing(target.key, states[target.key][0]))
        acts = Acts(self._services, self._asker)
        standing = [(nth, one, target.key) for nth, (one, target) in enumerate(zip(self._interactions, targets, strict=True))]
        await acts.take({nth: (one, key) for nth, one, key in standing if key in known and states[key][1] == 0})
        await acts.decide(resources)
        for nth, (one, target) in enumerate(zip(self._interactions, targets, strict=True)):
            if nth in acts:
                resources[nth] = None
            elif one.patch is not None:
                resources[nth] = _patched(one, target.key, states[target.key][0])
        for one, target, resource in zip(self._interactions, targets, resources, strict=True):
            if resource is not None and not _is_answered(one, target):
                is_new = not states[target.key][0].exists
                await self._rights.check_made(one, {**resource, "id": target.key[1]}, is_new=is_new)
        people_at = await self._check_people(targets, states, resources)
        patients = Patients(self._base, {targets[nth].key[1]: resources[nth] is not None for nth in people_at})
        await patients.ask(self._services, [one for one in resources if one is not None])
        made: list[tuple[Written, list[Event]]] = []
        for nth, (one, target, resource) in enumerate(zip(self._interactions, targets, resources, strict=True)):
            made.append((_UNDECIDED, []) if nth in acts else _decided(one, target, states[target.key][0], resource, patients))
        appends = [
            *acts.appends,
            *(
                StreamAppend(
                    stream=record_stream(*target.key),
                    events=[NewEvent(event=event) for event in events],
                    expected_version=states[target.key][1],
                )
                for target, (_, events) in zip(targets, made, strict=True)
                if events
            ),
        ]
        appends += await self._numbers([nth for nth in people_at if made[nth][1]], targets, states, resources)
        written = [one for one, _ in made]
        if not appends:
            return await _outcome(acts, written)
        if self._told is not None:
            appends.append(await self._provenance(self._told, acts, made, targets, resources))
        sent = zip(self._interactions, targets, resources, made, strict=True)
        changed = [(one.resource_at, target.key[1], resource) for one, target, resource, (_, events) in sent if resource is not None and events]
        await validity.check(self._services, changed)
        await search_parameters.check(self._services, changed)
        try:
            appended = await self._services.log.append(appends, principal=self._asker.principal)
        except SubjectKeyDestroyed:
            raise FhirError(422, "business-rule", "the patient was erased: nothing more is taken in") from None
        except EventTooLarge as error:
            raise FhirError(413, "too-long", str(error)) from None
        try:
            await self._services.runner.wait_for(FhirProjection(), appended.last)
        except ProjectionBehind:
            return await _outcome(acts, written, appended.last, is_readable=False)
        return await _outcome(acts, written, appended.last)

    async def _standing_of(self, keys: list[Key]) -> dict[Key, tuple[State, int]]:
        if len(keys) > 1:
            return await load_records(self._services.log, keys)
        return {key: await self._services.ask(_records, key) or (unwritten(key), 0) for key in keys}

    async def _provenance(
        self,
        told: Interaction,
        acts: Acts,
        made: Sequence[tuple[Written, list[Event]]],
        targets: Sequence[_Target],
        resources: Sequence[Json | None],
    ) -> StreamAppend:
        """Of all that is written. Raises FhirError, ScopeMissing."""
        places = [nth for nth, (_, events) in enumerate(made) if events or nth in acts]
        unnumbered = [Written(status=200, resource_type=one.key[0], resource_id=one.key[1], version=0) for one in targets]
        of = [unnumbered[nth] if nth in acts else made[nth][0] for nth in places]
        assert told.resource is not None
        resource = self._links.resolved(about(told.resource, of, [resources[nth] for nth in places]))
        key = (told.resource_type, self._ids[-1])
        self._rights.check_type(told)
        await self._rights.check_made(told, {**resource, "id": key[1]}, is_new=True)
        patients = Patients(self._base, {one.resource_id: True for one in of if one.resource_type == people.TYPE})
        await patients.ask(self._services, [resource])
        await validity.check(self._services, [(told.resource_at, key[1], resource)])
        _, events = _decided(told, _Target(key=key, is_new=True), unwritten(key), resource, patients)
        return StreamAppend(stream=record_stream(*key), events=[NewEvent(event=event) for event in events], expected_version=0)

    async def _check_people(
        self, targets: Sequence[_Target], states: Mapping[Key, tuple[State, int]], resources: list[Json | None]
    ) -> list[int]:
        """The places of Patients that are written, which become what is kept of them. Raises FhirError, ScopeMissing."""
        places = [
            nth
            for nth, (one, target) in enumerate(zip(self._interactions, targets, strict=True))
            if one.resource_type == people.TYPE and not _is_answered(one, target)
        ]
        going = {target.key for one, target in zip(self._interactions, targets, strict=True) if one.method == "DELETE"}
        for nth in places:
            one, key, resource = self._interactions[nth], targets[nth].key, resources[nth]
            state = states[key][0]
            if resource is not None:
                if state.exists:
                    people.check_replacing(self._asker)
                resources[nth] = people.accepted(resource, key[1], one.resource_at)
            elif state.exists:
                self._position = self._position or await caught_up(self._services)
                await people.check_unused(self._services.pool, key[1], going, one.at or "http")
        return places

    async def _numbers(
        self,
        places: Sequence[int],
        targets: Sequence[_Target],
        states: Mapping[Key, tuple[State, int]],
        resources: Sequence[Json | None],
    ) -> list[StreamAppend]:
        systems = self._services.settings.patient_id_systems
        if not systems:
            return []
        changes = []
        for nth in places:
            state = states[targets[nth].key][0]
            assert isinstance(state, StoredPatient)
            at = self._interactions[nth].resource_at
            changes.append(Change(patient_id=targets[nth].key[1], before=state.person.written, after=resources[nth], at=at))
        return await Numbers(self._services.log, systems).appends(changes, self._asker, self._position)

    async def _target(self, one: Interaction, new_id: str, free_id: str) -> _Target:
        if one.condition is None:
            if one.resource_id is None:
                return _Target(key=(one.resource_type, new_id), is_new=True)
            return _Target(key=(one.resource_type, one.resource_id))
        expression = f"{one.at}.request" if one.at else "http"
        found = await self._matches(one.resource_type, one.condition, expression)
        if len(found) > 1:
            raise FhirError(412, "multiple-matches", f"the condition finds more than one {one.resource_type}", expression)
        if not found:
            if one.method == "PATCH":
                raise FhirError(404, "not-found", f"the condition finds no {one.resource_type}", expression)
            return _Target(key=(one.resource_type, one.resource_id or free_id or new_id), is_new=not one.resource_id)
        ((resource_id, version),) = found
        _refuse_shipped((one.resource_type, resource_id), one.resource_at)
        if one.resource_id not in (None, resource_id):
            said = f"the condition finds another {one.resource_type} than the one of this id"
            raise FhirError(400, "invalid", said, f"{one.resource_at}.id")
        return _Target(key=(one.resource_type, resource_id), found_version=version)

    async def _matches(self, resource_type: str, condition: Given, expression: str) -> list[tuple[str, int]]:
        assert self._position is not None
        return await matches(self._services, self._asker, resource_type, condition, self._position, expression)

    async def _free_id(self, one: Interaction) -> str:
        if one.condition is None or one.method not in ("POST", "PUT"):
            return ""
        nth = 0
        while True:
            key = one.resource_type, conditional_id(self._services.log.vault, one.resource_type, one.condition, nth)
            if (await load_records(self._services.log, [key]))[key][1] == 0:
                return key[1]
            nth += 1

    async def _linked(self, targets: Sequence[_Target]) -> list[Json | None]:
        """The resources, with references to others of the same Bundle, and conditional ones, as references to what is meant."""
        sent = [one.resource for one in self._interactions]
        if not any(one.at for one in self._interactions):
            return list(sent)
        links = self._links
        for one, target in zip(self._interactions, targets, strict=True):
            links.add(one.full_url, target.key)
        for one in self._interactions:
            for where, written, resource_type, condition in conditional_references(one.resource, one.resource_at):
                found = await self._matches(resource_type, condition, where)
                if len(found) != 1:
                    raise FhirError(412, "multiple-matches" if found else "not-found", "a conditional reference has to find just one", where)
                links.add_condition(written, (resource_type, found[0][0]))
        return [None if resource is None else links.resolved(resource) for resource in sent]


async def _records(services: Services, keys: list[Key]) -> dict[Key, tuple[State, int]]:
    return await load_records(services.log, keys)


_UNDECIDED = Written(status=200, resource_type="", resource_id="", version=0)
"""In the place of a review, whose resource has its version from the read model."""


async def _outcome(acts: Acts, written: Sequence[Written], position: int | None = None, *, is_readable: bool = True) -> Outcome:
    reviewed = await acts.written(is_readable=is_readable)
    said = [reviewed.get(nth, one) for nth, one in enumerate(written)]
    return Outcome(written=said, position=position, is_readable=is_readable)


def _check_allowed(one: Interaction) -> None:
    if one.resource_id is not None:
        _refuse_shipped((one.resource_type, one.resource_id), one.resource_at)


def _refuse_shipped(key: Key, at: str) -> None:
    if guide.definition(*key) is not None:
        raise FhirError(405, "not-supported", "this definition comes with the software: give yours an id and a url of its own", at)


def _is_answered(one: Interaction, target: _Target) -> bool:
    """A conditional create that finds its resource writes nothing."""
    return one.method == "POST" and target.found_version > 0


def _has_conditional_references(one: Interaction) -> bool:
    return bool(one.at) and any(True for _ in conditional_references(one.resource, one.resource_at))


def _refuse_overlap(interactions: Sequence[Interaction], targets: Sequence[_Target]) -> None:
    """R5 http.html#trules: no resource may be written twice in one transaction."""
    seen: set[Key] = set()
    for one, target in zip(interactions, targets, strict=True):
        if target.key in seen and not _is_answered(one, target):
            raise FhirError(400, "duplicate", f"{'/'.join(target.key)} is written twice in one transaction", one.at or None)
        seen.add(target.key)


def _standing(key: Key, state: State) -> Json | None:
    return {"resourceType": key[0], "id": key[1], **content_of(state, key[1])} if state.exists else None


def _patched(one: Interaction, key: Key, state: State) -> Json:
    if not state.exists:
        raise _not_there(key, state)
    assert one.patch is not None
    before = {"resourceType": key[0], "id": key[1], **content_of(state, key[1])}
    after = one.patch(before)
    if after.get("resourceType") != key[0] or after.get("id") != key[1]:
        raise FhirError(422, "business-rule", "a patch may change neither the type nor the id", f"{one.resource_at}.id")
    return incoming.checked(after, one.resource_at)


def _decided(
    one: Interaction, target: _Target, state: State, resource: Json | None, patients: Patients
) -> tuple[Written, list[Event]]:
    kind, resource_id = target.key

    def written(status: int, version: int, *, is_found: bool = False) -> Written:
        return Written(status=status, resource_type=kind, resource_id=resource_id, version=version, is_found=is_found)

    if _is_answered(one, target):
        return written(200, target.found_version, is_found=True), []
    try:
        if one.method == "DELETE":
            try:
                events = delete(state, target.key, one.if_match)
            except RecordNotFound:  # nothing to delete is as good as deleted (R5 http.html#delete)
                events = []
            _check_history(one, kind, state, events)
            return written(204, _version_after(state, events)), events
        assert resource is not None
        if one.condition is not None and not target.found_version and state.version:
            raise FhirError(409, "conflict", f"{kind}/{resource_id} is there, and the condition does not find it", f"{one.resource_at}.id")
        if state.version == 0:
            _check_new_id(one, kind, resource_id)
        command = WriteRecord(
            resource_type=kind,
            resource_id=resource_id,
            subject_id=patients.subject_of(resource, resource_id, one.resource_at),
            resource=resource,
            if_match=0 if one.must_be_new else one.if_match,
        )
        events = write(state, command)
    except DomainError as error:
        status, code = _REFUSALS[type(error)]
        raise FhirError(status, code, str(error), one.at or None) from None
    _check_history(one, kind, state, events)
    return written(200 if state.exists else 201, _version_after(state, events)), events


def _check_history(one: Interaction, kind: str, state: State, events: Sequence[Event]) -> None:
    """An AuditEvent tells what was, and no more than a client's word may another one's be changed (R5 auditevent.html)."""
    if kind == "AuditEvent" and state.version and events:
        raise FhirError(405, "not-supported", "an AuditEvent is created once, and nobody changes or deletes it", one.resource_at)


def _check_new_id(one: Interaction, kind: str, resource_id: str) -> None:
    """Ids that are derived from what they identify (UUIDv5) are those of what curation makes, or will make."""
    if one.resource_id is None or kind not in CURATED:
        return
    try:
        derived = UUID(resource_id).version == 5
    except ValueError:
        derived = False
    if derived:
        raise FhirError(422, "business-rule", f"ids of this form (UUID version 5) are this server's own for {kind}", f"{one.resource_at}.id")


def _version_after(state: State, events: Sequence[Event]) -> int:
    return next((event.record_version for event in events if hasattr(event, "record_version")), state.version)


def _not_there(key: Key, state: State) -> FhirError:
    named = "/".join(key)
    if state.version:
        return FhirError(410, "deleted", f"{named} was deleted")
    return FhirError(404, "not-found", f"there is no {named}")

