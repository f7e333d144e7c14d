"""A search as of position p gives, byte for byte, what the same search gave when the log ended at p: over random histories.

Of positions before an erasure that is promised for other subjects alone; see test_as_of.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import httpx
import pytest
from hypothesis import Phase, example, given, settings
from random_history import (
    CODES,
    LABELS,
    READER,
    History,
    Step,
    histories,
    key_of,
    series_uid,
    study_uid,
    subject_id,
)
from served_site import Site, served_site

from domain.principal import device
from domain.subject import SubjectErased
from eventlog.envelope import NewEvent, StreamAppend
from projections.catalogue import projections
from projections.fhir.projection import CURATED
from projections.fhir.vocabulary import index_id, observation_id, selection_id, study_id
from projections.rebuild import rebuild

pytestmark = pytest.mark.slow

SCOPES = ("fhir:read", "identities:read", "audit:read", "dicom:read")
FINDING = key_of(1, 1, "liver")

READS = [
    f"{resource}{history}"
    for resource in (
        f"Patient/{subject_id(1)}",
        f"ImagingStudy/{study_id(study_uid(1))}",
        f"ImagingSelection/{selection_id(series_uid(1, 1))}",
        f"BodyStructure/{index_id(series_uid(1, 1))}",
        f"BodyStructure/{FINDING}",
        f"Observation/{observation_id(FINDING)}",
    )
    for history in ("", "/_history/1", "/_history/2", "/_history", "/_history?_count=1")
]
SEARCHES = [
    *CURATED,
    *(f"{resource_type}?_count=2" for resource_type in CURATED),
    f"Patient?_id={subject_id(0)},{subject_id(1)}",
    "Patient?gender=female",
    "ImagingStudy?modality=SEG",
    "ImagingStudy?started=ge2024-03-03",
    f"ImagingStudy?patient={subject_id(1)}",
    f"ImagingStudy?identifier=urn:oid:{study_uid(2)}",
    f"ImagingStudy?series={series_uid(1, 2)}",
    "ImagingStudy?status=available&_lastUpdated=gt2020",
    *(f"ImagingStudy?body-structure.included_structure={CODES[label]}" for label in LABELS),
    f"BodyStructure?included_structure={CODES['liver']}&active=true",
    "BodyStructure?active=false",
    "Observation?status=preliminary,final",
    f"Provenance?target=ImagingStudy/{study_id(study_uid(1))}",
    "Provenance?activity=not-ct",
    f"AuditEvent?patient={subject_id(1)}",
]
QUERIES = [
    "studies",
    "studies?limit=1",
    "studies?limit=1&offset=1",
    "studies?includefield=all",
    "studies?PatientName=doe*",
    "studies?PatientName=*%C3%BCll*",
    "studies?PatientID=MRN-1",
    "studies?StudyDescription=*HES*",
    "studies?StudyDate=20240302-20240304",
    "studies?ModalitiesInStudy=SEG",
    "studies?SOPClassesInStudy=1.2.840.10008.5.1.4.1.1.66.4&includefield=PatientIdentityRemoved",
    "series",
    "series?limit=2&offset=1",
    "series?includefield=all",
    "series?includefield=StudyDescription&Modality=CT",
    "series?SeriesDescription=axial*",
    "series?SeriesNumber=1&PatientID=MRN-0",
    f"studies/{study_uid(1)}/series",
    f"studies/{study_uid(1)}/series?includefield=00120062",
    "instances",
    "instances?includefield=all&limit=3",
    "instances?InstanceNumber=1",
    "instances?SOPClassUID=1.2.840.10008.5.1.4.1.1.66.4",
    f"studies/{study_uid(1)}/instances",
    f"studies/{study_uid(1)}/instances?includefield=PatientName",
    f"studies/{study_uid(1)}/series/{series_uid(1, 1)}/instances",
    f"studies/{study_uid(1)}/metadata",
    f"studies/{study_uid(1)}/series/{series_uid(1, 1)}/metadata",
    f"studies/{study_uid(1)}/series/{series_uid(1, 1)}/instances/{series_uid(1, 1)}.1/metadata",
]
TIMELINES = [
    *(
        f"timeline/{one}"
        for one in (
            study_uid(1),
            series_uid(1, 1),
            f"{series_uid(1, 1)}.1",
            subject_id(1),
            FINDING,
            "device:test",
            READER.id,
            f"Patient/{subject_id(0)}",
            f"ImagingStudy/{study_id(study_uid(2))}",
            f"Observation/{observation_id(FINDING)}",
        )
    ),
    f"timeline/{study_uid(1)}?limit=1",
    f"timeline/{subject_id(1)}?after=2&identities=true",
    f"lineage/{FINDING}",
]
ALL = [
    *(f"/fhir/{one}" for one in (*READS, *SEARCHES)),
    *(f"/dicomweb/{one}" for one in QUERIES),
    *(f"/audit/{one}" for one in TIMELINES),
]

WITH_ERASURE = [
    [Step("person", 1, 1, 0), Step("person", 2, 1, 1), Step("study", 1, 1, 0), Step("store", 1, 1, 3), Step("store", 2, 1, 5)],
    [Step("index", 1, 1, 7), Step("index", 2, 1, 3), Step("access", 1, 1, 0), Step("erase", 1, 1, 0), Step("store", 2, 1, 6)],
    [Step("index", 2, 1, 2), Step("review", 2, 1, 1), Step("store", 2, 2, 3), Step("person", 2, 1, 2)],
]

Answer = tuple[int, dict[str, str], bytes]


def as_of(path: str, position: int) -> str:
    name = "as_of" if path.startswith("/audit/") else "_asof"
    return f"{path}{'&' if '?' in path else '?'}{name}={position}"


class Asker:
    """Asks everything, and what the answers link to."""

    def __init__(self, site: Site, headers: dict[str, str]) -> None:
        self._site = site
        self._headers = headers
        self.pages: dict[str, Answer] = {}
        """Link to a further page → its answer when it was first followed."""

    async def ask(self, path: str) -> Answer:
        answer = await self._site.client.get(path, headers=self._headers)
        assert answer.status_code in (200, 204, 404, 410), answer.text
        for link in _next(answer):
            if link not in self.pages:
                self.pages[link] = (0, {}, b"")
                self.pages[link] = await self.ask(link)
        return answer.status_code, dict(answer.headers), answer.content


def _next(answer: httpx.Response) -> list[str]:
    if answer.status_code != 200 or answer.headers["content-type"] != "application/fhir+json":
        return []
    return [one["url"] for one in answer.json().get("link", []) if one["relation"] == "next"]


@settings(max_examples=4, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # seconds each: shrinking would take minutes
@given(histories)
@example(history=WITH_ERASURE)
@pytest.mark.parametrize("server", ["embedded_server", "external_server"])
def test_as_of_a_position_is_what_was_answered_when_the_log_ended_there(
    request: pytest.FixtureRequest, server: str, history: list[list[Step]]
) -> None:
    asyncio.run(_check(request.getfixturevalue(server), history))


async def _check(server_url: str, history: list[list[Step]]) -> None:
    with tempfile.TemporaryDirectory(prefix="anamnesis-test-") as folder:
        async with served_site(server_url, Path(folder), audit_reads=False) as site:
            asker = Asker(site, await site.headers(*SCOPES))
            past: dict[int, dict[str, Answer]] = {0: {path: await asker.ask(path) for path in ALL}}
            made = History()
            for group in history:
                for stream, event in made.events(group):
                    if isinstance(event, SubjectErased):  # takes what was before it out of every past
                        past.clear()
                        asker.pages.clear()
                    await site.services.log.append([StreamAppend(stream=stream, events=[NewEvent(event=event)])], principal=device("test"))
                position = await site.caught_up()
                past[position] = {path: await asker.ask(path) for path in ALL}
            await _compare(asker, past)
            for projection in projections():  # a rebuild applies other batches, and must give the same pasts
                await rebuild(site.services.log, projection, grace_s=0.0)
            await _compare(asker, past)


async def _compare(asker: Asker, past: dict[int, dict[str, Answer]]) -> None:
    for position, answers in past.items():
        for path, then in answers.items():
            assert await asker.ask(as_of(path, position)) == then, f"{path} as of {position}"
            if then[0] != 404 or path.startswith("/fhir/"):
                assert then[1]["anamnesis-position"] == str(position), path
    for link, then in list(asker.pages.items()):
        assert await asker.ask(link) == then, link
