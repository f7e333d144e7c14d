"""What clients wrote of a person goes with the person, and nothing of another one with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from served_site import Site, erase, served_site, slice_of

from domain.clinical_record import ClinicalRecordWritten
from domain.ids import record_stream
from projections.catalogue import projections
from projections.projection import schema_name
from projections.verification import verify

PLANTED = "Quirinalda's tibia is broken"
OF_OTHER = "Nobody else's business"


async def send(site: Site, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    headers = {**await site.headers("fhir:read", "fhir:write"), "content-type": "application/fhir+json"}
    answer = await site.client.request(method, f"/fhir/{path}", content=json.dumps(body) if body else None, headers=headers)
    return answer.status_code, answer.json() if answer.content else {}


def observation(subject: str, about: str, text: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": text},
        "subject": {"reference": subject},
        "derivedFrom": [{"reference": about}],
        "focus": [{"reference": about}],
    }


async def test_what_clients_wrote_of_a_person_goes_with_the_person(embedded_server: str, tmp_path: Path) -> None:
    async with served_site(embedded_server, tmp_path) as site:
        await site.store(slice_of("1.2.3.1", 1, patient_id="A-1"), slice_of("1.2.3.2", 1, patient_id="B-1"))
        found = (await site.get("/fhir/Patient", "fhir:read")).json()["entry"]
        ours, others = (f"Patient/{one['resource']['id']}" for one in found)
        condition = {
            "resourceType": "Condition",
            "id": "tibia",
            "clinicalStatus": {"text": "active"},
            "code": {"text": PLANTED},
            "subject": {"reference": ours},
        }
        assert (await send(site, "PUT", "Condition/tibia", condition))[0] == 201
        assert (await send(site, "PUT", "Condition/tibia", {**condition, "note": [{"text": PLANTED}]}))[0] == 200
        assert (await send(site, "PUT", "Condition/former", {**condition, "id": "former"}))[0] == 201
        assert (await send(site, "DELETE", "Condition/former"))[0] == 204
        kept = {**observation(others, "Condition/tibia", OF_OTHER), "id": "kept"}
        assert (await send(site, "PUT", "Observation/kept", kept))[0] == 201
        assert (await send(site, "PUT", "Organization/o", {"resourceType": "Organization", "id": "o", "name": "O"}))[0] == 201

        await erase(site, ours.removeprefix("Patient/"))

        assert (await send(site, "GET", "Condition/tibia"))[0] == 410
        assert (await send(site, "GET", "Condition/former"))[0] == 410
        assert (await send(site, "GET", "Condition/tibia/_history/1"))[0] == 410
        assert (await send(site, "GET", "Observation/kept"))[1]["code"]["text"] == OF_OTHER
        assert (await send(site, "GET", "Organization/o"))[0] == 200
        for recorded in await site.services.log.read_stream(record_stream("Condition", "tibia")):
            assert isinstance(recorded.event, ClinicalRecordWritten) and recorded.event.resource == {}
        assert await planted_rows(site) == []

        assert (await send(site, "POST", "Condition", condition))[0] == 422
        assert (await send(site, "PUT", "Condition/tibia", {**condition, "subject": {"reference": others}}))[0] == 410
        assert (await send(site, "DELETE", "Condition/tibia"))[0] == 410
        await site.caught_up()
        for projection in projections():
            verdict = await verify(site.services.log, projection)
            assert verdict.is_equal, [table.table for table in verdict.tables if not table.is_equal]


async def planted_rows(site: Site) -> list[str]:
    """Tables of the read models in which the planted words, or a search row of the resources that went, still stand."""
    held = []
    for projection in projections():
        schema = schema_name(projection)
        for (table,) in await site.services.pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema):
            if table == "gone":
                continue
            query = f"SELECT count(*) FROM {schema}.{table} t WHERE t::text LIKE '%Quirinalda%' OR t::text LIKE '%,tibia,%'"
            if await site.services.pool.fetchval(query):
                held.append(f"{schema}.{table}")
    return held
