"""A server with real images behind a socket, for clients that wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from imaged_site import MadeFinding, files_by_series, make_findings, store_files
from listening_site import ListeningSite, listening_site


@pytest.fixture(scope="session")
def sources(dicom_data: Path) -> dict[str, list[Path]]:
    """The files of each folder, by the Series Instance UID."""
    return files_by_series(dicom_data)


@pytest.fixture(scope="session")
def imaged_site(external_server: str, tmp_path_factory: pytest.TempPathFactory, sources: dict[str, list[Path]]) -> Iterator[ListeningSite]:
    with listening_site(external_server, tmp_path_factory.mktemp("imaged")) as listening:
        listening.do(store_files(listening.site, sources))
        yield listening


@pytest.fixture(scope="session")
def made_findings(imaged_site: ListeningSite, sources: dict[str, list[Path]]) -> list[MadeFinding]:
    return imaged_site.do(make_findings(imaged_site.site, sources))


@pytest.fixture(scope="session")
def token(imaged_site: ListeningSite) -> str:
    headers = imaged_site.do(imaged_site.site.headers("cohorts:read", "dicom:read"))
    return headers["Authorization"].removeprefix("Bearer ")
