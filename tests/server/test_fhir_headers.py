"""The headers of FHIR answers, over HTTP: formats, versions, places, who may keep an answer, and scripts of other origins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from served_site import LIVER, Site, served_site, slice_of

from projections.fhir.projection import SCHEMA
from projections.fhir.vocabulary import study_id
from server.errors import SettingRefused
from server.fhir.outcome import FHIR_JSON
from server.fhir.writing import commit
from server.settings import ServerSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")
STUDY = "1.2.840.24.1"
IMAGING_STUDY = f"/fhir/ImagingStudy/{study_id(STUDY)}"
VIEWER = "https://viewer.example"
DEADLINE_S = 2.0
BASIC: dict[str, Any] = {"resourceType": "Basic", "code": {"text": "a"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("headers")
    async with served_site(embedded_server, folder, audit_reads=False, allowed_origins=[VIEWER], fhir_deadline_s=DEADLINE_S) as served:
        await served.store(slice_of(STUDY, 1))
        await served.index(f"{STUDY}.1", LIVER)
        yield served


async def ask(site: Site, method: str, url: str, *scopes: str, **more: Any) -> httpx.Response:
    headers = {**await site.headers(*(scopes or ("fhir:read", "fhir:write"))), **more.pop("headers", {})}
    return await site.client.request(method, url, headers=headers, **more)


ANSWERS = [
    ("GET", "/fhir/metadata", {}, 200),
    ("GET", IMAGING_STUDY, {}, 200),
    ("GET", f"{IMAGING_STUDY}/_history/1", {}, 200),
    ("GET", f"{IMAGING_STUDY}/_history", {}, 200),
    ("GET", f"{IMAGING_STUDY}/$everything", {}, 200),
    ("GET", f"{IMAGING_STUDY}/$meta", {}, 200),
    ("GET", "/fhir/ImagingStudy?modality=CT", {}, 200),
    ("POST", "/fhir/ImagingStudy/_search", {"data": {"modality": "CT"}}, 200),
    ("POST", "/fhir/Basic", {"json": BASIC}, 201),
    ("POST", "/fhir/Basic", {"json": BASIC, "headers": {"Prefer": "return=OperationOutcome"}}, 201),
    ("POST", "/fhir", {"json": {"resourceType": "Bundle", "type": "batch"}}, 200),
    ("POST", "/fhir/Basic/$validate", {"json": BASIC}, 200),
    ("GET", "/fhir/ImagingStudy?nonsense=1", {}, 400),
    ("GET", "/fhir/ImagingStudy/none", {}, 404),
    ("GET", "/fhir/nothing/here/at/all", {}, 404),
    ("POST", "/fhir/metadata", {"json": {}}, 404),
    ("TRACE", "/fhir/metadata", {}, 405),
    ("POST", "/fhir/Basic", {"content": b"{", "headers": {"Content-Type": FHIR_JSON}}, 400),
    ("POST", "/fhir/Basic", {"content": b"<Basic/>", "headers": {"Content-Type": "application/fhir+xml"}}, 415),
    ("PUT", IMAGING_STUDY, {"json": {"resourceType": "ImagingStudy", "id": study_id(STUDY)}}, 400),
    ("GET", IMAGING_STUDY, {"headers": {"Authorization": "Bearer wrong"}}, 401),
    ("GET", "/fhir/AuditEvent", {}, 403),
]


@pytest.mark.parametrize(("method", "url", "more", "status"), ANSWERS)
async def test_every_answer_is_fhir_json(site: Site, method: str, url: str, more: dict[str, Any], status: int) -> None:
    """JSON is UTF-8, and its media type has no charset (RFC 8259, 11)."""
    answer = await ask(site, method, url, **more)
    assert (answer.status_code, answer.headers["content-type"]) == (status, FHIR_JSON), answer.text
    assert answer.headers["content-length"] == str(len(answer.content))
    answer.content.decode("utf-8")


async def test_a_version_is_named_by_its_etag_and_its_time(site: Site) -> None:
    for url in (IMAGING_STUDY, f"{IMAGING_STUDY}/_history/1"):
        answer = await ask(site, "GET", url)
        assert answer.headers["etag"] == f'W/"{answer.json()["meta"]["versionId"]}"'
        assert answer.headers["last-modified"].endswith(" GMT")
        assert int(answer.headers["anamnesis-position"]) > 0


async def test_a_write_says_where_its_version_is(site: Site) -> None:
    made = await ask(site, "POST", "/fhir/Basic", json=BASIC)
    assert made.headers["location"] == f"http://site.test/fhir/Basic/{made.json()['id']}/_history/1"
    assert made.headers["etag"] == 'W/"1"' and "last-modified" in made.headers
    read = await ask(site, "GET", made.headers["location"])
    assert (read.content, read.headers["last-modified"]) == (made.content, made.headers["last-modified"])
    changed = await ask(site, "PUT", f"/fhir/Basic/{made.json()['id']}", json={**made.json(), "code": {"text": "b"}}, headers={"Prefer": "return=minimal"})
    assert (changed.status_code, changed.headers["etag"], changed.content) == (200, 'W/"2"', b"")
    assert changed.headers["location"].endswith("/_history/2")


async def test_what_may_hold_names_is_kept_by_nobody(site: Site) -> None:
    for url in ("/fhir/Patient", IMAGING_STUDY, "/fhir/Patient/none"):
        pseudonymous = await ask(site, "GET", url, "fhir:read")
        named = await ask(site, "GET", url, "fhir:read", "identities:read")
        assert pseudonymous.headers["cache-control"] == "private, no-cache"
        assert named.headers["cache-control"] == "private, no-store"
        assert named.headers["vary"].startswith("Accept, Authorization")
    for method, url, more in (("POST", "/fhir/Basic", {"json": BASIC}), ("POST", "/fhir/Basic", {"json": {}}), ("DELETE", "/fhir/Basic/none", {})):
        assert (await ask(site, method, url, **more)).headers["cache-control"] == "private, no-store"


async def test_scripts_of_an_allowed_origin_may_ask(site: Site) -> None:
    asked = {"Origin": VIEWER, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization, if-match, content-type"}
    preflight = await site.client.options("/fhir/Basic/1", headers=asked)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, VIEWER)
    assert "access-control-allow-credentials" not in preflight.headers
    for url, status in ((IMAGING_STUDY, 200), ("/fhir/Patient/none", 404), ("/fhir/AuditEvent", 403)):
        answer = await ask(site, "GET", url, headers={"Origin": VIEWER})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, VIEWER)
        assert {"ETag", "Location", "Anamnesis-Position"} <= {one.strip() for one in answer.headers["access-control-expose-headers"].split(",")}
        assert "Origin" in answer.headers["vary"]


async def test_scripts_of_another_origin_may_not(site: Site) -> None:
    for origin in ("https://evil.example", "http://viewer.example", "null"):
        preflight = await site.client.options("/fhir/Basic/1", headers={"Origin": origin, "Access-Control-Request-Method": "GET"})
        answer = await ask(site, "GET", IMAGING_STUDY, headers={"Origin": origin})
        assert preflight.status_code == 400
        assert not [one for one in (preflight, answer) if "access-control-allow-origin" in one.headers]


@pytest.mark.parametrize("origin", ["*", "viewer.example", "https://viewer.example/", "https://Viewer.example", "https://a b", "https://a,https://b", "null", ""])
async def test_what_is_no_origin_is_refused_at_start(origin: str) -> None:
    with pytest.raises(SettingRefused, match="allowed_origins"):
        ServerSettings(allowed_origins=[origin]).refuse_unsafe()
    ServerSettings(allowed_origins=["http://localhost:3000", "https://[::1]:8443", VIEWER]).refuse_unsafe()


async def test_what_takes_too_long_is_ended_in_the_database_too(site: Site) -> None:
    connection = await asyncpg.connect(site.services.settings.database_url.get_secret_value())  # type: ignore[union-attr]
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {SCHEMA}.resource IN ACCESS EXCLUSIVE MODE")
            asked = [("GET", url, {}) for url in ("/fhir/ImagingStudy?modality=CT", IMAGING_STUDY, "/fhir/_history")]
            for method, url, more in [*asked, ("PUT", "/fhir/Basic?identifier=urn:x|1", {"json": BASIC})]:
                answer = await ask(site, method, url, **more)
                (said,) = answer.json()["issue"]
                assert (answer.status_code, said["code"]) == (503, "timeout"), answer.text
                assert "2 seconds" in said["diagnostics"] and "retry-after" in answer.headers
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'SELECT%'"
            assert await connection.fetchval(waiting) == 0
    finally:
        await connection.close()
    assert (await ask(site, "GET", IMAGING_STUDY)).status_code == 200


async def test_who_is_overtaken_too_often_is_told_to_try_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "MAX_ATTEMPTS", 1)

    async def write(n: int) -> httpx.Response:
        return await ask(site, "PUT", "/fhir/Basic/contended", json={**BASIC, "id": "contended", "code": {"text": str(n)}})

    answers = await asyncio.gather(*map(write, range(30)))
    refused = [one for one in answers if one.status_code == 409]
    assert {one.status_code for one in answers} <= {200, 201, 409} and refused
    assert {one.json()["issue"][0]["code"] for one in refused} == {"conflict"}
