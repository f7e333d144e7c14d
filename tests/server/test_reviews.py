"""A person reviews a finding and signs it: over HTTP, and as FHIR shows it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fhir.resources import get_fhir_model_class
from mixed_log import STRUCTURES, fill, study_uid
from pydantic import SecretStr

from domain.findings import finding_key
from domain.principal import PrincipalKind
from domain.review import FindingReviewed
from domain.signature import EventSigned, SignerEnrolled
from eventlog.schema import migrate
from eventlog.vault import make_key_encryption_key
from projections.catalogue import all_projections
from projections.checkpoint import wait_for
from projections.fhir.vocabulary import index_id, observation_id
from server.app import create_app
from server.auth.tokens import create_token
from server.services import Services, open_services
from server.settings import ServerSettings

PASSPHRASE = "correct horse battery"
SERIES = f"{study_uid(0)}.1"
FINDING = finding_key(SERIES, "baseline", STRUCTURES[2].label)


class Site:
    def __init__(self, services: Services) -> None:
        self.services = services
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=create_app(services)), base_url="http://test")

    async def bearer(self, *scopes: str, kind: PrincipalKind = PrincipalKind.PERSON) -> dict[str, str]:
        _, token = await create_token(self.services.pool, name="t", scopes=scopes, lifetime=timedelta(hours=1), kind=kind)
        return {"Authorization": f"Bearer {token}"}

    async def projected(self) -> None:
        """Every projection has everything that happened, what was read included."""
        assert self.services.recorder is not None
        await self.services.recorder.flush()
        head = await self.services.log.head()
        for projection in self.services.runner.projections:
            await wait_for(self.services.pool, projection, head)

    async def fhir(self, path: str) -> dict[str, Any]:
        await self.projected()
        answer = await self.client.get(f"/fhir/{path}", headers=await self.bearer("fhir:read"))
        assert answer.status_code == 200, answer.text
        get_fhir_model_class(answer.json()["resourceType"]).model_validate(answer.json())
        return dict(answer.json())


@pytest_asyncio.fixture
async def site(database_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    settings = ServerSettings(data_dir=tmp_path / "data", database_url=SecretStr(database_url))
    make_key_encryption_key(settings)
    await migrate(settings)
    async with open_services(settings, dimse=False) as services:
        await fill(services.log, 30)
        site = Site(services)
        await site.projected()
        async with site.client:
            yield site


async def enrolled(site: Site) -> dict[str, str]:
    headers = await site.bearer("reviews:write")
    answer = await site.client.post("/signers", headers=headers, json={"printed_name": "Dr. Ada Reader", "passphrase": PASSPHRASE})
    assert answer.status_code == 201, answer.text
    return headers


async def test_a_rejected_finding_falls_and_an_accepted_one_stands_again(site: Site) -> None:
    headers = await site.bearer("reviews:write")
    for verdict, status, active, listed in (("rejected", "entered-in-error", False, False), ("accepted", "corrected", True, True)):
        answer = await site.client.post("/reviews", headers=headers, json={"finding": FINDING, "verdict": verdict})
        assert answer.status_code == 201, answer.text
        assert (await site.fhir(f"Observation/{observation_id(FINDING)}"))["status"] == status
        assert (await site.fhir(f"BodyStructure/{FINDING}"))["active"] is active
        index = await site.fhir(f"BodyStructure/{index_id(SERIES)}")
        assert any(one["id"] == f"baseline.{STRUCTURES[2].label}" for one in index["includedStructure"]) is listed


async def test_a_first_acceptance_makes_the_observation_final(site: Site) -> None:
    headers = await site.bearer("reviews:write")
    await site.client.post("/reviews", headers=headers, json={"finding": FINDING, "verdict": "accepted"})
    assert (await site.fhir(f"Observation/{observation_id(FINDING)}"))["status"] == "final"


async def test_a_signed_review_carries_a_signature_that_anybody_can_verify(site: Site) -> None:
    headers = await enrolled(site)
    wanted = {
        "finding": FINDING,
        "verdict": "accepted",
        "comment": "clear margins",
        "signature": {"meaning": "approval", "passphrase": PASSPHRASE},
    }
    answer = await site.client.post("/reviews", headers=headers, json=wanted)
    assert answer.status_code == 201, answer.text
    events = await site.services.log.read(0, 1000, [FindingReviewed, EventSigned, SignerEnrolled])
    signed = next(one for one in events if isinstance(one.event, EventSigned))
    reviewed = next(one for one in events if str(one.event_id) == signed.event.signed_event_id)
    signer = next(one for one in events if isinstance(one.event, SignerEnrolled))
    assert signed.event.signed_digest == reviewed.digest.hex() and signed.stream == reviewed.stream
    provenance = await site.fhir(f"Provenance/{reviewed.event_id}")
    (signature,) = provenance["signature"]
    assert signature["type"][0]["display"] == "Validation Signature" and provenance["meta"]["versionId"] == "2"
    head, payload, mac = base64.b64decode(signature["data"]).decode().split(".")
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(signer.event.public_key))
    public.verify(base64.urlsafe_b64decode(mac + "=="), f"{head}.{payload}".encode())
    stated = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert (stated["digest"], stated["meaning"]) == (reviewed.digest.hex(), "approval")


async def test_a_wrong_passphrase_records_nothing_and_five_lock_the_key(site: Site) -> None:
    headers = await enrolled(site)
    wanted = {"finding": FINDING, "verdict": "accepted", "signature": {"meaning": "review", "passphrase": "wrong wrong wrong"}}
    reviews = len(await site.services.log.read(0, 1000, [FindingReviewed]))
    for _ in range(5):
        assert (await site.client.post("/reviews", headers=headers, json=wanted)).status_code == 401
    wanted["signature"] = {"meaning": "review", "passphrase": PASSPHRASE}
    assert (await site.client.post("/reviews", headers=headers, json=wanted)).status_code == 429
    assert len(await site.services.log.read(0, 1000, [FindingReviewed])) == reviews


async def test_who_may_not_sign(site: Site) -> None:
    device = await site.bearer("reviews:write", kind=PrincipalKind.DEVICE)
    enrollment = {"printed_name": "Robot", "passphrase": PASSPHRASE}
    assert (await site.client.post("/signers", headers=device, json=enrollment)).status_code == 403
    stranger = await site.bearer("reviews:write")
    wanted = {"finding": FINDING, "verdict": "accepted", "signature": {"meaning": "review", "passphrase": PASSPHRASE}}
    assert (await site.client.post("/reviews", headers=stranger, json=wanted)).status_code == 409
    short = {"printed_name": "Ada", "passphrase": "short"}
    assert (await site.client.post("/signers", headers=stranger, json=short)).status_code == 422


async def test_a_signature_on_what_is_no_act_and_a_second_one_are_refused(site: Site) -> None:
    headers = await enrolled(site)
    stored = (await site.services.log.read(0, 5))[0]
    passphrase = {"meaning": "review", "passphrase": PASSPHRASE}
    answer = await site.client.post(f"/events/{stored.event_id}/signature", headers=headers, json=passphrase)
    assert answer.status_code == 403 and stored.type in answer.json()["detail"]
    (reviewed, *_) = await site.services.log.read(0, 10, [FindingReviewed])
    assert (await site.client.post(f"/events/{reviewed.event_id}/signature", headers=headers, json=passphrase)).status_code == 201
    assert (await site.client.post(f"/events/{reviewed.event_id}/signature", headers=headers, json=passphrase)).status_code == 409


async def test_what_is_wrong_with_a_review_is_said(site: Site) -> None:
    headers = await site.bearer("reviews:write")
    unknown = await site.client.post("/reviews", headers=headers, json={"finding": "f", "verdict": "accepted"})
    assert unknown.status_code == 404
    odd = await site.client.post("/reviews", headers=headers, json={"finding": FINDING, "verdict": "maybe"})
    assert odd.status_code == 422 and "maybe" in odd.json()["detail"]
    assert (await site.client.post("/reviews", headers=headers, content=b"{")).status_code == 400


async def test_the_printed_name_and_the_comment_are_sealed(site: Site) -> None:
    headers = await enrolled(site)
    await site.client.post("/reviews", headers=headers, json={"finding": FINDING, "verdict": "rejected", "comment": "planted words"})
    stored = b"".join(row["data"] for row in await site.services.pool.fetch("SELECT data FROM event"))
    assert b"Ada" not in stored and b"planted" not in stored


async def test_reviews_and_signatures_survive_a_rebuild(site: Site) -> None:
    from projections.digest import table_digests

    headers = await enrolled(site)
    wanted = {"finding": FINDING, "verdict": "rejected", "signature": {"meaning": "review", "passphrase": PASSPHRASE}}
    await site.client.post("/reviews", headers=headers, json=wanted)
    await site.projected()
    fhir = next(one for one in all_projections() if one.name == "fhir")
    async with site.services.pool.acquire() as connection:
        before = await table_digests(connection, fhir)
    await site.services.runner.rebuild("fhir")
    async with site.services.pool.acquire() as connection:
        assert await table_digests(connection, fhir) == before
