"""The OpenAPI document says what is so: schemathesis asks every route for what the document allows, and for what it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from listening_site import ListeningSite, listening_site
from served_site import LIVER, LUNG, Site, slice_of

from domain.findings import finding_key
from projections.fhir.vocabulary import study_id
from server.auth.scopes import SCOPES

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("ANAMNESIS_TEST_OPENAPI_EXAMPLES", "6"))
"""Random requests of each route. In a long run, with more, every edge of each schema is tried besides: minutes."""
LONG = 50
STUDY = "1.2.840.23.0"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
)
HOOKS = Path(__file__).parents[1] / "openapi_hooks.py"


@pytest.fixture(scope="module")
def served(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ListeningSite]:
    with listening_site(embedded_server, tmp_path_factory.mktemp("openapi")) as served:
        served.do(filled(served.site))
        yield served


async def filled(site: Site) -> None:
    await site.store(slice_of(STUDY, 1))
    await site.index(f"{STUDY}.1", LIVER, LUNG)


async def things(site: Site) -> dict[str, str]:
    """What there is to be asked for, by the names of the parts of paths."""
    study = (await site.get(f"/fhir/ImagingStudy/{study_id(STUDY)}", "fhir:read")).json()
    instance = {"study_uid": STUDY, "series_uid": f"{STUDY}.1", "sop_instance_uid": f"{STUDY}.1.1", "frame_list": "1"}
    finding = finding_key(f"{STUDY}.1", "baseline", LIVER.label)
    resource = {"resource_type": "ImagingStudy", "resource_id": study["id"], "version": "1", "searched_type": "Observation"}
    return {**instance, **resource, "wanted": finding, "finding": finding, "position": "1", "subject_id": study["subject"]["reference"].removeprefix("Patient/")}


@pytest.fixture(scope="module")
def bearer(served: ListeningSite) -> dict[str, str]:
    return served.do(served.site.headers(*(one for one in SCOPES if one != "admin")))


def test_every_route_answers_as_the_document_says(served: ListeningSite, bearer: dict[str, str], tmp_path: Path) -> None:
    known = served.do(things(served.site))
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS), "ANAMNESIS_TEST_KNOWN": json.dumps(known)}
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}/openapi.json", "--header", f"Authorization: {bearer['Authorization']}"]
    command += ["--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing" if EXAMPLES >= LONG else "fuzzing", "--max-examples", str(EXAMPLES)]
    command += [] if EXAMPLES >= LONG else ["--seed", "1"]  # the same requests each time: what is found by chance is found in a long run
    command += ["--continue-on-failure", "--suppress-health-check", "all"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert httpx.get(f"{served.url}/health/ready").status_code == 200
