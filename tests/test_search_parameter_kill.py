"""kill -9 of server and database while a search parameter that a client added is being indexed: in the end all of it is, once."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_site import Site

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("ANAMNESIS_TEST_SEARCH_PARAMETER_KILL_ROUNDS", "3"))
RESOURCES = 6000
A_BUNDLE = 1000
PATIENCE_S = 60.0


def condition(nth: int) -> dict[str, Any]:
    return {"resourceType": "Condition", "clinicalStatus": {"text": "x"}, "subject": {"reference": "Group/g"}, "note": [{"text": f"page {nth % 7}"}]}


def parameter(nth: int) -> dict[str, Any]:
    return {
        "resourceType": "SearchParameter",
        "id": f"note-{nth}",
        "url": f"http://example.org/note-{nth}",
        "name": "Note",
        "status": "active",
        "description": "The text of a note",
        "code": f"note-{nth}",
        "base": ["Condition"],
        "type": "string",
        # another source each time
        "expression": f"Condition.note[{nth}].text | Condition.note.text" if nth else "Condition.note.text",
    }


def ready(site: Site, client: httpx.Client, query: str) -> httpx.Response:
    """The answer once it is one; until then it is refused, and never a part."""
    deadline = time.monotonic() + PATIENCE_S
    while (answer := client.get(f"/fhir/{query}")).status_code == 503:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.timeout(900)
def test_what_was_being_indexed_is_taken_up_where_it_ended(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.run("init")
    site.start_server()
    rng = random.Random(6)
    try:
        site.wait_until_ready()
        client = httpx.Client(base_url=site.url, headers={"Authorization": f"Bearer {site.token('fhir:read', 'fhir:write')}"}, timeout=120)
        for first in range(0, RESOURCES, A_BUNDLE):
            entries = [
                {"resource": condition(nth), "request": {"method": "POST", "url": "Condition"}} for nth in range(first, first + A_BUNDLE)
            ]
            answer = client.post("/fhir", json={"resourceType": "Bundle", "type": "transaction", "entry": entries}, headers={"prefer": "return=minimal"})
            assert answer.status_code == 200, answer.text
        was_under_way = 0
        for nth in range(ROUNDS):
            assert client.put(f"/fhir/SearchParameter/note-{nth}", json=parameter(nth)).status_code == 201
            was_under_way += client.get(f"/fhir/Condition?note-{nth}=page&_summary=count").status_code == 503
            if nth:
                assert client.delete(f"/fhir/SearchParameter/note-{nth - 1}").status_code == 204
            time.sleep(rng.uniform(0.0, 0.1))
            site.kill("database" if nth % 3 == 2 else "server")
            site.wait_until_ready()
            total = ready(site, client, f"Condition?note-{nth}=page 3&_summary=count").json()["total"]
            assert total == sum(one % 7 == 3 for one in range(RESOURCES))
            gone = client.get(f"/fhir/Condition?note-{nth - 1}=page 3")
            assert nth == 0 or gone.status_code == 400, gone.text
        assert was_under_way
        deadline = time.monotonic() + PATIENCE_S
        while not (said := site.run("projections", "verify", "fhir", exit_codes=(0, 1, 2))):  # 2: there is work left
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert "equals the log" in said and "DIFFERS" not in said, said
        (row,) = json.loads(site.run("projections", "parameters", "--json"))
        assert (row["id"], row["bases"], row["percent"], row["problem"]) == (f"note-{ROUNDS - 1}", ["Condition"], 100, "")
    finally:
        site.stop()
