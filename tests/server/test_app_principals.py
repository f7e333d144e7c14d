"""Every request has a principal: no route exists that answers without one, and every error has the form of its place."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import SecretStr

from eventlog.vault import make_key_encryption_key
from server.app import create_app
from server.auth.scopes import SCOPES
from server.auth.tokens import create_token
from server.services import Services, open_services
from server.settings import ServerSettings

GRAPHIQL = {f"/graphql/{name}" for name in ("graphiql.js", "graphiql.css", "react.js", "react-dom.js", "page.js", "examples.json")}
OPEN = {"/health/live", "/health/ready", "/fhir/.well-known/smart-configuration", *GRAPHIQL}
ASSERTED = {"/auth/token"}
"""Who asks there shows an assertion in place of a token."""
VALUES = {
    "resource_type": "Patient", "resource_id": "a", "version": "1", "study": "1.2", "series": "1.2.3", "instance": "1.2.3.4",
    "study_uid": "1.2", "series_uid": "1.2.3", "sop_instance_uid": "1.2.3.4", "instance_uid": "1.2.3.4", "frames": "1",
}


class Site:
    def __init__(self, services: Services) -> None:
        self.services = services
        self.app: FastAPI = create_app(services)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://testserver")

    async def bearer(self, *scopes: str) -> dict[str, str]:
        _, token = await create_token(self.services.pool, name="test", scopes=scopes, lifetime=timedelta(hours=1))
        return {"Authorization": f"Bearer {token}"}

    def requests(self) -> list[tuple[str, str, str]]:
        """(method, path template, path) of every route."""
        found = []
        for route in _routes(self.app.routes):
            path = re.sub(r"{(\w+)(:\w+)?}", lambda parameter: VALUES.get(parameter[1], "1"), route.path)
            found += [(method, route.path, path) for method in sorted(route.methods)]
        return found


def _routes(routes: Iterable[Any]) -> Iterable[APIRoute]:
    """Every route of the application, through whatever groups them."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "effective_route_contexts"):  # FastAPI ≥ 0.130 keeps included routers whole
            yield from route.effective_route_contexts()
        else:
            yield from _routes(route.routes)


@pytest_asyncio.fixture
async def site(database_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    settings = ServerSettings(data_dir=tmp_path / "data", database_url=SecretStr(database_url))
    make_key_encryption_key(settings)
    async with open_services(settings, dimse=False) as services:
        site = Site(services)
        async with site.client:
            yield site


async def test_no_route_answers_without_a_principal(site: Site) -> None:
    requests = site.requests()
    assert {"/fhir/metadata", "/metrics", *OPEN} <= {template for _, template, _ in requests}
    assert any(template.startswith("/dicomweb/") for _, template, _ in requests)
    for method, template, path in requests:
        answer = await site.client.request(method, path)
        if template in OPEN:
            assert answer.status_code in (200, 503), template
            continue
        if template in ASSERTED:
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
            continue
        assert answer.status_code == 401, (method, template)
        assert answer.headers["www-authenticate"] == 'Bearer realm="anamnesis"'


async def test_no_route_answers_a_principal_without_its_scope(site: Site) -> None:
    """For each route there is exactly one kind of scope; a token with all the others gets nothing."""
    needed = {
        "/fhir": {"fhir:read", "fhir:write"},
        "/dicomweb": {"dicom:read", "dicom:write"},
        "/metrics": {"metrics:read"},
        "/audit": {"audit:read"},
        "/graphql": {"cohorts:read"},
        "/datasets": {"datasets:export"},
        "/reviews": {"reviews:write"},
        "/signers": {"reviews:write"},
        "/events": {"reviews:write"},
        "/subjects": {"subjects:erase"},
        "/openapi.json": {"fhir:read"},
    }
    for method, template, path in site.requests():
        if template in OPEN | ASSERTED:
            continue
        own = next(scopes for prefix, scopes in needed.items() if template.startswith(prefix))
        others = await site.bearer(*(set(SCOPES) - own - {"admin"}))
        answer = await site.client.request(method, path, headers=others)
        assert answer.status_code == 403, (method, template)
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


async def test_reading_images_does_not_permit_storing_them(site: Site) -> None:
    answer = await site.client.post("/dicomweb/studies", headers=await site.bearer("dicom:read"))
    assert answer.status_code == 403
    assert 'scope="dicom:write"' in answer.headers["www-authenticate"]


async def test_admin_may_everything(site: Site) -> None:
    admin = await site.bearer("admin")
    for method, template, path in site.requests():
        assert (await site.client.request(method, path, headers=admin)).status_code not in (401, 403), (method, template)


@pytest.mark.parametrize(
    "authorization", ["Basic YTpi", "Bearer", "Bearer ", "Bearer anamnesis_wrong", "Bearer a.b.c", "anamnesis_x", "Bearer \udcff"]
)
async def test_what_is_no_good_token_is_401(site: Site, authorization: str) -> None:
    headers = {"Authorization": authorization.encode("utf-8", "surrogateescape")}
    answer = await site.client.get("/metrics", headers=headers)
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_a_token_in_the_url_is_no_token(site: Site) -> None:
    token = (await site.bearer("admin"))["Authorization"].split()[1]
    answer = await site.client.get("/metrics", params={"access_token": token, "token": token})
    assert answer.status_code == 401


async def test_errors_are_operation_outcomes_below_fhir_and_problem_details_elsewhere(site: Site) -> None:
    admin = await site.bearer("admin")
    for headers, status in (({}, 401), (await site.bearer("metrics:read"), 403)):
        answer = await site.client.get("/fhir/Patient", headers=headers)
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("application/fhir+json")
        assert answer.json()["resourceType"] == "OperationOutcome"
    for path, status in (("/fhir/a/b/c/d/e", 404), ("/fhir", 400)):
        answer = await site.client.get(path, headers=admin)
        assert (answer.status_code, answer.json()["resourceType"]) == (status, "OperationOutcome")
    for path, headers, status in (("/metrics", {}, 401), ("/nothing", admin, 404), ("/fhirless", admin, 404)):
        answer = await site.client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (status, status)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_an_unforeseen_error_tells_the_client_nothing_of_it(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @site.app.get("/broken")
    async def broken() -> None:
        raise KeyError("Doe^Jane")

    answer = await site.client.get("/broken")
    assert answer.status_code == 500
    assert "Doe" not in answer.text
    assert answer.headers["content-type"] == "application/problem+json"
