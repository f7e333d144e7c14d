"""What is kept of cohorts: saved questions with what changed in them, and datasets with their versions. Values, and what asks for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from anamnesis.client.asking import Steps
from anamnesis.client.conditions import Condition, field
from anamnesis.client.errors import BytesDiffer, NotFound
from anamnesis.client.graphql import as_of_input, ask, condition_input
from anamnesis.client.question import Question
from anamnesis.client.retrieval import SeriesPath, retrieve
from anamnesis.client.shapes import Word, as_name, read, selection

AsOf = int | str | None
MEMBERS = 50
"""Members in one request; their instances come with them."""


@dataclass(frozen=True, kw_only=True)
class ProjectRecord:
    """``role``: what you may do in it (viewer, curator, owner)."""

    project_id: str
    title: str
    role: Word


@dataclass(frozen=True, kw_only=True)
class SavedCohortRecord:
    """``saved_at``: position at which this version was saved; ``query``: the question as canonical JSON; ``shared_in``: projects."""

    cohort_id: str
    title: str
    description: str
    owner: str
    mine: bool
    version: int
    saved_at: int
    level: Word
    query: str
    shared_in: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class ChangeReason:
    """An event that is about a thing; ``recorded_at`` in ISO 8601."""

    position: int
    type: str
    recorded_at: str
    principal_id: str


@dataclass(frozen=True, kw_only=True)
class ChangedThing:
    """What entered a cohort or left it; ids of levels below its own are empty."""

    subject_id: str
    study_uid: str
    series_uid: str
    finding_key: str
    reasons: Sequence[ChangeReason]


@dataclass(frozen=True, kw_only=True)
class CohortChanges:
    """Between two positions; ``entered`` and ``left`` are the first of them."""

    since: int
    until: int
    level: Word
    before_count: int
    after_count: int
    entered_count: int
    left_count: int
    entered: Sequence[ChangedThing]
    left: Sequence[ChangedThing]


@dataclass(frozen=True, kw_only=True)
class Part:
    """``share`` of 1; ``subjects``: persons in it."""

    name: str
    share: float
    subjects: int


@dataclass(frozen=True, kw_only=True)
class SplitRecord:
    """``kept``: subjects that stayed where an earlier version put them; ``left_out``: those in no part."""

    seed: str
    by_hand: bool
    stratified_by: Sequence[str]
    parts: Sequence[Part]
    kept: int
    left_out: int
    assignment_sha256: str


@dataclass(frozen=True, kw_only=True)
class VersionRecord:
    """``at_position``: what it is as of; counts and ``bytes`` as it was frozen; ``members_sha256``: of the list of its members."""

    version: int
    at_position: int
    frozen_at: str
    frozen_by: str
    level: Word
    query: str
    cohort_id: str
    members_sha256: str
    subjects: int
    studies: int
    series: int
    instances: int
    bytes: int
    split: SplitRecord | None


@dataclass(frozen=True, kw_only=True)
class DatasetRecord:
    """``license``: an SPDX expression; ``consent``: what each subject has to meet whenever it leaves, as canonical JSON; or empty."""

    dataset_id: str
    project_id: str
    title: str
    description: str
    license: str
    license_text: str
    intended_uses: Sequence[Word]
    use_note: str
    consent: str


@dataclass(frozen=True, kw_only=True)
class InstanceRecord:
    sop_instance_uid: str
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class MemberRecord:
    """A series of a version; ``split``: the part that its subject is in."""

    subject_id: str
    study_uid: str
    series_uid: str
    series_digest: str
    modality: str
    split: str | None
    instance_count: int
    bytes: int
    instances: Sequence[InstanceRecord]


T = TypeVar("T", SavedCohortRecord, DatasetRecord)


def question_input(of: Question) -> dict[str, Any]:
    """What is kept of a question: its level and condition, what is ticked among it; never its position."""
    whole = of
    for name, values in of.ticked.items():
        whole = whole.narrowed(field(name).one_of(values))
    return {"level": as_name(of.level), "where": condition_input(whole.where.to_json()) if whole.where is not None else None}


def question_of(query: str, as_of: AsOf) -> Question:
    """The question that was kept."""
    kept = json.loads(query)
    return Question(level=kept["level"], where=Condition(kept["where"]) if kept.get("where") else None, as_of=as_of)


def projects() -> Steps[list[ProjectRecord]]:
    data = yield from ask(f"query Projects {{ projects {{ {selection(ProjectRecord)} }} }}", {})
    return [read(ProjectRecord, one) for one in data["projects"]]


def create_project(project_id: str, title: str) -> Steps[ProjectRecord]:
    document = (
        "mutation Project($projectId: String!, $title: String!) "
        f"{{ createProject(projectId: $projectId, title: $title) {{ project {{ {selection(ProjectRecord)} }} }} }}"
    )
    data = yield from ask(document, {"projectId": project_id, "title": title}, is_safe=False)
    return read(ProjectRecord, data["createProject"]["project"])


def saved_cohorts() -> Steps[list[SavedCohortRecord]]:
    data = yield from ask(f"query Cohorts {{ cohorts {{ {selection(SavedCohortRecord)} }} }}", {})
    return [read(SavedCohortRecord, one) for one in data["cohorts"]]


def saved_cohort(cohort: str) -> Steps[SavedCohortRecord]:
    """By its id, or by its title where one has it."""
    return _the_one((yield from saved_cohorts()), cohort, "saved cohort")


def save_cohort(of: Question, title: str | None, description: str | None, cohort_id: str | None) -> Steps[SavedCohortRecord]:
    document = (
        "mutation Save($of: QuestionInput!, $title: String, $description: String, $cohortId: String) "
        f"{{ saveCohort(of: $of, title: $title, description: $description, cohortId: $cohortId) {{ cohort {{ {selection(SavedCohortRecord)} }} }} }}"
    )
    variables = {"of": question_input(of), "title": title, "description": description, "cohortId": cohort_id}
    data = yield from ask(document, variables, is_safe=False)
    return read(SavedCohortRecord, data["saveCohort"]["cohort"])


def share_cohort(cohort_id: str, project_id: str) -> Steps[SavedCohortRecord]:
    document = (
        "mutation Share($cohortId: String!, $projectId: String!) "
        f"{{ shareCohort(cohortId: $cohortId, projectId: $projectId) {{ cohort {{ {selection(SavedCohortRecord)} }} }} }}"
    )
    data = yield from ask(document, {"cohortId": cohort_id, "projectId": project_id}, is_safe=False)
    return read(SavedCohortRecord, data["shareCohort"]["cohort"])


def changes(of: Question, since: AsOf, until: AsOf, first: int) -> Steps[CohortChanges]:
    document = (
        "query Changes($of: QuestionInput!, $since: AsOfInput!, $until: AsOfInput, $first: Int!) "
        f"{{ cohortChanges(of: $of, since: $since, until: $until, first: $first) {{ {selection(CohortChanges)} }} }}"
    )
    variables = {"of": question_input(of), "since": as_of_input(since), "until": as_of_input(until if until is not None else of.as_of), "first": first}
    data = yield from ask(document, variables)
    return read(CohortChanges, data["cohortChanges"])


def datasets() -> Steps[list[DatasetRecord]]:
    data = yield from ask(f"query Datasets {{ datasets {{ {selection(DatasetRecord)} }} }}", {})
    return [read(DatasetRecord, one) for one in data["datasets"]]


def dataset(wanted: str) -> Steps[DatasetRecord]:
    """By its id, or by its title where one has it."""
    return _the_one((yield from datasets()), wanted, "dataset")


def create_dataset(project_id: str, title: str, description: str, terms: Mapping[str, Any] | None) -> Steps[DatasetRecord]:
    document = (
        "mutation Create($projectId: String!, $title: String!, $description: String!, $terms: TermsInput) "
        f"{{ createDataset(projectId: $projectId, title: $title, description: $description, terms: $terms) {{ dataset {{ {selection(DatasetRecord)} }} }} }}"
    )
    variables = {"projectId": project_id, "title": title, "description": description, "terms": terms}
    data = yield from ask(document, variables, is_safe=False)
    return read(DatasetRecord, data["createDataset"]["dataset"])


def terms_input(license: str, intended_uses: Sequence[str], *, license_text: str, use_note: str, consents: bool) -> dict[str, Any]:
    uses = [as_name(use) for use in intended_uses]
    return {"license": license, "intendedUses": uses, "licenseText": license_text, "useNote": use_note, "consents": consents}


def freeze(dataset_id: str, of: Question) -> Steps[VersionRecord]:
    document = (
        "mutation Freeze($datasetId: String!, $of: QuestionInput, $asOf: AsOfInput) "
        f"{{ freezeDataset(datasetId: $datasetId, of: $of, asOf: $asOf) {{ version {{ {selection(VersionRecord)} }} }} }}"
    )
    data = yield from ask(document, {"datasetId": dataset_id, "of": question_input(of), "asOf": as_of_input(of.as_of)}, is_safe=False)
    return read(VersionRecord, data["freezeDataset"]["version"])


def versions(dataset_id: str) -> Steps[list[VersionRecord]]:
    document = f"query Versions($datasetId: String!) {{ dataset(datasetId: $datasetId) {{ versions {{ {selection(VersionRecord)} }} }} }}"
    data = yield from ask(document, {"datasetId": dataset_id})
    if data["dataset"] is None:
        raise NotFound("there is no such dataset among those of your projects")
    return [read(VersionRecord, one) for one in data["dataset"]["versions"]]


def version_of(there: Sequence[VersionRecord], number: int | None) -> VersionRecord:
    found = next((one for one in reversed(there) if number in (None, one.version)), None)
    if found is None:
        raise NotFound("nothing was frozen yet" if not there else f"there is no version {number}: there are {len(there)}")
    return found


def split(dataset_id: str, version: int, parts: Mapping[str, float], seed: str, stratify_by: Sequence[str]) -> Steps[VersionRecord]:
    document = (
        "mutation Split($datasetId: String!, $version: Int, $parts: [PartInput!], $seed: String!, $stratifyBy: [String!]) "
        "{ splitDataset(datasetId: $datasetId, version: $version, parts: $parts, seed: $seed, stratifyBy: $stratifyBy) "
        f"{{ version {{ {selection(VersionRecord)} }} }} }}"
    )
    shares = [{"name": name, "share": share} for name, share in parts.items()]
    variables = {"datasetId": dataset_id, "version": version, "parts": shares, "seed": seed, "stratifyBy": list(stratify_by) or None}
    data = yield from ask(document, variables, is_safe=False)
    return read(VersionRecord, data["splitDataset"]["version"])


def members(dataset_id: str, version: int) -> Steps[list[MemberRecord]]:
    """All that a version holds and may still leave, by Series Instance UID."""
    document = (
        "query Members($datasetId: String!, $version: Int!, $first: Int!, $after: String) "
        "{ dataset(datasetId: $datasetId) { version(version: $version) { members(first: $first, after: $after) "
        f"{{ pageInfo {{ hasNextPage endCursor }} nodes {{ {selection(MemberRecord)} }} }} }} }} }}"
    )
    found: list[MemberRecord] = []
    after: str | None = None
    while True:
        data = yield from ask(document, {"datasetId": dataset_id, "version": version, "first": MEMBERS, "after": after})
        page = data["dataset"]["version"]["members"]
        found += [read(MemberRecord, one) for one in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


def fetch(dataset_id: str, version: VersionRecord, folder: Path, told: Callable[[int, int], None] | None) -> Steps[Path]:
    """The files of a version, each compared with the digest that was frozen, and ``manifest.jsonl``; what is there already is kept."""
    there = yield from members(dataset_id, version.version)
    lines = []
    for number, member in enumerate(there):
        if told is not None:
            told(number, len(there))
        within = Path(*([member.split] if member.split else []), member.subject_id, member.study_uid, member.series_uid)
        files = yield from retrieve(SeriesPath(member.study_uid, member.series_uid), folder / within, version.at_position)
        frozen = {one.sop_instance_uid: one for one in member.instances}
        for file in files:
            _compare(file, frozen)
        if len(files) != len(frozen):
            raise BytesDiffer(f"series {member.series_uid} has {len(files)} instances now, and {len(frozen)} were frozen")
        facts = {name: value for name, value in asdict(member).items() if name != "instances"}
        lines += [json.dumps({"file": f"{within}/{file.name}", "sha256": frozen[file.stem].sha256, **facts}, sort_keys=True) for file in files]
    if told is not None:
        told(len(there), len(there))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.jsonl").write_text("".join(f"{line}\n" for line in sorted(lines)), encoding="utf-8")
    return folder


def _compare(file: Path, frozen: Mapping[str, InstanceRecord]) -> None:
    """Raises BytesDiffer: somebody changed the file here, or it is another one than was frozen."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if file.stem not in frozen or frozen[file.stem].sha256 != digest:
        raise BytesDiffer(f"{file.name} is not the file that was frozen: remove it, and fetch again")


def _the_one(there: Sequence[T], wanted: str, what: str) -> T:
    named = [one for one in there if wanted in (_id(one), one.title)]
    if len(named) > 1:
        raise NotFound(f"{len(named)} have this title: name the {what} by its id, one of {', '.join(_id(one) for one in named)}")
    if not named:
        raise NotFound(f"there is no such {what} among yours and those of your projects")
    return named[0]


def _id(one: SavedCohortRecord | DatasetRecord) -> str:
    return one.cohort_id if isinstance(one, SavedCohortRecord) else one.dataset_id
