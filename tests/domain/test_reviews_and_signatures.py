"""Reviews of findings, and who may sign what."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import review, signature
from domain.errors import AlreadySigned, FindingUnknown, NotSignable, ReviewIsObsolete, SignerUnknown
from domain.event import Event
from domain.findings import SNOMED_CT, Code, Finding, Structure, finding_key
from domain.principal import Principal, PrincipalKind, device
from domain.review import FindingReviewed, ReviewFinding, SeriesFindings, Verdict
from domain.series import SegmenterRun, SeriesIndexed
from domain.signature import EventSigned, Meaning, Signatures, Signer, SignerEnrolled, SignerRevoked

PERSON = Principal(id="token:a", kind=PrincipalKind.PERSON)


def index(digest: str, *labels: str, segmenter: str = "baseline") -> SeriesIndexed:
    findings = [
        Finding(
            structure=Structure(label=label, snomed=Code(SNOMED_CT, "1", label)),
            volume_mm3=1.0,
            voxel_count=1,
            mean_hu=0.0,
            touches_edge=False,
            centroid_mm=(0.0, 0.0, 0.0),
            bounding_box_mm=((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        )
        for label in labels
    ]
    run = SegmenterRun(segmenter=segmenter, segmenter_version="1", software={}, duration_s=1.0)
    return SeriesIndexed(study_uid="1.2", series_uid="1.2.3", subject_id="s", series_digest=digest, run=run, findings=findings)


def fold(*events: Event) -> SeriesFindings:
    state = SeriesFindings()
    for one in events:
        state = review.evolve(state, one)
    return state


LIVER = finding_key("1.2.3", "baseline", "liver")


def test_a_review_names_what_was_reviewed() -> None:
    (event,) = review.review_finding(fold(index("d1", "liver")), ReviewFinding(finding_key=LIVER, verdict=Verdict.ACCEPTED))
    assert event == FindingReviewed(
        study_uid="1.2",
        series_uid="1.2.3",
        subject_id="s",
        finding_key=LIVER,
        segmenter="baseline",
        label="liver",
        series_digest="d1",
        verdict=Verdict.ACCEPTED,
    )
    assert event.scope() == {"study:1.2", "series:1.2.3", "subject:s"}


def test_an_unknown_finding_is_not_reviewed() -> None:
    with pytest.raises(FindingUnknown):
        review.review_finding(fold(index("d1", "lung")), ReviewFinding(finding_key=LIVER, verdict=Verdict.ACCEPTED))


def test_a_review_of_an_index_that_was_replaced_is_refused() -> None:
    state = fold(index("d1", "liver"), index("d2", "liver"))
    with pytest.raises(ReviewIsObsolete):
        review.review_finding(state, ReviewFinding(finding_key=LIVER, verdict=Verdict.ACCEPTED, series_digest="d1"))
    assert review.review_finding(state, ReviewFinding(finding_key=LIVER, verdict=Verdict.ACCEPTED, series_digest="d2"))


@given(st.lists(st.sampled_from([*Verdict, "reindexed"]), max_size=8))
def test_a_new_index_forgets_verdicts_and_the_last_review_counts(acts: list[Verdict | str]) -> None:
    state, expected = fold(index("d", "liver")), None
    for act in acts:
        if isinstance(act, Verdict):
            (event,) = review.review_finding(state, ReviewFinding(finding_key=LIVER, verdict=act))
            state, expected = review.evolve(state, event), act
        else:
            state, expected = review.evolve(state, index("d", "liver")), None
        state = review.evolve(state, index("other", "liver", segmenter="totalsegmentator"))  # does not concern it
    assert state.standing[LIVER].verdict == expected


def signed(meaning: Meaning = Meaning.REVIEW, signed_type: str = "FindingReviewed") -> EventSigned:
    return EventSigned(
        signed_event_id="e",
        signed_type=signed_type,
        signed_digest="00" * 32,
        meaning=meaning,
        principal_id=PERSON.id,
        key_id="k",
        signed_at=datetime(2026, 1, 1, tzinfo=UTC),
        signature="a.b.c",
        about=["series:1.2.3"],
    )


def test_a_signature_is_about_what_it_signs() -> None:
    assert signed().scope() == {"series:1.2.3"}


def test_a_person_signs_once_for_each_meaning() -> None:
    state = Signatures()
    (event,) = signature.sign(state, signed(), PERSON)
    state = signature.evolve_signatures(state, event)
    with pytest.raises(AlreadySigned):
        signature.sign(state, signed(), PERSON)
    assert signature.sign(state, signed(Meaning.APPROVAL), PERSON)


@pytest.mark.parametrize("who", [device("baseline"), Principal(id="token:b", kind=PrincipalKind.PERSON, on_behalf_of="token:a")])
def test_only_a_person_signs_and_for_nobody_else(who: Principal) -> None:
    with pytest.raises(NotSignable):
        signature.sign(Signatures(), signed(), who)
    with pytest.raises(NotSignable):
        signature.enroll(Signer(), SignerEnrolled(principal_id=who.id, key_id="k", public_key="", subject_id="s"), who)


def test_not_every_event_is_an_act_that_is_signed() -> None:
    with pytest.raises(NotSignable):
        signature.sign(Signatures(), signed(signed_type="InstancesStored"), PERSON)


def test_a_new_key_ends_the_one_before() -> None:
    first = SignerEnrolled(principal_id=PERSON.id, key_id="k1", public_key="", subject_id="s")
    second = msgspec.structs.replace(first, key_id="k2")
    state = signature.evolve_signer(Signer(), signature.enroll(Signer(), first, PERSON)[0])
    assert signature.enroll(state, second, PERSON) == [SignerRevoked(principal_id=PERSON.id, key_id="k1"), second]
    with pytest.raises(SignerUnknown):
        signature.revoke(Signer(), PERSON.id)
