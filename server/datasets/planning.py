"""Makes the plan of an export from the log: the members of a version, and what was said of them up to its position.

Whatever happened later is not looked at, but for two things that take away: subjects that were erased, and those who withdrew consent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import UTC
from itertools import islice
from typing import TypeVar

import msgspec

from archive.masks import series_segmented
from domain import dataset
from domain.dataset import Dataset, DatasetCreated, DatasetFrozen, DatasetSplit, DatasetTermsSet, dataset_stream
from domain.ids import series_stream, subject_stream
from domain.series import InstancesStored, join_header
from eventlog.envelope import RecordedEvent
from projections.checkpoint import wait_for
from projections.cohort import person
from projections.cohort.ages import PATIENT_AGE, age_at_study, study_date
from projections.cohort.person import Person
from projections.dicom.attributes import STUDY_DATE
from projections.dicom.folding import folded_date, folded_time
from projections.dicom.projection import SCHEMA as DICOM
from projections.dicom.projection import DicomProjection
from server.cohorts.members import Curation, Member, members_of
from server.datasets.errors import ExportRefused
from server.datasets.names import Placed, paths_of, subject_labels, suffix_of
from server.datasets.plan import About, Layout, LeftOut, Plan, PlannedPerson, PlannedSeries, Scalar, Source
from server.datasets.rows import FINDING_COLUMNS, SIDECAR, Headers, cell, columns_of, findings_of, keys_of, sidecar_of

T = TypeVar("T")
BATCH = 100
"""Series, or subjects, whose events are read at once."""
OLDEST_YEARS = 89
"""Whoever is older is as old as this: there are few of them, so that a great age tells who somebody is (45 CFR 164.514)."""
MOST_NNUNET_ID = 999
_SEGMENTATIONS = f"SELECT series_uid, study_uid FROM {DICOM}.series WHERE study_uid = ANY($1) AND modality = 'SEG' ORDER BY series_uid"
_STUDY_TIME = "00080030"
_DESCRIPTIONS = ("0008103E", "00181030")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for. ``fields``: columns of the table of series, beside those that tell rows apart; none: the usual ones."""

    dataset_id: str
    version: int
    layouts: tuple[Layout, ...]
    fields: tuple[str, ...] = ()
    nnunet_id: int = 1

    def check(self) -> set[str]:
        """The fields that identify persons. Raises ExportRefused."""
        if not self.layouts:
            raise ExportRefused(f"an export has a layout, or several, of {', '.join(Layout)}")
        if not 1 <= self.nnunet_id <= MOST_NNUNET_ID:
            raise ExportRefused(f"nnU-Net numbers its datasets from 1 to {MOST_NNUNET_ID}")
        return columns_of(self.fields)[1]


class _Told(msgspec.Struct, kw_only=True):
    """A member, with what its events say."""

    member: Member
    headers: Headers
    sources: list[Source]
    findings: list[tuple[dict[str, Scalar], list[int]]]
    site: str
    positions: list[int]


class _Planning:
    """``events``: position → id and type, of every event that the plan names."""

    def __init__(self, services: Curation, wanted: Wanted) -> None:
        self.services = services
        self.wanted = wanted
        self.columns, _ = columns_of(wanted.fields)
        self.events: dict[str, tuple[str, str]] = {}

    async def plan(self, without: Set[str]) -> Plan:
        frozen, about = await self._about()
        members = [one async for one in members_of(self.services, self.wanted.dataset_id, frozen.version)]
        erased = frozen.series_count - len(members)
        kept = [one for one in members if one.subject_id not in without]
        told = [one for batch in _batches(kept) for one in await self._told(batch, frozen.at_position)]
        persons = await self._persons(kept, frozen.at_position)
        masks = await self._masks(kept, frozen.at_position)
        labels = subject_labels({one.subject_id for one in kept})
        paths = paths_of([_placed(one) for one in told], labels)
        planned = sorted((self._series(one, paths, persons, masks) for one in told), key=lambda one: one.path)
        row_of = {one.series_uid: one.row for one in planned}
        findings = [(_with_series(row_of[one.member.series_uid], row), places) for one in sorted(told, key=lambda one: paths[one.member.series_uid]) for row, places in one.findings]
        entity = f"dataset:{self.wanted.dataset_id}"
        gone = [(erased, "subject-erased"), (len(members) - len(kept), "consent-withdrawn")]
        return Plan(
            about=about,
            layouts=sorted(set(self.wanted.layouts)),
            series=planned,
            persons=_planned_persons(told, labels, persons),
            findings=[row for row, _ in findings],
            finding_positions=[places for _, places in findings],
            series_columns=self.columns,
            finding_columns=list(FINDING_COLUMNS),
            left_out=[LeftOut(entity=entity, reason=reason, detail=f"{count} series") for count, reason in gone if count],
            events=self.events,
            nnunet_id=self.wanted.nnunet_id,
        )

    async def _about(self) -> tuple[DatasetFrozen, About]:
        recorded = await self.services.log.read_stream(dataset_stream(self.wanted.dataset_id))
        state = Dataset()
        for one in recorded:
            state = dataset.evolve(state, one.event)
        frozen = dataset.version_of(state, self.wanted.dataset_id, self.wanted.version)
        split = state.splits.get(frozen.version)
        standing = [one for one in recorded if _stands(one.event, state, frozen, split)]
        frozen_event = next(one for one in standing if one.event is frozen or one.event == frozen)
        terms = state.terms
        return frozen, About(
            dataset_id=self.wanted.dataset_id,
            version=frozen.version,
            position=frozen.at_position,
            digest=frozen.members_sha256,
            title=state.title,
            description=state.description,
            license=terms.license if terms else "",
            license_text=terms.license_text if terms else "",
            intended_uses=[str(use) for use in terms.intended_uses] if terms else [],
            use_note=terms.use_note if terms else "",
            consent=terms.consent if terms else "",
            query=frozen.query,
            frozen_on=frozen_event.occurred_at.astimezone(UTC).date().isoformat(),
            parts=sorted(part.name for part in split.parts) if split else [],
            split_seed=split.seed if split else "",
            stratified_by=list(split.stratified_by) if split else [],
            site=frozen_event.origin,
            positions=self._named(standing),
        )  # fmt: skip

    def _named(self, recorded: Iterable[RecordedEvent]) -> list[int]:
        """The positions of these events, which the plan can name from now on."""
        found = []
        for one in recorded:
            self.events[str(one.position)] = (str(one.event_id), one.type)
            found.append(int(one.position))
        return sorted(found)

    async def _streams(self, streams: Sequence[str], position: int) -> dict[str, list[RecordedEvent]]:
        found: dict[str, list[RecordedEvent]] = {one: [] for one in streams}
        for recorded in await self.services.log.read_streams(streams):
            if recorded.position <= position:
                found[recorded.stream].append(recorded)
        return found

    async def _told(self, members: Sequence[Member], position: int) -> list[_Told]:
        streams = await self._streams([series_stream(one.series_uid) for one in members], position)
        keys = {*keys_of(self.columns).values(), *keys_of(SIDECAR).values(), PATIENT_AGE, STUDY_DATE}
        return [self._member(one, streams[series_stream(one.series_uid)], keys) for one in members]

    def _member(self, member: Member, recorded: Sequence[RecordedEvent], keys: Set[str]) -> _Told:
        headers, places, site = Headers(keys), {}, ""
        stored = [one for one in recorded if isinstance(one.event, InstancesStored)]
        for one in stored:
            assert isinstance(one.event, InstancesStored)
            headers.add(one.event)
            site = site or one.origin
            places.update({instance.sop_instance_uid: int(one.position) for instance in one.event.instances})
        sources = [
            Source(sop_instance_uid=i.sop_instance_uid, sha256=i.sha256, size=i.size, number=headers.numbers.get(i.sop_instance_uid), position=places[i.sop_instance_uid])
            for i in member.instances
        ]
        findings = findings_of(member.series_uid, recorded)
        self._named(one for one in recorded if int(one.position) in {p for _, some in findings for p in some})
        return _Told(member=member, headers=headers, sources=sources, findings=findings, site=site, positions=self._named(stored))

    async def _persons(self, members: Sequence[Member], position: int) -> dict[str, tuple[Person, list[int]]]:
        found = {}
        for batch in _batches(sorted({one.subject_id for one in members})):
            for stream, recorded in (await self._streams([subject_stream(one) for one in batch], position)).items():  # type: ignore[arg-type]
                known = Person()
                for one in recorded:
                    known = person.evolve(known, one.event)
                found[stream.removeprefix("subject-")] = known, self._named(recorded)
        return found

    async def _masks(self, members: Sequence[Member], position: int) -> dict[str, list[Source]]:
        """Series → segmentations that name it, of the same study and person, in the order in which they came."""
        if not {Layout.NNUNET, Layout.BIDS} & set(self.wanted.layouts):
            return {}
        await wait_for(self.services.log.pool, DicomProjection(), position)
        person_of = {one.study_uid: one.subject_id for one in members}
        wanted = {one.series_uid for one in members}
        found: dict[str, list[Source]] = {}
        for batch in _batches(sorted(person_of)):
            rows = await self.services.log.pool.fetch(_SEGMENTATIONS, batch)
            streams = await self._streams([series_stream(row["series_uid"]) for row in rows], position)
            for recorded in sorted((one for some in streams.values() for one in some), key=lambda one: one.position):
                event = recorded.event
                if not isinstance(event, InstancesStored) or event.subject_id != person_of.get(event.study_uid):
                    continue
                for at, instance in enumerate(event.instances):
                    header = join_header(event.common, event.headers[at]) if at < len(event.headers) else {}
                    source = Source(sop_instance_uid=instance.sop_instance_uid, sha256=instance.sha256, size=instance.size, position=int(recorded.position))
                    for series_uid in sorted(series_segmented(header) & wanted):
                        found.setdefault(series_uid, []).append(source)
                        self._named([recorded])
        return found

    def _series(self, told: _Told, paths: dict[str, str], persons: dict[str, tuple[Person, list[int]]], masks: dict[str, list[Source]]) -> PlannedSeries:
        member, headers = told.member, told.headers
        known, known_from = persons[member.subject_id]
        scanner = " ".join(dict.fromkeys(one for key in ("00080070", "00081090") if (one := headers.text(key).strip())))
        row: dict[str, Scalar] = {
            "subject_id": member.subject_id,
            "study_uid": member.study_uid,
            "series_uid": member.series_uid,
            "path": paths[member.series_uid],
            "part": member.split,
            "modality": member.modality,
            "site": told.site,
            "scanner": scanner or None,
            "sex": known.sex or None,
            "age_years": _age(known, headers),
            "study_date": _day(headers),
            "instance_count": len(member.instances),
            "frame_count": headers.frames,
            "bytes": member.bytes,
            "series_digest": member.series_digest,
            "slice_spacing_mm": headers.slice_spacing_mm,
            **{name: cell(headers.values(key)) for name, key in keys_of(self.columns).items()},
        }
        return PlannedSeries(
            subject_id=member.subject_id,
            study_uid=member.study_uid,
            series_uid=member.series_uid,
            modality=member.modality,
            part=member.split or "",
            path=paths[member.series_uid],
            instances=told.sources,
            masks=masks.get(member.series_uid, []),
            sidecar=sidecar_of(headers),
            row=row,
            suffix=suffix_of(headers.text(tag) for tag in _DESCRIPTIONS) if member.modality == "MR" else "",
            positions=sorted({*told.positions, *known_from}),
        )


async def make_plan(services: Curation, wanted: Wanted, without: Set[str] = frozenset()) -> Plan:
    """Raises DatasetUnknown, ListLost, ExportRefused, ProjectionBehind."""
    wanted.check()
    return await _Planning(services, wanted).plan(without)


def _planned_persons(told: Sequence[_Told], labels: Mapping[str, str], persons: Mapping[str, tuple[Person, list[int]]]) -> list[PlannedPerson]:
    ages: dict[str, list[float]] = {}
    parts: dict[str, str] = {}
    for one in told:
        subject_id = one.member.subject_id
        parts[subject_id] = one.member.split or ""
        age = _age(persons[subject_id][0], one.headers)
        if age is not None:
            ages.setdefault(subject_id, []).append(age)
    return [
        PlannedPerson(
            subject_id=subject_id,
            label=label,
            sex=persons[subject_id][0].sex,
            age_years=min(ages.get(subject_id, []), default=None),
            part=parts[subject_id],
            positions=persons[subject_id][1],
        )
        for subject_id, label in sorted(labels.items(), key=lambda one: one[1])
    ]


def _stands(event: object, state: Dataset, frozen: DatasetFrozen, split: DatasetSplit | None) -> bool:
    match event:
        case DatasetCreated():
            return True
        case DatasetTermsSet():
            return event == state.terms
        case DatasetFrozen():
            return event == frozen
        case DatasetSplit():
            return event == split
    return False


def _placed(told: _Told) -> Placed:
    member = told.member
    studied = folded_date(told.headers.text(STUDY_DATE)) + folded_time(told.headers.text(_STUDY_TIME))
    return Placed(
        subject_id=member.subject_id, study_uid=member.study_uid, series_uid=member.series_uid, modality=member.modality, studied=studied, number=told.headers.series_number
    )


def _with_series(series: dict[str, Scalar], row: dict[str, Scalar]) -> dict[str, Scalar]:
    return {**{name: series[name] for name in ("subject_id", "study_uid", "series_uid", "path", "part")}, **row}


def _day(headers: Headers) -> str | None:
    day = study_date(headers.elements)
    return day.isoformat() if day else None


def _age(known: Person, headers: Headers) -> float | None:
    found = age_at_study(known.born, headers.elements)
    return None if found is None else min(found, float(OLDEST_YEARS))


def _batches(many: Iterable[T]) -> Iterator[list[T]]:
    left = iter(many)
    while batch := list(islice(left, BATCH)):
        yield batch
