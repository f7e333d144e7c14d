"""Datasets in GraphQL: terms, versions, members, splits and drift."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import strawberry

from domain.dataset import Purpose
from projections.curation import reading
from projections.curation.reading import DatasetRow, SplitRow, VersionRow
from server.cohorts.access import acting
from server.cohorts.members import Member, members_page
from server.graphql.connections import PageInfo
from server.graphql.context import Context
from server.graphql.curation.asking import Info, by_owner, curating, seen, told, within
from server.graphql.curation.drift import DatasetDrift, drift_of
from server.graphql.levels import Level
from server.graphql.pages import MOST
from server.graphql.scalars import Long

strawberry.enum(Purpose, name="Purpose", description="What a dataset may be meant for, and is asked for.")


@strawberry.type(description="An instance of a member, as it was frozen.")
class DatasetInstance:
    sop_instance_uid: str = strawberry.field(description="SOP Instance UID (0008,0018).")
    sha256: str = strawberry.field(description="SHA-256 of the stored file.")
    bytes: Long = strawberry.field(description="Of the stored file.")


@strawberry.type(description="A series of a version. Whose subject was erased since is not a member any more.")
class DatasetMember:
    member: strawberry.Private[Member]
    subject_id: str = strawberry.field(description="Whose it is, by pseudonym.")
    study_uid: str = strawberry.field(description="Study Instance UID.")
    series_uid: str = strawberry.field(description="Series Instance UID.")
    series_digest: str = strawberry.field(description="SHA-256 that names exactly its instances and their content.")
    modality: str = strawberry.field(description="Modality (0008,0060).")
    split: str | None = strawberry.field(description="The part that its subject is in; null in none.")
    instance_count: int = strawberry.field(description="Instances.")
    bytes: Long = strawberry.field(description="Of its files.")

    @strawberry.field(description="Its instances, by their UIDs.")
    def instances(self) -> list[DatasetInstance]:
        return [DatasetInstance(sop_instance_uid=i.sop_instance_uid, sha256=i.sha256, bytes=Long(i.size)) for i in self.member.instances]

    @classmethod
    def of(cls, one: Member) -> DatasetMember:
        return cls(
            member=one,
            subject_id=one.subject_id,
            study_uid=one.study_uid,
            series_uid=one.series_uid,
            series_digest=one.series_digest,
            modality=one.modality,
            split=one.split,
            instance_count=len(one.instances),
            bytes=Long(one.bytes),
        )


@strawberry.type(description="A page of members, in the order of their Series Instance UIDs; the cursor of each is that UID.")
class DatasetMemberConnection:
    nodes: list[DatasetMember] = strawberry.field(description="The page.")
    page_info: PageInfo = strawberry.field(description="Where it ends.")


@strawberry.type(description="A part of a split.")
class DatasetPart:
    name: str = strawberry.field(description="train, validation, test, …")
    share: float = strawberry.field(description="Its share, of 1.")
    subjects: int = strawberry.field(description="Subjects of the version that are in it.")


@strawberry.type(description="Who of a version is in which part. Nobody changes parts from one version to the next, and nobody is in two.")
class DatasetSplit:
    position: Long = strawberry.field(description="Of the event.")
    split_at: datetime.datetime = strawberry.field(description="When.")
    split_by: str = strawberry.field(description="By whom.")
    seed: str = strawberry.field(description="What the lot was drawn with.")
    by_hand: bool = strawberry.field(description="Somebody said who is where, and no seed did.")
    stratified_by: list[str] = strawberry.field(description="Fields in which the parts are alike.")
    parts: list[DatasetPart] = strawberry.field(description="In the order in which they were given.")
    kept: int = strawberry.field(description="Subjects that stayed where an earlier version put them.")
    left_out: int = strawberry.field(description="Subjects that are in no part.")
    assignment_sha256: str = strawberry.field(description="Digest of the list of who is where.")

    @classmethod
    def of(cls, row: SplitRow) -> DatasetSplit:
        return cls(
            position=Long(row.position),
            split_at=row.split_at,
            split_by=row.split_by,
            seed=row.seed,
            by_hand=row.by_hand,
            stratified_by=list(row.stratified_by),
            parts=[DatasetPart(name=one.name, share=one.share, subjects=one.subjects_count) for one in row.parts],
            kept=row.kept_count,
            left_out=row.left_out_count,
            assignment_sha256=row.assignment_sha256,
        )


@strawberry.type(description="A cohort frozen at a position: what it holds never changes, but for those who are erased.")
class DatasetVersion:
    context: strawberry.Private[Context]
    dataset_id: strawberry.Private[str]
    version: int = strawberry.field(description="From 1.")
    position: Long = strawberry.field(description="Of the event.")
    frozen_at: datetime.datetime = strawberry.field(description="When.")
    frozen_by: str = strawberry.field(description="By whom.")
    at_position: Long = strawberry.field(description="What it is as of.")
    level: Level = strawberry.field(description="Of the question; members are series.")
    query: str = strawberry.field(description="The question as canonical JSON.")
    cohort_id: str = strawberry.field(description="The saved cohort that was frozen; empty where none was.")
    cohort_version: int = strawberry.field(description="Of that cohort; 0 where none was.")
    members_sha256: str = strawberry.field(description="SHA-256 of the list of members (JSON Lines).")
    subjects: Long = strawberry.field(description="Persons, as it was frozen.")
    studies: Long = strawberry.field(description="Studies, as it was frozen.")
    series: Long = strawberry.field(description="Series, as it was frozen.")
    instances: Long = strawberry.field(description="Instances, as it was frozen.")
    bytes: Long = strawberry.field(description="Of those instances' files.")
    split: DatasetSplit | None = strawberry.field(description="How it is split; null where it is not.")

    @strawberry.field(description="What it holds and may still be exported, in pages.")
    async def members(self, info: Info, first: int = 20, after: str | None = None) -> DatasetMemberConnection:
        size = within(first, MOST)
        async with told():
            found, more = await members_page(curating(info.context), self.dataset_id, self.version, after, size)
        page = [DatasetMember.of(one) for one in found]
        seen(info.context, (one.subject_id for one in page))
        ends = [page[end].series_uid if page else None for end in (0, -1)]
        info_ = PageInfo(has_next_page=more, has_previous_page=after is not None, start_cursor=ends[0], end_cursor=ends[1])
        return DatasetMemberConnection(nodes=page, page_info=info_)

    @classmethod
    def of(cls, row: VersionRow, split: SplitRow | None, context: Context) -> DatasetVersion:
        return cls(
            context=context,
            dataset_id=row.dataset_id,
            version=row.version,
            position=Long(row.position),
            frozen_at=row.frozen_at,
            frozen_by=row.frozen_by,
            at_position=Long(row.at_position),
            level=row.level,
            query=row.query,
            cohort_id=row.cohort_id,
            cohort_version=row.cohort_version,
            members_sha256=row.members_sha256,
            subjects=Long(row.subjects_count),
            studies=Long(row.studies_count),
            series=Long(row.series_count),
            instances=Long(row.instances_count),
            bytes=Long(row.bytes),
            split=None if split is None else DatasetSplit.of(split),
        )


@strawberry.type(description="Cohorts frozen in versions, with the terms on which they may leave.")
class Dataset:
    dataset_id: str = strawberry.field(description="A UUID.")
    project_id: str = strawberry.field(description="The project that it is in, whose members see it.")
    title: str = strawberry.field(description="In words.")
    description: str = strawberry.field(description="In words.")
    license: str = strawberry.field(description="An SPDX license expression; empty where none is set.")
    license_text: str = strawberry.field(description="A license in words.")
    intended_uses: list[Purpose] = strawberry.field(description="What it may be exported for.")
    use_note: str = strawberry.field(description="What it is meant for, in words.")
    consent: str = strawberry.field(description="What each subject has to meet whenever it is exported, as the canonical JSON of a question; empty: nothing.")

    versions: list[DatasetVersion] = strawberry.field(description="Its versions, the first one first.")

    @strawberry.field(description="A version by its number; without one the latest; null where there is none.")
    def version(self, version: int | None = None) -> DatasetVersion | None:
        found = [one for one in self.versions if version is None or one.version == version]
        return found[-1] if found else None

    @strawberry.field(description="What entered, left or changed from one version to another, and how fields shifted. Each list names the `first` ones.")
    async def drift(self, info: Info, before: int, after: int, fields: list[str] | None = None, first: int = 20) -> DatasetDrift:
        return await drift_of(info.context, self.dataset_id, before, after, fields, first)

    @classmethod
    def of(cls, row: DatasetRow, versions: list[DatasetVersion]) -> Dataset:
        return cls(
            dataset_id=row.dataset_id,
            project_id=row.project_id,
            title=row.title,
            description=row.description,
            license=row.license,
            license_text=row.license_text,
            intended_uses=list(row.intended_uses),
            use_note=row.use_note,
            consent=row.consent,
            versions=versions,
        )


async def datasets(context: Context) -> list[Dataset]:
    """Those of the principal's projects."""
    pool = context.services.pool
    roles = await reading.roles_of(pool, acting(context.principal))
    rows = await reading.datasets(pool, list(roles))
    versions = await _versions(context, [row.dataset_id for row in rows])
    return [Dataset.of(row, versions[row.dataset_id]) for row in rows]


async def dataset(context: Context, dataset_id: str) -> Dataset | None:
    """None where there is none that the principal may see."""
    pool = context.services.pool
    row = await reading.dataset(pool, dataset_id)
    if row is None or row.project_id not in await reading.roles_of(pool, acting(context.principal)):
        return None
    return Dataset.of(row, (await _versions(context, [dataset_id]))[dataset_id])


async def _versions(context: Context, dataset_ids: Sequence[str]) -> dict[str, list[DatasetVersion]]:
    """Of all of them at once."""
    pool = context.services.pool
    splits = {(row.dataset_id, row.version): row for row in await reading.splits(pool, dataset_ids)}
    made = [DatasetVersion.of(row, splits.get((row.dataset_id, row.version)), context) for row in await reading.versions(pool, dataset_ids)]
    return by_owner(made, lambda one: one.dataset_id)


async def version_of(context: Context, dataset_id: str, version: int) -> DatasetVersion | None:
    """As it is now."""
    found = [one for one in (await _versions(context, [dataset_id]))[dataset_id] if one.version == version]
    return found[0] if found else None
