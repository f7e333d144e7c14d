"""fhir-kit-client, a client from npm that we did not write, drives the server: what its users call is in tests/fhir_kit_client/drive.mjs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import with_node_modules
from listening_site import ListeningSite, listening_site
from served_site import LIVER, LUNG, Site, slice_of

from projections.fhir.vocabulary import study_id

FOLDER = Path(__file__).parents[1] / "fhir_kit_client"
STUDIES = 3


@pytest.fixture(scope="module")
def client_folder() -> Path:
    """With the client in it, as package-lock.json pins it."""
    return with_node_modules(FOLDER)


@pytest.fixture(scope="module")
def served(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ListeningSite]:
    with listening_site(embedded_server, tmp_path_factory.mktemp("fhir-kit")) as served:
        served.do(filled(served.site))
        yield served


async def filled(site: Site) -> None:
    for n in range(STUDIES):
        await site.store(slice_of(f"1.2.840.22.{n}", 1, patient_id=f"PLANTEDMRN{n}"))
        await site.index(f"1.2.840.22.{n}.1", LIVER, LUNG)


def test_it_reads_writes_searches_and_pages(client_folder: Path, served: ListeningSite) -> None:
    headers = served.do(served.site.headers("fhir:read", "fhir:write"))
    study = served.do(served.site.get(f"/fhir/ImagingStudy/{study_id('1.2.840.22.0')}", "fhir:read", "fhir:write")).json()
    environment = {
        **os.environ,
        "BASE_URL": f"{served.url}/fhir",
        "TOKEN": headers["Authorization"].removeprefix("Bearer "),
        "STUDY_ID": study["id"],
        "PATIENT_ID": study["subject"]["reference"].removeprefix("Patient/"),
    }
    done = subprocess.run(["node", "--test", "drive.mjs"], cwd=client_folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
