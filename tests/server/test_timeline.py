"""Timelines of anything by its id, and the lineage of a finding, over HTTP and from the command line."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from served_site import LIVER, LUNG, PLANTED_MRN, PLANTED_NAME, Site, served_site, slice_of

from domain.access import AccessesRecorded, Action
from domain.findings import finding_key
from domain.review import ReviewFinding, Verdict
from eventlog.envelope import NewEvent, StreamAppend
from projections.dicom import DicomProjection
from projections.fhir.vocabulary import index_id, observation_id, selection_id, study_id
from projections.projection import schema_name
from server.audit.differences import difference
from server.reviews import review_finding

pytestmark = pytest.mark.asyncio(loop_scope="module")
STUDY = "1.2.840.1.1"
SERIES = f"{STUDY}.1"
FINDING = finding_key(SERIES, "baseline", "liver")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """One history for all: stored, conflicting, changed demographics, indexed, reviewed. Accesses are switched off."""
    async with served_site(embedded_server, tmp_path_factory.mktemp("timeline"), audit_reads=False) as served:
        await served.store(slice_of(STUDY, 1), slice_of(STUDY, 2))
        await served.store(slice_of("1.2.840.1.9", 1, patient_id="SOMEBODYELSE"))
        await served.store(slice_of(STUDY, 3, PatientSex="O"))
        await served.index(SERIES, LIVER, LUNG)
        reviewer = await served.principal("reviews:write")
        await review_finding(
            served.services.log, reviewer, ReviewFinding(finding_key=FINDING, verdict=Verdict.REJECTED, comment=f"{PLANTED_NAME} is well")
        )
        await served.caught_up()
        yield served


async def show(site: Site, wanted: str, *scopes: str, **parameters: str) -> dict[str, Any]:
    answer = await site.get(f"/audit/timeline/{wanted}", "audit:read", *scopes, **parameters)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    assert answer.headers["Anamnesis-Position"] == str(shown["as_of"])
    return shown


def types(shown: dict[str, Any]) -> list[str]:
    return [entry["type"] for entry in shown["entries"]]


async def subject_of(site: Site) -> str:
    found: str = await site.services.pool.fetchval(
        f"SELECT subject_id FROM {schema_name(DicomProjection())}.study WHERE study_uid = $1", STUDY
    )
    return found


IN_SERIES = ["InstancesStored", "InstancesStored", "IndexingRequested", "SeriesIndexed", "FindingReviewed"]


async def test_a_study_and_a_series_show_all_that_touched_them_in_order(site: Site) -> None:
    assert types(await show(site, SERIES)) == IN_SERIES
    shown = await show(site, STUDY)
    assert shown["kinds"] == ["study"]
    assert [kind for kind in types(shown) if not kind.startswith("Subject")] == ["StudyRegistered", *IN_SERIES]
    positions = [entry["position"] for entry in shown["entries"]]
    assert positions == sorted(positions)
    assert await site.services.log.read(positions[-1]) == []


@pytest.mark.parametrize(
    ("wanted", "kind", "found"),
    [
        (FINDING, "finding", ["SeriesIndexed", "FindingReviewed"]),
        (f"BodyStructure/{FINDING}", "finding", ["SeriesIndexed", "FindingReviewed"]),
        (f"Observation/{observation_id(FINDING)}", "finding", ["SeriesIndexed", "FindingReviewed"]),
        (observation_id(FINDING), "finding", ["SeriesIndexed", "FindingReviewed"]),
        (f"ImagingSelection/{selection_id(SERIES)}", "series", IN_SERIES),
        (index_id(SERIES), "series", IN_SERIES),
        (f"{SERIES}.3", "instance", ["InstancesStored"]),
        ("device:worker", "principal", ["IndexingRequested", "SeriesIndexed"]),
    ],
)
async def test_anything_is_found_by_its_id(site: Site, wanted: str, kind: str, found: list[str]) -> None:
    shown = await show(site, wanted)
    assert kind in shown["kinds"]
    assert types(shown) == found


async def test_a_resource_stands_for_what_it_is_made_of(site: Site) -> None:
    subject_id = await subject_of(site)
    of_subject = types(await show(site, subject_id))
    assert of_subject[0] == "SubjectRegistered" and "SubjectDemographicsChanged" in of_subject
    assert types(await show(site, f"Patient/{subject_id}")) == of_subject
    assert types(await show(site, study_id(STUDY))) == types(await show(site, f"ImagingStudy/{study_id(STUDY)}")) == types(await show(site, STUDY))


async def test_an_event_shows_itself_and_what_it_caused(site: Site) -> None:
    entries = (await show(site, SERIES))["entries"]
    requested, made = entries[2], entries[3]
    assert made["caused_by"] == requested["position"]
    assert types(await show(site, requested["event_id"])) == ["IndexingRequested", "SeriesIndexed"]
    assert types(await show(site, f"Provenance/{made['event_id']}")) == ["SeriesIndexed"]


async def test_a_device_resource_shows_what_it_indexed(site: Site) -> None:
    answer = await site.get("/fhir/Device", "fhir:read")
    device_id = answer.json()["entry"][0]["resource"]["id"]
    assert types(await show(site, f"Device/{device_id}")) == ["SeriesIndexed"]


async def test_changes_are_field_by_field(site: Site) -> None:
    entries = (await show(site, SERIES))["entries"]
    changes = [{change["path"]: change for change in entry.get("changes", [])} for entry in entries]
    assert changes[0]["series.study_uid"]["after"] == STUDY and "before" not in changes[0]["series.study_uid"]
    assert set(changes[1]) == {f"series.instances.{SERIES}.3"}
    assert changes[2]["series.indexing.baseline"]["after"]["outcome"] == "requested"
    assert changes[3]["series.indexing.baseline.outcome"] == {"path": "series.indexing.baseline.outcome", "before": "requested", "after": "indexed"}
    assert changes[4][f"findings.standing.{FINDING}.verdict"]["after"] == "rejected"
    assert entries[4]["detail"]["label"] == "liver"


async def test_what_identifies_is_shown_to_those_who_may_and_ask(site: Site) -> None:
    subject_id = await subject_of(site)
    for wanted in (subject_id, SERIES):
        hidden = await site.get(f"/audit/timeline/{wanted}", "audit:read", "identities:read")
        assert PLANTED_NAME not in hidden.text and PLANTED_MRN not in hidden.text
        refused = await site.get(f"/audit/timeline/{wanted}", "audit:read", identities="true")
        assert refused.status_code == 403
        shown = await site.get(f"/audit/timeline/{wanted}", "audit:read", "identities:read", identities="true")
        assert PLANTED_NAME in shown.text
    withheld = [c for e in (await show(site, subject_id))["entries"] for c in e.get("changes", []) if c["path"] == "subject.seen"]
    assert withheld and all(change["withheld"] and not {"before", "after"} & set(change) for change in withheld)


async def test_pages_give_the_same_as_one(site: Site) -> None:
    whole = (await show(site, STUDY))["entries"]
    paged: list[Any] = []
    after = 0
    while after is not None:
        page = await show(site, STUDY, after=str(after), limit="2")
        assert len(page["entries"]) <= 2
        paged += page["entries"]
        after = page["next"]
    assert paged == whole


async def test_as_of_a_position_or_an_instant_it_shows_what_was_known_then(site: Site) -> None:
    entries = (await show(site, SERIES))["entries"]
    at = entries[2]["position"]
    assert (await show(site, SERIES, as_of=str(at)))["entries"] == entries[:3]
    by_instant = await show(site, SERIES, as_of=entries[2]["recorded_at"])
    assert (by_instant["as_of"], by_instant["entries"]) == (at, entries[:3])
    assert (await site.get(f"/audit/timeline/{SERIES}", "audit:read", as_of="yesterday")).status_code == 400
    assert (await site.get(f"/audit/timeline/{SERIES}", "audit:read", as_of="99999")).status_code == 400


@pytest.mark.parametrize("wanted", ["1.2.3.4.5", "Patient/nobody", "Nothing/x", "token:nobody", "0" * 5000, "%20", "a%00b"])
async def test_of_what_nothing_is_known_is_a_404(site: Site, wanted: str) -> None:
    answer = await site.get(f"/audit/timeline/{wanted}", "audit:read")
    assert answer.status_code == 404, answer.text
    assert (await site.get("/audit/lineage/nothing", "audit:read")).status_code == 404


async def test_auditors_need_their_scope(site: Site) -> None:
    assert (await site.get(f"/audit/timeline/{STUDY}", "fhir:read")).status_code == 403
    assert (await site.get(f"/audit/lineage/{FINDING}", "fhir:read")).status_code == 403


async def test_lineage_goes_back_to_the_received_bytes_and_is_checked(site: Site) -> None:
    found = (await site.get(f"/audit/lineage/{FINDING}", "audit:read")).json()
    assert [one["sop_instance_uid"] for one in found["instances"]] == [f"{SERIES}.{n}" for n in (1, 2, 3)]
    for one in found["instances"]:
        with site.services.store.open(one["sha256"]) as file:
            assert len(file.read()) == one["size"]
        assert one["door"] == "stow"
    assert found["request"]["event_id"] == found["indexing"]["caused_by"]
    assert (found["run"]["weights_sha256"], found["run"]["software"]) == ("ef" * 32, {"numpy": "2.0"})
    assert found["verified"] and found["computed_digest"] == found["series_digest"]
    (review,) = found["reviews"]
    assert (review["verdict"], review["of_this_index"]) == ("rejected", True)
    (indexing,) = [e for e in await site.services.log.read(0, 1000) if e.position == found["indexing"]["position"]]
    assert indexing.digest.hex() == found["indexing"]["digest"]


async def test_lineage_has_a_place_for_de_identification_and_datasets(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from server.audit import lineage

    found = (await site.get(f"/audit/lineage/{FINDING}", "audit:read")).json()
    assert found["deidentifications"] == found["datasets"] == []
    monkeypatch.setattr(lineage, "DEIDENTIFICATIONS", frozenset({"InstancesStored"}))
    monkeypatch.setattr(lineage, "dataset_types", lambda: frozenset({"FindingReviewed"}))
    found = (await site.get(f"/audit/lineage/{FINDING}", "audit:read")).json()
    assert [one["type"] for one in found["deidentifications"]] == ["InstancesStored"] * 2
    assert [one["type"] for one in found["datasets"]] == ["FindingReviewed"]


async def test_lineage_as_of_then_knows_no_later_review(site: Site) -> None:
    found = (await site.get(f"/audit/lineage/{FINDING}", "audit:read")).json()
    then = (await site.get(f"/audit/lineage/{FINDING}", "audit:read", as_of=str(found["indexing"]["position"]))).json()
    assert then["reviews"] == [] and then["verified"]


async def test_lineage_says_when_the_instances_are_not_those_that_were_indexed(site: Site) -> None:
    """An index that was put into the log with another digest than its instances have."""
    from msgspec.structs import replace
    from served_site import indexed

    from domain import series
    from domain.principal import device
    from domain.series import Series
    from eventlog.aggregate import load

    stream = "series-1.2.840.1.9.1"
    state, _ = await load(site.services.log, stream, Series(), series.evolve)
    forged = replace(indexed(state, "1.2.840.1.9.1", LIVER), series_digest="00" * 32)
    await site.services.log.append([StreamAppend(stream=stream, events=[NewEvent(event=forged)])], principal=device("forger"))
    await site.caught_up()
    found = (await site.get(f"/audit/lineage/{finding_key('1.2.840.1.9.1', 'baseline', 'liver')}", "audit:read")).json()
    assert not found["verified"]


async def cli(site: Site, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """`anamnesis audit …` in a process of its own, on the same database."""
    settings = site.services.settings
    assert settings.database_url is not None
    environment = {
        **os.environ,
        "ANAMNESIS_DATA_DIR": str(settings.data_dir),
        "ANAMNESIS_DATABASE_URL": settings.database_url.get_secret_value(),
        "COLUMNS": "250",
        **variables,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server.cli", "audit", *arguments, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_command_line_shows_a_timeline(site: Site) -> None:
    code, out, err = await cli(site, "show", SERIES)
    assert code == 0, err
    assert all(kind in out for kind in IN_SERIES) and "requested → indexed" in out
    assert PLANTED_NAME not in out
    (last,) = await site.services.log.read(await site.services.log.head() - 1)
    assert isinstance(last.event, AccessesRecorded)
    (access,) = last.event.accesses
    assert (access.principal.id, access.action) == (f"console:uid-{os.getuid()}", Action.AUDIT)
    assert access.subjects == (await subject_of(site),)


@pytest.mark.parametrize("scope", [("--subject",), ("--study", STUDY), ("--since", "2020-01-01")])
async def test_an_export_says_in_the_log_whose_data_it_took(site: Site, tmp_path: Path, scope: tuple[str, ...]) -> None:
    subject_id = await subject_of(site)
    code, _, err = await cli(site, "export", str(tmp_path / "bundle"), *scope, *([subject_id] if len(scope) == 1 else []))
    assert code == 0, err
    (last,) = await site.services.log.read(await site.services.log.head() - 1)
    assert isinstance(last.event, AccessesRecorded)
    (access,) = last.event.accesses
    assert (access.action, access.route) == (Action.EXPORT, "anamnesis audit export")
    assert subject_id in access.subjects and len(access.subjects) == (2 if scope[0] == "--since" else 1)
    await site.caught_up()


async def test_the_command_line_records_no_read_where_that_is_switched_off(site: Site) -> None:
    before = await site.services.log.head()
    assert (await cli(site, "show", SERIES, ANAMNESIS_AUDIT_READS="false"))[0] == 0
    assert await site.services.log.head() == before


async def test_the_command_line_shows_identities_to_a_token_and_says_so_in_the_log(site: Site) -> None:
    token = (await site.headers("identities:read"))["Authorization"].removeprefix("Bearer ")
    code, out, err = await cli(site, "show", await subject_of(site), "--identities", "--json", ANAMNESIS_TOKEN=token)
    assert code == 0, err
    assert PLANTED_NAME in out
    (last,) = await site.services.log.read(await site.services.log.head() - 1)
    assert last.type == "AccessesRecorded" and last.event.scope() == {f"subject:{await subject_of(site)}"}
    await site.caught_up()
    shown = await show(site, await subject_of(site))
    (access,) = shown["entries"][-1]["accesses"]
    assert access["principal"]["id"] == (await site.principal("identities:read")).id


async def test_the_command_line_shows_a_lineage(site: Site) -> None:
    code, out, err = await cli(site, "lineage", FINDING)
    assert code == 0, err
    assert f"{SERIES}.3" in out and "the same" in out and "rejected in review" in out
    assert "datasets: none recorded" in out and "de-identification of the files: none recorded" in out
    code, _, _ = await cli(site, "lineage", finding_key("1.2.840.1.9.1", "baseline", "liver"))
    assert code == 1


async def test_of_what_nothing_is_known_the_command_line_ends_2(site: Site) -> None:
    code, _, err = await cli(site, "show", "1.2.3.4.5")
    assert code == 2 and "NothingKnown" in err


leaves = st.one_of(st.booleans(), st.integers(0, 3), st.text("ab", max_size=2))
trees = st.recursive(leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abcdefgh"), inner)), max_leaves=12)


@given(st.dictionaries(st.sampled_from("abc"), trees), st.dictionaries(st.sampled_from("abc"), trees))
async def test_there_is_a_change_just_where_states_differ(before: dict[str, Any], after: dict[str, Any]) -> None:
    changes = difference(before, after)
    assert bool(changes) == (before != after)
    assert len({change.path for change in changes}) == len(changes)
    for name in {*before, *after}:
        differs = before.get(name) != after.get(name)
        assert any(change.path.split(".")[0] == name for change in changes) == differs
