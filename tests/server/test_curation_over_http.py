"""Projects, tags, saved cohorts and datasets as clients have them: by GraphQL over HTTP, and at the command line."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from listening_site import ListeningSite, listening_site
from served_site import LIVER, erase, slice_of
from typer.testing import CliRunner

from domain.access import AccessesRecorded
from projections.dicom.projection import SCHEMA
from server.cli import build

ROLES = {
    "ann": ("cohorts:read", "cohorts:write"),
    "bob": ("cohorts:read",),
    "carl": ("cohorts:read", "cohorts:write", "metrics:read"),
}
CT = {"level": "SERIES", "where": {"oneOf": {"field": "Modality", "values": ["CT"]}}}
STUDIES = [f"1.2.826.0.1.3680043.10.{n}" for n in range(1, 9)]
Ask = Callable[..., dict[str, Any]]


def slices(n: int, numbers: range, series_number: int = 1) -> list[bytes]:
    sex, maker = "FM"[n % 2], ("ACME", "Bolt")[n % 2]
    return [
        slice_of(STUDIES[n], k, series_number=series_number, patient_id=f"MRN{n}", name=f"Planted^{n}", PatientSex=sex, Manufacturer=maker) for k in numbers
    ]


@pytest.fixture(scope="module")
def site(external_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ListeningSite]:
    with listening_site(external_server, tmp_path_factory.mktemp("site")) as listening:
        for n in range(6):
            listening.do(listening.site.store(*slices(n, range(1, 3))))
        listening.do(listening.site.index(f"{STUDIES[0]}.1", LIVER))
        yield listening


def token(site: ListeningSite, who: str) -> str:
    return site.do(site.site.headers(*ROLES[who]))["Authorization"].split()[1]


@pytest.fixture(scope="module")
def ask(site: ListeningSite) -> Ask:
    """What GraphQL answers, or the extensions of its first error."""

    def asked(who: str, document: str, **variables: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token(site, who)}"}
        answer = httpx.post(f"{site.url}/graphql", json={"query": document, "variables": variables}, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        if body.get("errors"):
            return {"refused": body["errors"][0]["extensions"]}
        data: dict[str, Any] = body["data"]
        return data

    return asked


@pytest.fixture(scope="module")
def project(ask: Ask) -> str:
    made = ask("ann", 'mutation { createProject(projectId: "liver", title: "Livers") { project { projectId role members { role } } } }')
    assert made["createProject"]["project"] == {"projectId": "liver", "role": "OWNER", "members": [{"role": "OWNER"}]}
    return "liver"


@pytest.fixture(scope="module")
def member(site: ListeningSite, ask: Ask, project: str) -> str:
    bob = site.do(site.site.principal(*ROLES["bob"])).id
    ask("ann", 'mutation ($id: String!) { admitMember(projectId: "liver", principalId: $id, role: VIEWER) { position } }', id=bob)
    return bob


FREEZE = """mutation ($id: String!, $of: QuestionInput, $asOf: AsOfInput, $cohort: String) {
  freezeDataset(datasetId: $id, of: $of, cohortId: $cohort, asOf: $asOf) { position version { version membersSha256 subjects series instances cohortVersion } } }"""
TERMS = {"license": "CC-BY-4.0", "intendedUses": ["RESEARCH"]}


@pytest.fixture
def dataset(ask: Ask, member: str) -> str:
    made = ask(
        "ann", 'mutation ($terms: TermsInput) { createDataset(projectId: "liver", title: "Livers", terms: $terms) { dataset { datasetId } } }', terms=TERMS
    )
    return str(made["createDataset"]["dataset"]["datasetId"])


def test_who_may_only_read_changes_nothing(ask: Ask, dataset: str) -> None:
    refused = ask("bob", 'mutation { createProject(projectId: "mine") { position } }')["refused"]
    assert (refused["code"], refused["scope"]) == ("SCOPE_MISSING", "cohorts:write")
    assert ask("carl", FREEZE, id=dataset, of=CT)["refused"] == {"code": "REFUSED", "reason": "NotAMember"}


def test_projects_are_their_members(ask: Ask, project: str, member: str) -> None:
    assert [one["projectId"] for one in ask("bob", "{ projects { projectId } }")["projects"]] == ["liver"]
    assert ask("carl", "{ projects { projectId } }")["projects"] == []
    again = ask("carl", 'mutation { createProject(projectId: "liver") { position } }')
    assert again["refused"] == {"code": "REFUSED", "reason": "ProjectRefused"}


def test_a_tag_is_there_when_the_answer_is(ask: Ask, project: str) -> None:
    tag = 'mutation ($keys: [String!]) { setTag(projectId: "liver", level: SERIES, keys: $keys, name: "quality", value: "good") { found changed position } }'
    made = ask("ann", tag, keys=[f"{STUDIES[0]}.1"])["setTag"]
    assert (made["found"], made["changed"]) == (1, 1)
    tagged = "{ series(where: {has: {level: TAG, where: {oneOf: {field: \"name\", values: [\"quality\"]}}}}) { position nodes { seriesUid tags { name value } } } }"
    found = ask("bob", tagged)["series"]
    assert found["position"] >= made["position"]
    assert found["nodes"] == [{"seriesUid": f"{STUDIES[0]}.1", "tags": [{"name": "quality", "value": "good"}]}]
    of_all = 'mutation ($of: QuestionInput!) { setTagOfAll(projectId: "liver", of: $of, name: "phase", value: "venous") { found changed correlationId } }'
    assert ask("ann", of_all, of=CT)["setTagOfAll"]["changed"] == 6
    gone = 'mutation ($of: QuestionInput!) { removeTagOfAll(projectId: "liver", of: $of, name: "phase") { found changed } }'
    assert ask("ann", gone, of=CT)["removeTagOfAll"] == {"found": 6, "changed": 6}
    assert ask("ann", tag, keys=["9.9"])["refused"]["reason"] == "TargetUnknown"
    assert ask("ann", tag, keys=[])["refused"]["code"] == "BAD_USER_INPUT"


def test_a_cohort_is_saved_shared_changed_and_deleted(ask: Ask, member: str) -> None:
    save = "mutation ($of: QuestionInput!, $id: String, $title: String) { saveCohort(of: $of, cohortId: $id, title: $title) { cohort { cohortId version title mine query } } }"
    made = ask("ann", save, of=CT, title="CTs")["saveCohort"]["cohort"]
    assert (made["version"], made["title"], made["mine"]) == (1, "CTs", True)
    id_ = made["cohortId"]
    one = "query ($id: String!) { savedCohort(cohortId: $id) { title version mine sharedIn cohort { counts { series } } versions { version query } } }"
    assert ask("bob", one, id=id_)["savedCohort"] is None
    shared = ask("ann", 'mutation ($id: String!) { shareCohort(cohortId: $id, projectId: "liver") { cohort { sharedIn } } }', id=id_)
    assert shared["shareCohort"]["cohort"]["sharedIn"] == ["liver"]
    seen = ask("bob", one, id=id_)["savedCohort"]
    assert (seen["mine"], seen["cohort"]["counts"]["series"]) == (False, 6)
    assert id_ in [found["cohortId"] for found in ask("bob", "{ cohorts { cohortId } }")["cohorts"]]
    ask("ann", save, of={"query": made["query"].replace("CT", "MR")}, id=id_)
    after = ask("ann", one, id=id_)["savedCohort"]
    assert [version["version"] for version in after["versions"]] == [1, 2] and after["title"] == "CTs"
    ask("ann", 'mutation ($id: String!) { renameCohort(cohortId: $id, title: "MRs") { position } }', id=id_)
    assert ask("bob", one, id=id_)["savedCohort"]["title"] == "MRs"
    assert ask("ann", "mutation ($id: String!) { deleteCohort(cohortId: $id) { cohort { title } } }", id=id_)["deleteCohort"]["cohort"] is None
    assert ask("bob", one, id=id_)["savedCohort"] is None
    named = {"level": "STUDY", "where": {"oneOf": {"field": "PatientID", "values": ["MRN1"]}}}
    assert ask("ann", save, of=named, title="x")["refused"]["code"] in ("SCOPE_MISSING", "REFUSED")


def test_what_changed_in_a_cohort_is_told_with_reasons(site: ListeningSite, ask: Ask, project: str) -> None:
    since = ask("ann", "{ position }")["position"]
    tag = 'mutation ($keys: [String!]) { setTag(projectId: "liver", level: STUDY, keys: $keys, name: "seen") { position } }'
    ask("ann", tag, keys=[STUDIES[2]])
    seen = {"level": "STUDY", "where": {"has": {"level": "TAG", "where": {"oneOf": {"field": "name", "values": ["seen"]}}}}}
    changes = """query ($of: QuestionInput!, $since: AsOfInput!) { cohortChanges(of: $of, since: $since) {
      beforeCount afterCount enteredCount leftCount entered { studyUid seriesUid reasons { type position } } } }"""
    found = ask("ann", changes, of=seen, since={"position": since})["cohortChanges"]
    assert (found["beforeCount"], found["afterCount"], found["enteredCount"], found["leftCount"]) == (0, 1, 1, 0)
    (entered,) = found["entered"]
    assert (entered["studyUid"], entered["seriesUid"], [one["type"] for one in entered["reasons"]]) == (STUDIES[2], "", ["TagSet"])


def test_a_dataset_is_frozen_split_and_compared(site: ListeningSite, ask: Ask, dataset: str) -> None:
    first = ask("ann", FREEZE, id=dataset, of=CT)["freezeDataset"]
    version = first["version"]
    assert (version["version"], version["subjects"], version["series"], version["instances"]) == (1, 6, 6, 12)
    assert ask("ann", FREEZE, id=dataset, of=CT)["freezeDataset"] == {"position": None, "version": version}
    page = """query ($id: String!, $after: String) { dataset(datasetId: $id) { license version { members(first: 4, after: $after) {
      pageInfo { hasNextPage endCursor } nodes { seriesUid split instances { sha256 } } } } } }"""
    seen = ask("bob", page, id=dataset)["dataset"]
    members = seen["version"]["members"]
    assert seen["license"] == "CC-BY-4.0" and members["pageInfo"]["hasNextPage"]
    rest = ask("bob", page, id=dataset, after=members["pageInfo"]["endCursor"])["dataset"]["version"]["members"]
    assert [one["seriesUid"] for one in (*members["nodes"], *rest["nodes"])] == sorted(f"{STUDIES[n]}.1" for n in range(6))
    files = [site.site.services.store.open(one["sha256"]).read() for one in members["nodes"][0]["instances"]]
    assert [hashlib.sha256(file).hexdigest() for file in files] == [one["sha256"] for one in members["nodes"][0]["instances"]]
    assert [pydicom.dcmread(io.BytesIO(file)).InstanceNumber for file in files] == [1, 2]
    assert ask("carl", page, id=dataset)["dataset"] is None

    split = """mutation ($id: String!, $version: Int, $parts: [PartInput!], $byHand: [AssignedInput!]) {
      splitDataset(datasetId: $id, version: $version, parts: $parts, seed: "7", stratifyBy: ["sex"], byHand: $byHand) {
        version { split { seed stratifiedBy kept parts { name subjects } } } } }"""
    halves = [{"name": "train", "share": 0.5}, {"name": "test", "share": 0.5}]
    made = ask("ann", split, id=dataset, parts=halves)["splitDataset"]["version"]["split"]
    assert (made["stratifiedBy"], sum(part["subjects"] for part in made["parts"])) == (["sex"], 6)
    everybody = ask("ann", "query ($id: String!) { dataset(datasetId: $id) { version { members(first: 10) { nodes { subjectId split } } } } }", id=dataset)
    other = {"train": "test", "test": "train"}
    moved = [{"subjectId": one["subjectId"], "part": other[one["split"]]} for one in everybody["dataset"]["version"]["members"]["nodes"]]
    assert ask("ann", split, id=dataset, parts=halves, byHand=moved)["refused"] == {"code": "REFUSED", "reason": "SubjectWouldLeak"}

    site.do(site.site.store(*slices(6, range(1, 3))))
    second = ask("ann", FREEZE, id=dataset, of=CT)["freezeDataset"]["version"]
    assert (second["version"], second["series"]) == (2, 7)
    drift = """query ($id: String!) { dataset(datasetId: $id) { drift(before: 1, after: 2, fields: ["Manufacturer"]) {
      sameCount enteredCount entered { seriesUid reasons { type } } shifts { field psi values { value before after } } } } }"""
    found = ask("bob", drift, id=dataset)["dataset"]["drift"]
    assert (found["sameCount"], [one["seriesUid"] for one in found["entered"]]) == (6, [f"{STUDIES[6]}.1"])
    assert "InstancesStored" in [reason["type"] for reason in found["entered"][0]["reasons"]]
    (shift,) = found["shifts"]
    assert {one["value"]: (one["before"], one["after"]) for one in shift["values"]}["ACME"] == (3, 4)


def test_a_saved_cohort_is_frozen_as_it_was_then(ask: Ask, dataset: str) -> None:
    save = "mutation ($of: QuestionInput!) { saveCohort(of: $of, title: \"Livers\") { cohort { cohortId } position } }"
    livers = {"level": "FINDING", "where": {"oneOf": {"field": "label", "values": ["liver"]}}}
    id_ = ask("ann", save, of=livers)["saveCohort"]["cohort"]["cohortId"]
    frozen = ask("ann", FREEZE, id=dataset, cohort=id_)["freezeDataset"]["version"]
    assert (frozen["series"], frozen["cohortVersion"]) == (1, 1)
    assert ask("ann", FREEZE, id=dataset)["refused"]["code"] == "BAD_USER_INPUT"
    assert ask("ann", FREEZE, id=dataset, of=CT, asOf={"position": 1})["refused"]["reason"] in ("DatasetIsEmpty", "DatasetRefused")


def test_whose_data_was_looked_at_is_recorded(site: ListeningSite, ask: Ask, dataset: str) -> None:
    ask("ann", FREEZE, id=dataset, of=CT)
    ask("bob", "query ($id: String!) { dataset(datasetId: $id) { version { members { nodes { seriesUid } } } } }", id=dataset)
    site.do(site.site.caught_up())
    bob = site.do(site.site.principal(*ROLES["bob"])).id
    events = site.do(site.site.services.log.read(0, 10_000, [AccessesRecorded]))
    seen = {subject for one in events if isinstance(one.event, AccessesRecorded) for access in one.event.accesses if access.principal.id == bob for subject in access.subjects}
    everybody = site.do(site.site.services.pool.fetch(f"SELECT DISTINCT subject_id FROM {SCHEMA}.study"))
    assert {row["subject_id"] for row in everybody} <= seen


async def statements(site: ListeningSite, headers: dict[str, str], query: str) -> int:
    """How often the server asks PostgreSQL for an answer."""
    pool = site.site.services.pool
    for connection in await asyncio.gather(*(pool.acquire() for _ in range(pool.get_max_size()))):
        await pool.release(connection)
    said: list[str] = []
    logged = [holder._con for holder in pool._holders]

    def log(record: Any) -> None:
        said.append(record.query)

    for connection in logged:
        connection.add_query_logger(log)
    answer = await site.site.client.post("/graphql", json={"query": query}, headers=headers)
    for connection in logged:
        connection.remove_query_logger(log)
    assert "errors" not in answer.json(), answer.text
    return len([one for one in said if "curation_v1" in one])


def test_more_datasets_and_cohorts_take_no_more_statements(site: ListeningSite, ask: Ask, dataset: str) -> None:
    query = """{ projects { projectId members { principalId } } cohorts { title versions { query } }
      datasets { title version { version split { parts { name } } } versions { version } } }"""
    headers = site.do(site.site.headers(*ROLES["ann"]))
    few = site.do(statements(site, headers, query))
    for n in range(3):
        made = ask("ann", 'mutation { createDataset(projectId: "liver", title: "Another") { dataset { datasetId } } }')
        ask("ann", FREEZE, id=made["createDataset"]["dataset"]["datasetId"], of=CT)
        ask("ann", "mutation ($of: QuestionInput!) { saveCohort(of: $of, title: \"Another\") { position } }", of=CT)
        ask("ann", f'mutation {{ createProject(projectId: "more-{n}") {{ position }} }}')
    assert site.do(statements(site, headers, query)) == few > 0


@pytest.fixture(scope="module")
def run(site: ListeningSite, member: str) -> Callable[..., str]:
    """What a command prints; raises what it raises."""
    environment = {"ANAMNESIS_SERVER": site.url, "ANAMNESIS_TOKEN": token(site, "ann"), "COLUMNS": "200"}
    commands = build()

    def in_process(*arguments: str) -> str:
        done = CliRunner().invoke(commands, list(arguments), env=environment)
        if done.exception is not None:
            raise done.exception
        return done.stdout

    return in_process


def test_the_command_line_makes_freezes_splits_and_compares(site: ListeningSite, run: Callable[..., str], tmp_path: Path) -> None:
    title = "Livers at the command line"
    id_ = run("dataset", "create", "liver", title, "--license", "CC-BY-4.0", "--use", "research").strip()
    assert "none" in run("dataset", "terms", id_, "--license", "MIT")
    shown = json.loads(run("dataset", "terms", title, "--license", "MIT", "--use", "education", "--consents", "--json"))
    assert (shown["license"], shown["intendedUses"]) == ("MIT", ["EDUCATION"]) and "Consent" in shown["consent"]
    assert "version 1" in run("dataset", "freeze", title, "--where", "Modality = CT")
    assert run("dataset", "freeze", title, "--where", "Modality = CT").startswith("Nothing new")
    made = json.loads(run("dataset", "split", title, "--part", "train=0.5", "--part", "test=0.5", "--stratify", "sex", "--json"))
    assert [part["name"] for part in made["parts"]] == ["train", "test"]
    members = [json.loads(line) for line in run("dataset", "members", title, "--json").splitlines()]
    assert {one["split"] for one in members} == {"train", "test"} and all(one["instances"] for one in members)
    assert members[0]["seriesUid"] in run("dataset", "members", title, "--limit", "1")
    (tmp_path / "parts.csv").write_text("subject_id,part\n" + "".join(f"{one['subjectId']},{one['split']}\n" for one in members[:2]))
    by_hand = run("dataset", "split", title, "--part", "train=0.5", "--part", "test=0.5", "--by-hand", str(tmp_path / "parts.csv"))
    assert "by hand" in by_hand
    site.do(site.site.store(*slices(7, range(1, 2))))
    run("dataset", "freeze", title, "--where", "Modality = CT")
    assert "entered" in run("dataset", "drift", title, "1", "2", "--field", "Manufacturer")
    drift = json.loads(run("dataset", "drift", title, "1", "2", "--field", "SliceThickness", "--json"))
    assert drift["enteredCount"] == 1
    assert title in run("dataset", "list") and id_ in [one["datasetId"] for one in json.loads(run("dataset", "list", "--json"))]
    shown = json.loads(run("dataset", "show", title, "--json"))
    assert [version["version"] for version in shown["versions"]] == [1, 2]
    assert "version 2" in run("dataset", "show", id_)
    digest = shown["versions"][0]["membersSha256"]
    site.site.services.store.delete(digest)
    assert digest in run("dataset", "recover", title, "1")
    with pytest.raises(Exception, match="no such dataset"):
        run("dataset", "show", "nonesuch")
    with pytest.raises(Exception, match=r"write it as train=0\.7"):
        run("dataset", "split", title, "--part", "train")


def test_the_command_line_keeps_projects(site: ListeningSite, run: Callable[..., str]) -> None:
    assert run("project", "create", "lung", "--title", "Lungs").strip() == "lung"
    carl = site.do(site.site.principal(*ROLES["carl"])).id
    assert "curator" in run("project", "admit", "lung", carl, "--role", "curator")
    listed = {one["projectId"]: one for one in json.loads(run("project", "list", "--json"))}
    assert {"principalId": carl, "role": "CURATOR"} in listed["lung"]["members"]
    assert "no member" in run("project", "remove", "lung", carl) and "Lungs" in run("project", "list")


def test_an_erased_person_leaves_every_version(site: ListeningSite, ask: Ask, dataset: str) -> None:
    """The last one: the site has one person less afterwards."""
    ask("ann", FREEZE, id=dataset, of=CT)
    members = "query ($id: String!) { dataset(datasetId: $id) { version { series members(first: 20) { nodes { subjectId seriesUid } } } } }"
    before = ask("bob", members, id=dataset)["dataset"]["version"]
    gone = before["members"]["nodes"][0]
    site.do(erase(site.site, gone["subjectId"]))
    after = ask("bob", members, id=dataset)["dataset"]["version"]
    assert after["series"] == before["series"] and after["members"]["nodes"] == before["members"]["nodes"][1:]
