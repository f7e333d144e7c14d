"""A dataset: a cohort frozen at a position of the log, in versions, on terms, and split into parts.

What a version holds is a list (domain.members) that is too large for an event: the event has its digest, and the archive the list under
that digest. A dataset leaves on its terms alone: a license, uses that it is meant for, and what its subjects' consent has to say, which
is asked again each time. Titles, texts and queries are sealed under a key of the dataset's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

import msgspec

from domain.condition import Level
from domain.errors import (
    ConsentWithdrawn,
    DatasetIsEmpty,
    DatasetRefused,
    DatasetUnknown,
    LicenseMissing,
    NothingLeft,
    SplitRefused,
    UseNotIntended,
)
from domain.event import Event, Identifying, event
from domain.ids import StreamName, derived_id
from domain.splits import Part, exact_shares, refuse_leakage

MAX_TITLE_CHARACTERS = 200
MAX_TEXT_CHARACTERS = 20_000
_SEED = re.compile(r"[A-Za-z0-9._-]{0,64}", re.ASCII)
_LICENSE_ID = r"(?:DocumentRef-[A-Za-z0-9.-]+:)?[A-Za-z0-9.-]+\+?"
_LICENSE = re.compile(rf"\(*{_LICENSE_ID}\)*(?: (?:AND|OR|WITH) \(*{_LICENSE_ID}\)*)*", re.ASCII)
"""An SPDX license expression (SPDX 2.3, annex D), by its grammar but for the balance of parentheses."""


class Purpose(StrEnum):
    """What a dataset may be meant for, and is asked for. Beside each, the code of HL7 PurposeOfUse where there is one."""

    RESEARCH = "research"
    """HRESCH"""
    CLINICAL_TRIAL = "clinical-trial"
    """CLINTRCH"""
    PRODUCT_DEVELOPMENT = "product-development"
    EDUCATION = "education"
    """TRAIN"""
    QUALITY_IMPROVEMENT = "quality-improvement"
    """HQUALIMP"""
    PUBLIC_HEALTH = "public-health"
    """PUBHLTH"""
    TREATMENT = "treatment"
    """TREAT"""


@event
class DatasetCreated(Event, frozen=True, kw_only=True):
    """``subject_id`` names the key under which the dataset's texts are sealed: it is no person's."""

    dataset_id: str
    project_id: str
    subject_id: str
    title: Identifying[str] = ""
    description: Identifying[str] = ""

    def scope(self) -> frozenset[str]:
        return Event.scope(self) | {f"project:{self.project_id}"}


@event
class DatasetTermsSet(Event, frozen=True, kw_only=True):
    """On these terms, and no others, the dataset leaves from here on. ``license`` is an SPDX expression, ``license_text`` one in words.

    ``consent`` is a condition on subjects (domain.condition.encode of a query of them) that each has to meet whenever it leaves.
    """

    dataset_id: str
    subject_id: str
    license: str = ""
    intended_uses: tuple[Purpose, ...] = ()
    license_text: Identifying[str] = ""
    use_note: Identifying[str] = ""
    consent: Identifying[str] = ""


@event
class DatasetFrozen(Event, frozen=True, kw_only=True):
    """What the query found at a position is this version. ``members_sha256`` is the digest of the list, and its name in the archive.

    ``bytes`` are those of the instances' files, ``members_bytes`` of the list. ``cohort_id``: the saved cohort that was frozen, if any.
    """

    dataset_id: str
    subject_id: str
    version: int
    at_position: int
    level: Level
    query_sha256: str
    cohort_id: str = ""
    cohort_version: int = 0
    members_sha256: str
    members_bytes: int
    subjects_count: int
    studies_count: int
    series_count: int
    instances_count: int
    bytes: int
    query: Identifying[str] = ""


class PartCount(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a split: its share, and how many subjects of the version are in it."""

    name: str
    share: float
    subjects_count: int


@event
class DatasetSplit(Event, frozen=True, kw_only=True):
    """A version is split into parts. ``assignment_sha256`` is the digest of the list of who is in which, and its name in the archive.

    The list holds everybody who was ever in a part of the dataset. ``by_hand``: somebody said who is where, and no seed did.
    ``kept_count`` subjects stayed where an earlier version put them, ``left_out_count`` are in no part.
    """

    dataset_id: str
    version: int
    seed: str
    parts: tuple[PartCount, ...]
    stratified_by: tuple[str, ...] = ()
    by_hand: bool = False
    kept_count: int = 0
    left_out_count: int = 0
    assignment_sha256: str
    assignment_bytes: int


def dataset_stream(dataset_id: str) -> StreamName:
    return StreamName(f"dataset-{dataset_id}")


def own_subject_id(dataset_id: str) -> str:
    """Under whose key a dataset's texts are sealed: its own."""
    return str(derived_id("dataset-subject", dataset_id))


_NO_VERSIONS: Mapping[int, DatasetFrozen] = MappingProxyType({})
_NO_SPLITS: Mapping[int, DatasetSplit] = MappingProxyType({})


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """``versions`` and ``splits`` by version; ``last_split`` is the one that was made last, whose list has everybody."""

    project_id: str = ""
    title: str = ""
    description: str = ""
    terms: DatasetTermsSet | None = None
    versions: Mapping[int, DatasetFrozen] = _NO_VERSIONS
    splits: Mapping[int, DatasetSplit] = _NO_SPLITS
    last_split: DatasetSplit | None = None

    @property
    def is_there(self) -> bool:
        return bool(self.project_id)

    @property
    def latest(self) -> int:
        """The number of the latest version; 0 without one."""
        return max(self.versions, default=0)


def evolve(state: Dataset, happened: Event) -> Dataset:
    replace = msgspec.structs.replace
    match happened:
        case DatasetCreated():
            return replace(state, project_id=happened.project_id, title=happened.title, description=happened.description)
        case DatasetTermsSet():
            return replace(state, terms=happened)
        case DatasetFrozen():
            return replace(state, versions={**state.versions, happened.version: happened})
        case DatasetSplit():
            return replace(state, splits={**state.splits, happened.version: happened}, last_split=happened)
    return state


def create_dataset(state: Dataset, dataset_id: str, project_id: str, title: str, description: str = "") -> list[Event]:
    """Raises DatasetRefused."""
    if state.is_there:
        raise DatasetRefused(f"there is a dataset {dataset_id} already")
    if not title.strip() or len(title) > MAX_TITLE_CHARACTERS or len(description) > MAX_TEXT_CHARACTERS or "\0" in title + description:
        raise DatasetRefused(
            f"a dataset has a title of at most {MAX_TITLE_CHARACTERS} characters and a description of at most {MAX_TEXT_CHARACTERS}"
        )
    return [
        DatasetCreated(
            dataset_id=dataset_id,
            project_id=project_id,
            subject_id=own_subject_id(dataset_id),
            title=title.strip(),
            description=description,
        )
    ]


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """As DatasetTermsSet has them."""

    license: str = ""
    license_text: str = ""
    intended_uses: tuple[Purpose, ...] = ()
    use_note: str = ""
    consent: str = ""


def set_terms(state: Dataset, dataset_id: str, terms: Terms) -> list[Event]:
    """The same terms again are nothing new. Raises DatasetUnknown, DatasetRefused."""
    _there(state, dataset_id)
    expression = terms.license
    if expression and (not _LICENSE.fullmatch(expression) or expression.count("(") != expression.count(")")):
        raise DatasetRefused("the license is no SPDX expression (CC-BY-4.0, LicenseRef-…): words go into the license text")
    if len(terms.license) > MAX_TITLE_CHARACTERS or any(len(text) > MAX_TEXT_CHARACTERS for text in (terms.license_text, terms.use_note, terms.consent)):
        raise DatasetRefused(f"a text of a dataset's terms has at most {MAX_TEXT_CHARACTERS} characters, its license {MAX_TITLE_CHARACTERS}")
    said = DatasetTermsSet(
        dataset_id=dataset_id,
        subject_id=own_subject_id(dataset_id),
        license=terms.license,
        license_text=terms.license_text,
        intended_uses=tuple(dict.fromkeys(terms.intended_uses)),
        use_note=terms.use_note,
        consent=terms.consent,
    )
    return [] if state.terms == said else [said]


def freeze(state: Dataset, frozen: DatasetFrozen) -> list[Event]:
    """The next version. The same query that finds the same members again is nothing new: the latest version stands for it.

    Raises DatasetUnknown, DatasetIsEmpty, and DatasetRefused where it is not the next version, or of an earlier position.
    """
    _there(state, frozen.dataset_id)
    latest = state.versions.get(state.latest)
    if latest is not None and is_the_same(latest, frozen):
        return []
    if not frozen.series_count:
        raise DatasetIsEmpty("the query finds no series: there is nothing to freeze")
    if frozen.version != state.latest + 1:
        raise DatasetRefused(f"version {frozen.version} is not the next: the latest is {state.latest}")
    if latest is not None and frozen.at_position < latest.at_position:
        raise DatasetRefused(f"version {latest.version} was frozen at position {latest.at_position}: a later one is of no earlier position")
    return [frozen]


def is_the_same(latest: DatasetFrozen, frozen: DatasetFrozen) -> bool:
    return (latest.query_sha256, latest.members_sha256) == (frozen.query_sha256, frozen.members_sha256)


class SplitDataset(msgspec.Struct, frozen=True, kw_only=True):
    """``assigned``: subject → part, of the version. ``before``: of everybody who was ever in one. ``groups``: subject → who is one person.

    ``left_out``: subjects that are to be in no part. ``sha256_of`` and bytes are of the list, which the caller has written.
    """

    dataset_id: str
    version: int
    parts: Sequence[Part]
    seed: str
    stratified_by: tuple[str, ...]
    by_hand: bool
    assigned: Mapping[str, str]
    before: Mapping[str, str]
    groups: Mapping[str, str]
    left_out: frozenset[str]
    assignment_sha256: str
    assignment_bytes: int


def split(state: Dataset, command: SplitDataset) -> list[Event]:
    """Refuses what would leak. The same parts of the same subjects again are nothing new.

    Raises DatasetUnknown, SplitRefused, SubjectWouldLeak.
    """
    version_of(state, command.dataset_id, command.version)
    shares = exact_shares(command.parts)
    if not shares.keys() >= set(command.assigned.values()):
        raise SplitRefused(f"somebody is put into a part that the split does not have: it has {', '.join(shares)}")
    if not _SEED.fullmatch(command.seed):
        raise SplitRefused("a seed is of letters, digits, . _ and -, and has at most 64 characters (it stays readable for ever)")
    before = {subject: part for subject, part in command.before.items() if subject not in command.left_out}
    refuse_leakage(before, command.assigned, command.groups)
    counts = dict.fromkeys(shares, 0)
    for part in command.assigned.values():
        counts[part] += 1
    said = DatasetSplit(
        dataset_id=command.dataset_id,
        version=command.version,
        seed=command.seed,
        parts=tuple(PartCount(name=part.name, share=part.share, subjects_count=counts[part.name]) for part in command.parts),
        stratified_by=command.stratified_by,
        by_hand=command.by_hand,
        kept_count=sum(1 for subject in command.assigned if subject in before),
        left_out_count=len(command.left_out),
        assignment_sha256=command.assignment_sha256,
        assignment_bytes=command.assignment_bytes,
    )
    standing = state.splits.get(command.version)
    if standing is not None and (standing.assignment_sha256, _sizes(standing)) == (said.assignment_sha256, _sizes(said)):
        return []
    return [said]


def _sizes(split: DatasetSplit) -> tuple[tuple[str, int], ...]:
    return tuple((part.name, part.subjects_count) for part in split.parts)


class Leaving(msgspec.Struct, frozen=True, kw_only=True):
    """Who of a version's subjects would leave now: ``erased`` are gone, ``withdrawn`` do not meet what the terms ask of consent."""

    subjects: frozenset[str]
    erased: frozenset[str]
    withdrawn: frozenset[str]

    @property
    def left(self) -> frozenset[str]:
        return self.subjects - self.erased - self.withdrawn


def permit_export(state: Dataset, dataset_id: str, version: int, purpose: Purpose, leaving: Leaving, *, without_withdrawn: bool) -> None:
    """Whether a version may leave for a purpose, now. ``without_withdrawn``: leave out who does not consent any more.

    Raises DatasetUnknown, LicenseMissing, UseNotIntended, ConsentWithdrawn, NothingLeft.
    """
    version_of(state, dataset_id, version)
    terms = state.terms
    if terms is None or not (terms.license or terms.license_text):
        raise LicenseMissing(f"dataset {dataset_id} has no license: `anamnesis dataset terms` sets one")
    if purpose not in terms.intended_uses:
        meant = ", ".join(terms.intended_uses) or "nothing yet"
        raise UseNotIntended(f"dataset {dataset_id} is meant for {meant}, and not for {purpose}")
    if leaving.withdrawn and not without_withdrawn:
        raise ConsentWithdrawn(
            f"{len(leaving.withdrawn)} of {len(leaving.subjects)} subjects of version {version} do not meet what the dataset asks of their"
            " consent: freeze a new version, or leave them out"
        )
    if not leaving.left:
        raise NothingLeft(
            f"nothing is left of version {version}: {len(leaving.erased)} of its {len(leaving.subjects)} subjects are erased,"
            f" {len(leaving.withdrawn)} do not consent any more"
        )


def version_of(state: Dataset, dataset_id: str, version: int | None) -> DatasetFrozen:
    """A version; without a number the latest. Raises DatasetUnknown."""
    _there(state, dataset_id)
    found = state.versions.get(state.latest if version is None else version)
    if found is None:
        raise DatasetUnknown(f"dataset {dataset_id} has no version {version}" if version else f"dataset {dataset_id} is not frozen yet")
    return found


def _there(state: Dataset, dataset_id: str) -> None:
    if not state.is_there:
        raise DatasetUnknown(f"there is no dataset {dataset_id}")
