"""Cohorts through the client, over HTTP, held against a computation of our own from the files and the findings that were made."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from imaged_site import MadeFinding
from listening_site import ListeningSite
from served_site import slice_of

from anamnesis.client import AsyncClient, Client, field, followed, has
from anamnesis.client.errors import (
    FieldRefused,
    FieldUnknown,
    NotPermitted,
    PositionUnknown,
    QuestionRefused,
    TokenRefused,
)

Sources = dict[str, list[Path]]
WANTED = (
    (field("Modality") == "CT")
    & (field("SliceThickness") <= 5)
    & has("finding", (field("label") == "liver") & (field("volume_ml") > 1200) & (field("whole") == True) & (field("verdict") == "accepted"))  # noqa: E712
)


@pytest.fixture
def client(imaged_site: ListeningSite, token: str) -> Iterator[Client]:
    with Client(imaged_site.url, token=token) as client:
        yield client


@pytest.fixture(scope="module")
def headers(sources: Sources) -> dict[str, pydicom.Dataset]:
    """The first header of each series."""
    return {uid: pydicom.dcmread(files[0], stop_before_pixels=True) for uid, files in sources.items()}


def livers(made: list[MadeFinding]) -> set[str]:
    return {one.series_uid for one in made if one.label == "liver" and one.volume_ml > 1200 and one.whole and one.verdict == "accepted"}


def test_the_question_of_a_cohort_builder_has_the_answer_that_we_compute(
    client: Client, made_findings: list[MadeFinding], headers: dict[str, pydicom.Dataset]
) -> None:
    expected = {uid for uid in livers(made_findings) if headers[uid].Modality == "CT" and float(headers[uid].SliceThickness) <= 5}
    cohort = client.series(WANTED)
    assert len(expected) == 1
    assert {series.series_uid for series in cohort} == expected
    assert cohort.count() == 1 and cohort.counts().subjects == 1 and cohort.counts().instances == 20
    assert {one.series_uid for one in client.series(str(WANTED))} == expected, "the same as text"


def test_facets_and_histograms_count_what_headers_say(client: Client, made_findings: list[MadeFinding], headers: dict[str, pydicom.Dataset]) -> None:
    cohort = client.series(field("series_uid").one_of(list(headers)))
    facets = cohort.facets("Modality", "Manufacturer", subjects=True)
    assert facets["Modality"].as_dict() == Counter(header.Modality for header in headers.values())
    assert facets["Manufacturer"].as_dict() == Counter(str(h.Manufacturer) for h in headers.values() if h.get("Manufacturer"))
    assert all(value.subjects is not None and 1 <= value.subjects <= value.count for value in facets["Modality"].values)
    ticked = cohort.ticked("Modality", "CT")
    assert ticked.count() == facets["Modality"].as_dict()["CT"]
    assert ticked.facets("Modality")["Modality"].as_dict() == facets["Modality"].as_dict(), "a facet's own ticks do not narrow it"

    spread = client.findings(field("series_uid").one_of(list(headers))).histogram("volume_ml", bins=4)
    volumes = [one.volume_ml for one in made_findings]
    assert sum(one.count for one in spread.bins) == len(volumes) and (spread.low, spread.high) == (min(volumes), max(volumes))


def test_records_have_what_headers_and_findings_say(client: Client, made_findings: list[MadeFinding], headers: dict[str, pydicom.Dataset]) -> None:
    for series in client.series(field("series_uid").one_of(list(headers))).with_elements("Rows", "00281050"):
        header = headers[series.series_uid]
        assert (series.study_uid, series.modality) == (header.StudyInstanceUID, header.Modality)
        assert series.elements["Rows"] == [header.Rows]
        assert ("00281050" in series.elements) == ("WindowCenter" in header)
        if series.modality == "MR" and "SliceThickness" in header:
            assert series.slice_thickness_mm == float(header.SliceThickness)
    found = {MadeFinding(one.series_uid, one.label, one.volume_ml, one.whole, one.verdict) for one in client.findings()}
    assert found == set(made_findings)
    subjects = {one.subject_id: one.sex for one in client.subjects(has("series", field("Modality") == "CT"))}
    assert subjects == {one.subject_id: one.sex for one in client.subjects() if one.subject_id in subjects} and subjects
    assert {study.study_uid for study in client.studies(has("series", field("Modality") == "PT"))} == {
        str(header.StudyInstanceUID) for header in headers.values() if header.Modality == "PT"
    }


def test_tables_have_a_row_for_each_and_columns_for_elements(client: Client, made_findings: list[MadeFinding]) -> None:
    cohort = client.series().order_by("series_uid").with_elements("Rows", "ImageType").pinned()
    pandas, polars = cohort.to_pandas(), cohort.to_polars()
    assert list(pandas["series_uid"]) == polars["series_uid"].to_list() == sorted(series.series_uid for series in cohort)
    assert list(pandas.columns) == polars.columns and pandas["Rows"].dtype.kind in "fi"
    assert pandas["ImageType"].map(len).max() > 1, "of several values, a list"
    assert list(cohort.to_pandas(limit=3)["series_uid"]) == list(pandas["series_uid"][:3])
    studies = client.studies()
    assert str(studies.to_pandas()["study_date"].dtype).startswith("datetime64") and str(studies.to_polars()["study_date"].dtype) == "Date"
    assert client.findings(field("label") == "nothing").to_pandas().empty
    assert client.findings(field("label") == "nothing").to_polars().is_empty()


def test_pages_are_of_one_state_while_instances_arrive(imaged_site: ListeningSite, client: Client) -> None:
    cohort = client.series().order_by("series_uid", descending=True)
    before = cohort.pinned()
    page = cohort.page(2)
    seen, total = [record.series_uid for record in page.records], page.total
    number = 0
    while page.has_more:
        number += 1
        imaged_site.do(imaged_site.site.store(slice_of(f"1.2.99.{number}", 1, patient_id=f"ARRIVED{number}")))
        page = cohort.page(2, after=page.cursor)
        seen += [record.series_uid for record in page.records]
    assert number >= 2 and len(seen) == len(set(seen)) == total == before.count()
    assert seen == [series.series_uid for series in before]
    assert cohort.count() == total + number and before.position() < cohort.position()
    assert client.series(as_of=before.question.as_of).count() == total


def test_async_answers_as_sync_does(imaged_site: ListeningSite, client: Client, token: str, made_findings: list[MadeFinding]) -> None:
    def plain(records: list[Any]) -> list[dict[str, Any]]:
        return [{name: value for name, value in vars(record).items() if not name.startswith("_")} for record in records]

    async def asked() -> list[Any]:
        async with AsyncClient(imaged_site.url, token=token) as other:
            cohort = await other.series(WANTED).pinned()
            series = await cohort.first()
            assert series is not None and (await series.to_sitk()).GetSize()[2] == 20
            assert [record async for record in cohort] == await cohort.records()
            assert (await cohort.to_pandas()).equals(client.series(WANTED, as_of=cohort.question.as_of).to_pandas())
            spread = cohort.histogram("Rows", 3)
            answers = await asyncio.gather(cohort.count(), cohort.counts(), cohort.facets("Modality"), spread, cohort.query(), other.fields("thick"))
            return [*answers, plain(await cohort.records())]

    cohort = client.series(WANTED)
    spread = cohort.histogram("Rows", 3)
    expected = [cohort.count(), cohort.counts(), cohort.facets("Modality"), spread, cohort.query(), client.fields("thick"), plain(cohort.records())]
    assert asyncio.run(asked()) == expected and expected[5]


def test_sync_and_async_have_the_same_calls() -> None:
    import inspect

    import anamnesis.client as both

    def calls(kind: type) -> dict[str, list[str]]:
        names = [name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))]
        return {name: list(inspect.signature(getattr(kind, name)).parameters) for name in names}

    for name in ("Client", "Cohort", "Images", "Series"):
        one, other = getattr(both, name), getattr(both, f"Async{name}")
        assert calls(one) == calls(other)
        assert all(inspect.getdoc(getattr(one, call)) == inspect.getdoc(getattr(other, call)) for call in calls(one))


def test_a_follow_up_is_a_later_study_of_the_same_person(imaged_site: ListeningSite, client: Client) -> None:
    for number, date in enumerate(("20200101", "20200401")):
        imaged_site.do(imaged_site.site.store(slice_of(f"1.2.77.{number}", 1, patient_id="FOLLOWED", StudyDate=date)))
    ct = has("series", field("Modality") == "CT")
    whom = has("study", field("study_uid") == "1.2.77.0")
    assert client.subjects(whom & followed(ct, ct, at_least_days=90, at_most_days=91)).count() == 1
    assert client.subjects(whom & followed(ct, ct, at_least_days=92)).count() == 0


def test_what_cannot_be_asked_is_named_by_the_servers_code(imaged_site: ListeningSite, client: Client, token: str) -> None:
    with pytest.raises(FieldUnknown) as unknown:
        client.series((field("Modality") == "CT") & (field("no_such_field") == 1)).count()
    assert unknown.value.code == "FIELD_UNKNOWN" and "no_such_field" in str(unknown.value)
    with pytest.raises(FieldRefused):
        client.series().histogram("Modality")
    with pytest.raises(PositionUnknown):
        client.series(as_of=10**9).count()
    with pytest.raises(QuestionRefused) as page:
        client.series().page(1001)
    assert page.value.code == "BAD_USER_INPUT"
    with Client(imaged_site.url, token="nobody") as nobody, pytest.raises(TokenRefused):
        nobody.series().count()
    headers = imaged_site.do(imaged_site.site.headers("metrics:read"))
    with Client(imaged_site.url, token=headers["Authorization"].split()[1]) as other, pytest.raises(NotPermitted, match="cohorts:read"):
        other.series().count()


def test_an_explanation_says_what_was_used(client: Client) -> None:
    explained = client.series(WANTED).explain()
    assert explained.engine in ("columns", "postgresql") and explained.steps
