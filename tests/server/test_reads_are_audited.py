"""Who looked at this patient? Real reads over HTTP, in the log in a few events, and as AuditEvents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from fhir.resources import get_fhir_model_class
from pynetdicom import AE
from served_site import LIVER, PLANTED_MRN, PLANTED_NAME, Site, served_site, slice_of

from domain.access import Access, AccessesRecorded, Action, Outcome
from domain.findings import finding_key
from domain.principal import Principal, PrincipalKind
from projections.dicom import DicomProjection
from projections.fhir.audit_event import audit_events
from projections.fhir.projection import FhirProjection
from projections.fhir.vocabulary import selection_id, study_id
from projections.projection import schema_name
from server.audit import reads, recorder
from server.audit.recorder import ANONYMOUS, AccessRecorder, one_access

DICOM, FHIR = schema_name(DicomProjection()), schema_name(FhirProjection())
STUDY, OTHER = "1.2.840.1.1", "1.2.840.1.2"
SERIES = f"{STUDY}.1"
LOGGED_IN = (Action.LOGIN, Outcome.SUCCESS)


@pytest_asyncio.fixture
async def site(embedded_server: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with served_site(embedded_server, tmp_path) as served:
        await served.store(slice_of(STUDY, 1), slice_of(STUDY, 2))
        await served.store(slice_of(OTHER, 1, patient_id="PLANTEDMRN88", name="Plantedother^Joe"))
        await served.index(SERIES, LIVER)
        yield served


async def accesses(site: Site) -> list[Access]:
    """All of the log's, without logins that succeeded."""
    await site.caught_up()
    events = [one.event for one in await site.services.log.read(0, 10_000, [AccessesRecorded])]
    return [a for event in events if isinstance(event, AccessesRecorded) for a in event.accesses if (a.action, a.outcome) != LOGGED_IN]


async def subject_of(site: Site, study_uid: str) -> str:
    subject_id: str = await site.services.pool.fetchval(f"SELECT subject_id FROM {DICOM}.study WHERE study_uid = $1", study_uid)
    return subject_id


async def who_looked_at(site: Site, subject_id: str, **more: str) -> list[dict[str, Any]]:
    """By one query, as an auditor asks it; every AuditEvent of the answer is valid R5."""
    await site.caught_up()
    answer = await site.get("/fhir/AuditEvent", "fhir:read", "audit:read", patient=f"Patient/{subject_id}", **more)
    assert answer.status_code == 200, answer.text
    found = [entry["resource"] for entry in answer.json().get("entry", [])]
    for resource in found:
        get_fhir_model_class("AuditEvent").model_validate(resource)
    return found


async def test_who_looked_at_this_patient_is_one_query(site: Site) -> None:
    subject_id = await subject_of(site, STUDY)
    for path in (f"/fhir/Patient/{subject_id}", f"/fhir/ImagingStudy/{study_id(STUDY)}", f"/fhir/ImagingStudy/{study_id(STUDY)}/_history"):
        assert (await site.get(path, "fhir:read")).status_code == 200
    for path in (f"/dicomweb/studies/{STUDY}/series", f"/dicomweb/studies/{STUDY}", f"/dicomweb/studies/{STUDY}/metadata"):
        assert (await site.get(path, "dicom:read")).status_code == 200
    found = await who_looked_at(site, subject_id)
    codes = sorted(one["code"]["text"] for one in found)
    assert codes == ["history", "query", "read", "read", "retrieve", "retrieve"]
    agents = {one["agent"][0]["who"]["identifier"]["value"] for one in found}
    assert agents == {(await site.principal("fhir:read")).id, (await site.principal("dicom:read")).id}
    assert all(one["patient"]["reference"] == f"Patient/{subject_id}" for one in found)
    assert await who_looked_at(site, await subject_of(site, OTHER)) == []


async def test_a_search_is_recorded_with_whom_it_found_and_by_which_parameters(site: Site) -> None:
    subject_id = await subject_of(site, STUDY)
    await site.get("/fhir/ImagingStudy", "fhir:read", patient=f"Patient/{subject_id}", started="2024-01-31")
    await site.get("/dicomweb/studies", "dicom:read", PatientID="PLANTEDMRN88", limit="5")
    search, query = await accesses(site)
    assert (search.action, search.resource_type, search.parameters) == (Action.SEARCH, "ImagingStudy", ("patient", "started"))
    assert search.subjects == (subject_id,)
    assert (query.action, query.parameters) == (Action.QUERY, ("PatientID", "limit"))
    assert query.subjects == (await subject_of(site, OTHER),)


SEARCHES = [
    ("ImagingStudy?patient:Patient.gender=female&modality:not=PLANTED1", {"patient:Patient.gender", "modality:not"}),
    ("Patient?_has:Observation:patient:code:text=PLANTED2&_has:BodyStructure:patient:_has:Observation:body-structure:status=final",
     {"_has:Observation:patient:code:text", "_has:BodyStructure:patient:_has:Observation:body-structure:status"}),
    ("ImagingStudy?_include:iterate=ImagingStudy:patient&_sort=-started&_count=1&_total=none&_asof=2999-01-01",
     {"_include:iterate", "_sort", "_count", "_total"}),
    ("?_type=Patient,ImagingStudy&_id:missing=false", {"_type", "_id:missing"}),
]  # fmt: skip


@pytest.mark.parametrize(("query", "names"), SEARCHES)
async def test_the_names_of_a_search_are_recorded_whole_and_its_values_never(site: Site, query: str, names: set[str]) -> None:
    """By GET, by a form in the body, and where a page goes on; what was left out as unknown is no name of a parameter."""
    path, _, asked = query.partition("?")
    got = await site.get(f"/fhir/{query}".replace("/?", "?"), "fhir:read")
    form = {**await site.headers("fhir:read"), "Content-Type": "application/x-www-form-urlencoded", "Prefer": "handling=lenient"}
    posted = await site.client.post(f"/fhir/{path}/_search".replace("//", "/"), content=f"{asked}&PLANTED3=1&code:PLANTED4=2", headers=form)
    assert (got.status_code, posted.status_code) == (200, 200), (got.text, posted.text)
    following = [one["url"] for one in got.json()["link"] if one["relation"] == "next"]
    for url in following:
        assert (await site.client.get(url, headers=await site.headers("fhir:read"))).status_code == 200
    found = await accesses(site)
    assert {name for one in found for name in one.parameters} == names
    assert all(set(one.parameters) == names for one in found) and sum(one.count for one in found) == 2 + len(following)
    stored = await site.services.pool.fetchval(f"SELECT string_agg(body, '') FROM {FHIR}.resource WHERE type = 'AuditEvent'")
    assert "PLANTED" not in stored and all(f'"valueString":"{name}"' in stored for name in names)


async def test_a_search_that_is_refused_leaves_no_name(site: Site) -> None:
    assert (await site.get("/fhir/ImagingStudy?PLANTED=1", "fhir:read")).status_code == 400
    (refused,) = await accesses(site)
    assert (refused.outcome, refused.parameters) == (Outcome.FAILED, ())


@pytest.mark.parametrize(
    ("action", "path"),
    [
        (Action.READ, f"/fhir/ImagingSelection/{selection_id(SERIES)}"),
        (Action.VREAD, f"/fhir/ImagingStudy/{study_id(STUDY)}/_history/1"),
        (Action.READ, f"/fhir/BodyStructure/{finding_key(SERIES, 'baseline', 'liver')}"),
        (Action.HISTORY, f"/fhir/ImagingSelection/{selection_id(SERIES)}/_history"),
        (Action.HISTORY, "/fhir/BodyStructure/_history"),
        (Action.HISTORY, "/fhir/_history?_count=3"),
        (Action.QUERY, f"/dicomweb/studies/{STUDY}/series/{SERIES}/instances"),
        (Action.RETRIEVE, f"/dicomweb/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1/frames/1"),
        (Action.RETRIEVE, f"/dicomweb/studies/{STUDY}/series/{SERIES}/metadata"),
        (Action.RENDER, f"/dicomweb/studies/{STUDY}/thumbnail"),
    ],
)
async def test_every_kind_of_read_says_whose_data_it_gave(site: Site, action: Action, path: str) -> None:
    answer = await site.get(path, "fhir:read", "dicom:read")
    assert answer.status_code == 200, answer.text
    (access,) = await accesses(site)
    assert (access.action, access.outcome, access.subjects) == (action, Outcome.SUCCESS, (await subject_of(site, STUDY),))
    assert access.principal == await site.principal("fhir:read", "dicom:read")


async def test_what_the_client_held_already_counts_as_read(site: Site) -> None:
    path = f"/fhir/ImagingStudy/{study_id(STUDY)}"
    etag = (await site.get(path, "fhir:read")).headers["etag"]
    again = await site.client.get(path, headers={**await site.headers("fhir:read"), "If-None-Match": etag})
    assert again.status_code == 304
    (access,) = await accesses(site)
    assert (access.count, access.subjects) == (2, (await subject_of(site, STUDY),))


async def test_many_reads_make_few_events(site: Site) -> None:
    subject_id = await subject_of(site, STUDY)
    before = await site.caught_up()
    for _ in range(120):
        assert (await site.get(f"/fhir/Patient/{subject_id}", "fhir:read")).status_code == 200
    after = await site.caught_up()
    assert after - before <= 10
    assert sum(a.count for a in await accesses(site)) == 120


async def test_what_comes_while_accesses_are_appended_waits_for_the_next_event(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    who = await site.principal("fhir:read")
    kept = AccessRecorder(site.services.log)
    append = site.services.log.append
    appends: list[int] = []

    async def reads_go_on(*arguments: Any, **more: Any) -> Any:
        kept.record(who, Action.READ, route=f"/{len(appends)}")
        appends.append(1)
        return await append(*arguments, **more)

    monkeypatch.setattr(site.services.log, "append", reads_go_on)
    kept.record(who, Action.READ, route="/first")
    await kept._append_held()
    assert len(appends) == 1
    await kept._append_held()
    assert len(appends) == 2


async def test_no_value_that_identifies_gets_into_the_log(site: Site) -> None:
    await site.get("/dicomweb/studies", "dicom:read", PatientName=PLANTED_NAME, PatientID=PLANTED_MRN)
    await site.get(f"/dicomweb/studies/{PLANTED_NAME}", "dicom:read")
    await site.get("/dicomweb/studies", "dicom:read", **{PLANTED_NAME: "x"})
    await site.get(f"/fhir/Patient/{PLANTED_MRN}", "fhir:read")
    await site.get(f"/fhir/{PLANTED_NAME}/1", "fhir:read")
    await site.get("/fhir/Patient", "fhir:read", identifier=PLANTED_MRN)
    await site.get("/fhir/Patient", "fhir:read", **{PLANTED_NAME: PLANTED_MRN})
    await site.client.get(f"/fhir/Patient/{PLANTED_MRN}")
    assert len(await accesses(site)) >= 7
    rows = await site.services.pool.fetch("SELECT data FROM event WHERE type = 'AccessesRecorded'")
    rows += await site.services.pool.fetch(f"SELECT convert_to(body, 'UTF8') FROM {FHIR}.resource WHERE type = 'AuditEvent'")
    text = b"".join(row[0] for row in rows).lower()
    assert b"patientname" in text and b"identifier" in text
    assert PLANTED_MRN.lower().encode() not in text and b"plantedname" not in text


async def test_refusals_are_recorded(site: Site) -> None:
    subject_id = await subject_of(site, STUDY)
    assert (await site.client.get(f"/fhir/Patient/{subject_id}")).status_code == 401
    assert (await site.client.get("/fhir/Patient", headers={"Authorization": "Bearer anamnesis_wrong"})).status_code == 401
    assert (await site.get(f"/fhir/Patient/{subject_id}", "dicom:read")).status_code == 403
    assert (await site.get("/metrics", "dicom:read")).status_code == 403
    unknown, wrong, forbidden, metrics = await accesses(site)
    assert {a.outcome for a in (unknown, wrong, forbidden, metrics)} == {Outcome.REFUSED}
    assert unknown.principal == wrong.principal == ANONYMOUS
    assert forbidden.principal == metrics.principal == await site.principal("dicom:read")
    assert forbidden.things == (f"Patient/{subject_id}",) and forbidden.subjects == ()


async def test_a_token_logs_in_once_until_it_rests(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def logins() -> int:
        await site.caught_up()
        events = [one.event for one in await site.services.log.read(0, 10_000, [AccessesRecorded])]
        found = [a for event in events if isinstance(event, AccessesRecorded) for a in event.accesses]
        who = await site.principal("fhir:read")
        return sum(a.count for a in found if a.action is Action.LOGIN and a.principal == who)

    for _ in range(3):
        await site.get("/fhir/metadata", "fhir:read")
    assert await logins() == 1
    monkeypatch.setattr(reads, "SESSION_S", -1.0)
    await site.get("/fhir/metadata", "fhir:read")
    assert await logins() == 2


async def test_probes_and_metrics_are_not_accesses(site: Site) -> None:
    for path in ("/health/live", "/health/ready"):
        assert (await site.client.get(path)).status_code == 200
    assert (await site.get("/metrics", "metrics:read")).status_code == 200
    assert await accesses(site) == []


async def test_reading_audit_events_takes_a_scope_of_its_own(site: Site) -> None:
    assert (await site.get("/fhir/AuditEvent", "fhir:read")).status_code == 403
    assert (await site.get("/fhir/AuditEvent", "audit:read")).status_code == 403
    assert (await site.get("/fhir/AuditEvent", "fhir:read", "audit:read")).status_code == 200


async def test_audit_events_are_found_by_agent_action_code_outcome_and_date(site: Site) -> None:
    subject_id = await subject_of(site, STUDY)
    await site.get(f"/fhir/Patient/{subject_id}", "fhir:read")
    await site.get("/fhir/Patient", "fhir:read", gender="female")
    who = await site.principal("fhir:read")
    for more in (
        {"agent": who.id, "code": "read"},
        {"action": "R"},
        {"code": "http://hl7.org/fhir/restful-interaction|read"},
        {"outcome": "success", "code": "read", "date": "ge2020"},
        {"entity": f"Patient/{subject_id}", "action": "R"},
    ):
        (found,) = await who_looked_at(site, subject_id, **more)
        assert found["code"]["text"] == "read"
    assert await who_looked_at(site, subject_id, agent="token:nobody") == []
    assert len(await who_looked_at(site, subject_id, action="E")) == 1


async def test_nothing_is_recorded_where_the_setting_is_off(embedded_server: str, tmp_path: Path) -> None:
    async with served_site(embedded_server, tmp_path, audit_reads=False) as site:
        await site.store(slice_of(STUDY, 1))
        assert (await site.get(f"/dicomweb/studies/{STUDY}", "dicom:read")).status_code == 200
        assert (await site.client.get("/fhir/Patient")).status_code == 401
        assert await accesses(site) == []


async def test_accesses_of_a_closing_server_are_recorded(embedded_server: str, tmp_path: Path) -> None:
    async with served_site(embedded_server, tmp_path) as site:
        await site.services.recorder.close()  # type: ignore[union-attr]
        assert (await site.client.get("/fhir/Patient")).status_code == 401
        await site.services.recorder.close()  # type: ignore[union-attr]
        (event,) = await site.services.log.read(0)
        assert isinstance(event.event, AccessesRecorded)


@pytest.fixture
def log_that_takes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """It answers reads and refuses to append, as PostgreSQL with a full disk does. Called, it takes again."""
    append = site.services.log.append

    async def refuses(*_: Any, **__: Any) -> None:
        raise asyncpg.DiskFullError("not now")

    monkeypatch.setattr(site.services.log, "append", refuses)
    return lambda: monkeypatch.setattr(site.services.log, "append", append)


async def test_while_the_log_takes_nothing_accesses_are_kept_up_to_a_bound(
    site: Site, monkeypatch: pytest.MonkeyPatch, log_that_takes_nothing: Callable[[], None]
) -> None:
    who = await site.principal("fhir:read")
    kept = AccessRecorder(site.services.log)
    monkeypatch.setattr(recorder, "MAX_HELD", 5)
    for number in range(4):
        kept.record(who, Action.READ, route=f"/{number}")
    assert not kept.is_full
    with pytest.raises(asyncpg.DiskFullError):
        await kept.flush()
    for number in range(4, 13):
        kept.record(who, Action.READ, route=f"/{number}")
    assert kept.is_full
    log_that_takes_nothing()
    await asyncio.gather(kept.flush(), kept.flush())
    assert not kept.is_full
    events = [one.event for one in await site.services.log.read(0, 1000, [AccessesRecorded])]
    mine = [e for e in events if isinstance(e, AccessesRecorded) and any(a.route[1:].isdigit() for a in e.accesses)]
    assert [a.route for e in mine for a in e.accesses] == [f"/{n}" for n in range(5 * recorder.UNDER_WAY)]
    assert sum(e.lost for e in mine) == 3


async def test_names_are_bounded_too(site: Site, monkeypatch: pytest.MonkeyPatch, log_that_takes_nothing: Callable[[], None]) -> None:
    who = await site.principal("fhir:read")
    kept = AccessRecorder(site.services.log)
    monkeypatch.setattr(recorder, "MAX_HELD_NAMES", 100)
    kept.record(who, Action.SEARCH, subjects=tuple(map(str, range(60))))
    assert not kept.is_full
    kept.record(who, Action.SEARCH, studies=tuple(map(str, range(60))))
    assert kept.is_full
    log_that_takes_nothing()
    await kept.flush()
    assert not kept.is_full


async def test_what_cannot_be_recorded_cannot_be_read(
    site: Site, monkeypatch: pytest.MonkeyPatch, log_that_takes_nothing: Callable[[], None]
) -> None:
    subject_id = await subject_of(site, STUDY)
    monkeypatch.setattr(recorder, "MAX_HELD", 3)
    patient, study, erasures = f"/fhir/Patient/{subject_id}", f"/dicomweb/studies/{STUDY}/metadata", "/subjects/erasures"
    scopes = ("fhir:read", "dicom:read", "subjects:erase")
    statuses = [(await site.get(path, *scopes)).status_code for path in (patient, study, patient, erasures, patient)]
    assert statuses == [200, 200, 503, 503, 503]  # the login is one of the three
    refused = await site.get(patient, *scopes)
    assert refused.headers["Retry-After"] and refused.json()["issue"][0]["code"] == "transient"
    assert PLANTED_NAME not in refused.text
    assert (await site.client.post("/fhir/Patient/_search", headers=await site.headers(*scopes))).status_code == 503
    assert (await site.client.get("/health/live")).status_code == 200
    assert (await site.get("/fhir/metadata", *scopes)).status_code == 200
    log_that_takes_nothing()
    await site.caught_up()
    assert (await site.get(patient, *scopes)).status_code == 200
    assert [(a.action, a.outcome) for a in await accesses(site)] == [
        (Action.READ, Outcome.SUCCESS), (Action.RETRIEVE, Outcome.SUCCESS), (Action.READ, Outcome.SUCCESS)
    ]  # fmt: skip


async def test_a_route_that_nobody_thought_of_is_an_access_all_the_same(site: Site) -> None:
    subject_id = await subject_of(site, STUDY)
    answer = await site.get(f"/subjects/{subject_id}/erasure", "subjects:erase")
    assert answer.status_code == 200, answer.text
    (access,) = await accesses(site)
    assert (access.action, access.route, access.things) == (Action.OTHER, "/subjects/{subject_id}/erasure", (f"Patient/{subject_id}",))
    (found,) = await who_looked_at(site, subject_id)
    assert found["code"]["text"] == "other"


async def test_proofs_tell_nothing_of_anybody_and_are_not_recorded(site: Site) -> None:
    for path in ("/audit/keys", "/audit/checkpoints"):
        assert (await site.get(path, "audit:read")).status_code == 200
    assert await accesses(site) == []


async def test_a_refused_association_is_recorded(embedded_server: str, tmp_path: Path) -> None:
    async with served_site(embedded_server, tmp_path, dimse=True, dimse_port=0, allowed_ae_titles=["SCANNER"]) as site:
        assert site.services.dimse is not None
        caller = AE(ae_title="PLANTEDAE")
        caller.add_requested_context("1.2.840.10008.1.1")
        association = await asyncio.to_thread(caller.associate, "127.0.0.1", site.services.dimse.port)
        assert association.is_rejected
        async with asyncio.timeout(30):
            while not (found := await accesses(site)):
                await asyncio.sleep(0.02)
        assert [(a.principal, a.action, a.outcome, a.route) for a in found] == [(ANONYMOUS, Action.LOGIN, Outcome.REFUSED, "dimse")]


async def test_every_kind_of_access_is_a_valid_audit_event(site: Site) -> None:
    who = Principal(id="token:abc", kind=PrincipalKind.PERSON, on_behalf_of="registrar")
    things = ("Patient/p1", "ImagingStudy/s1", "study:1.2.3", "series:1.2.3.4")
    accesses = [
        one_access(who, action, outcome, route="/some/{route}", things=things, subjects=["p1", "p2"]) for action in Action for outcome in Outcome
    ]
    recorded = (await site.services.log.read(0, 1))[0]
    made = audit_events(AccessesRecorded(accesses=tuple(accesses)), recorded)
    assert len(made) == len(Action) * len(Outcome)
    for one in made:
        get_fhir_model_class("AuditEvent").model_validate(one)
