"""Whatever a client sends, as a body or in a header, is taken or refused by name, and never answered by a fault of the server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich_site import EXAMPLES, RICH, RawClient, rich, rich_site

from projections.fhir.definitions import resource_types

FHIR_JSON, JSON_PATCH = "application/fhir+json", "application/json-patch+json"
DEEP = 10_000


@pytest.fixture(scope="module")
def client(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawClient]:
    with rich_site(embedded_server, tmp_path_factory.mktemp("fuzz")) as served:
        yield served


types = st.sampled_from(resource_types())


def basic(more: bytes) -> bytes:
    return b'{"resourceType": "Basic", "code": {"text": "a"}, ' + more + b"}"


def observation(more: bytes) -> bytes:
    return b'{"resourceType": "Observation", "status": "final", "code": {"text": "a"}, ' + more + b"}"


def transaction(entry: bytes, kind: bytes = b"transaction") -> bytes:
    return b'{"resourceType": "Bundle", "type": "' + kind + b'", "entry": [' + entry + b"]}"


HOSTILE: dict[str, bytes] = {
    "empty": b"", "blank": b" ", "null": b"null", "list": b"[]", "object": b"{}", "text": b'""', "number": b"1", "NaN": b"NaN", "infinity": b"-Infinity",
    "huge exponent": b"1e999999999", "huge integer": b"1" * 5000, "byte order mark": b"\xef\xbb\xbf" + basic(b'"language": "en"'), "UTF-16": basic(b'"language": "en"').decode().encode("utf-16"),
    "cut short": basic(b"")[:-5], "NUL": b"\x00", "no UTF-8": basic(b'"language": "\xff"'), "surrogate in bytes": basic(b'"language": "\xed\xa0\x80"'),
    "surrogate escaped": basic(b'"language": "\\ud800"'), "NUL escaped": basic(b'"language": "\\u0000"'), "twice the type": basic(b'"resourceType": "Patient"'), "twice an element": basic(b'"code": 1'),
    "type is a list": b'{"resourceType": ["Basic"]}', "type is abstract": b'{"resourceType": "DomainResource"}', "id is a number": basic(b'"id": 1'), "meta is a list": basic(b'"meta": []'),
    "version is an object": basic(b'"meta": {"versionId": {}}'), "extension is an object": basic(b'"extension": {"url": 1}'), "contained numbers": basic(b'"contained": [1, {"resourceType": "x"}]'),
    "deep lists": b"[" * DEEP + b"]" * DEEP, "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP, "deep element": basic(b'"subject": ' + b'{"identifier": {"assigner": ' * DEEP + b"1" + b"}}" * DEEP),
    "deep extensions": basic(b'"extension": ' + b'[{"url": "urn:x", "extension": ' * 300 + b"[]" + b"}]" * 300),
    "decimal beyond floats": observation(b'"valueQuantity": {"value": 1e400}'), "decimal below floats": observation(b'"valueQuantity": {"value": 1e-400}'),
    "integer beyond 32 bits": observation(b'"valueInteger": 99999999999999999999999'), "10,000 digits": observation(b'"valueQuantity": {"value": %s}' % (b"9" * 10_000)),
    "entry is a list": transaction(b"[]"), "url without a type": transaction(b'{"request": {"method": "GET", "url": "?%00=%ff"}}', b"batch"),
    "url with NUL": transaction(b'{"request": {"method": "GET", "url": "Patient?%00=%ff"}}', b"batch"),
    "bundle in a bundle": transaction(b'{"request": {"method": "POST", "url": ""}, "resource": {"resourceType": "Bundle", "type": "batch"}}', b"batch"),
    "patch that is cut": transaction(b'{"request": {"method": "PATCH", "url": "Basic/rich"}, "resource": {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": "W10"}}'),
    "parameters of no operation": b'{"resourceType": "Parameters", "parameter": [{"name": "operation", "part": [{"name": "type", "valueCode": "x"}]}]}',
    "parameters without a resource": b'{"resourceType": "Parameters", "parameter": [{"name": "resource"}]}',
    "patch to a number": b'[{"op": "add", "path": "", "value": 1}]', "patch below a text": b'[{"op": "replace", "path": "/code/text/x/y", "value": {}}]',
    "patch of itself": b'[{"op": "copy", "from": "", "path": "/code"}]', "patch into itself": b'[{"op": "move", "from": "/code", "path": "/code/text"}]',
    "patch far out": b'[{"op": "add", "path": "/extension/99999999999999999999", "value": 1}]', "patch of a wrong path": b'[{"op": "test", "path": "/~2", "value": null}]',
    "patch of no operation": b'[{"op": []}]', "patch of a numbered path": b'[{"op": "add", "path": 1}]', "patch of the type": b'[{"op": "remove", "path": "/resourceType"}]',
}  # fmt: skip
WRITES = (
    ("POST", "/fhir/Basic", FHIR_JSON), ("PUT", f"/fhir/Basic/{RICH}", FHIR_JSON), ("PATCH", f"/fhir/Basic/{RICH}", JSON_PATCH), ("PATCH", f"/fhir/Basic/{RICH}", FHIR_JSON),
    ("POST", "/fhir", FHIR_JSON), ("POST", "/fhir/Basic/$validate", FHIR_JSON), ("POST", "/fhir/Observation/$validate", FHIR_JSON), ("POST", "/fhir/Observation", FHIR_JSON),
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_taken_or_refused(client: RawClient, name: str) -> None:
    for method, path, content_type in WRITES:
        client.ask(method, path, {"Content-Type": content_type}, HOSTILE[name])


STRANGE: tuple[Any, ...] = (
    "Patient/x", "urn:uuid:x", "2024-13-01", "#a", "\0", "1e999", "x" * 5000, 10**40, "\ud7ff", RICH, "<div>", "P", "\\", "%", " ", "\n", "http://[::1", "/", "true", "-0", "9999-12-31T23:59:60Z",
)  # fmt: skip
NAMES = ("id", "extension", "url", "value", "reference", "coding", "resourceType", "_id", "meta", "contained")
floats = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), floats, st.text(max_size=8), st.sampled_from(STRANGE))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.text(max_size=5), st.sampled_from(NAMES)), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def spoilt(draw: st.DrawFn, tree: Any) -> Any:
    """With something else at one place, most often of the same kind."""
    if isinstance(tree, str) and draw(st.integers(0, 3)):
        return draw(st.one_of(st.text(min_size=1, max_size=12), st.sampled_from([one for one in STRANGE if isinstance(one, str)])))
    if isinstance(tree, int | float) and draw(st.integers(0, 3)):
        return draw(st.one_of(st.integers(), floats))
    if not isinstance(tree, dict | list) or not tree or draw(st.integers(0, 9)) == 0:
        return draw(trees)
    if isinstance(tree, list):
        nth = draw(st.integers(0, len(tree) - 1))
        return [*tree[:nth], draw(spoilt(tree[nth])), *tree[nth + 1 :]]
    name = draw(st.sampled_from(sorted(tree)))
    if draw(st.integers(0, 9)) == 0:
        return {**{key: value for key, value in tree.items() if key != name}, draw(st.text(max_size=6)): tree[name]}
    return {**tree, name: draw(spoilt(tree[name]))}


@st.composite
def resources(draw: st.DrawFn, resource_type: str) -> dict[str, Any]:
    made: Any = draw(spoilt(rich(resource_type, draw(st.integers(0, 3)))))
    return made if isinstance(made, dict) else {"resourceType": resource_type, "id": RICH}


def encoded(tree: Any) -> bytes:
    return json.dumps(tree).encode("ascii")


TAKING_A_RESOURCE = (
    ("POST", "/fhir/{type}"), ("PUT", f"/fhir/{{type}}/{RICH}"), ("PUT", f"/fhir/{{type}}?_id={RICH}"), ("POST", "/fhir/{type}/$validate"), ("POST", f"/fhir/{{type}}/{RICH}/$validate"),
)  # fmt: skip


@given(st.data())
@settings(max_examples=2 * EXAMPLES)
def test_a_spoilt_resource_is_taken_or_refused(client: RawClient, data: st.DataObject) -> None:
    resource_type = data.draw(types)
    method, path = data.draw(st.sampled_from(TAKING_A_RESOURCE))
    client.ask(method, path.format(type=resource_type), {"Content-Type": FHIR_JSON}, encoded(data.draw(resources(resource_type))))


PATHS = ("", "/", "/code", "/code/text", "/id", "/extension/-", "/extension/0", "/~", "/identifier/0/x", 1, None)
MEDIA_TYPES = (*[JSON_PATCH] * 6, FHIR_JSON, "application/json", f"{JSON_PATCH}; charset=utf-16", "text/plain", "application/fhir+xml", "", '"', "x/y; =")
operations = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "x", None, 1])},
        optional={"path": st.one_of(st.sampled_from(PATHS), st.text(max_size=6)), "from": st.sampled_from(PATHS), "value": trees},
    ),
    max_size=4,
)


@given(types, st.sampled_from(MEDIA_TYPES), st.one_of(operations, operations, trees))
@settings(max_examples=EXAMPLES)
def test_a_patch_of_any_kind_is_taken_or_refused(client: RawClient, resource_type: str, media_type: str, body: Any) -> None:
    client.ask("PATCH", f"/fhir/{resource_type}/{RICH}", {"Content-Type": media_type}, encoded(body))


FHIRPATHS = (
    "Basic", "code", "Basic.code", "Basic.code.text", "Basic.code.coding[0]", "Basic.code.coding[0].display", "Basic.identifier.where(use = 'usual')", "Basic.identifier[0].period.start",
    "Basic.extension('urn:x')", "Basic.extension.where(url = 'urn:x').value", "Basic.where(true)", "Basic.contained[0].id", "Basic.meta", "Basic.id", "Basic.subject", "Basic.subject.resolve()",
    "Basic.code.ofType(CodeableConcept)", "Basic.code.coding.first().code", "Basic.code | Basic.id", "Basic.repeat(code)", "Basic[0]", "Basic.code[0]", "Basic.code.coding[-1]",
    "Basic.code.coding[99999999999999999999]", "Basic.code.text.text", "%resource", "$this", "", " ", "'", "`", "Basic.`code`", "Basic..code", "Basic.", ".", "((((((", "(" * 400 + ")" * 400,
    "Basic" + ".extension" * 45, "Basic.where(" * 30 + "true" + ")" * 30, "not(" * 100, "1", "@2024", "1 'mg'", "Basic.code = 'x'", "Basic.code.matches('(a+)+$')", "Basic.identifier.where($this = $this)",
    "Basic.code.coding.where(code = '\\u0000')", "😀", "/code", "Basic.created.toString()", "Basic.code.exists()", "Observation.code", "Resource.id", "DomainResource.text", "value", "Basic.nothing",
)  # fmt: skip
VALUES = (
    ("valueString", "x"), ("valueString", ""), ("valueInteger", 1), ("valueInteger", -1), ("valueInteger", 2**31 - 1), ("valueBoolean", True), ("valueCode", "usual"), ("valueUri", "urn:x"), ("valueDate", "2024"),
    ("valueCodeableConcept", {"text": "b"}), ("valueIdentifier", {"value": "1"}), ("valueReference", {"reference": "Group/rich"}), ("valueExtension", {"url": "urn:x"}), ("resource", {"resourceType": "Basic"}),
    ("part", [{"name": "url", "valueUri": "urn:x"}, {"name": "value", "valueString": "y"}]), ("part", []), ("_valueString", {"extension": [{"url": "urn:x", "valueString": "y"}]}),
)  # fmt: skip
PARTS = ("name", "value", "index", "source", "destination", "path", "x")


@st.composite
def fhirpath_operations(draw: st.DrawFn) -> Any:
    part = [{"name": "type", "valueCode": draw(st.sampled_from(["add", "insert", "delete", "replace", "move", "x"]))}]
    part.append({"name": "path", "valueString": draw(st.one_of(st.sampled_from(FHIRPATHS), st.text(max_size=12)))})
    for name in draw(st.lists(st.sampled_from(PARTS), max_size=3, unique=True)):
        key, value = draw(st.sampled_from(VALUES))
        named = draw(st.sampled_from(["extension", "text", "code", "identifier", "coding", "value", "id", "contained", "", "x"]))
        part.append({"name": name, "valueString": named} if name == "name" else {"name": name, key: value})
    return {"name": "operation", "part": part}


fhirpath_patches = st.fixed_dictionaries({"resourceType": st.just("Parameters"), "parameter": st.lists(fhirpath_operations(), max_size=3)})


@given(st.one_of(fhirpath_patches, fhirpath_patches, fhirpath_patches.flatmap(spoilt)))
@settings(max_examples=2 * EXAMPLES)
def test_a_fhirpath_patch_of_any_kind_is_taken_or_refused(client: RawClient, body: Any) -> None:
    client.ask("PATCH", f"/fhir/Basic/{RICH}", {"Content-Type": FHIR_JSON}, encoded(body))


EXPRESSIONS = (
    "Basic.code", "Basic.code.text", "Observation.value.ofType(Quantity)", "Observation.component.where(code.exists()).value", "Observation.subject.where(resolve() is Patient)", "Observation.subject | Basic.subject",
    "Resource.meta.tag", "Observation.referenceRange.low.value", "Observation.effective", "Observation.note.text.exists()", "Observation.extension('urn:x').value", "(Observation.value as Quantity)",
)  # fmt: skip


@given(
    st.one_of(st.sampled_from(EXPRESSIONS), st.sampled_from(FHIRPATHS), st.text(max_size=20)),
    st.sampled_from(["token", "reference", "string", "uri", "date", "number", "quantity", "composite", "special", "x"]),
    st.lists(st.sampled_from(["Basic", "Observation", "Patient", "Resource", "DomainResource", "x"]), min_size=1, max_size=2),
    st.sampled_from(["fuzz", "code", "_id", "a b", "x" * 200, "a.b", "a:b", "_has", "Ü"]),
)
@settings(max_examples=EXAMPLES)
def test_a_search_parameter_of_any_kind_is_taken_or_refused(client: RawClient, expression: str, kind: str, base: list[str], code: str) -> None:
    """What is taken is indexed, and can be searched by as soon as all is."""
    body = {"resourceType": "SearchParameter", "id": "fuzz", "url": "urn:fuzz", "name": "Fuzz", "status": "active", "description": "x"}
    made = client.ask("PUT", "/fhir/SearchParameter/fuzz", {"Content-Type": FHIR_JSON}, encoded({**body, "code": code, "base": base, "type": kind, "expression": expression}))
    if made.is_success:
        while client.ask("GET", f"/fhir/{base[0]}?{quote(code)}:missing=false", allowed=(503,)).status_code == 503:
            time.sleep(0.02)


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", 1)
URLS = ("{}", f"{{}}/{RICH}", f"{{}}?_id={RICH}", "{}?identifier=%00", "Patient/$everything", f"{{}}/{RICH}/_history", "", "..", "?", "a b", "http://[x")
CONDITIONS = ("ifMatch", "ifNoneMatch", "ifNoneExist", "ifModifiedSince")


@st.composite
def entries(draw: st.DrawFn) -> Any:
    resource_type = draw(types)
    url = draw(st.one_of(st.sampled_from([one.format(resource_type) for one in URLS]), st.text(max_size=6)))
    request = {"method": draw(st.sampled_from(METHODS)), "url": url, **draw(st.dictionaries(st.sampled_from(CONDITIONS), leaves, max_size=1))}
    entry: dict[str, Any] = {"request": request, "fullUrl": draw(st.one_of(st.just("urn:uuid:x"), leaves))}
    if draw(st.booleans()):
        entry["resource"] = draw(st.one_of(resources(resource_type), trees))
    return draw(st.one_of(st.just(entry), spoilt(entry)))


bundles = st.fixed_dictionaries(
    {"resourceType": st.just("Bundle"), "type": st.sampled_from(["batch", "transaction"]), "entry": st.lists(entries(), max_size=3)}
)


@given(st.one_of(bundles, bundles.flatmap(spoilt)), st.sampled_from(["return=minimal", "return=OperationOutcome", "respond-async", "handling=lenient", ";;=,"]))
@settings(max_examples=2 * EXAMPLES)
def test_a_bundle_of_any_kind_is_taken_or_refused(client: RawClient, bundle: Any, prefer: str) -> None:
    answer = client.ask("POST", "/fhir", {"Content-Type": FHIR_JSON, "Prefer": prefer}, encoded(bundle))
    answered = answer.json().get("entry", []) if answer.content else []
    assert not [one for one in answered if one["response"]["status"].startswith("5")], bundle


HEADERS = (
    "If-Match", "If-None-Match", "If-Modified-Since", "If-None-Exist", "Prefer", *["X-Provenance"] * 3, "Accept", "Content-Type", "Range", "Accept-Encoding", "Host", "X-HTTP-Method-Override",
)  # fmt: skip
HEADER_VALUES = (
    "*", "W/", 'W/"1"', 'W/"99999999999999999999"', '"', 'W/"-1"', "1", "application/fhir+json; fhirVersion=9.9", "*/*;q=NaN", "*/*;q=0", "a/b;;;", ",,,", "Sat, 31 Feb 2024 99:99:99 GMT",
    "Thu, 01 Jan 0000 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2359", "_id=%00", "?", "identifier=a|b&&", '{"resourceType": "Provenance"}', "{", '{"resourceType": "Provenance", "target": [], "agent": [{"who": {"display": "a"}}]}',
    '{"resourceType": "Provenance", "agent": [{"who": {"display": "a"}}]}', '{"resourceType": "Provenance", "agent": [{"who": {"reference": "Patient/none"}}], "patient": 1}', '{"resourceType": "Basic"}', "[" * 5000, "x" * 8000,
)  # fmt: skip
latin = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30).map(str.strip)
WITH_HEADERS = (
    ("GET", f"/fhir/{{type}}/{RICH}"), ("HEAD", f"/fhir/{{type}}/{RICH}"), ("GET", "/fhir/{type}"), ("POST", "/fhir/{type}"), ("PUT", f"/fhir/{{type}}/{RICH}"), ("PATCH", f"/fhir/{{type}}/{RICH}"),
    ("DELETE", "/fhir/{type}/other"), ("POST", "/fhir"), ("POST", "/fhir/{type}/_search"), ("GET", "/fhir/metadata"),
)  # fmt: skip


@given(types, st.sampled_from(WITH_HEADERS), st.dictionaries(st.sampled_from(HEADERS), st.one_of(latin, st.sampled_from(HEADER_VALUES)), min_size=1, max_size=3))
@settings(max_examples=2 * EXAMPLES)
def test_headers_of_any_kind_are_answered(client: RawClient, resource_type: str, where: tuple[str, str], headers: dict[str, str]) -> None:
    method, path = where
    body = {"POST": encoded(rich(resource_type)), "PUT": encoded(rich(resource_type)), "PATCH": b"[]"}.get(method)
    if body is not None:
        headers = {"Content-Type": JSON_PATCH if method == "PATCH" else FHIR_JSON, **headers}
    client.ask(method, path.format(type=resource_type), headers, body)
