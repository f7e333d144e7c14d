"""FHIRPath Patch (R5 fhirpatch.html): what R5's own cases ask for, refusals, Bundles, and random patches against a naive application."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fhir.resources import get_fhir_model_class
from hypothesis import given, settings
from hypothesis import strategies as st
from served_site import LUNG, Site, served_site, slice_of

from projections.fhir.vocabulary import observation_id
from server.fhir.outcome import FhirError
from server.fhir.writing.fhirpath_patch import fhirpath_patch

STUDY = "1.2.826.0.1.3680043.8.498.81"
Json = dict[str, Any]


def operation(kind: str, path: str, value: Json | None = None, **parts: Any) -> Json:
    """``value`` is the part's own content (``valueDate`` …, or ``part``)."""
    made: list[Json] = [{"name": "type", "valueCode": kind}, {"name": "path", "valueString": path}]
    made += [{"name": name, "valueString" if isinstance(one, str) else "valueInteger": one} for name, one in parts.items()]
    return {"name": "operation", "part": [*made, {"name": "value", **value}] if value is not None else made}


def parameters(*operations: Json) -> Json:
    return {"resourceType": "Parameters", "parameter": list(operations)} if operations else {"resourceType": "Parameters"}


def patched(resource: Json, *operations: Json) -> Json:
    before = {"resourceType": "Patient", **resource}
    kept = deepcopy(before)
    after = fhirpath_patch(parameters(*operations))(before)
    assert before == kept
    get_fhir_model_class(after["resourceType"]).model_validate(after)
    return {name: value for name, value in after.items() if name != "resourceType"}


def numbered(*values: int) -> Json:
    return {"identifier": [{"system": "http://example.org", "value": f"value {one}"} for one in values]}


THIRD = {"valueIdentifier": numbered(3)["identifier"][0]}
NAMED, MALE = {"name": {"text": "a name"}}, {"gender": "male"}


@pytest.mark.parametrize(
    ("before", "operations", "after"),
    [
        ({"birthDate": "1920-01-01"}, [], {"birthDate": "1920-01-01"}),
        ({"birthDate": "1920-01-01"}, [operation("replace", "Patient.birthDate", {"valueDate": "1930-01-01"})], {"birthDate": "1930-01-01"}),
        ({"birthDate": "1920-01-01"}, [operation("delete", "Patient.birthDate")], {}),
        ({}, [operation("add", "Patient", {"valueDate": "1930-01-01"}, name="birthDate")], {"birthDate": "1930-01-01"}),
        ({"contact": [NAMED | MALE]}, [operation("replace", "Patient.contact[0].gender", {"valueCode": "female"})], {"contact": [NAMED | {"gender": "female"}]}),
        ({"contact": [NAMED | MALE]}, [operation("replace", "Patient.contact[0].name.text", {"valueString": "x"})], {"contact": [{"name": {"text": "x"}} | MALE]}),
        ({"contact": [NAMED | MALE]}, [operation("delete", "Patient.contact[0].gender")], {"contact": [NAMED]}),
        ({"contact": [NAMED | MALE]}, [operation("delete", "Patient.contact[0].name.text")], {"contact": [MALE]}),
        ({"contact": [NAMED]}, [operation("add", "Patient.contact[0]", {"valueCode": "male"}, name="gender")], {"contact": [NAMED | MALE]}),
        ({}, [operation("add", "Patient", {"valueCodeableConcept": {"text": "m"}}, name="maritalStatus")], {"maritalStatus": {"text": "m"}}),
        (
            {"maritalStatus": {"id": "1", "text": "m"}},
            [operation("replace", "Patient.maritalStatus", {"valueCodeableConcept": {"id": "2", "text": "not"}})],
            {"maritalStatus": {"id": "2", "text": "not"}},
        ),
        ({"maritalStatus": {"text": "m"}}, [operation("delete", "Patient.maritalStatus")], {}),
        ({}, [operation("add", "Patient", {"part": [{"name": "name", "valueHumanName": {"text": "a name"}}]}, name="contact")], {"contact": [NAMED]}),
        ({"contact": [NAMED]}, [operation("delete", "Patient.contact[0]")], {}),
        (
            numbered(1, 2),
            [operation("replace", f"Patient.identifier[{nth}].value", {"valueString": f"value {2 - nth}"}) for nth in (0, 1)],
            numbered(2, 1),
        ),
        (numbered(1, 2), [operation("insert", "Patient.identifier", THIRD, index=2)], numbered(1, 2, 3)),
        (numbered(1, 2), [operation("insert", "Patient.identifier", THIRD, index=1)], numbered(1, 3, 2)),
        (numbered(1, 2), [operation("insert", "Patient.identifier", THIRD, index=0)], numbered(3, 1, 2)),
        (numbered(1, 2, 3), [operation("delete", "Patient.identifier[0]")], numbered(2, 3)),
        (numbered(1, 2, 3), [operation("delete", "Patient.identifier[1]")], numbered(1, 3)),
        (numbered(1, 2, 3), [operation("delete", "Patient.identifier[2]")], numbered(1, 2)),
        (numbered(1, 2, 3, 4), [operation("move", "Patient.identifier", source=3, destination=1)], numbered(1, 4, 2, 3)),
        (numbered(1, 2, 3, 4), [operation("move", "Patient.identifier", source=3, destination=0)], numbered(4, 1, 2, 3)),
        (numbered(1, 2, 3, 4), [operation("move", "Patient.identifier", source=3, destination=2)], numbered(1, 2, 4, 3)),
        (numbered(1, 2, 3, 4), [operation("move", "Patient.identifier", source=0, destination=3)], numbered(2, 3, 4, 1)),
        (
            numbered(1, 2, 3, 4),
            [operation("move", "Patient.identifier", source=one, destination=other) for one, other in ((1, 0), (2, 1))],
            numbered(2, 3, 1, 4),
        ),
        (
            numbered(1, 2, 3, 4),
            [operation("move", "Patient.identifier", source=3, destination=other) for other in (0, 1, 2)],
            numbered(4, 3, 2, 1),
        ),
        ({}, [operation("add", "Patient", THIRD, name="identifier")], numbered(3)),
    ],
)  # fmt: skip
def test_what_r5s_own_cases_ask_for(before: Json, operations: list[Json], after: Json) -> None:
    assert patched(before, *operations) == after


@pytest.mark.parametrize(
    ("before", "operations", "after"),
    [
        # paths
        (numbered(1, 2), [operation("delete", "Patient.identifier.where(value = 'value 1')")], numbered(2)),
        (numbered(1, 2), [operation("delete", "Patient.identifier.first()")], numbered(2)),
        (numbered(1, 2), [operation("delete", "identifier[0]")], numbered(2)),
        (numbered(1, 2), [operation("delete", "Patient.identifier.where(system = 'http://example.org' and value = 'value 2').value")],
         {"identifier": [numbered(1)["identifier"][0], {"system": "http://example.org"}]}),
        ({"extension": [{"url": "urn:a", "valueString": "x"}, {"url": "urn:b", "valueString": "y"}]},
         [operation("replace", "Patient.extension('urn:b').value", {"valueString": "z"})],
         {"extension": [{"url": "urn:a", "valueString": "x"}, {"url": "urn:b", "valueString": "z"}]}),
        ({"deceasedBoolean": True}, [operation("delete", "Patient.deceased")], {}),
        ({"deceasedBoolean": True}, [operation("replace", "Patient.deceased.ofType(boolean)", {"valueBoolean": False})], {"deceasedBoolean": False}),
        ({}, [operation("add", "Patient", {"valueDateTime": "2020"}, name="deceased")], {"deceasedDateTime": "2020"}),
        ({}, [operation("delete", "Patient.name.where(use = 'old')")], {}),
        # what a primitive has beside its value
        ({"birthDate": "1920", "_birthDate": {"id": "a"}}, [operation("replace", "Patient.birthDate", {"valueDate": "1930"})], {"birthDate": "1930"}),
        ({"birthDate": "1920", "_birthDate": {"id": "a", "extension": [{"url": "urn:a", "valueString": "x"}]}},
         [operation("delete", "Patient.birthDate.extension('urn:a')")], {"birthDate": "1920", "_birthDate": {"id": "a"}}),
        ({"birthDate": "1920", "_birthDate": {"id": "a"}}, [operation("delete", "Patient.birthDate")], {}),
        ({}, [operation("add", "Patient", {"_valueDate": {"extension": [{"url": "urn:a", "valueString": "x"}]}}, name="birthDate")],
         {"_birthDate": {"extension": [{"url": "urn:a", "valueString": "x"}]}}),
        ({"name": [{"given": ["a", "b"], "_given": [None, {"id": "2"}]}]}, [operation("insert", "Patient.name[0].given", {"valueString": "c"}, index=1)],
         {"name": [{"given": ["a", "c", "b"], "_given": [None, None, {"id": "2"}]}]}),
        ({"name": [{"given": ["a", "b"], "_given": [None, {"id": "2"}]}]}, [operation("move", "Patient.name[0].given", source=1, destination=0)],
         {"name": [{"given": ["b", "a"], "_given": [{"id": "2"}, None]}]}),
        ({"name": [{"given": ["a", "b"], "_given": [None, {"id": "2"}]}]}, [operation("delete", "Patient.name[0].given[1]")], {"name": [{"given": ["a"]}]}),
        ({"name": [{"given": ["a", "b"], "_given": [{"id": "1"}, None]}]}, [operation("replace", "Patient.name[0].given[0]", {"valueString": "c"})],
         {"name": [{"given": ["c", "b"]}]}),
        # parts of parts, contained resources
        ({}, [operation("add", "Patient", {"part": [{"name": "language", "valueCodeableConcept": {"text": "de"}}, {"name": "preferred", "valueBoolean": True}]}, name="communication")],
         {"communication": [{"language": {"text": "de"}, "preferred": True}]}),
        ({}, [operation("add", "Patient", {"part": [{"name": "telecom", "valueContactPoint": {"value": "1"}}, {"name": "telecom", "valueContactPoint": {"value": "2"}}]}, name="contact")],
         {"contact": [{"telecom": [{"value": "1"}, {"value": "2"}]}]}),
        ({}, [operation("add", "Patient", {"resource": {"resourceType": "Basic", "id": "b", "code": {"text": "x"}}}, name="contained")],
         {"contained": [{"resourceType": "Basic", "id": "b", "code": {"text": "x"}}]}),
        ({"contained": [{"resourceType": "Basic", "id": "b", "code": {"text": "x"}}]}, [operation("replace", "Patient.contained[0].code.text", {"valueString": "y"})],
         {"contained": [{"resourceType": "Basic", "id": "b", "code": {"text": "y"}}]}),
    ],
)  # fmt: skip
def test_paths_extensions_of_primitives_and_values_of_parts(before: Json, operations: list[Json], after: Json) -> None:
    assert patched(before, *operations) == after


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([operation("add", "Patient.identifier.where(use = 'official').period", {"valueDate": "2021-12-01"}, name="end")], (422, "processing")),
        ([operation("replace", "Patient.birthDate", {"valueDate": "1930"})], (422, "processing")),
        ([operation("delete", "Patient.identifier")], (422, "processing")),
        ([operation("replace", "Patient.identifier.value", {"valueString": "x"})], (422, "processing")),
        ([operation("delete", "Patient")], (422, "processing")),
        ([operation("replace", "Patient", {"valueString": "x"})], (422, "processing")),
        ([operation("add", "Patient", {"valueBoolean": True}, name="active")], (422, "processing")),
        ([operation("add", "Patient", {"valueString": "red"}, name="colour")], (422, "processing")),
        ([operation("add", "Patient", {"valueString": "x"}, name="deceased")], (422, "processing")),
        ([operation("add", "Patient.active", {"valueString": "x"}, name="id")], (422, "processing")),
        ([operation("insert", "Patient.identifier", THIRD, index=9)], (422, "processing")),
        ([operation("insert", "Patient.identifier", THIRD, index=-1)], (422, "processing")),
        ([operation("insert", "Patient.active", {"valueBoolean": True}, index=0)], (422, "processing")),
        ([operation("insert", "Patient.identifier[0]", THIRD, index=0)], (422, "processing")),
        ([operation("move", "Patient.identifier", source=0, destination=2)], (422, "processing")),
        ([operation("move", "Patient.identifier", source="a", destination=1)], (400, "value")),
        ([operation("turn", "Patient.active")], (400, "value")),
        ([operation("add", "Patient", name="active")], (400, "required")),
        ([operation("delete", "Patient.active", {"valueBoolean": True})], (400, "invalid")),
        ([operation("replace", "Patient.active", {})], (400, "required")),
        ([operation("delete", "Patient.identifier.last()")], (400, "not-supported")),
        ([operation("delete", "Patient.descendants()")], (400, "not-supported")),
        ([operation("delete", "Patient.where(")], (400, "not-supported")),
        ([operation("delete", "(" * 490)], (400, "not-supported")),
        ([operation("delete", "Patient.a" * 400)], (413, "too-costly")),
        ([operation("delete", "Patient.active")] * 1001, (413, "too-costly")),
        ([{"name": "other"}], (400, "invalid")),
        ([{"name": "operation"}], (400, "required")),
    ],
)  # fmt: skip
def test_a_patch_that_does_not_fit_is_refused_with_its_place(operations: list[Json], expected: tuple[int, str]) -> None:
    before = {"resourceType": "Patient", "active": True, **numbered(1, 2)}
    with pytest.raises(FhirError) as refused:
        fhirpath_patch(parameters(*operations))(before)
    error = refused.value
    assert (error.status, error.code) == expected, error.detail
    assert (error.expression or "").startswith("Parameters.parameter"), error.expression
    assert "value 1" not in error.detail


def test_a_long_path_is_no_deep_one() -> None:
    assert patched({"active": True}, operation("delete", "a" + ".a" * 240)) == {"active": True}


WORDS = st.sampled_from(["a", "b", "c"])


@settings(max_examples=200)
@given(st.data())
def test_a_patch_is_what_a_naive_application_makes(data: st.DataObject) -> None:
    """Of lists in lists, by indexes."""
    names = data.draw(st.lists(st.lists(WORDS, min_size=1, max_size=4), max_size=4))
    operations, naive = [], deepcopy(names)
    for _ in range(data.draw(st.integers(1, 6))):
        kind = data.draw(st.sampled_from(["add", "insert", "delete", "replace", "move"]))
        word = data.draw(WORDS)
        if not naive or data.draw(st.booleans()):
            items, path, value = naive, "Patient.name", {"valueHumanName": {"given": [word]}}
            new: Any = [word]
        else:
            nth = data.draw(st.integers(0, len(naive) - 1))
            items, path, value, new = naive[nth], f"Patient.name[{nth}].given", {"valueString": word}, word
        at = data.draw(st.integers(0, max(0, len(items) - 1)))
        if kind == "add":
            parent, _, name = path.rpartition(".")
            operations.append(operation("add", parent, value, name=name))
            items.append(new)
        elif kind == "insert":
            at = data.draw(st.integers(0, len(items)))
            operations.append(operation("insert", path, value, index=at))
            items.insert(at, new)
        elif not items:
            continue
        elif kind == "delete":
            operations.append(operation("delete", f"{path}[{at}]"))
            del items[at]
            naive = [one for one in naive if one]
        elif kind == "replace":
            operations.append(operation("replace", f"{path}[{at}]", value))
            items[at] = new
        else:
            to = data.draw(st.integers(0, len(items) - 1))
            operations.append(operation("move", path, source=at, destination=to))
            items.insert(to, items.pop(at))
    before = {"name": [{"given": one} for one in names]} if names else {}
    assert patched(before, *operations) == ({"name": [{"given": one} for one in naive]} if naive else {})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with served_site(embedded_server, tmp_path_factory.mktemp("fhirpath-patch")) as site:
        await site.store(slice_of(STUDY, 1))
        await site.index(f"{STUDY}.1", LUNG)
        yield site


async def send(site: Site, method: str, path: str, body: Json, **headers: str) -> httpx.Response:
    scopes = ("fhir:read", "fhir:write", "identities:read", "reviews:write")
    sent = {**await site.headers(*scopes), "content-type": "application/fhir+json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return await site.client.request(method, f"/fhir/{path}", content=json.dumps(body), headers=sent)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_patch_over_http_by_id_by_condition_and_in_bundles(site: Site) -> None:
    body = {"resourceType": "Basic", "id": "b", "code": {"text": "one"}, "identifier": [{"system": "urn:p", "value": "1"}]}
    assert (await send(site, "PUT", "Basic/b", body)).status_code == 201
    for nth, text in enumerate(("two", "three", "four", "five"), start=2):
        change = parameters(operation("replace", "Basic.code.text", {"valueString": text}))
        if text == "two":
            answer = await send(site, "PATCH", "Basic/b", change, if_match='W/"1"')
        elif text == "three":
            answer = await send(site, "PATCH", "Basic?identifier=urn:p|1", change)
        else:
            entry = {"resource": change, "request": {"method": "PATCH", "url": "Basic/b"}}
            kind = "batch" if text == "four" else "transaction"
            answer = await send(site, "POST", "", {"resourceType": "Bundle", "type": kind, "entry": [entry]})
            assert answer.json()["entry"][0]["response"]["status"] == "200 OK", answer.text
        assert answer.status_code == 200, answer.text
        read = await site.get("/fhir/Basic/b", "fhir:read")
        assert (read.json()["code"]["text"], read.headers["etag"]) == (text, f'W/"{nth}"')
    bad = parameters(operation("replace", "Basic.code.text", {"valueBoolean": True}))
    assert (await send(site, "PATCH", "Basic/b", bad)).status_code == 400
    bad = parameters(operation("add", "Basic", {"valueId": "other"}, name="id"))
    assert (await send(site, "PATCH", "Basic/b", bad)).status_code == 422
    assert (await send(site, "PATCH", "Basic/b", {"resourceType": "Basic", "code": {"text": "x"}})).status_code == 415
    entry = {"resource": parameters(operation("delete", "Basic.author[3].nothing[")), "request": {"method": "PATCH", "url": "Basic/b"}}
    refused = await send(site, "POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    assert refused.json()["issue"][0]["expression"] == ["Bundle.entry[0].resource.parameter[0].part.where(name = 'path')"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_patch_of_a_finding_is_a_review_and_one_of_a_patient_keeps_what_images_say(site: Site) -> None:
    (measured,) = (await site.get("/fhir/Observation", "fhir:read")).json()["entry"]
    path = f"Observation/{measured['resource']['id']}"
    assert path == f"Observation/{observation_id(measured['resource']['identifier'][0]['value'])}"
    accepted = await send(site, "PATCH", path, parameters(operation("replace", "Observation.status", {"valueCode": "final"})))
    assert (accepted.status_code, accepted.json()["status"]) == (200, "final")
    (person,) = (await site.get("/fhir/Patient", "fhir:read", "identities:read")).json()["entry"]
    change = parameters(operation("replace", "Patient.name[0].family", {"valueString": "Married"}))
    answer = await send(site, "PATCH", f"Patient/{person['resource']['id']}", change)
    assert answer.json()["identifier"] == person["resource"]["identifier"] and answer.json()["name"][0]["family"] == "Married"
