"""The question that cohort builders ask, on real headers with made findings, against an answer that is computed from the files themselves.

Which CT series with slices of at most 1.5 mm, portal-venous, show the whole liver with more than 1.2 L, accepted by a reader, of women
between 50 and 70 with this condition, and how many per scanner?
"""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pydicom
import pytest
from cohort_site import condition, index, review
from listening_site import ListeningSite, listening_site
from served_site import LIVER, LUNG, Site
from served_site import slice_of as made_slice

from domain.ids import series_stream
from domain.principal import device
from domain.series import Series, evolve
from domain.tag import TagLevel, TagSet, TagTarget, tag_stream
from eventlog.aggregate import load
from eventlog.envelope import NewEvent, StreamAppend

COPIES = 60
"""Series that have the headers of real ones but for a few elements: the real ones are too few for an answer with several scanners."""
ROOT = "1.2.826.0.1.3680043.8.498.78"
TUMOUR, OTHER = "126851005", "44054006"
QUESTION = """query($condition: [String!]!, $phase: String!) { cohort(level: SERIES, where: {all: [
    {series: {modality: ["CT"], sliceThicknessMm: {atMost: 1.5}}},
    {any: [{series: {description: $phase}}, {series: {hasTag: [{name: "phase", value: ["portal-venous"]}]}}]},
    {finding: {label: ["liver"], whole: true, volumeMl: {moreThan: 1200}, verdict: ["accepted"]}},
    {study: {ageYears: {atLeast: 50, atMost: 70}}},
    {subject: {sex: ["F"], hasFact: [{resourceType: ["Condition"], system: "http://snomed.info/sct", code: $condition}]}}]}) {
  counts { series subjects }
  facets(fields: [{field: "ManufacturerModelName", subjects: true}]) { values { value count subjects } missing } } }"""


class Made(msgspec.Struct):
    """What is made beside the files, of one series."""

    liver_ml: float
    is_whole: bool
    is_accepted: bool
    is_tagged: bool


class World(msgspec.Struct):
    files: list[bytes]
    made: dict[str, Made]
    conditions: dict[str, str]
    """Study → code."""


@pytest.fixture(scope="module")
def world(dicom_data: Path) -> World:
    chance = random.Random(5)
    real = [path.read_bytes() for path in sorted((dicom_data / "ct").rglob("*")) if path.is_file()]
    real = [file for file in real if file[128:132] == b"DICM"]
    files = real + [file for number in range(COPIES) for file in copy(chance.choice(real), number, chance)]
    headers = [pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True) for file in files]
    series = dict.fromkeys(str(header.SeriesInstanceUID) for header in headers if header.Modality == "CT")
    studies = dict.fromkeys(str(header.StudyInstanceUID) for header in headers)
    return World(
        files=files,
        made={
            uid: Made(chance.uniform(1100, 1900), chance.random() < 0.9, chance.random() < 0.9, chance.random() < 0.2) for uid in series
        },
        conditions={uid: chance.choice((TUMOUR, TUMOUR, OTHER)) for uid in studies if chance.random() < 0.9},
    )


def copy(file: bytes, number: int, chance: random.Random) -> list[bytes]:
    """Two slices under other UIDs and of another person, with small pixels and some elements varied."""
    header = pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True)
    person = random.Random(number // 2)  # two studies a person
    varied = {
        "PatientSex": person.choice("FFFM"),
        "SliceThickness": chance.choice(("0.75", "1.0", "1.25", "1.5", "1.5", "5")),
        "SeriesDescription": chance.choice(("Abdomen PORTAL venous", "portal-venous 1.0", "portalvenous", "arterial")),
        "ManufacturerModelName": chance.choice(("Force", "Flash", "Revolution CT")),
        "Manufacturer": str(header.get("Manufacturer", "")),
        "PatientBirthDate": "" if person.random() < 0.5 else f"{person.randint(1950, 1976)}0310",
        "PatientAge": f"{chance.randint(46, 74):03}Y",
        "StudyDate": "20230920",
    }
    return [made_slice(f"{ROOT}.{number}", slice, name=f"Made^{number // 2}", patient_id=f"MADE{number // 2}", **varied) for slice in (1, 2)]


@pytest.fixture(scope="module")
def served(embedded_server: str, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ListeningSite]:
    with listening_site(embedded_server, tmp_path_factory.mktemp("question")) as served:
        served.do(filled(served.site, world))
        yield served


async def filled(site: Site, world: World) -> None:
    for begin in range(0, len(world.files), 40):
        await site.store(*world.files[begin : begin + 40])
    for series_uid, made in world.made.items():
        await index(site, series_uid, [(LIVER, made.liver_ml, made.is_whole), (LUNG, 3000.0, True)])
    await site.caught_up()
    for series_uid, made in world.made.items():
        if made.is_accepted:
            await review(site, series_uid, "liver", "accepted")
        if made.is_tagged:
            await tag(site, series_uid)
    for study_uid, code in world.conditions.items():
        await condition(site, study_uid, code)
    await site.caught_up()


async def tag(site: Site, series_uid: str) -> None:
    state, _ = await load(site.services.log, series_stream(series_uid), Series(), evolve)
    assert state.subject_id is not None and state.study_uid is not None
    target = TagTarget(level=TagLevel.SERIES, subject_id=state.subject_id, study_uid=state.study_uid, series_uid=series_uid)
    said = TagSet(project_id="livers", name="phase", value="portal-venous", **msgspec.structs.asdict(target))
    await site.services.log.append([StreamAppend(stream=tag_stream("livers", target), events=[NewEvent(event=said)])], principal=device("test"))


def test_the_question_is_answered_as_the_files_say(served: ListeningSite, world: World) -> None:
    headers = served.do(served.site.headers("cohorts:read"))
    body = {"query": QUESTION, "variables": {"condition": [TUMOUR], "phase": "portal"}}
    answer = httpx.post(f"{served.url}/graphql", json=body, headers=headers, timeout=60).json()
    assert "errors" not in answer, answer
    cohort = answer["data"]["cohort"]
    found = independently(world)
    assert len(found) >= 5 and len({header.ManufacturerModelName for header in found}) >= 2, "the world is too small to tell"
    assert cohort["counts"] == {"series": len(found), "subjects": len({person(header) for header in found})}
    per_scanner = Counter(str(header.ManufacturerModelName) for header in found)
    told = cohort["facets"][0]
    assert {one["value"]: one["count"] for one in told["values"]} == per_scanner
    for one in told["values"]:
        assert one["subjects"] == len({person(header) for header in found if header.ManufacturerModelName == one["value"]})
    assert told["missing"] == 0


def independently(world: World) -> list[Any]:
    """One header of each series of the answer, by a loop over the files."""
    headers = [pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True) for file in world.files]
    of_series: dict[str, list[Any]] = {}
    for header in headers:
        of_series.setdefault(str(header.SeriesInstanceUID), []).append(header)
    sex = {person(header): str(header.get("PatientSex", "")) for header in headers if header.get("PatientSex")}
    ill = {person(header) for header in headers if world.conditions.get(str(header.StudyInstanceUID)) == TUMOUR}
    found = []
    for uid, slices in of_series.items():
        first, made = slices[0], world.made.get(uid)
        if first.Modality != "CT" or made is None:
            continue
        is_thin = all(slice.get("SliceThickness") not in (None, "") and float(slice.SliceThickness) <= 1.5 for slice in slices)
        is_portal = made.is_tagged or "portal" in str(first.get("SeriesDescription", "")).casefold()
        has_liver = made.is_whole and made.liver_ml > 1200 and made.is_accepted
        if is_thin and is_portal and has_liver and sex.get(person(first)) == "F" and person(first) in ill and is_between_50_and_70(first):
            found.append(first)
    return found


def person(header: Any) -> tuple[str, str]:
    return str(header.get("IssuerOfPatientID", "")), str(header.get("PatientID", ""))


def is_between_50_and_70(header: Any) -> bool:
    if header.get("PatientBirthDate") and header.get("StudyDate"):
        born, then = (date.fromisoformat(str(text)) for text in (header.PatientBirthDate, header.StudyDate))
        years = then.year - born.year - ((then.month, then.day) < (born.month, born.day))
        return 50 <= years < 70  # nobody here was born on the day of a study
    age = str(header.get("PatientAge", ""))
    return age.endswith("Y") and 50 <= int(age[:-1]) <= 70
