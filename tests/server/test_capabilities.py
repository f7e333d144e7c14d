"""What the CapabilityStatement claims works, and nothing works that it does not claim: each claim is driven over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from fhir.resources import get_fhir_model_class
from served_site import LIVER, Site, served_site, slice_of

import server.app
from projections.fhir.definitions import compartments, defined_parameters, operations
from projections.fhir.projection import CURATED, TYPES
from projections.fhir.vocabulary import study_id
from server.auth.scopes import SCOPES
from server.fhir.outcome import FhirError
from server.fhir.parameters import parse
from server.fhir.served import (
    CONDITIONS,
    INTERACTIONS,
    OPERATIONS,
    Condition,
    Interaction,
    Operation,
    is_served,
    routes_of,
    rows,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
STUDY = "1.2.840.13.1"
IMAGING_STUDY = f"/fhir/ImagingStudy/{study_id(STUDY)}"
SCOPES_OF_FHIR = tuple(one for one in SCOPES if one.startswith("fhir:") or one in ("audit:read", "identities:read"))
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
JSON_PATCH, FHIR_JSON = "application/json-patch+json", "application/fhir+json"


@dataclass
class Client:
    site: Site
    statement: dict[str, Any]
    headers: dict[str, str]

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {**self.headers, **more.pop("headers", {})}
        return await self.site.client.request(method, path, headers=headers, **more)

    async def gives(self, status: int, method: str, path: str, **more: Any) -> httpx.Response:
        answer = await self.ask(method, path, **more)
        assert answer.status_code == status, (method, path, answer.text)
        return answer

    @property
    def rest(self) -> dict[str, Any]:
        (rest,) = self.statement["rest"]
        return dict(rest)

    def of(self, resource_type: str) -> dict[str, Any]:
        (one,) = [one for one in self.rest["resource"] if one["type"] == resource_type]
        return dict(one)

    async def made(self, **more: Any) -> str:
        """Path of a new resource: a Basic, unless it says another type."""
        body = more if "resourceType" in more else {"resourceType": "Basic", "code": {"text": "made"}, **more}
        answer = await self.gives(201, "POST", f"/fhir/{body['resourceType']}", json=body)
        return f"/fhir/{body['resourceType']}/{answer.json()['id']}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    async with served_site(embedded_server, tmp_path_factory.mktemp("capabilities"), audit_reads=False) as site:
        await site.store(slice_of(STUDY, 1))
        await site.index(f"{STUDY}.1", LIVER)
        headers = await site.headers(*SCOPES_OF_FHIR)
        statement = (await site.client.get("/fhir/metadata", headers=headers)).json()
        yield Client(site, statement, headers)


async def read(client: Client) -> None:
    assert (await client.gives(200, "GET", IMAGING_STUDY)).json()["resourceType"] == "ImagingStudy"


async def vread(client: Client) -> None:
    assert (await client.gives(200, "GET", f"{IMAGING_STUDY}/_history/1")).json()["meta"]["versionId"] == "1"


async def history_instance(client: Client) -> None:
    assert (await client.gives(200, "GET", f"{IMAGING_STUDY}/_history?_since=2020&_sort=_lastUpdated&_count=1")).json()["total"] > 1


async def history_type(client: Client) -> None:
    assert (await client.gives(200, "GET", "/fhir/ImagingStudy/_history?_at=2999&_count=1")).json()["entry"]


async def history_system(client: Client) -> None:
    assert (await client.gives(200, "GET", "/fhir/_history")).json()["type"] == "history"


async def search_type(client: Client) -> None:
    assert (await client.gives(200, "GET", "/fhir/ImagingStudy?modality=CT")).json()["total"] == 1
    assert (await client.gives(200, "POST", "/fhir/ImagingStudy/_search", data={"modality": "MR"})).json()["total"] == 0


async def search_system(client: Client) -> None:
    assert (await client.gives(200, "GET", "/fhir?_type=ImagingStudy,Patient")).json()["total"] == 2
    assert (await client.gives(200, "POST", "/fhir/_search", data={"_type": "Device", "_summary": "count"})).json()["total"] == 1


async def create(client: Client) -> None:
    await client.gives(200, "GET", await client.made())


async def update(client: Client) -> None:
    path = await client.made()
    body = {"resourceType": "Basic", "id": path.rpartition("/")[2], "code": {"text": "changed"}}
    assert (await client.gives(200, "PUT", path, json=body)).json()["meta"]["versionId"] == "2"


async def patch(client: Client) -> None:
    path = await client.made()
    operation = [{"op": "replace", "path": "/code/text", "value": "patched"}]
    answer = await client.gives(200, "PATCH", path, json=operation, headers={"Content-Type": JSON_PATCH})
    assert answer.json()["code"]["text"] == "patched"
    parts = [{"name": "type", "valueCode": "replace"}, {"name": "path", "valueString": "Basic.code.text"}, {"name": "value", "valueString": "again"}]
    by_path = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}
    answer = await client.gives(200, "PATCH", path, json=by_path, headers={"Content-Type": FHIR_JSON})
    assert answer.json()["code"]["text"] == "again"
    statement = (await client.gives(200, "GET", "/fhir/metadata")).json()
    assert statement["patchFormat"] == [FHIR_JSON, JSON_PATCH]
    await client.gives(415, "PATCH", path, json=by_path, headers={"Content-Type": "application/xml-patch+xml"})


async def delete(client: Client) -> None:
    path = await client.made()
    await client.gives(204, "DELETE", path)
    await client.gives(410, "GET", path)
    (entry, _) = (await client.gives(200, "GET", f"{path}/_history")).json()["entry"]
    assert (entry["request"]["method"], "resource" in entry) == ("DELETE", False)


async def transaction(client: Client) -> None:
    entry = {"resource": {"resourceType": "Basic", "code": {"text": "made"}}, "request": {"method": "POST", "url": "Basic"}}
    answer = await client.gives(200, "POST", "/fhir", json={"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    assert answer.json()["type"] == "transaction-response"


async def batch(client: Client) -> None:
    entry = {"request": {"method": "GET", "url": IMAGING_STUDY.removeprefix("/fhir/")}}
    answer = await client.gives(200, "POST", "/fhir", json={"resourceType": "Bundle", "type": "batch", "entry": [entry]})
    assert answer.json()["entry"][0]["response"]["status"].startswith("200")


async def conditional_read(client: Client) -> None:
    got = await client.gives(200, "GET", IMAGING_STUDY)
    await client.gives(304, "GET", IMAGING_STUDY, headers={"If-None-Match": got.headers["etag"]})
    await client.gives(304, "GET", IMAGING_STUDY, headers={"If-Modified-Since": got.headers["last-modified"]})


async def update_create(client: Client) -> None:
    await client.gives(201, "PUT", "/fhir/Basic/of-my-own", json={"resourceType": "Basic", "id": "of-my-own", "code": {"text": "new"}})


async def conditional_create(client: Client) -> None:
    path = await client.made()
    condition = {"If-None-Exist": f"_id={path.rpartition('/')[2]}"}
    answer = await client.gives(200, "POST", "/fhir/Basic", json={"resourceType": "Basic", "code": {"text": "again"}}, headers=condition)
    assert answer.json()["code"]["text"] == "made"


async def conditional_update(client: Client) -> None:
    path = await client.made()
    answer = await client.gives(200, "PUT", f"/fhir/Basic?_id={path.rpartition('/')[2]}", json={"resourceType": "Basic", "code": {"text": "changed"}})
    assert answer.json()["id"] == path.rpartition("/")[2]


async def conditional_patch(client: Client) -> None:
    path = await client.made()
    operation = [{"op": "replace", "path": "/code/text", "value": "patched"}]
    await client.gives(200, "PATCH", f"/fhir/Basic?_id={path.rpartition('/')[2]}", json=operation, headers={"Content-Type": JSON_PATCH})


async def conditional_delete(client: Client) -> None:
    path = await client.made()
    await client.gives(204, "DELETE", f"/fhir/Basic?_id={path.rpartition('/')[2]}")
    await client.gives(410, "GET", path)
    await client.made()
    await client.made()
    assert (await client.ask("DELETE", "/fhir/Basic?_lastUpdated=gt2000")).status_code == 412  # single: never several


async def meta(client: Client) -> None:
    for path in (IMAGING_STUDY, f"{IMAGING_STUDY}/_history/1", "/fhir/Patient", "/fhir"):
        assert (await client.gives(200, "GET", f"{path}/$meta")).json()["resourceType"] == "Parameters"


async def everything(client: Client) -> None:
    (patient,) = (await client.gives(200, "GET", "/fhir/Patient")).json()["entry"]
    for path in (IMAGING_STUDY, f"/fhir/Patient/{patient['resource']['id']}"):
        assert len((await client.gives(200, "GET", f"{path}/$everything")).json()["entry"]) > 5


async def validate(client: Client) -> None:
    for method, path in (("POST", "/fhir/Basic/$validate"), ("POST", f"{IMAGING_STUDY}/$validate"), ("GET", f"{IMAGING_STUDY}/$validate")):
        body = {"json": {"resourceType": "Basic", "code": {"text": "x"}}} if path.startswith("/fhir/Basic") else {}
        answer = await client.gives(200, method, path, **body)
        assert [one["severity"] for one in answer.json()["issue"]] == ["information"]


async def export(client: Client) -> None:
    path = await client.made(resourceType="Group", type="person", membership="enumerated")
    later = {"Prefer": "respond-async"}
    for kick_off in ("/fhir/$export?_type=Patient", "/fhir/Patient/$export?_type=Patient", f"{path}/$export"):
        for method in ("GET", "POST"):
            status = (await client.gives(202, method, kick_off, headers=later)).headers["content-location"]
            while (answer := await client.ask("GET", status)).status_code == 202:
                await asyncio.sleep(0.05)
            for one in answer.json()["output"]:
                (line,) = (await client.gives(200, "GET", one["url"])).text.splitlines()
                assert json.loads(line)["resourceType"] == "Patient" == one["type"]
                await client.gives(200, "HEAD", one["url"])
            await client.gives(202, "DELETE", status)
            await client.gives(404, "GET", status)


Drive = Callable[[Client], Awaitable[None]]
INTERACTION_DRIVES: dict[str, Drive] = {
    "read": read,
    "vread": vread,
    "history-instance": history_instance,
    "history-type": history_type,
    "history-system": history_system,
    "search-type": search_type,
    "search-system": search_system,
    "create": create,
    "update": update,
    "patch": patch,
    "delete": delete,
    "transaction": transaction,
    "batch": batch,
}
CONDITION_DRIVES: dict[str, Drive] = {
    "conditionalRead": conditional_read,
    "updateCreate": update_create,
    "conditionalCreate": conditional_create,
    "conditionalUpdate": conditional_update,
    "conditionalPatch": conditional_patch,
    "conditionalDelete": conditional_delete,
}
OPERATION_DRIVES: dict[str, Drive] = {"meta": meta, "everything": everything, "validate": validate, "export": export}


async def test_the_statement_is_valid_and_names_every_type(client: Client) -> None:
    get_fhir_model_class("CapabilityStatement").model_validate(client.statement)
    assert [one["type"] for one in client.rest["resource"]] == list(TYPES)


async def test_every_route_has_its_row(client: Client) -> None:
    served = routes_of(_app(client))
    assert served - {(method, row.path) for row in rows() for method in row.methods} == set()


async def test_each_claimed_interaction_works(client: Client) -> None:
    claimed = {one["code"] for resource in client.rest["resource"] for one in resource["interaction"]}
    claimed |= {one["code"] for one in client.rest["interaction"]}
    for code in sorted(claimed):
        await INTERACTION_DRIVES[code](client)


async def test_each_claimed_condition_works(client: Client) -> None:
    claimed = {name for resource in client.rest["resource"] for name in resource if name in {one.element for one in CONDITIONS}}
    assert "conditionalRead" in claimed
    for element in sorted(claimed):
        await CONDITION_DRIVES[element](client)


async def test_each_claimed_operation_works(client: Client) -> None:
    claimed = {one["name"] for part in (client.rest, *client.rest["resource"]) for one in part.get("operation", [])}
    assert claimed == OPERATION_DRIVES.keys()
    for name in sorted(claimed):
        await OPERATION_DRIVES[name](client)


async def test_each_claimed_operation_is_of_what_bulk_data_defines(client: Client) -> None:
    assert client.statement["instantiates"] == ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"]
    found = {one["definition"].rpartition("/")[2] for part in (client.rest, *client.rest["resource"]) for one in part["operation"] if one["name"] == "export"}
    assert found == {"export", "patient-export", "group-export"}


async def test_each_claimed_compartment_is_searched_and_no_other(client: Client) -> None:
    assert client.rest["compartment"] == [one.url for _, one in sorted(compartments().items())]
    for kind, one in compartments().items():
        for searched in CURATED:
            expected = 200 if searched in one.parameters else 404
            await client.gives(expected, "GET", f"/fhir/{kind}/some-id/{searched}?_count=0")
    await client.gives(404, "GET", f"{IMAGING_STUDY}/Observation")


async def test_no_method_works_where_none_is_claimed(client: Client) -> None:
    served = routes_of(_app(client))
    for path in sorted({row.path for row in rows()}):
        written = path.replace("{resource_type}", "Basic").replace("{resource_id}", "1").replace("{version}", "1").replace("{searched_type}", "Basic")
        for method in METHODS:
            if (method, path) not in served:
                answer = await client.ask(method, written, **({"json": {}} if method in ("POST", "PUT", "PATCH") else {}))
                assert answer.status_code in (400, 404, 405), (method, path, answer.status_code)


async def test_no_operation_works_that_is_not_claimed(client: Client) -> None:
    for one in operations():
        for kind in ("Patient", "ImagingStudy", TYPES[-1]):
            if one.code in {claimed["name"] for claimed in client.of(kind).get("operation", [])}:
                continue
            for path in (f"/fhir/${one.code}", f"/fhir/{kind}/${one.code}", f"/fhir/{kind}/1/${one.code}"):
                for method in ("GET", "POST"):
                    answer = await client.ask(method, path, **({"json": {"resourceType": "Parameters"}} if method == "POST" else {}))
                    assert 400 <= answer.status_code < 500, (method, path, answer.status_code)


async def test_each_claimed_search_parameter_is_known_and_no_other(client: Client) -> None:
    """Of an unusable value another error tells than of a parameter that nobody knows. Of what curation makes, over HTTP."""
    every = {one.code for one in defined_parameters().values()}
    for resource_type in CURATED:
        claimed = {one["name"] for one in client.of(resource_type)["searchParam"]}
        for name in sorted(claimed):
            answer = await client.ask("GET", f"/fhir/{resource_type}?{name}=1&_summary=count")
            unknown = answer.status_code != 200 and answer.json()["issue"][0]["code"] == "not-supported"
            assert answer.status_code in (200, 400) and not unknown, (resource_type, name, answer.text)
        for name in sorted(every - claimed)[:: len(every) // 4]:
            answer = await client.ask("GET", f"/fhir/{resource_type}?{name}=1")
            assert answer.status_code == 400 and answer.json()["issue"][0]["expression"] == [f"http.{name}"], (resource_type, name)
    for resource_type in sorted({*TYPES} - {*CURATED}):
        claimed = {one["name"] for one in client.of(resource_type)["searchParam"]}
        assert {name for name in every if _is_known(resource_type, name)} == claimed & every


async def test_each_claimed_include_is_taken_and_no_other(client: Client) -> None:
    """Of what curation makes, over HTTP, every seventh of what refers to it."""
    for resource_type in CURATED:
        claimed = client.of(resource_type)
        for value in claimed["searchInclude"]:
            await client.gives(200, "GET", f"/fhir/{resource_type}?_include={value}&_count=1")
        for value in claimed["searchRevInclude"][::7]:
            await client.gives(200, "GET", f"/fhir/{resource_type}?_revinclude={value}&_count=1")
        tokens = [one["name"] for one in claimed["searchParam"] if one["type"] == "token"]
        await client.gives(400, "GET", f"/fhir/{resource_type}?_include={resource_type}:{tokens[-1]}")
    study = client.of("ImagingStudy")
    assert {"ImagingStudy:*", "ImagingStudy:patient", "ImagingStudy:endpoint"} <= {*study["searchInclude"]}
    assert {"DiagnosticReport:study", "Observation:part-of"} <= {*study["searchRevInclude"]}
    entries = (await client.gives(200, "GET", "/fhir/ImagingStudy?_include=ImagingStudy:patient")).json()["entry"]
    assert [one["search"]["mode"] for one in entries] == ["match", "include"]


async def test_each_parameter_is_claimed_once_with_its_type_and_definition(client: Client) -> None:
    common = {"_id", "_lastUpdated", "_tag", "_profile", "_security", "_source", "_language"}
    assert common == {one["name"] for one in client.rest["searchParam"]} - {"_asof"}
    for resource in client.rest["resource"]:
        names = [one["name"] for one in resource["searchParam"]]
        assert len(names) == len(set(names)) and common <= set(names), resource["type"]
        without = {one["name"] for one in resource["searchParam"] if not one.get("definition") or not one.get("type")}
        assert without == ({"agent"} if resource["type"] == "AuditEvent" else set()), resource["type"]
        operations_claimed = [(one["name"], one["definition"]) for one in resource.get("operation", [])]
        assert len(operations_claimed) == len(set(operations_claimed))
    assert len({one.url for one in operations()}) == len(operations())


def _is_known(resource_type: str, name: str) -> bool:
    try:
        parse(resource_type, [(name, "1")], lenient=False)
    except FhirError as error:
        return error.code != "not-supported"
    return True


async def test_a_row_without_its_route_is_not_claimed(client: Client) -> None:
    nothing = frozenset[tuple[str, str]]()
    kinds: list[type] = [Interaction, Condition, Operation]
    for kind, table in zip(kinds, (INTERACTIONS, CONDITIONS, OPERATIONS), strict=True):
        assert all(isinstance(row, kind) and not is_served(row, nothing) for row in table)


def _app(client: Client) -> FastAPI:
    return server.app.create_app(client.site.services)
