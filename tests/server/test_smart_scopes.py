"""Scopes of SMART App Launch 2.2: how they are read, what is refused by name, and whom a token is about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from served_site import Site, served_site, slice_of
from typer.testing import CliRunner

from domain.principal import device
from server.auth.principals import Authenticated
from server.auth.scopes import SCOPES
from server.auth.smart_scopes import smart_scope
from server.auth.tokens import create_token
from server.cli import build
from server.errors import SettingRefused
from server.fhir.access import access_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
STUDY = "1.2.840.98.1"


@pytest.mark.parametrize(
    ("text", "level", "kind", "letters", "constraint"),
    [
        ("patient/*.cruds", "patient", "*", "cruds", ()),
        ("user/Observation.rs", "user", "Observation", "rs", ()),
        ("system/Observation.rs?status=final", "system", "Observation", "rs", (("status", "final"),)),
        (
            "patient/Observation.rs?category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory&status:not=final",
            "patient", "Observation", "rs",
            (("category", "http://terminology.hl7.org/CodeSystem/observation-category|laboratory"), ("status:not", "final")),
        ),
        ("system/Observation.r?code=a%20b", "system", "Observation", "r", (("code", "a b"),)),
        ("patient/ImagingStudy.read", "patient", "ImagingStudy", "rs", ()),
        ("user/Condition.write", "user", "Condition", "cud", ()),
        ("system/*.*", "system", "*", "cruds", ()),
    ],
)  # fmt: skip
async def test_a_scope_is_read(text: str, level: str, kind: str, letters: str, constraint: tuple[Any, ...]) -> None:
    scope = smart_scope(text)
    assert (scope.level, scope.resource_type, scope.interactions, scope.constraint) == (level, kind, letters, constraint)


@pytest.mark.parametrize(
    "text",
    [
        "patient/Observation", "patient/Observation.", "patient/Observation.sr", "patient/Observation.x", "practitioner/Observation.r",
        "patient/Nonsense.r", "system/observation.r", "system/Observation.read?status=final", "system/Observation.rs?",
        "system/Observation.rs?status", "system/Observation.rs?status=", "system/Observation.rs?=final", "patient/.rs", "system/**.rs",
        'system/Observation.rs?code="a"', "system/Observation.rs?code=a b", "patient/Observation.rrss",
    ],
)  # fmt: skip
async def test_what_is_no_scope_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a SMART scope is|no resource type|a constraint is"):
        smart_scope(text)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder: Path = tmp_path_factory.mktemp("smart")
    async with served_site(embedded_server, folder) as site:
        await site.store(slice_of(STUDY, 1))
        yield site


async def patient(site: Site) -> str:
    return str((await site.get("/fhir/Patient", "fhir:read")).json()["entry"][0]["resource"]["id"])


async def test_tokens_are_made_with_scopes_that_can_be_held_to_alone(site: Site) -> None:
    for scopes, about in ((["patient/*.rs"], None), (["system/Nonsense.rs"], None), (["system/*.sr"], None), (["patient/*.rs"], "a b")):
        with pytest.raises(SettingRefused):
            await create_token(site.services.pool, name="x", scopes=scopes, lifetime=timedelta(hours=1), patient=about)
    command = ["token", "create", "x", "--scope", "system/Observation.rs?nonsense=PLANTED", "--scope", "patient/*.rs"]
    refused = CliRunner().invoke(build(), command)
    assert isinstance(refused.exception, SettingRefused)
    assert "Observation cannot be searched by nonsense" in str(refused.exception) and "PLANTED" not in str(refused.exception)


async def unchecked(site: Site, *scopes: str, patient: str | None = None) -> dict[str, str]:
    """Headers with scopes that `token create` would refuse, as an OpenID Connect issuer might give them."""
    token_id, token = await create_token(site.services.pool, name="x", scopes=["metrics:read"], lifetime=timedelta(hours=1))
    await site.services.pool.execute("UPDATE access_token SET scopes = $2, patient = $3 WHERE token_id = $1", token_id, scopes, patient)
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        ("system/Observation.rs?nonsense=1", "the scope system/Observation.rs?nonsense cannot be used: Observation cannot be searched by"),
        ("system/Observation.rs?code:in=http://x", "the scope system/Observation.rs?code:in cannot be used"),
        ("system/Observation.rs?date=PLANTED", "the scope system/Observation.rs?date cannot be used"),
        ("system/Observation.rs?_count=1", "the scope system/Observation.rs?_count cannot be used"),
        ("system/*.rs?status=final", "the scope system/*.rs?status cannot be used: not every type has a search parameter status"),
        ("system/*.cruds?_lastUpdated=ge2020", "the scope system/*.cruds?_lastUpdated cannot be used: what is written is always of now"),
        ("patient/*.rs", "the scope patient/*.rs cannot be used: it is about one patient, and the token names none"),
    ],
)
async def test_a_scope_that_cannot_be_held_to_is_never_ignored(site: Site, scope: str, said: str) -> None:
    """Whatever else the token may do."""
    headers = await unchecked(site, scope, "fhir:read")
    for path in ("Observation", "Patient", "Patient/a", "_history", "Patient/a/_history", "Patient/a/$everything"):
        answer = await site.client.get(f"/fhir/{path}", headers=headers)
        assert answer.status_code == 403, path
        assert answer.json()["issue"][0]["diagnostics"].startswith(said)
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
        assert "PLANTED" not in answer.text + str(answer.headers)


async def test_words_that_are_no_scope_count_for_nothing(site: Site) -> None:
    headers = await unchecked(site, "system/Observation.sr", "launch/patient", "openid", "fhirUser", "system/Device.rs")
    assert (await site.client.get("/fhir/Device", headers=headers)).status_code == 200
    refused = await site.client.get("/fhir/Observation", headers=headers)
    assert refused.status_code == 403
    assert 'scope="system/Observation.s"' in refused.headers["www-authenticate"]


async def test_scopes_of_ours_keep_their_meaning_beside(site: Site) -> None:
    """Who has fhir:read reads everything; the scope of SMART adds what it permits, and takes nothing away."""
    headers = await site.headers("fhir:read", "system/Observation.cud?status=final")
    assert len((await site.client.get("/fhir/ImagingStudy", headers=headers)).json()["entry"]) == 1
    assert (await site.client.get("/fhir/AuditEvent", headers=headers)).status_code == 403


async def test_no_scope_of_smart_stands_for_one_of_ours(site: Site) -> None:
    """Neither names, nor access events, nor DICOM, nor reviews, nor the log, whatever is in it."""
    about = await patient(site)
    headers = await site.headers("system/*.cruds", "user/*.cruds", "patient/*.cruds", patient=about)
    read = await site.client.get(f"/fhir/Patient/{about}", headers=headers)
    assert read.status_code == 200 and "PLANTED" not in read.text.upper()
    for path in ("/fhir/AuditEvent", "/fhir?_type=AuditEvent", "/fhir/Patient?_has:AuditEvent:patient:_id=a", "/dicomweb/studies", "/metrics", "/audit/keys"):
        assert (await site.client.get(path, headers=headers)).status_code == 403, path
    assert (await site.client.get("/fhir/AuditEvent?_count=1", headers=await site.headers("system/*.rs", "audit:read"))).status_code == 200
    for body in ({"finding_key": "a", "verdict": "accepted"}, {}):
        assert (await site.client.post("/reviews", headers=headers, json=body)).status_code == 403
    assert not any(scope in SCOPES for scope in ("system/*.cruds", "patient/*.cruds"))


async def test_a_page_link_is_of_who_asked_for_it(site: Site) -> None:
    """Its total, and where it goes on, are of another reach."""
    await site.store(slice_of(f"{STUDY}.9", 1))
    first = (await site.get("/fhir/ImagingStudy?_count=1", "fhir:read")).json()
    following = next(one["url"] for one in first["link"] if one["relation"] == "next")
    mine = await site.headers("patient/ImagingStudy.rs", patient=await patient(site))
    assert (await site.client.get(following, headers=mine)).status_code == 403
    own = (await site.client.get("/fhir/ImagingStudy?_count=1", headers=mine)).json()
    following = next(one["url"] for one in own["link"] if one["relation"] == "next")
    assert (await site.client.get(following, headers=mine)).status_code == 200
    others = await site.headers("patient/ImagingStudy.rs", patient="another")
    assert (await site.client.get(following, headers=others)).status_code == 403
    assert (await site.client.get(following, headers=await site.headers("fhir:read"))).status_code == 403


async def test_reading_does_not_permit_writing(site: Site) -> None:
    headers = await site.headers("system/*.rs")
    body = {"resourceType": "Basic", "code": {"text": "a"}}
    assert (await site.client.post("/fhir/Basic", headers=headers, json=body)).status_code == 403
    assert (await site.client.post("/fhir/Basic/$validate", headers=headers, json=body)).status_code == 200


async def test_the_definitions_that_ship_are_read_within_reach(site: Site) -> None:
    path = "/fhir/StructureDefinition/finding-measurement"
    for query, status in (("", 200), ("?status=draft,active", 200), ("?status=retired", 404), ("?type=Observation", 200), ("?type=Patient", 404)):
        headers = await site.headers(f"system/StructureDefinition.r{query}")
        assert (await site.client.get(path, headers=headers)).status_code == status, query
    assert (await site.client.get(path, headers=await site.headers("system/Observation.rs"))).status_code == 403


async def test_plain_scopes_pay_nothing(site: Site) -> None:
    """The statements of a token without scopes of SMART are the same as ever, and who may do what is known at once."""
    reader = Authenticated(principal=device("test"), scopes=frozenset({"fhir:read"}))
    access = access_of(reader)
    assert all(access.condition(letter, kind) is None for letter in "rs" for kind in ("Patient", "Observation"))
    assert access.reach("r", access.types("r")) is None and access.name == ""
