"""Whatever a client asks a search for is answered, and never by a fault of the server: over HTTP, with resources of every type."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote, quote_from_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich_site import EXAMPLES, RICH, RawClient, rich_site

from projections.fhir.definitions import resource_types
from projections.fhir.projection import TYPES
from projections.fhir.search.parameters import parameters
from server.fhir.comparisons import PREFIXES
from server.fhir.parameters import MODIFIERS, target_types

FORM = "application/x-www-form-urlencoded"
DEEPEST = 7
"""One link more than is allowed."""
MANY = 900
"""Values between commas."""


@pytest.fixture(scope="module")
def client(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawClient]:
    with rich_site(embedded_server, tmp_path_factory.mktemp("fuzz")) as served:
        yield served


types = st.sampled_from(resource_types())


# What can be meant, with values at the edges

UCUM = "http://unitsofmeasure.org"
EDGES: dict[str, tuple[str, ...]] = {
    "token": ("a", "urn:x|a", "|a", "urn:x|", "true", "x" * 5000, "😀|%"),
    "string": ("a", "Å", "%", "_", "\\,", "x" * 5000, "\U0010ffff", " ", "\u0300", "ß"),
    "uri": ("urn:x", "http://x/y/z", "http://" + "a/" * 3000, "😀", "/"),
    "reference": ("Patient/rich", "rich", "Group/rich/_history/1", "http://x/Patient/1", "urn:uuid:x", "Patient/" + "x" * 64),
    "date": ("2024", "0001", "9999", "9999-12-31", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999-14:00", "2024-02-29T10:00:00.123456+01:00"),
    "number": ("0", "-0.0", "1", "1e300", "9" * 30, "1e-300", "-1.5", "1e308", "1e999", "-1e999", f"0.{'0' * 29}1"),
    "unit": ("", "||mg", f"|{UCUM}|mg", f"|{UCUM}|10*300.m3", f"|{UCUM}|{{x}}", "|urn:x|y", "|urn:iso:std:iso:4217|eur"),
}  # fmt: skip
EDGES["special"] = EDGES["string"]


@st.composite
def edges(draw: st.DrawFn, kind: str) -> str:
    if kind == "quantity":
        return draw(edges("number")) + draw(st.sampled_from(EDGES["unit"]))
    prefix = draw(st.sampled_from(["", "", *PREFIXES])) if kind in ("date", "number") else ""
    return prefix + draw(st.sampled_from(EDGES[kind]))


@st.composite
def usable(draw: st.DrawFn, resource_type: str, depth: int = 0) -> tuple[str, str]:
    """A parameter with its value: any of the type's own, chained and reversed up to one link too many."""
    known = parameters(resource_type)
    one = known[draw(st.sampled_from(sorted(known)))]
    if depth < DEEPEST and draw(st.integers(0, 9)) < (4 if depth else 2):
        other = draw(types)
        if references := references_of(other):
            name, value = draw(usable(resource_type if draw(st.booleans()) else other, depth + 1))
            return f"_has:{other}:{draw(st.sampled_from(references))}:{name}", value
    if one.type == "reference" and depth < DEEPEST and draw(st.booleans()):
        target = draw(st.sampled_from(target_types(one) or TYPES))
        name, value = draw(usable(target, depth + 1))
        return f"{one.code}:{target}.{name}", value
    if one.type == "composite":
        return one.code, "$".join(draw(edges(part.kind)) for part in one.parts)
    modifier = draw(st.sampled_from(["", *MODIFIERS.get(one.type, ())]))
    if modifier == "missing":
        return f"{one.code}:missing", draw(st.sampled_from(["true", "false"]))
    kind = "token" if modifier == "identifier" else one.type
    values = [draw(edges(kind)) for _ in range(draw(st.sampled_from([1, 1, 2])))] * draw(st.sampled_from([1, 1, 1, MANY // 2]))
    if modifier == "of-type":
        values = [f"urn:x|{value}|b" for value in values]
    return f"{one.code}:{modifier}".rstrip(":"), ",".join(values)


def references_of(resource_type: str) -> list[str]:
    return sorted(code for code, one in parameters(resource_type).items() if one.type == "reference")


@st.composite
def sorts(draw: st.DrawFn, resource_type: str) -> tuple[str, str]:
    codes = draw(st.lists(st.sampled_from(sorted(parameters(resource_type))), min_size=1, max_size=3))
    return "_sort", ",".join(draw(st.sampled_from(["", "-"])) + code for code in codes)


# What cannot

STRANGE = (
    "", "0", "-1", "1", "²", "9" * 400, "1e999", "-1e-999", "NaN", "inf", "true", "\0", "a\0b", "\\", "\\,", ",", "," * 3000, "|", "||", "a|b|c", "$", "$$$", "a$b$c", "*",
    "x" * 20_000, "\ud7ff", "\U0010ffff", "😀", "'; --", "%", "%_\\", "9999-12-31T23:59:60Z", "2024-02-30", "10000", "99999999999999-01-01", "2024-01-01T00:00:00+99:99", "0000-00-00",
    "-2024", "ap0001", "ap9999-12-31", "sa9999", "eb0001", "gt", "ge1e400", "ap1e308", "ne", "lt-0", "1||", f"1|{UCUM}|{{{{{{", f"1|{UCUM}|m{'/s' * 500}", f"1|{UCUM}|{'(' * 500}",
    "Patient/", "/", "//", "Patient/" + "x" * 100, "http://[::1", "urn:uuid:", "#x", "?", "Patient?x=y", "_id", "--_id", "- ", "a:b:c", "Patient:subject", "Observation:*", "*:*", ":::",
    "Observation:subject:Patient:x",
)  # fmt: skip
CONTROLS = (
    "_sort", "_include", "_include:iterate", "_revinclude", "_revinclude:iterate", "_include:x", "_elements", "_summary", "_total", "_count", "_format", "_pretty", "_asof", "_asOf",
    "_page", "_cursor", "_type", "_since", "_at",
)  # fmt: skip
ODD_MODIFIERS = ("", ":missing", *sorted({f":{one}" for of in MODIFIERS.values() for one in of}), ":Patient", ":in", ":above", ":iterate", ":", ":x", "::", ".", ".x")
COUNTS = ("0", "1", "2", "1000", "9" * 50, "-1", "")

strange = st.one_of(st.text(max_size=12), st.sampled_from(STRANGE))
values = st.one_of(strange, *(st.lists(strange, min_size=2, max_size=4).map(joined) for joined in (",".join, "|".join, "$".join)))
controls = st.one_of(st.tuples(st.sampled_from(CONTROLS), values), st.tuples(st.just("_count"), st.sampled_from(COUNTS)))


@st.composite
def odd(draw: st.DrawFn, resource_type: str) -> tuple[str, str]:
    codes = st.sampled_from(sorted(parameters(resource_type)))
    with_modifier = st.builds("{}{}".format, codes, st.sampled_from(ODD_MODIFIERS))
    reverse = st.builds("_has:{}:{}:{}".format, types, codes, strange)
    return draw(st.one_of(with_modifier, reverse, strange)), draw(values)


@st.composite
def queries(draw: st.DrawFn, resource_type: str) -> list[tuple[str, str]]:
    """Half of them can be meant; the others hold something that cannot."""
    asked = draw(st.lists(st.one_of(usable(resource_type), usable(resource_type), sorts(resource_type)), min_size=1, max_size=3))
    if draw(st.booleans()):
        asked += draw(st.lists(st.one_of(odd(resource_type), controls), min_size=1, max_size=3))
    return asked * draw(st.sampled_from([1, 1, 1, 2]))


def written(query: list[tuple[str, str]]) -> str:
    return "&".join(f"{quote(name, safe=':._')}={quote(value, safe='|,$:/')}" for name, value in query)


LONGEST_TARGET = 60_000
"""Beyond it uvicorn answers by itself."""
OF_TYPE = "/fhir/{type}"
WHERE = (
    *[OF_TYPE] * 6, "/fhir/{type}/_history", f"/fhir/Patient/{RICH}/{{type}}", "/fhir", "/fhir/_history", f"/fhir/{{type}}/{RICH}", f"/fhir/{{type}}/{RICH}/_history",
    f"/fhir/Group/{RICH}/$everything", f"/fhir/{{type}}/{RICH}/$meta", "/fhir/metadata",
)  # fmt: skip
FORM_TYPES = (*[FORM] * 6, f"{FORM}; charset=utf-16", f"{FORM}; charset=x", "application/json", "", "/", "multipart/form-data; boundary=x")


@given(st.data())
@settings(max_examples=2 * EXAMPLES)
def test_a_search_of_any_kind_is_answered(client: RawClient, data: st.DataObject) -> None:
    resource_type = data.draw(types)
    query = written(data.draw(queries(resource_type)))[:LONGEST_TARGET]
    path = data.draw(st.sampled_from(WHERE)).format(type=resource_type)
    client.ask("GET", f"{path}?{query}", {"Prefer": "handling=lenient"} if data.draw(st.booleans()) else {})


@given(st.data())
@settings(max_examples=EXAMPLES)
def test_a_search_by_form_is_answered(client: RawClient, data: st.DataObject) -> None:
    resource_type = data.draw(types)
    form = written(data.draw(queries(resource_type))).encode("ascii") if data.draw(st.integers(0, 4)) else data.draw(st.binary(max_size=200))
    path = data.draw(st.sampled_from([*["/fhir/{type}/_search"] * 3, "/fhir/_search", f"/fhir/Patient/{RICH}/{{type}}/_search"]))
    client.ask("POST", path.format(type=resource_type), {"Content-Type": data.draw(st.sampled_from(FORM_TYPES))}, form)


@given(st.binary(max_size=60), types)
@settings(max_examples=EXAMPLES)
@example(b"%", "Patient")
@example(b"name=%ff%fe", "Patient")
@example(b"name=%00", "Patient")
@example(b"%00=1", "Patient")
@example(b"&&&==", "Patient")
@example(b"name=%ed%a0%80", "Patient")
@example(b"name=%", "Patient")
@example(b"name=%u0041", "Patient")
def test_a_query_of_any_bytes_is_answered(client: RawClient, raw: bytes, resource_type: str) -> None:
    """As far as they are a URL at all: percent signs that escape nothing, bytes that are no UTF-8."""
    client.ask("GET", f"/fhir/{resource_type}?{quote_from_bytes(raw, safe='%&=+;/?:@!$()*,[]|^`{}~')}")
    client.ask("GET", f"/fhir/{resource_type}?{quote_from_bytes(raw)}={quote_from_bytes(raw)}")
