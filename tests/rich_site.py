"""A site with a resource of nearly every type, behind a socket, and a client that sends requests byte for byte and takes no fault of the server for an answer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from listening_site import listening_site
from rich_resources import rich_resource
from served_site import LIVER, LUNG, Site, slice_of

from projections.fhir.definitions import resource_types

EXAMPLES = int(os.environ.get("ANAMNESIS_TEST_FUZZ_EXAMPLES", "60"))
"""Of each random test; more for a long run."""
RICH = "rich"
"""The id of a resource of each type."""
SCOPES = ("fhir:read", "fhir:write", "audit:read", "identities:read")
ANSWER_S = 60.0


@dataclass
class RawClient:
    http: httpx.Client
    authorization: str

    def ask(self, method: str, target: str | bytes, headers: Mapping[str, str] | None = None, content: bytes | None = None, allowed: Sequence[int] = ()) -> httpx.Response:
        """Fails where the server is at fault, or refuses without an OperationOutcome. ``allowed``: beside what is below 500."""
        raw = target.encode("ascii") if isinstance(target, str) else target
        sent = [("Authorization", self.authorization), *((name, value.encode("latin-1")) for name, value in (headers or {}).items())]
        request = self.http.build_request(method, "/fhir", content=content, headers=sent)
        request.extensions["target"] = raw
        answer = self.http.send(request)
        assert answer.status_code < 500 or answer.status_code in allowed, (method, raw, headers, content, answer.text)
        if answer.status_code >= 400 and answer.content:
            assert answer.headers["content-type"] == "application/fhir+json", (raw, answer.text)
            assert answer.json()["resourceType"] == "OperationOutcome"
        return answer


@contextmanager
def rich_site(server_url: str, folder: Path) -> Iterator[RawClient]:
    with listening_site(server_url, folder) as served:
        authorization = served.do(_filled(served.site))
        with httpx.Client(base_url=served.url, timeout=ANSWER_S) as http:
            yield RawClient(http, authorization)
            assert http.get("/health/ready").status_code == 200, "something was written that stops a read model"


async def _filled(site: Site) -> str:
    for n in range(2):
        await site.store(slice_of(f"1.2.840.21.{n}", 1, patient_id=f"PLANTEDMRN{n}"))
        await site.index(f"1.2.840.21.{n}.1", LIVER, LUNG)
    headers = await site.headers(*SCOPES)
    for resource_type in resource_types():
        await site.client.put(f"/fhir/{resource_type}/{RICH}", json=rich(resource_type), headers=headers)
    await site.caught_up()
    return headers["Authorization"]


def rich(resource_type: str, seed: int = 0) -> dict[str, Any]:
    """A reference to a patient leads to a group: the patient would have to be there."""
    made: dict[str, Any] = json.loads(json.dumps(rich_resource(resource_type, seed)).replace('"Patient/', '"Group/'))
    return {**made, "id": RICH}
