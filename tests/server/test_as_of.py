"""Answers as of a position or an instant: how it is asked, what says which position was used, and what an erasure leaves of it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fhir.resources import get_fhir_model_class
from served_site import LIVER, LUNG, PLANTED_MRN, PLANTED_NAME, Site, served_site, slice_of

from domain.findings import finding_key
from domain.ids import SubjectId
from domain.principal import Principal, PrincipalKind
from domain.series import InstancesStored, SeriesIndexed
from domain.subject import LegalBasis
from eventlog.envelope import RecordedEvent
from projections.fhir.vocabulary import index_id, study_id
from server.as_of import AsOf, AsOfInvalid, period
from server.subjects import confirm_erasure, request_erasure, status_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
READER = ("fhir:read", "dicom:read", "audit:read", "identities:read")
STUDY, OTHER = "1.2.840.7.1", "1.2.840.7.2"
SERIES = f"{STUDY}.1"
INDEX = f"/fhir/BodyStructure/{index_id(SERIES)}"
FINDING = finding_key(SERIES, "baseline", "liver")


@dataclass
class Archive:
    """``empty`` … ``reindexed``: the last position of each step of its history."""

    site: Site
    headers: dict[str, str]
    steps: dict[str, int]

    async def get(self, path: str, **parameters: str) -> httpx.Response:
        url = httpx.URL(path)
        return await self.site.client.get(url.copy_merge_params(parameters) if parameters else url, headers=self.headers)

    async def events(self, kind: type) -> list[RecordedEvent]:
        return [one for one in await self.site.services.log.read(0, 1000) if isinstance(one.event, kind)]

    async def subject(self, study: str) -> SubjectId:
        (first, *_) = [e.event for e in await self.events(InstancesStored) if e.event.study_uid == study]  # type: ignore[attr-defined]
        return SubjectId(first.subject_id)  # type: ignore[attr-defined]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def archive(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Archive]:
    """Two slices, a third one, an index of two findings, an index of one. Reads are not recorded, so that the log stands still."""
    async with served_site(embedded_server, tmp_path_factory.mktemp("as-of"), audit_reads=False) as site:
        made = Archive(site, await site.headers(*READER), {"empty": 0})
        await site.store(slice_of(STUDY, 1), slice_of(STUDY, 2))
        made.steps["stored"] = await site.caught_up()
        await site.store(slice_of(STUDY, 3, StudyDescription="late", PatientName="Later^Name"))
        made.steps["completed"] = await site.caught_up()
        await site.index(SERIES, LIVER, LUNG)
        made.steps["indexed"] = await site.caught_up()
        await site.store(slice_of(STUDY, 4))
        await site.index(SERIES, LUNG)
        made.steps["reindexed"] = await site.caught_up()
        yield made


def says(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The first issue of an OperationOutcome."""
    assert answer.status_code == status, answer.text
    get_fhir_model_class("OperationOutcome").model_validate(answer.json())
    issue: dict[str, Any] = answer.json()["issue"][0]
    return issue


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2026-11", "2026-11-01T00:00:00", "2026-12-01T00:00:00"),
        ("2026-11-20", "2026-11-20T00:00:00", "2026-11-21T00:00:00"),
        ("2026-11-20T10:00Z", "2026-11-20T10:00:00", "2026-11-20T10:01:00"),
        ("2026-11-20T10:00:30", "2026-11-20T10:00:30", "2026-11-20T10:00:31"),
        ("2026-11-20T10:00:30.25Z", "2026-11-20T10:00:30.250000", "2026-11-20T10:00:30.260000"),
        ("2026-11-20T10:00:30.123456Z", "2026-11-20T10:00:30.123456", "2026-11-20T10:00:30.123457"),
        ("2026-11-20T10:00:00+02:00", "2026-11-20T08:00:00", "2026-11-20T08:00:01"),
        ("2026-11-20T10:00:00 02:00", "2026-11-20T08:00:00", "2026-11-20T08:00:01"),
    ],
)
async def test_an_instant_covers_what_its_precision_says(text: str, low: str, high: str) -> None:
    ends = [datetime.fromisoformat(end).replace(tzinfo=UTC) for end in (low, high)]
    assert list(period(text)) == ends
    assert AsOf.parse(text).at_instant == ends[1] - timedelta(microseconds=1)


async def test_digits_are_a_position_even_where_they_could_be_a_year() -> None:
    assert AsOf.parse("2026") == AsOf(at_position=2026)


WRONG = ["", "-1", "1.5", "yesterday", "2026-13", "2026-11-31", "2026-11-20T25:00", "9" * 19, "²", "1;DROP", "0001-01-01T00:00:00+14:00", "9999-12"]


@pytest.mark.parametrize("text", WRONG)
async def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(AsOfInvalid):
        AsOf.parse(text)


@pytest.mark.parametrize("text", [*WRONG, "99999", "Doe^Jane"])
async def test_what_cannot_be_meant_is_an_error_that_names_the_parameter_and_no_person(archive: Archive, text: str) -> None:
    for path in ("/fhir/Patient", f"/fhir/ImagingStudy/{study_id(STUDY)}", INDEX + "/_history", INDEX + "/_history/1"):
        issue = says(await archive.get(path, _asof=text), 400)
        assert (issue["code"], issue["expression"]) == ("value", ["http._asof"])
        assert "Doe" not in issue["diagnostics"]
    for path in ("/dicomweb/studies", f"/dicomweb/studies/{STUDY}/metadata", f"/dicomweb/studies/{STUDY}"):
        answer = await archive.get(path, _asof=text)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
        assert "_asof" in answer.json()["detail"] and "Doe" not in answer.text
    for path in (f"/audit/timeline/{STUDY}", f"/audit/lineage/{FINDING}"):
        answer = await archive.get(path, as_of=text)
        assert answer.status_code == 400 and "Doe" not in answer.text


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (INDEX, "_asOf=1"),
        (INDEX, "as_of=1"),
        (INDEX, "_asof=1&_asof=1"),
        ("/fhir/BodyStructure", "_as_of=1"),
        (INDEX + "/_history", "_asOf=1"),
        (f"/dicomweb/studies/{STUDY}/metadata", "as_of=1"),
        (f"/dicomweb/studies/{STUDY}/series", "_asof=1&_asof=2"),
        (f"/audit/timeline/{STUDY}", "_asof=1"),
        (f"/audit/lineage/{FINDING}", "as-of=1"),
    ],
)
async def test_a_name_that_is_nearly_right_is_refused_and_not_answered_as_of_now(archive: Archive, path: str, wrong: str) -> None:
    assert (await archive.get(f"{path}?{wrong}")).status_code == 400


async def test_every_answer_says_its_position(archive: Archive) -> None:
    head = str(archive.steps["reindexed"])
    for path, name in (("/fhir/BodyStructure", "_asof"), (INDEX, "_asof"), ("/dicomweb/series", "_asof"), (f"/audit/timeline/{STUDY}", "as_of")):
        assert (await archive.get(path)).headers["Anamnesis-Position"] == head
        at = str(archive.steps["indexed"])
        assert (await archive.get(path, **{name: at})).headers["Anamnesis-Position"] == at
    missing = await archive.get(INDEX, _asof=str(archive.steps["stored"]))
    assert says(missing, 404)["code"] == "not-found"
    assert missing.headers["Anamnesis-Position"] == str(archive.steps["stored"])
    nothing = await archive.get("/dicomweb/studies", _asof="0")
    assert (nothing.status_code, nothing.headers["Anamnesis-Position"]) == (204, "0")


async def test_an_instant_means_the_last_position_that_was_recorded_by_then(archive: Archive) -> None:
    first, second = await archive.events(SeriesIndexed)
    for event in (first, second):
        by_instant = await archive.get("/fhir/BodyStructure", _asof=event.recorded_at.isoformat())
        assert by_instant.headers["Anamnesis-Position"] == str(event.position)
        assert by_instant.content == (await archive.get("/fhir/BodyStructure", _asof=str(event.position))).content
        by_instant = await archive.get("/dicomweb/series", _asof=event.recorded_at.isoformat())
        assert by_instant.headers["Anamnesis-Position"] == str(event.position)
    head = str(archive.steps["reindexed"])
    assert (await archive.get("/fhir/Patient", _asof="2999-01-01")).headers["Anamnesis-Position"] == head
    assert (await archive.get("/fhir/Patient", _asof="2001-01-01")).headers["Anamnesis-Position"] == "0"


async def test_links_hold_the_position_and_a_page_is_of_no_other(archive: Archive) -> None:
    at = archive.steps["indexed"]
    bundle = (await archive.get("/fhir/BodyStructure", _count="1", _total="accurate", _asof=str(at))).json()
    links = {one["relation"]: one["url"] for one in bundle["link"]}
    assert f"_asof={at}" in links["self"] and f"_asof={at}" in links["next"]
    assert (await archive.get(links["self"])).json() == bundle
    following = await archive.get(links["next"])
    assert following.headers["Anamnesis-Position"] == str(at)
    assert following.json()["total"] == bundle["total"] == 3  # two findings and their index
    other = links["next"].replace(f"_asof={at}", f"_asof={at - 1}")
    assert says(await archive.get(other), 400)["expression"] == ["http._asof"]
    now = (await archive.get("/fhir/BodyStructure")).json()
    assert f"_asof={archive.steps['reindexed']}" in next(one["url"] for one in now["link"] if one["relation"] == "self")


async def test_the_history_at_an_instant_gives_the_version_that_held(archive: Archive) -> None:
    for event in await archive.events(SeriesIndexed):
        at = event.recorded_at.isoformat()
        history = (await archive.get(INDEX + "/_history", _at=at)).json()
        get_fhir_model_class("Bundle").model_validate(history)
        (entry,) = history["entry"]
        held = await archive.get(INDEX, _asof=at)
        assert entry["resource"] == held.json()
        assert entry["response"]["etag"] == held.headers["etag"]


async def test_the_history_of_a_period_gives_every_version_that_held_in_it(archive: Archive) -> None:
    versions = [entry["resource"]["meta"]["versionId"] for entry in (await archive.get(INDEX + "/_history")).json()["entry"]]
    assert versions == ["2", "1"]
    today = (await archive.events(SeriesIndexed))[0].recorded_at.date().isoformat()
    assert (await archive.get(INDEX + "/_history", _at=today)).json()["total"] == 2
    assert (await archive.get(INDEX + "/_history", _at="2001")).json()["total"] == 0
    first = archive.steps["indexed"]
    then = (await archive.get(INDEX + "/_history", _at=today, _asof=str(first))).json()
    assert [entry["resource"]["meta"]["versionId"] for entry in then["entry"]] == ["1"]
    assert says(await archive.get(INDEX + "/_history", _at="soon"), 400)["expression"] == ["http._at"]
    assert says(await archive.get(INDEX + "/_history", _since="soon"), 400)["expression"] == ["http._since"]


async def test_a_version_is_not_there_as_of_a_position_before_it(archive: Archive) -> None:
    at = str(archive.steps["indexed"])
    assert (await archive.get(INDEX + "/_history/1", _asof=at)).status_code == 200
    says(await archive.get(INDEX + "/_history/2", _asof=at), 404)
    assert (await archive.get(INDEX + "/_history/2")).status_code == 200


async def test_files_and_frames_are_those_that_were_there(archive: Archive) -> None:
    at = {"_asof": str(archive.steps["stored"])}
    study = f"/dicomweb/studies/{STUDY}"
    then, now = await archive.get(study, **at), await archive.get(study)
    assert (then.content.count(b"DICM"), now.content.count(b"DICM")) == (2, 4)
    assert then.headers["Anamnesis-Position"] == at["_asof"] and then.headers["etag"] != now.headers["etag"]
    third = f"{study}/series/{SERIES}/instances/{SERIES}.3"
    for path in (third, f"{third}/metadata", f"{third}/frames/1", f"{third}/rendered", f"{third}/thumbnail"):
        missing = await archive.get(path, **at)
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
        assert (await archive.get(path, _asof=str(archive.steps["completed"]))).status_code == 200


async def test_who_may_see_identities_sees_those_that_were_known(archive: Archive) -> None:
    path = f"/fhir/Patient/{await archive.subject(STUDY)}"
    then = (await archive.get(path, _asof=str(archive.steps["stored"]))).json()
    now = (await archive.get(path)).json()
    assert (then["name"][0]["family"], now["name"][0]["family"]) == ("Plantedname", "Later")


async def test_a_name_that_changed_is_a_version(archive: Archive) -> None:
    path = f"/fhir/Patient/{await archive.subject(STUDY)}"
    etag = (await archive.get(path, _asof=str(archive.steps["stored"]))).headers["etag"]
    for headers in (archive.headers, await archive.site.headers("fhir:read")):
        now = await archive.site.client.get(path, headers={**headers, "If-None-Match": etag})
        assert (etag, now.headers["etag"]) == ('W/"1"', 'W/"2"')
        assert (await archive.site.client.get(path, headers={**headers, "If-None-Match": 'W/"2"'})).status_code == 304


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["show", SERIES, "--json", "--as-of", "{stored}"], 0, '"as_of":{stored}'),
        (["lineage", FINDING, "--json", "--as-of", "{indexed}"], 0, '"as_of":{indexed}'),
        (["lineage", FINDING, "--as-of", "{stored}"], 2, "NothingKnown"),
        (["show", SERIES, "--as-of", "0"], 2, "NothingKnown"),
        (["show", SERIES, "--as-of", "yesterday"], 2, "AsOfInvalid"),
        (["show", SERIES, "--as-of", "99999"], 2, "AsOfInvalid"),
    ],
)
async def test_the_command_line_asks_as_of_too(archive: Archive, arguments: list[str], code: int, told: str) -> None:
    settings = archive.site.services.settings
    assert settings.database_url is not None
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server.cli", "audit", *(one.format(**archive.steps) for one in arguments),
        env={
            **os.environ,
            "ANAMNESIS_DATA_DIR": str(settings.data_dir),
            "ANAMNESIS_DATABASE_URL": settings.database_url.get_secret_value(),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == code, out
    assert told.format(**archive.steps) in out.decode().replace(" ", "")


async def test_the_capability_statement_documents_it(archive: Archive) -> None:
    statement = (await archive.get("/fhir/metadata")).json()
    get_fhir_model_class("CapabilityStatement").model_validate(statement)
    (rest,) = statement["rest"]
    parameter = next(one for one in rest["searchParam"] if one["name"] == "_asof")
    assert "position" in parameter["documentation"]
    assert "Anamnesis-Position" in rest["documentation"]
    for resource in rest["resource"]:
        reading = [one for one in resource["interaction"] if one["code"] in ("read", "vread", "history-instance", "history-type", "search-type")]
        assert reading and all("_asof" in interaction["documentation"] for interaction in reading)
        assert "_at" in next(one["documentation"] for one in resource["interaction"] if one["code"] == "history-instance")


ERASER = [Principal(id=f"token:{name}", kind=PrincipalKind.PERSON) for name in ("anna", "bert")]


async def test_of_an_erased_subject_there_is_nothing_at_any_position(embedded_server: str, tmp_path: Path) -> None:
    """And what is told of others is what it was, byte for byte."""
    async with served_site(embedded_server, tmp_path, audit_reads=False) as site:
        archive = Archive(site, await site.headers(*READER), {})
        log = site.services.log
        await site.store(slice_of(OTHER, 1, patient_id="SOMEBODYELSE", name="Else^Somebody"))
        await site.store(slice_of(STUDY, 1), slice_of(STUDY, 2))
        await site.index(SERIES, LIVER)
        await site.index(f"{OTHER}.1", LUNG)
        before = await site.caught_up()
        at = {"_asof": str(before)}
        subject, other = await archive.subject(STUDY), await archive.subject(OTHER)
        of_others = [
            f"/fhir/Patient/{other}",
            f"/fhir/ImagingStudy?patient={other}",
            f"/fhir/BodyStructure?patient={other}",
            f"/fhir/Provenance?patient={other}",
            "/fhir/Patient?_id=" + other,
            "/dicomweb/studies?PatientName=else*",
            f"/dicomweb/studies/{OTHER}/series?includefield=all",
            f"/dicomweb/studies/{OTHER}/metadata",
        ]
        told = {path: (await archive.get(path, **at)).content for path in of_others}
        assert all(told.values())

        await request_erasure(log, subject, LegalBasis.CONSENT_WITHDRAWN, ERASER[0])
        await confirm_erasure(log, subject, ERASER[1])
        async with asyncio.timeout(120):
            while (await status_of(log, subject)).purged_at is None:
                await asyncio.sleep(0.05)
        after = await site.caught_up()

        for position in range(after + 1):
            as_of = {"_asof": str(position)}
            for path in (f"Patient/{subject}", f"ImagingStudy/{study_id(STUDY)}", f"BodyStructure/{FINDING}", f"Patient/{subject}/_history"):
                gone = await archive.get(f"/fhir/{path}", **as_of)
                assert says(gone, 410)["code"] == "deleted"
                assert gone.headers["Anamnesis-Position"] == str(position)
            for path in ("Patient", "ImagingStudy", "BodyStructure", "Observation", "Provenance"):
                found = (await archive.get(f"/fhir/{path}", **as_of)).text
                assert not [word for word in ("Plantedname", PLANTED_MRN, study_id(STUDY), FINDING) if word in found]
            for path in ("studies", "series", "instances"):
                found = (await archive.get(f"/dicomweb/{path}", includefield="all", **as_of)).text
                assert not [word for word in ("Plantedname", PLANTED_MRN, STUDY) if word in found]
            for path in (f"studies/{STUDY}", f"studies/{STUDY}/metadata", f"studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1"):
                assert (await archive.get(f"/dicomweb/{path}", **as_of)).status_code == 404
        for path, then_told in told.items():
            assert (await archive.get(path, **at)).content == then_told, path

        then = await archive.get(f"/audit/timeline/{subject}", as_of=str(before), identities="true")
        assert then.json()["entries"][0]["type"] == "SubjectRegistered"  # that it happened stays, and no more
        assert not [word for word in (PLANTED_NAME, "Plantedname", PLANTED_MRN) if word in then.text]
        assert (await archive.get(f"/audit/timeline/Patient/{subject}", as_of=str(before))).json()["entries"]
        lineage = await archive.get(f"/audit/lineage/{FINDING}", as_of=str(before))
        assert lineage.status_code == 200 and "Plantedname" not in lineage.text
