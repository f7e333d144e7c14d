"""The review of findings: a person accepts or rejects what a segmenter saw, of exactly the index that the person looked at.

Reviews are events of the series' stream, so that a new index and a review of the old one cannot pass each other unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import msgspec

from domain.errors import FindingUnknown, ReviewIsObsolete
from domain.event import Event, Identifying, event
from domain.findings import finding_key
from domain.series import SeriesErased, SeriesIndexed


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    REJECTED = "rejected"


@event
class FindingReviewed(Event, frozen=True, kw_only=True):
    """Somebody looked at a finding, and it stands or falls. ``series_digest`` names the instances that the index is of."""

    study_uid: str
    series_uid: str
    subject_id: str
    finding_key: str
    segmenter: str
    label: str
    series_digest: str
    verdict: Verdict
    comment: Identifying[str] = ""


class Reviewable(msgspec.Struct, frozen=True, kw_only=True):
    """A finding of the standing index. ``verdict`` is that of the latest review of it."""

    study_uid: str
    series_uid: str
    subject_id: str
    segmenter: str
    label: str
    series_digest: str
    verdict: Verdict | None = None


_NOTHING: Mapping[str, Reviewable] = MappingProxyType({})


class SeriesFindings(msgspec.Struct, frozen=True, kw_only=True):
    """The findings of a series that can be reviewed, by their keys."""

    standing: Mapping[str, Reviewable] = _NOTHING


def evolve(state: SeriesFindings, happened: Event) -> SeriesFindings:
    match happened:
        case SeriesIndexed():
            segmenter = happened.run.segmenter
            others = {key: one for key, one in state.standing.items() if one.segmenter != segmenter}
            return SeriesFindings(standing={**others, **{_key(happened, f.structure.label): _seen(happened, f.structure.label) for f in happened.findings}})
        case FindingReviewed() if happened.finding_key in state.standing:
            reviewed = msgspec.structs.replace(state.standing[happened.finding_key], verdict=happened.verdict)
            return SeriesFindings(standing={**state.standing, happened.finding_key: reviewed})
        case SeriesErased():
            return SeriesFindings()
    return state


def _key(index: SeriesIndexed, label: str) -> str:
    return finding_key(index.series_uid, index.run.segmenter, label)


def _seen(index: SeriesIndexed, label: str) -> Reviewable:
    return Reviewable(
        study_uid=index.study_uid,
        series_uid=index.series_uid,
        subject_id=index.subject_id,
        segmenter=index.run.segmenter,
        label=label,
        series_digest=index.series_digest,
    )


class ReviewFinding(msgspec.Struct, frozen=True, kw_only=True):
    """``series_digest`` is that of the index which the reviewer saw, where the reviewer says so."""

    finding_key: str
    verdict: Verdict
    comment: str = ""
    series_digest: str | None = None


def review_finding(state: SeriesFindings, command: ReviewFinding) -> list[Event]:
    """Each review is an act of its own and recorded, also where it agrees with the one before.

    Raises FindingUnknown, and ReviewIsObsolete when the series was indexed anew since the reviewer looked.
    """
    finding = state.standing.get(command.finding_key)
    if finding is None:
        raise FindingUnknown(f"no standing index holds a finding {command.finding_key}")
    if command.series_digest is not None and command.series_digest != finding.series_digest:
        raise ReviewIsObsolete(
            f"the review is of the index of digest {command.series_digest[:12]}, which one of {finding.series_digest[:12]} replaced"
        )
    return [
        FindingReviewed(
            study_uid=finding.study_uid,
            series_uid=finding.series_uid,
            subject_id=finding.subject_id,
            finding_key=command.finding_key,
            segmenter=finding.segmenter,
            label=finding.label,
            series_digest=finding.series_digest,
            verdict=command.verdict,
            comment=command.comment,
        )
    ]
