"""Datasets: what is frozen, that it is the same anywhere and for ever, and what becomes of it as the archive goes on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from curated_log import ANN, BOB, FEED, PROJECTIONS, Curated, consent, person, series_uid, stored, subject_id

from domain.condition import Level, OneOf, Query
from domain.dataset import Purpose
from domain.errors import (
    CohortRefused,
    ConsentWithdrawn,
    DatasetIsEmpty,
    DatasetUnknown,
    LicenseMissing,
    NotAMember,
    SplitRefused,
    SubjectWouldLeak,
    UseNotIntended,
)
from domain.ids import series_stream, subject_stream
from domain.members import members_in
from domain.principal import Principal, PrincipalKind
from domain.series import series_digest
from domain.splits import Part
from domain.subject import SubjectErased, SubjectJoined
from domain.tag import TagLevel
from eventlog.log import EventLog
from projections.runner import Runner
from server.cohorts import lists, tagging
from server.cohorts.drift import drift
from server.cohorts.errors import ListDiffers, ListLost, StrataTooMany
from server.cohorts.freezing import Frozen, freeze_dataset, recover_list
from server.cohorts.members import Member, members_of, members_page
from server.cohorts.splitting import SplitWanted, Stratum, WasSplit, split_dataset, stratum_named
from server.cohorts.terms import CONSENTS, consent_text, may_export

CTS = Query(level=Level.SERIES, where=OneOf("Modality", ("CT",)))
ALL = Query(level=Level.SERIES)
STRANGER = Principal(id="token:stranger", kind=PrincipalKind.PERSON)
TERMS: dict[str, Any] = {"license": "CC-BY-4.0", "intended_uses": (Purpose.RESEARCH,)}


@pytest_asyncio.fixture
async def curated(event_log: EventLog, tmp_path: Path) -> AsyncIterator[Curated]:
    site = Curated.over(event_log, tmp_path)
    await site.happens(*FEED)
    yield site


async def freeze(site: Curated, dataset_id: str, query: Query = CTS, **more: Any) -> Frozen:
    frozen = await freeze_dataset(site, dataset_id, query, ANN, **more)
    await site.reads()
    return frozen


async def split(site: Curated, dataset_id: str, version: int | None, wanted: SplitWanted) -> WasSplit:
    done = await split_dataset(site, dataset_id, version, wanted, ANN)
    await site.reads()
    return done


async def members(site: Curated, dataset_id: str, version: int | None = None, **more: Any) -> list[Member]:
    return [one async for one in members_of(site, dataset_id, version, **more)]


async def erase(site: Curated, n: int) -> None:
    """As the eraser does: the key, then the event."""
    async with site.log.pool.acquire() as connection:
        await site.log.vault.destroy(subject_id(n), connection)
    erased = SubjectErased(subject_id=subject_id(n), study_uids=[f"1.2.3.{n}"], series_uids=[series_uid(n)], files=2, bytes=200)
    await site.happens((subject_stream(subject_id(n)), erased))


def independent_list(site: Curated, query_modality: str) -> bytes:
    """The list by the definition in domain.members, from what was told to the log."""
    series = [event for _, event in FEED if type(event).__name__ == "InstancesStored" and event.modality == query_modality]  # type: ignore[attr-defined]
    lines = []
    for one in sorted(series, key=lambda event: event.series_uid):  # type: ignore[attr-defined]
        instances = sorted(one.instances, key=lambda i: i.sop_instance_uid)  # type: ignore[attr-defined]
        told = ",".join(
            f'{{"number_of_frames":1,"sha256":"{i.sha256}","size":{i.size},"sop_class_uid":"1.2.840","sop_instance_uid":"{i.sop_instance_uid}","transfer_syntax_uid":"1.2.1"}}'
            for i in instances
        )
        digest = series_digest({i.sop_instance_uid: i.sha256 for i in instances})
        lines.append(
            f'{{"instances":[{told}],"modality":"{query_modality}","series_digest":"{digest}","series_uid":"{one.series_uid}",'  # type: ignore[attr-defined]
            f'"study_uid":"{one.study_uid}","subject_id":"{one.subject_id}"}}\n'  # type: ignore[attr-defined]
        )
    return "".join(lines).encode()


async def test_the_same_feed_frozen_anywhere_gives_the_same_digest(any_log: EventLog, tmp_path: Path) -> None:
    """On the embedded database and on one that is not ours: both digests are that of the list computed by hand."""
    site = Curated.over(any_log, tmp_path)
    at = await site.happens(*FEED)
    frozen = (await freeze(site, await site.dataset(), at_position=at)).version
    expected = independent_list(site, "CT")
    assert frozen.members_sha256 == hashlib.sha256(expected).hexdigest()
    with site.store.open(frozen.members_sha256) as file:
        assert file.read() == expected
    assert (frozen.subjects_count, frozen.studies_count, frozen.series_count, frozen.instances_count) == (8, 8, 8, 16)
    assert frozen.bytes == sum(2 * (100 + n) for n in range(12) if n % 3)
    assert [one.series_uid for one in members_in(expected.splitlines())] == [one.series_uid for one in await members(site, frozen.dataset_id)]


async def test_a_version_stays_as_it_was_while_the_archive_grows(curated: Curated) -> None:
    id_ = await curated.dataset()
    first = await freeze(curated, id_)
    await curated.happens((series_stream(series_uid(1)), stored(1, instances=[3])), *person(13))
    assert (await freeze(curated, id_, at_position=first.version.at_position)).position is None
    second = (await freeze(curated, id_)).version
    assert (second.version, second.series_count, second.instances_count) == (2, 9, 19)
    assert len(await members(curated, id_, 1)) == 8
    again = await freeze(curated, id_)
    assert again.position is None and again.version == second


async def test_a_question_of_any_level_freezes_series(curated: Curated) -> None:
    id_ = await curated.dataset()
    women = Query(level=Level.SUBJECT, where=OneOf("sex", ("F",)))
    assert (await freeze(curated, id_, women)).version.series_count == 6
    with pytest.raises(DatasetIsEmpty):
        await freeze(curated, id_, Query(level=Level.SERIES, where=OneOf("Modality", ("XA",))))
    with pytest.raises(CohortRefused, match="PatientID"):
        await freeze(curated, id_, Query(level=Level.STUDY, where=OneOf("PatientID", ("P1",))))


async def test_an_erased_subject_leaves_and_the_digest_stays_provable(curated: Curated) -> None:
    id_ = await curated.dataset(**TERMS)
    frozen = (await freeze(curated, id_)).version
    await erase(curated, 1)
    left = await members(curated, id_)
    assert len(left) == 7 and subject_id(1) not in {one.subject_id for one in left}
    curated.store.verify(frozen.members_sha256)
    permit = await may_export(curated, id_, 1, Purpose.RESEARCH, BOB)
    assert (permit.erased, permit.subjects_left) == (frozenset({subject_id(1)}), 7)


async def test_a_lost_list_is_made_again_unless_somebody_was_erased(curated: Curated) -> None:
    id_ = await curated.dataset()
    frozen = (await freeze(curated, id_)).version
    await curated.happens(*person(13))
    curated.store.delete(frozen.members_sha256)
    with pytest.raises(ListLost, match="anamnesis dataset recover"):
        await members(curated, id_)
    assert await recover_list(curated, id_, 1, ANN) == frozen.members_bytes
    assert len(await members(curated, id_, 1)) == 8
    await erase(curated, 1)
    curated.store.delete(frozen.members_sha256)
    with pytest.raises(ListDiffers):
        await recover_list(curated, id_, 1, ANN)


async def test_a_rebuilt_read_model_gives_the_same_list(curated: Curated) -> None:
    id_ = await curated.dataset()
    frozen = (await freeze(curated, id_, Query(level=Level.SUBJECT, where=OneOf("sex", ("F",))))).version
    await Runner(curated.log, PROJECTIONS).rebuild("cohort", grace_s=0)
    curated.store.delete(frozen.members_sha256)
    assert await recover_list(curated, id_, 1, ANN) == frozen.members_bytes


@pytest.mark.parametrize("size", [1, 3, 50, 200])
async def test_pages_of_members_are_the_members(curated: Curated, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(lists, "MARK_EVERY", 2)
    id_ = await curated.dataset()
    await freeze(curated, id_, ALL)
    await erase(curated, 5)
    paged: list[Member] = []
    more, after = True, None
    while more:
        page, more = await members_page(curated, id_, None, after, size)
        assert len(page) == size or not more
        paged += page
        after = page[-1].series_uid
    assert paged == await members(curated, id_) and len(paged) == 11
    assert await members_page(curated, id_, None, after, size) == ([], False)


async def test_a_damaged_list_is_not_read(curated: Curated) -> None:
    id_ = await curated.dataset()
    frozen = (await freeze(curated, id_)).version
    path = curated.store.local_path(frozen.members_sha256)
    assert path is not None
    path.write_bytes(path.read_bytes().replace(b"1.2.3.1.1", b"1.2.3.9.1"))
    with pytest.raises(ListLost):
        await members(curated, id_)
    with pytest.raises(ListLost):
        await members_page(curated, id_, 1, None, 5)
    await recover_list(curated, id_, 1, ANN)
    assert len(await members(curated, id_, 1)) == 8


async def test_members_of_a_project_alone_freeze_and_export(curated: Curated) -> None:
    id_ = await curated.dataset(**TERMS)
    with pytest.raises(NotAMember):
        await freeze_dataset(curated, id_, CTS, BOB)
    await freeze(curated, id_)
    with pytest.raises(NotAMember):
        await may_export(curated, id_, 1, Purpose.RESEARCH, STRANGER)
    with pytest.raises(UseNotIntended):
        await may_export(curated, id_, 1, Purpose.PRODUCT_DEVELOPMENT, BOB)
    with pytest.raises(DatasetUnknown):
        await may_export(curated, id_, 2, Purpose.RESEARCH, BOB)
    other = await curated.dataset()
    await freeze(curated, other)
    with pytest.raises(LicenseMissing):
        await may_export(curated, other, 1, Purpose.RESEARCH, BOB)


async def test_consent_that_is_withdrawn_after_the_freeze_is_found_at_the_export(curated: Curated) -> None:
    await curated.happens(*(consent(n, 1, "permit") for n in range(12)))
    id_ = await curated.dataset(**TERMS, consent=consent_text(CONSENTS.where))
    await freeze(curated, id_)
    assert (await may_export(curated, id_, 1, Purpose.RESEARCH, BOB)).withdrawn == frozenset()
    await curated.happens(consent(2, 2, "deny"))
    with pytest.raises(ConsentWithdrawn, match="1 of 8 subjects"):
        await may_export(curated, id_, 1, Purpose.RESEARCH, BOB)
    permit = await may_export(curated, id_, 1, Purpose.RESEARCH, BOB, without_withdrawn=True)
    assert (permit.withdrawn, permit.subjects_left) == (frozenset({subject_id(2)}), 7)
    assert {one.subject_id for one in await members(curated, id_, without=permit.withdrawn)} == {subject_id(n) for n in range(12) if n % 3 and n != 2}


async def test_a_split_is_by_subject_stratified_and_shown_with_each_member(curated: Curated) -> None:
    id_ = await curated.dataset()
    await curated.happens(*((series_stream(series_uid(n, 2)), stored(n, 2)) for n in range(12)))
    await freeze(curated, id_, ALL)
    half = SplitWanted(parts=(Part("train", 0.5), Part("test", 0.5)), seed="7", strata=(Stratum(field="sex"), Stratum(field="SliceThickness", edges=(1.0, 2.0))))
    done = await split(curated, id_, None, half)
    assert done.split.stratified_by == ("sex", "SliceThickness:1,2")
    parts: dict[str, set[str | None]] = {}
    for one in await members(curated, id_):
        parts.setdefault(one.subject_id, set()).add(one.split)
    assert len(parts) == 12 and all(len(of) == 1 for of in parts.values())
    for sex in (0, 1):
        assert Counter(next(iter(parts[subject_id(n)])) for n in range(12) if n % 2 == sex) == {"train": 3, "test": 3}
    assert (await split(curated, id_, None, half)).position is None


async def test_later_versions_keep_everybody_where_they_were(curated: Curated) -> None:
    id_ = await curated.dataset()
    await freeze(curated, id_)
    await split(curated, id_, 1, SplitWanted(seed="1"))
    before = {one.subject_id: one.split for one in await members(curated, id_, 1)}
    await curated.happens(*(step for n in range(20, 40) for step in person(n)))
    await freeze(curated, id_)
    done = await split(curated, id_, 2, SplitWanted(seed="other"))
    after = {one.subject_id: one.split for one in await members(curated, id_, 2)}
    assert {subject: after[subject] for subject in before} == before and done.split.kept_count == len(before)
    moved = dict.fromkeys(after, "train")
    with pytest.raises(SubjectWouldLeak):
        await split(curated, id_, 2, SplitWanted(assigned=moved))
    some = dict(sorted(after.items())[:3])
    by_hand = await split(curated, id_, 2, SplitWanted(assigned=some))  # type: ignore[arg-type]
    assert by_hand.split.by_hand and by_hand.split.left_out_count == len(after) - 3
    assert Counter(one.split for one in await members(curated, id_, 2))[None] == len(after) - 3
    with pytest.raises(SplitRefused):
        await split(curated, id_, 2, SplitWanted(assigned={"nobody": "train"}))


async def test_numbers_of_one_person_are_in_one_part(curated: Curated) -> None:
    id_ = await curated.dataset()
    await freeze(curated, id_, ALL)
    pairs = [(n, n + 6) for n in range(6)]
    joined = [SubjectJoined(subject_id=subject_id(a), into_subject_id=subject_id(b)) for a, b in pairs]
    await curated.happens(*((subject_stream(one.subject_id), one) for one in joined))
    await split(curated, id_, 1, SplitWanted(parts=(Part("train", 0.5), Part("test", 0.5))))
    part = {one.subject_id: one.split for one in await members(curated, id_)}
    assert all(part[subject_id(a)] == part[subject_id(b)] for a, b in pairs)


async def test_fields_that_make_no_strata_are_refused(curated: Curated) -> None:
    id_ = await curated.dataset()
    await freeze(curated, id_)
    with pytest.raises(StrataTooMany, match="give edges"):
        await split(curated, id_, 1, SplitWanted(strata=(Stratum(field="SliceThickness"),)))
    with pytest.raises(SplitRefused):
        stratum_named("age_years:x")
    assert stratum_named("age_years:40,60") == Stratum(field="age_years", edges=(40.0, 60.0))


async def test_drift_names_what_entered_left_and_changed_and_the_events_that_did_it(curated: Curated) -> None:
    id_ = await curated.dataset()
    await freeze(curated, id_)
    grown = (series_stream(series_uid(1)), stored(1, instances=[3], maker="Bolt"))
    await curated.happens(grown, *person(13), *person(14))
    await tagging.set_tag(curated, "liver", TagLevel.SERIES, [series_uid(2)], "seen", "", ANN)
    await erase(curated, 4)
    await curated.reads()
    await freeze(curated, id_)
    found = await drift(curated, id_, 1, 2, BOB, fields=("Modality", "Manufacturer", "SliceThickness"))
    assert (found.same_count, found.entered_count, found.left_count, found.changed_count) == (6, 2, 1, 1)
    assert [one.series_uid for one in found.entered] == [series_uid(13), series_uid(14)]
    assert [reason.type for reason in found.entered[0].reasons] == ["SubjectRegistered", "StudyRegistered", "InstancesStored"]
    assert [(one.subject_id, one.reasons[-1].type) for one in found.left] == [(subject_id(4), "SubjectErased")]
    (changed,) = found.changed
    assert (changed.series_uid, changed.instances_before, changed.instances_after) == (series_uid(1), 2, 3)
    assert [reason.type for reason in changed.reasons] == ["InstancesStored"] and not found.question_changed
    makers = next(shift for shift in found.shifts if shift.field == "Manufacturer")
    assert {value.value: (value.before, value.after) for value in makers.values} == {"Bolt": (3, 4), "Core": (4, 5), "other": (0, 0), "none": (0, 0)}
    thickness = next(shift for shift in found.shifts if shift.field == "SliceThickness")
    assert (sum(value.before for value in thickness.values), sum(value.after for value in thickness.values)) == (7, 9)
    assert all(shift.psi >= 0 for shift in found.shifts)
    with pytest.raises(NotAMember):
        await drift(curated, id_, 1, 2, STRANGER)
