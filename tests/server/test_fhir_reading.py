"""How answers look: formats, summaries, elements, HEAD, conditional reads, preferences; and histories of a type and of the system."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import pytest_asyncio
from fhir.resources import get_fhir_model_class
from mixed_log import fill
from served_site import LIVER, LUNG, PLANTED_NAME, Site, served_site, slice_of
from starlette.requests import Request

from projections.fhir.projection import SCHEMA, TYPES
from projections.fhir.vocabulary import index_id, study_id
from server.app import create_app
from server.fhir.changes import Changes
from server.fhir.history import PARAMETERS as HISTORY_PARAMETERS
from server.fhir.history import Period
from server.fhir.outcome import FHIR_JSON
from server.fhir.preferences import Preferences, preferences
from server.fhir.searching import PARAMETERS as SEARCH_PARAMETERS
from server.services import open_services

pytestmark = pytest.mark.asyncio(loop_scope="module")
STUDY = "1.2.840.9.1"
SERIES = f"{STUDY}.1"
IMAGING_STUDY = f"/fhir/ImagingStudy/{study_id(STUDY)}"
INDEX = f"/fhir/BodyStructure/{index_id(SERIES)}"
SCOPES = ("fhir:read",)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """Reads are not recorded here, so that the log stands still between two of them."""
    async with served_site(embedded_server, tmp_path_factory.mktemp("reading"), audit_reads=False) as served:
        await served.store(slice_of(STUDY, 1), slice_of(STUDY, 2))
        await served.index(SERIES, LIVER, LUNG)
        await served.store(slice_of(STUDY, 3))
        await served.index(SERIES, LUNG)
        yield served


async def ask(site: Site, url: str, method: str = "GET", scopes: tuple[str, ...] = SCOPES, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await site.client.request(method, url, headers={**await site.headers(*scopes), **named})


async def bundle(site: Site, url: str) -> dict[str, Any]:
    answer = await ask(site, url)
    assert answer.status_code == 200, answer.text
    get_fhir_model_class("Bundle").model_validate(answer.json())
    found: dict[str, Any] = answer.json()
    return found


def says(answer: httpx.Response, status: int, expression: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    get_fhir_model_class("OperationOutcome").model_validate(answer.json())
    assert answer.json()["issue"][0].get("expression") == ([expression] if expression else None)


def next_of(page: dict[str, Any]) -> str | None:
    return next((one["url"] for one in page["link"] if one["relation"] == "next"), None)


def is_subsetted(resource: dict[str, Any]) -> bool:
    return "SUBSETTED" in [tag["code"] for tag in resource["meta"].get("tag", [])]


@pytest.mark.parametrize(
    "accept",
    [
        "application/fhir+json",
        "application/json",
        "text/json",
        "application/*",
        "*/*",
        "application/fhir+xml;q=0.9, application/fhir+json;q=0.1",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "application/fhir+json; fhirVersion=5.0",
        "APPLICATION/FHIR+JSON",
    ],
)
async def test_whoever_takes_json_gets_it(site: Site, accept: str) -> None:
    answer = await ask(site, IMAGING_STUDY, Accept=accept)
    assert (answer.status_code, answer.headers["content-type"]) == (200, FHIR_JSON)


@pytest.mark.parametrize(
    "accept", ["application/fhir+xml", "text/turtle", "application/fhir+json;q=0", "application/fhir+json; fhirVersion=4.0", "image/*"]
)
async def test_whoever_does_not_is_told_plainly(site: Site, accept: str) -> None:
    for path in (IMAGING_STUDY, "/fhir/Patient", "/fhir/_history", "/fhir/metadata"):
        says(await ask(site, path, Accept=accept), 406)


@pytest.mark.parametrize(
    ("written", "status"),
    [("json", 200), ("application/json", 200), ("application/fhir%2Bjson", 200), ("application/fhir+json", 200), ("text/json", 200)]
    + [(one, 406) for one in ("xml", "text/xml", "application/fhir%2Bxml", "ttl", "html", "jsonx", "")],
)
async def test_format_in_the_url_goes_before_accept(site: Site, written: str, status: int) -> None:
    for path in (IMAGING_STUDY, "/fhir/Patient", f"{IMAGING_STUDY}/_history", "/fhir/metadata"):
        answer = await ask(site, f"{path}?_format={written}", Accept="application/fhir+xml")
        assert answer.status_code == status, answer.text
        if status == 406:
            says(answer, 406, "http._format")


async def test_format_in_a_form_counts_too(site: Site) -> None:
    headers = await site.headers(*SCOPES)
    says(await site.client.post("/fhir/Patient/_search", headers=headers, data={"_format": "xml"}), 406, "http._format")
    says(await site.client.post("/fhir/Patient/_search", headers=headers, json={"gender": "female"}), 415)
    says(await site.client.post("/fhir/Patient/_search", headers={**headers, "Content-Type": "application/x-www-form-urlencoded"}, content=b"a=\xff"), 400)


async def test_pretty_is_the_same_on_more_lines(site: Site) -> None:
    for path in (IMAGING_STUDY, "/fhir/ImagingStudy", "/fhir/_history", "/fhir/metadata"):
        plain, pretty = await ask(site, path), await ask(site, f"{path}?_pretty=true")
        own = json.loads(pretty.text)
        if own["resourceType"] == "Bundle":
            own["link"] = plain.json()["link"]
        assert own == plain.json() and pretty.text.count("\n") > 10 and "\n" not in plain.text
    says(await ask(site, f"{IMAGING_STUDY}?_pretty=maybe"), 400, "http._pretty")


async def test_a_summary_has_what_the_standard_marks(site: Site) -> None:
    whole, summary = (await ask(site, IMAGING_STUDY)).json(), (await ask(site, f"{IMAGING_STUDY}?_summary=true")).json()
    assert is_subsetted(summary) and not is_subsetted(whole)
    assert summary["meta"]["lastUpdated"] == whole["meta"]["lastUpdated"]
    assert summary["status"] == whole["status"] and summary["series"][0]["uid"] == SERIES
    assert "instance" in whole["series"][0] and "instance" not in summary["series"][0]
    get_fhir_model_class("ImagingStudy").model_validate(summary)


async def test_summary_text_and_data(site: Site) -> None:
    path = "/fhir/Observation?_summary="
    for entry in (await bundle(site, f"{path}text"))["entry"]:
        assert set(entry["resource"]) <= {"resourceType", "id", "meta", "text", "status", "code"}
        assert is_subsetted(entry["resource"])
    whole = {one["resource"]["id"]: one["resource"] for one in (await bundle(site, f"{path}false"))["entry"]}
    for entry in (await bundle(site, f"{path}data"))["entry"]:
        resource = entry["resource"]
        assert is_subsetted(resource)
        assert {**resource, "meta": 0} == {**whole[resource["id"]], "meta": 0}


@pytest.mark.parametrize("query", ["_summary=count", "_count=0"])
async def test_a_count_is_a_total_alone(site: Site, query: str) -> None:
    found = await bundle(site, f"/fhir/Observation?{query}")
    assert found["total"] == (await bundle(site, "/fhir/Observation"))["total"] > 0
    assert "entry" not in found and next_of(found) is None


async def test_elements_are_those_asked_for_and_those_that_must_be_there(site: Site) -> None:
    (entry,) = (await bundle(site, "/fhir/ImagingStudy?_elements=started,ImagingStudy.numberOfSeries"))["entry"]
    assert set(entry["resource"]) == {"resourceType", "id", "meta", "status", "subject", "started", "numberOfSeries"}
    assert is_subsetted(entry["resource"])
    (value, *_) = (await bundle(site, "/fhir/Observation?_elements=effective"))["entry"]
    assert "component" not in value["resource"]
    for _path in (IMAGING_STUDY, "/fhir/ImagingStudy", f"{IMAGING_STUDY}/_history", "/fhir/ImagingStudy/_history"):
        says(await ask(site, f"{_path}?_elements=colour"), 400, "http._elements")
        says(await ask(site, f"{_path}?_elements="), 400, "http._elements")
        says(await ask(site, f"{_path}?_elements=started&_summary=true"), 400, "http._elements")
        says(await ask(site, f"{_path}?_summary=short"), 400, "http._summary")
    for _path in (IMAGING_STUDY, f"{IMAGING_STUDY}/_history", "/fhir/_history"):
        says(await ask(site, f"{_path}?_summary=count"), 400, "http._summary")


async def test_pages_of_a_summary_are_summaries(site: Site) -> None:
    page = await bundle(site, "/fhir/Observation?_summary=true&_count=1")
    following = next_of(page)
    assert following is not None
    assert is_subsetted((await bundle(site, following))["entry"][0]["resource"])


async def test_a_name_is_in_a_summary_for_those_who_may_see_it(site: Site) -> None:
    for scopes, is_shown in ((SCOPES, False), ((*SCOPES, "identities:read"), True)):
        answer = await ask(site, "/fhir/Patient?_elements=name", scopes=scopes)
        assert (PLANTED_NAME.partition("^")[0] in answer.text) is is_shown


@pytest.mark.parametrize("path", [IMAGING_STUDY, f"{IMAGING_STUDY}/_history/1", f"{IMAGING_STUDY}/_history", "/fhir/ImagingStudy"])
async def test_a_parameter_that_nobody_knows_is_refused_everywhere(site: Site, path: str) -> None:
    says(await ask(site, f"{path}?nonsense=1"), 400, "http.nonsense")
    assert (await ask(site, f"{path}?nonsense=1", Prefer="respond-async, handling=lenient; x=y")).status_code == 200
    says(await ask(site, f"{path}?nonsense=1", Prefer='handling=strict, handling=lenient, note="handling=lenient"'), 400, "http.nonsense")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], Preferences()),
        (["handling=lenient"], Preferences(handling="lenient")),
        (["Handling = Lenient"], Preferences(handling="lenient")),
        (["handling=whatever"], Preferences()),
        (["xhandling=lenient"], Preferences()),
        (["respond-async, return=minimal"], Preferences(returns="minimal", respond_async=True)),
        (["return=OperationOutcome; foo=bar", 'handling="lenient"'], Preferences(returns="OperationOutcome", handling="lenient")),
        (["return=representation", "return=minimal"], Preferences(returns="representation")),
        (['note="a, handling=lenient"'], Preferences()),
    ],
)
async def test_preferences_are_read_as_the_rfc_says(headers: list[str], expected: Preferences) -> None:
    raw = [(b"prefer", value.encode()) for value in headers]
    assert preferences(Request({"type": "http", "headers": raw})) == expected


@pytest.mark.parametrize(
    "path",
    [
        *(IMAGING_STUDY, f"{IMAGING_STUDY}/_history/1", f"{IMAGING_STUDY}/_history", "/fhir/ImagingStudy/_history", "/fhir/_history"),
        *("/fhir/ImagingStudy", "/fhir/metadata", "/fhir/Patient/none", "/fhir/Patient?x=1"),
    ],
)
async def test_head_is_get_without_its_body(site: Site, path: str) -> None:
    got, head = await ask(site, path), await ask(site, path, "HEAD")
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert dict(head.headers) == dict(got.headers)
    assert int(head.headers["content-length"]) == len(got.content)


async def test_what_the_client_holds_is_not_sent_again(site: Site) -> None:
    got = await ask(site, IMAGING_STUDY)
    etag, modified = got.headers["etag"], parsedate_to_datetime(got.headers["last-modified"])
    before, after = (format_datetime(modified + timedelta(seconds=n), usegmt=True) for n in (-1, 1))
    for headers, status in [
        ({"If-None-Match": etag}, 304),
        ({"If-None-Match": f'"x", {etag.removeprefix("W/")}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": 'W/"77"'}, 200),
        ({"If-Modified-Since": got.headers["last-modified"]}, 304),
        ({"If-Modified-Since": after}, 304),
        ({"If-Modified-Since": before}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-None-Match": 'W/"77"', "If-Modified-Since": after}, 200),
    ]:
        answer = await ask(site, IMAGING_STUDY, **headers)
        assert answer.status_code == status, headers
        assert answer.headers["etag"] == etag
        assert bool(answer.content) is (status == 200)


async def test_no_cache_gives_an_answer_to_somebody_else(site: Site) -> None:
    for path in (IMAGING_STUDY, "/fhir/Patient", "/fhir/_history", "/fhir/Patient/none"):
        headers = (await ask(site, path)).headers
        assert (headers["cache-control"], headers["vary"]) == ("private, no-cache", "Accept, Authorization")


async def all_pages(site: Site, url: str) -> list[dict[str, Any]]:
    entries, following = [], url
    while following:
        page = await bundle(site, following)
        entries += page.get("entry", [])
        following = next_of(page) or ""
    return entries


def keys(entries: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(one["resource"]["resourceType"], one["resource"]["id"], one["resource"]["meta"]["versionId"]) for one in entries]


async def test_the_history_of_the_system_has_every_version_once_in_the_order_of_the_log(site: Site) -> None:
    rows = await site.services.pool.fetch(
        f"SELECT type, id, version::text FROM {SCHEMA}.resource WHERE version > 0 ORDER BY position_from DESC, type DESC, id DESC"
    )
    expected = [tuple(row) for row in rows]
    assert len({row[0] for row in rows}) == 7
    assert keys(await all_pages(site, "/fhir/_history?_count=7")) == expected
    assert keys(await all_pages(site, "/fhir/_history?_count=3&_sort=_lastUpdated")) == expected[::-1]
    assert keys(await all_pages(site, "/fhir/_history?_count=1000&_sort=-_lastUpdated")) == expected
    of_type = [one for one in expected if one[0] == "Observation"]
    assert keys(await all_pages(site, "/fhir/Observation/_history?_count=2")) == of_type
    assert keys(await all_pages(site, f"{INDEX}/_history?_sort=_lastUpdated&_count=1")) == [
        one for one in expected[::-1] if one[1] == index_id(SERIES)
    ]


async def test_an_entry_says_how_its_version_came_to_be(site: Site) -> None:
    latest = (await bundle(site, f"{IMAGING_STUDY}/_history"))["entry"][0]
    assert latest["request"] == {"method": "PUT", "url": IMAGING_STUDY.removeprefix("/fhir/")}
    assert (latest["response"]["status"], latest["response"]["etag"]) == ("200", f'W/"{latest["resource"]["meta"]["versionId"]}"')
    assert latest["fullUrl"].endswith(IMAGING_STUDY)
    (entry,) = (await bundle(site, "/fhir/Patient/_history"))["entry"]
    assert (entry["request"], entry["response"]["status"]) == ({"method": "POST", "url": "Patient"}, "201")


async def test_a_history_since_an_instant_and_at_one(site: Site) -> None:
    entries = await all_pages(site, "/fhir/_history?_sort=_lastUpdated")
    instants = sorted({one["response"]["lastModified"] for one in entries})
    for moment in (instants[0], instants[len(instants) // 2], instants[-1]):
        made_since = [one for one in entries if one["response"]["lastModified"] >= moment]
        assert await all_pages(site, f"/fhir/_history?_sort=_lastUpdated&_count=4&_since={moment}") == made_since
        standing = await all_pages(site, f"/fhir/BodyStructure/_history?_at={moment}")
        as_of = await all_pages(site, f"/fhir/BodyStructure?_asof={moment}")
        assert sorted(keys(standing)) == sorted(keys(as_of))
    assert await all_pages(site, "/fhir/_history?_since=2999") == []
    position = (await ask(site, "/fhir/Patient")).headers["anamnesis-position"]
    assert await all_pages(site, f"/fhir/_history?_asof={position}&_sort=_lastUpdated") == entries
    assert await all_pages(site, "/fhir/_history?_asof=0") == []


@pytest.mark.parametrize("query", ["_sort=date", "_since=x", "_at=x", "_count=0", "_count=x", "_asof=x", "_id=1", "_since=2024&_since=2025"])
async def test_what_cannot_be_meant_of_a_history_is_refused(site: Site, query: str) -> None:
    for path in ("/fhir/_history", "/fhir/Patient/_history", f"{IMAGING_STUDY}/_history"):
        says(await ask(site, f"{path}?{query}"), 400, f"http.{query.partition('=')[0]}")


async def test_a_history_of_no_such_type_is_not_found(site: Site) -> None:
    says(await ask(site, "/fhir/Nonsense/_history"), 404)
    says(await ask(site, "/fhir/Patient/none/_history"), 404)
    assert (await ask(site, "/fhir/AuditEvent/_history")).status_code == 403


async def test_a_page_link_takes_nothing_beside_it(site: Site) -> None:
    following = next_of(await bundle(site, "/fhir/_history?_count=1"))
    says(await ask(site, f"{following}&_since=2024"), 400, "http._since")
    says(await ask(site, str(following).replace("/_history", "/Patient/_history")), 400, "http._page")


async def test_totals_are_counted_where_they_are_wanted(site: Site) -> None:
    for asked, is_there in (("&_total=accurate", True), ("&_total=estimate", True), ("&_total=none", False), ("", False)):
        assert ("total" in await bundle(site, f"/fhir/Observation?_count=1{asked}")) is is_there
    whole = await bundle(site, "/fhir/Observation?_count=1000&_total=none")
    assert whole["total"] == len(whole["entry"]), "what is all on one page is counted without asking"
    says(await ask(site, "/fhir/Observation?_total=some"), 400, "http._total")


async def test_links_stand_where_the_server_was_started_anew(site: Site) -> None:
    """They are sealed by a key of the deployment, so another process over the same database opens them, with the same bytes."""
    links = [next_of(await bundle(site, f"{path}?_count=1")) for path in ("/fhir/_history", "/fhir/Provenance", f"{INDEX}/_history")]
    told = [(await ask(site, str(link))).content for link in links]
    async with open_services(site.services.settings, dimse=False) as services:
        transport = httpx.ASGITransport(create_app(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://site.test", headers=await site.headers(*SCOPES)) as another:
            assert [(await another.get(str(link))).content for link in links] == told


@pytest.mark.parametrize("path", ["/fhir/_history", "/fhir/Provenance/_history", "/fhir/Provenance"])
async def test_pages_neither_skip_nor_repeat_while_writes_go_on(site: Site, path: str) -> None:
    """Among the writes are new versions of what is on pages still to come."""
    page = await bundle(site, f"{path}?_count=2")
    expected = keys(await all_pages(site, f"{path}?_count=1000&_asof={page['link'][0]['url'].rpartition('=')[2]}"))
    seen = keys(page["entry"])
    number = 10
    while following := next_of(page):
        if number < 13:
            await site.store(slice_of(STUDY, number + len(path)), slice_of(f"{STUDY}.{number}", 1))
            await site.index(SERIES, *((LIVER,) if number % 2 else (LUNG,)))
            number += 1
        page = await bundle(site, following)
        seen += keys(page["entry"])
    assert seen == expected


async def test_a_deletion_is_an_entry_without_a_resource_and_what_was_deleted_is_gone(site: Site) -> None:
    headers = await site.headers("fhir:read", "fhir:write")
    body: dict[str, Any] = {"resourceType": "Basic", "code": {"text": "first"}}
    made = await site.client.post("/fhir/Basic", headers=headers, json=body)
    path, before = f"/fhir/Basic/{made.json()['id']}", made.headers["anamnesis-position"]
    assert (await site.client.delete(path, headers=headers)).status_code == 204
    gone = await ask(site, path)
    says(gone, 410)
    again = await site.client.put(path, headers=headers, json={**body, "id": made.json()["id"], "code": {"text": "second"}})
    assert again.status_code == 201
    for url in (f"{path}/_history", "/fhir/Basic/_history"):
        entries = await all_pages(site, f"{url}?_count=1")
        assert [one["request"]["method"] for one in entries] == ["PUT", "DELETE", "POST"]
        assert [one.get("resource", {}).get("code", {}).get("text") for one in entries] == ["second", None, "first"]
    deleted = str(int(gone.headers["anamnesis-position"]))
    says(await ask(site, f"{path}?_asof={deleted}"), 410)
    says(await ask(site, f"{path}/_history/2"), 410)
    assert (await ask(site, f"{path}?_asof={before}")).json()["code"]["text"] == "first"
    assert (await ask(site, path)).json()["code"]["text"] == "second"
    says(await ask(site, f"{path}?_asof=1"), 404)


NASTY = ["", "0", "-1", "1", "²", "9" * 30, "true", "x" * 3000, "\0", "%", "a,b", "2024", "2024-02-30", "9999-12-31T23:59:60Z", "+", "\ud7ff", "😀", "'; --"]


async def test_no_query_is_too_strange_to_be_answered(site: Site) -> None:
    rng = random.Random(4)
    names = [*HISTORY_PARAMETERS, *SEARCH_PARAMETERS, "_page", "_asof", "", "\0", "ümlaut", "_type", "_id", "identifier"]
    paths = [IMAGING_STUDY, f"{IMAGING_STUDY}/_history", f"{IMAGING_STUDY}/_history/1", "/fhir/_history", "/fhir/Patient/_history", "/fhir/Patient"]
    paths += [f"{IMAGING_STUDY}/$everything", f"{IMAGING_STUDY}/$meta", "/fhir/metadata", f"/fhir/Patient/{'x' * 3000}", "/fhir/%F0%9F%98%80/1"]
    headers = ["if-none-match", "if-modified-since", "accept", "prefer"]
    for _ in range(600):
        query = [(rng.choice(names), rng.choice(NASTY)) for _ in range(rng.randint(0, 3))]
        url = f"{rng.choice(paths)}?{urlencode(query)}"
        answer = await ask(site, url, **({rng.choice(headers): rng.choice([one for one in NASTY if one.isascii() and one != chr(0)])}))
        assert answer.status_code in (200, 304, 400, 403, 404, 406), (url, answer.status_code)
        if answer.status_code >= 400:
            get_fhir_model_class("OperationOutcome").model_validate(answer.json())


async def test_many_who_read_at_once_each_get_their_own(site: Site) -> None:
    """They are asked of the database together: also what is not there, what was deleted, and what no database could look up."""
    writing = ("fhir:read", "fhir:write")
    deleted = (await site.client.post("/fhir/Device", headers=await site.headers(*writing), json={"resourceType": "Device"})).json()["id"]
    gone = await ask(site, f"/fhir/Device/{deleted}", "DELETE", writing)
    assert gone.status_code == 204
    expected = {INDEX: 200, IMAGING_STUDY: 200, "/fhir/Device/nobody": 404, f"/fhir/Device/{deleted}": 410, "/fhir/Device/a%00b": 404}
    asked = random.Random(1).choices(list(expected), k=60)
    answers = await asyncio.gather(*(ask(site, url) for url in asked))
    for url, answer in zip(asked, answers, strict=True):
        assert answer.status_code == expected[url], url
        if answer.status_code == 200:
            assert f"/fhir/{answer.json()['resourceType']}/{answer.json()['id']}" == url
    assert len({answer.text for url, answer in zip(asked, answers, strict=True) if url == INDEX}) == 1


async def test_reads_that_wait_for_the_database_are_answered_once_it_goes_on(site: Site) -> None:
    """An erasure takes whole tables for itself, and whoever waits for others then asks alone."""
    holder = await site.services.log.connect()
    try:
        async with holder.transaction():
            await holder.execute(f"LOCK TABLE {SCHEMA}.resource IN ACCESS EXCLUSIVE MODE")
            asked = [asyncio.create_task(ask(site, INDEX)) for _ in range(20)]
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::regclass"
            while await holder.fetchval(waiting, f"{SCHEMA}.resource") < 5:  # one of them for the rest, then each for itself
                await asyncio.sleep(0.05)
            assert not any(one.done() for one in asked)
        assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 20
    finally:
        await holder.close()


async def test_histories_walk_an_index_and_read_no_row_in_vain(site: Site) -> None:
    """On some thousands of versions, from the middle, in both directions: the plan reads as many rows as a page has."""
    await fill(site.services.log, 3000, first=1000)
    head = await site.caught_up()
    await site.services.pool.execute(f"ANALYZE {SCHEMA}.resource")
    for earliest_first in (False, True):
        changes = Changes([(TYPES, None)], Period(first=-1, last=head, since=None), 0, earliest_first=earliest_first)
        statement, arguments = changes.statement(f"{head // 2}/Account/a", 21)
        text = await site.services.pool.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *arguments)
        (plan,) = json.loads(text)
        nodes = list(_nodes(plan["Plan"]))
        scans = [node for node in nodes if node.get("Relation Name") == "resource"]
        assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Only Scan"}, json.dumps(plan)
        assert {node["Index Name"] for node in scans} == {"resource_history", "resource_pkey"}
        assert all(node.get("Rows Removed by Filter", 0) * node["Actual Loops"] <= 21 * len(TYPES) for node in scans)
        assert all(node["Actual Rows"] <= 21 for node in scans)


def _nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(inner for one in node.get("Plans", []) for inner in _nodes(one))]
