"""What a batch of events reads before it changes anything: every entity that its events name, in a few statements."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg
import msgspec

from domain.clinical_record import ClinicalRecordDeleted, ClinicalRecordWritten
from domain.event import Event
from domain.review import FindingReviewed
from domain.series import InstancesStored, SeriesIndexed
from domain.subject import SubjectDemographicsChanged, SubjectRegistered
from domain.tag import TagLevel, TagRemoved, TagSet
from projections.cohort.elements import Elements
from projections.cohort.rows import Row, Table
from projections.cohort.tables import (
    FACT_COLUMNS,
    FINDING_COLUMNS,
    INSTANCE_COLUMNS,
    SERIES_COLUMNS,
    STUDY_COLUMNS,
    SUBJECT_COLUMNS,
    TAG_COLUMNS,
)
from projections.cohort.terms import Dictionary


class Slices(msgspec.Struct, kw_only=True):
    """The instances of a series: what names their content, and where they lie."""

    sha256: dict[str, str] = msgspec.field(default_factory=dict)
    places: list[float | None] = msgspec.field(default_factory=list)


class Batch:
    """Keys: subjects by subject_id, studies and series by UID, instances by (series id, UID), findings by (series id, key), facts by
    (type, id of the record, number), tags by (level, target, project, name)."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.subjects = Table("subject", SUBJECT_COLUMNS)
        self.studies = Table("study", STUDY_COLUMNS)
        self.series = Table("series", SERIES_COLUMNS)
        self.instances = Table("instance", INSTANCE_COLUMNS)
        self.findings = Table("finding", FINDING_COLUMNS)
        self.facts = Table("fact", FACT_COLUMNS)
        self.tags = Table("tag", TAG_COLUMNS)
        self.dictionary = Dictionary()
        self.elements_of_study: dict[str, Elements] = {}
        self.elements_of_series: dict[str, Elements] = {}
        self.slices: dict[str, Slices] = {}
        self.erased_subjects: set[str] = set()
        self.facts_of: dict[tuple[str, str], list[int]] = {}
        """Record → the numbers of its standing facts."""
        self.findings_of: dict[int, set[str]] = {}
        """Series → the keys of its standing findings."""
        self.studies_of: dict[int, set[str]] = {}
        """Subject → UIDs of its studies, as far as they are known here: of those whose person changes, all."""
        self.born: dict[int, datetime.date | None] = {}
        """Subject → birth date, of those that have studies here."""

    @classmethod
    async def load(cls, events: Sequence[Event], connection: asyncpg.Connection) -> Batch:
        batch = cls(connection)
        await batch._load_subjects(events)
        await batch._load_studies(events)
        await batch._load_series(events)
        await batch._load_findings(events)
        await batch._load_facts(events)
        await batch._load_tags(events)
        return batch

    async def write(self) -> None:
        for table in (self.subjects, self.studies, self.series, self.instances, self.findings, self.facts, self.tags):
            await table.write(self._connection)
        await self.dictionary.write(self._connection)

    async def _load_subjects(self, events: Iterable[Event]) -> None:
        ids = sorted({subject_id for event in events if (subject_id := getattr(event, "subject_id", ""))})
        for row in await self._fetch("subject_id", self.subjects, ids):
            self.subjects.take(row["subject_id"], row)
        records = sorted({e.subject_id for e in events if isinstance(e, ClinicalRecordWritten | ClinicalRecordDeleted)})
        if records:
            gone = await self._connection.fetch("SELECT subject_id FROM subject_erased WHERE subject_id = ANY($1)", records)
            self.erased_subjects = {row["subject_id"] for row in gone}

    async def _load_studies(self, events: Iterable[Event]) -> None:
        uids = sorted({e.study_uid for e in events if isinstance(e, InstancesStored | TagSet | TagRemoved) and e.study_uid})
        for row in await self._fetch("study_uid", self.studies, uids):
            self._take_study(row)
        changed = {e.subject_id for e in events if isinstance(e, SubjectRegistered | SubjectDemographicsChanged)}
        changed |= {e.subject_id for e in events if isinstance(e, ClinicalRecordWritten | ClinicalRecordDeleted) and e.resource_type == "Patient"}
        ids = sorted(self.subjects.standing[one].id for one in changed if one in self.subjects.standing)
        for row in await self._fetch("subject", self.studies, ids, "bigint"):
            self._take_study(row)
        self.born = {row.id: row.values["born"] for row in self.subjects.standing.values()}
        others = sorted({row.values["subject"] for row in self.studies.standing.values()} - set(self.born))
        if others:  # of a study whose images are of several subjects
            rows = await self._connection.fetch("SELECT id, born FROM subject WHERE id = ANY($1) AND position_to IS NULL", others)
            self.born |= {row["id"]: row["born"] for row in rows}

    def _take_study(self, row: Any) -> None:
        if row["study_uid"] not in self.studies.standing:
            self.studies.take(row["study_uid"], row)
            self.elements_of_study[row["study_uid"]] = Elements(self.studies.standing[row["study_uid"]].values["elements"])
        self.studies_of.setdefault(row["subject"], set()).add(row["study_uid"])

    async def _load_series(self, events: Iterable[Event]) -> None:
        uids = sorted({uid for event in events if (uid := getattr(event, "series_uid", ""))})
        for row in await self._fetch("series_uid", self.series, uids):
            self.series.take(row["series_uid"], row)
            self.elements_of_series[row["series_uid"]] = Elements(self.series.standing[row["series_uid"]].values["elements"])
        growing = {e.series_uid for e in events if isinstance(e, InstancesStored)}
        uid_of = {row.id: uid for uid, row in self.series.standing.items() if uid in growing}
        if uid_of:
            for row in await self._connection.fetch(
                "SELECT i.* FROM unnest($1::bigint[]) AS k (series) CROSS JOIN LATERAL"
                " (SELECT series, sop_instance_uid, sha256, slice_mm FROM instance WHERE series = k.series OFFSET 0) i",
                sorted(uid_of),
            ):
                slices = self.slices.setdefault(uid_of[row["series"]], Slices())
                slices.sha256[row["sop_instance_uid"]] = row["sha256"]
                slices.places.append(row["slice_mm"])

    async def _load_findings(self, events: Iterable[Event]) -> None:
        uids = {e.series_uid for e in events if isinstance(e, SeriesIndexed | FindingReviewed)}
        ids = sorted(self.series.standing[uid].id for uid in uids if uid in self.series.standing)
        for row in await self._fetch("series", self.findings, ids, "bigint"):
            self.findings.take((row["series"], row["finding_key"]), row)
            self.findings_of.setdefault(row["series"], set()).add(row["finding_key"])

    async def _load_facts(self, events: Iterable[Event]) -> None:
        records = sorted({(e.resource_type, e.resource_id) for e in events if isinstance(e, ClinicalRecordWritten | ClinicalRecordDeleted)})
        if not records:
            return
        rows = await self._connection.fetch(
            "SELECT f.* FROM unnest($1::text[], $2::text[]) AS r (type, id) CROSS JOIN LATERAL"
            " (SELECT * FROM fact WHERE resource_type = r.type AND resource_id = r.id AND position_to IS NULL OFFSET 0) f",
            [one[0] for one in records],
            [one[1] for one in records],
        )
        for row in rows:
            self.facts.take((row["resource_type"], row["resource_id"], row["id"]), row)
            self.facts_of.setdefault((row["resource_type"], row["resource_id"]), []).append(row["id"])

    async def _load_tags(self, events: Iterable[Event]) -> None:
        tags = [e for e in events if isinstance(e, TagSet | TagRemoved)]
        on_instances = [e for e in tags if e.level == TagLevel.INSTANCE and e.series_uid in self.series.standing]
        if on_instances:
            rows = await self._connection.fetch(
                "SELECT i.* FROM unnest($1::bigint[], $2::text[]) AS t (series, uid)"
                " CROSS JOIN LATERAL (SELECT * FROM instance WHERE series = t.series AND sop_instance_uid = t.uid OFFSET 0) i",
                [self.series.standing[e.series_uid].id for e in on_instances],
                [e.sop_instance_uid for e in on_instances],
            )
            for row in rows:
                self.instances.take((row["series"], row["sop_instance_uid"]), row)
        keys = sorted({(e.level, target, e.project_id, e.name) for e in tags if (target := self.target(e)) is not None})
        if keys:
            rows = await self._connection.fetch(
                "SELECT g.* FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[]) AS n (level, target, project, name)"
                " CROSS JOIN LATERAL (SELECT * FROM tag t WHERE t.level = n.level AND t.target = n.target AND t.project = n.project"
                " AND t.name = n.name AND t.position_to IS NULL OFFSET 0) g",
                *([one[n] for one in keys] for n in range(4)),
            )
            for row in rows:
                self.tags.take((row["level"], row["target"], row["project"], row["name"]), row)

    def target(self, event: TagSet | TagRemoved) -> int | None:
        """The id of what a tag is on; 0 for a project. None where there is no such thing (any more)."""
        row: Row | None
        match event.level:
            case TagLevel.PROJECT:
                return 0
            case TagLevel.SUBJECT:
                row = self.subjects.standing.get(event.subject_id)
            case TagLevel.STUDY:
                row = self.studies.standing.get(event.study_uid)
            case TagLevel.SERIES:
                row = self.series.standing.get(event.series_uid)
            case TagLevel.INSTANCE:
                series = self.series.standing.get(event.series_uid)
                row = self.instances.standing.get((series.id, event.sop_instance_uid)) if series is not None else None
        return row.id if row is not None else None

    async def _fetch(self, by: str, table: Table, keys: Sequence[Any], kind: str = "text") -> list[Any]:
        """The standing rows of these keys. By LATERAL: looked up by index, whatever size the table had when the statement was planned."""
        if not keys:
            return []
        found: list[Any] = await self._connection.fetch(
            f"SELECT t.* FROM unnest($1::{kind}[]) AS k (key)"
            f" CROSS JOIN LATERAL (SELECT * FROM {table.name} WHERE {by} = k.key AND position_to IS NULL OFFSET 0) t",
            keys,
        )
        return found
