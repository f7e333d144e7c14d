"""The FHIR projection: every resource is valid R5, each event makes versions and one Provenance, batches do not matter."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from fhir.resources import get_fhir_model_class

from domain.event import Event
from domain.findings import RADLEX, SNOMED_CT, Code, Finding, Laterality, Structure, finding_key
from domain.intake import FileRefused
from domain.principal import Principal, PrincipalKind, device
from domain.series import (
    IndexingFailed,
    IndexingRefused,
    IndexingRequested,
    InstanceConflicted,
    InstancesStored,
    SegmenterRun,
    SeriesIndexed,
    StoredInstance,
    split_headers,
)
from domain.study import StudyRegistered, StudySubjectDisputed
from domain.subject import Demographics, SubjectDemographicsChanged, SubjectRegistered
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog
from projections.digest import table_digests
from projections.fhir.projection import SCHEMA, FhirProjection
from projections.fhir.vocabulary import index_id, observation_id, selection_id, study_id
from projections.runner import Runner

SUBJECT = "8a1f9a52-0000-8000-8000-000000000001"
OTHER_SUBJECT = "8a1f9a52-0000-8000-8000-000000000002"
STUDY, SERIES = "1.2.3", "1.2.3.4"
DIGEST = "ab" * 32
PERSON = Demographics(patient_id="MRN-7", issuer_of_patient_id="HOSPITAL", patient_name="DOE^JANE=山田^花子", birth_date="19700102")

STRUCTURES = [
    Structure(
        label="lung_left",
        snomed=Code(SNOMED_CT, "39607008", "Lung structure"),
        radlex=Code(RADLEX, "RID1326", "left lung"),
        laterality=Laterality.LEFT,
    ),
    Structure(label="lung_right", snomed=Code(SNOMED_CT, "39607008", "Lung structure"), laterality=Laterality.RIGHT),
    Structure(label="liver", snomed=Code(SNOMED_CT, "10200004", "Liver structure")),
]


def stored(study: str, series: str, numbers: Sequence[int], subject: str = SUBJECT, **further: Any) -> InstancesStored:
    """A batch of instances; ``further`` are elements given as t<tag>=(vr, value…)."""
    elements = {tag.removeprefix("t"): {"vr": vr, "Value": list(values)} for tag, (vr, *values) in further.items()}
    headers = [
        {
            "00080018": {"vr": "UI", "Value": [f"{series}.{n}"]},
            "00080020": {"vr": "DA", "Value": ["20240131"]},
            "00080060": {"vr": "CS", "Value": ["CT"]},
            "0008103E": {"vr": "LO", "Value": ["THORAX 2.0"]},
            "00200011": {"vr": "IS", "Value": [3]},
            "00200013": {"vr": "IS", "Value": [n]},
            **elements,
        }
        for n in numbers
    ]
    common, own = split_headers(headers)
    return InstancesStored(
        study_uid=study,
        series_uid=series,
        subject_id=subject,
        modality="CT",
        door="ingest",
        instances=[
            StoredInstance(
                sop_instance_uid=f"{series}.{n}",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                sha256=f"{n:064x}",
                size=1000,
            )
            for n in numbers
        ],
        common=common,
        headers=own,
    )


def finding(structure: Structure, volume_mm3: float = 1234.5) -> Finding:
    return Finding(
        structure=structure,
        volume_mm3=volume_mm3,
        voxel_count=100,
        mean_hu=-812.25,
        touches_edge=structure.label == "liver",
        centroid_mm=(1.0, 2.0, 3.0),
        bounding_box_mm=((0.0, 0.0, 0.0), (2.0, 4.0, 6.0)),
    )


def indexed(structures: Sequence[Structure], *, weights: str = "w1", series: str = SERIES, volume_mm3: float = 1234.5) -> SeriesIndexed:
    return SeriesIndexed(
        study_uid=STUDY,
        series_uid=series,
        subject_id=SUBJECT,
        series_digest=DIGEST,
        run=SegmenterRun(
            segmenter="baseline",
            segmenter_version="1.0",
            software={"SimpleITK": "2.4.0", "numpy": "1.26.4"},
            weights_sha256=weights,
            task="total",
            resolution_mm=1.5,
            duration_s=2.5,
        ),
        findings=[finding(structure, volume_mm3) for structure in structures],
    )


def about_indexing(kind: type, **further: Any) -> Any:
    return kind(study_uid=STUDY, series_uid=SERIES, subject_id=SUBJECT, series_digest=DIGEST, segmenter="baseline", **further)


REQUESTED = about_indexing(IndexingRequested, reason="quiet")
REFUSED = about_indexing(IndexingRefused, reason="too-few-slices", detail="3 slices")
FAILED = about_indexing(IndexingFailed, error="MemoryError", attempts=3)
REGISTERED: list[Event] = [
    SubjectRegistered(subject_id=SUBJECT, sex="F", demographics=PERSON),
    StudyRegistered(study_uid=STUDY, subject_id=SUBJECT),
]
EVERY_KIND: list[Event] = [
    *REGISTERED,
    stored(STUDY, SERIES, [1, 2]),
    stored(STUDY, SERIES, [3]),
    InstanceConflicted(
        study_uid=STUDY,
        series_uid=SERIES,
        sop_instance_uid=f"{SERIES}.1",
        kept_sha256="aa",
        conflicting_sha256="bb",
        conflicting_size=1,
        door="stow",
    ),
    REQUESTED,
    FAILED,
    REQUESTED,
    indexed(STRUCTURES),
    indexed(STRUCTURES[:1], weights="w2"),
    indexed([], weights="w3"),
    REFUSED,
    SubjectDemographicsChanged(subject_id=SUBJECT, sex="", demographics=PERSON),
    StudySubjectDisputed(study_uid=STUDY, registered_subject_id=SUBJECT, disputed_subject_id=OTHER_SUBJECT),
    FileRefused(reject_id="r1", sha256="aa", size=1, reason="truncated", detail="at byte 7", door="ingest"),
]

WORKER = device("worker").acting_for(Principal(id="token:1", kind=PrincipalKind.PERSON))


async def append(log: EventLog, events: Sequence[Event], principal: Principal = WORKER) -> None:
    for event in events:
        await log.append([StreamAppend(stream="series-test", events=[NewEvent(event=event)])], principal=principal)


async def project(log: EventLog, events: Sequence[Event]) -> None:
    await append(log, events)
    await Runner(log, [FhirProjection()]).catch_up()


async def bodies(log: EventLog, resource_type: str | None = None) -> list[dict[str, Any]]:
    """Every version that events made, in that order."""
    rows = await log.pool.fetch(
        f"SELECT body FROM {SCHEMA}.resource WHERE position_from > 0 AND ($1::text IS NULL OR type = $1) ORDER BY position_from, type, id",
        resource_type,
    )
    return [msgspec.json.decode(row["body"]) for row in rows]


async def history(log: EventLog, resource_type: str, resource_id: str) -> list[dict[str, Any]]:
    return [body for body in await bodies(log, resource_type) if body["id"] == resource_id]


def validate(body: dict[str, Any]) -> None:
    """Raises where fhir.resources (R5) finds a fault."""
    get_fhir_model_class(body["resourceType"]).model_validate_json(msgspec.json.encode(body))


def random_history(seed: int) -> list[Event]:
    """What deciders could make: a few series that grow, are indexed, refused and indexed anew."""
    chance = random.Random(seed)
    events: list[Event] = list(REGISTERED)
    stored_numbers: dict[str, int] = {}
    for _ in range(40):
        series = f"1.2.3.{chance.randint(4, 6)}"
        kind = chance.choice(["stored", "stored", "indexed", "indexed", "refused", "failed", "person"])
        if kind == "stored" or series not in stored_numbers:
            first = stored_numbers.get(series, 0)
            count = chance.randint(1, 5)
            stored_numbers[series] = first + count
            events.append(stored(STUDY, series, range(first + 1, first + count + 1)))
        elif kind == "indexed":
            structures = chance.sample(STRUCTURES, chance.randint(0, len(STRUCTURES)))
            events.append(indexed(structures, weights=chance.choice("ab"), series=series, volume_mm3=chance.choice([0.0, 1e-7, 3.5e15])))
        elif kind == "person":
            sex, name = chance.choice(["M", "F", "O", "", "?"]), chance.choice(["", "A^B^C D^Dr^Jr", "^", "X"])
            demographics = Demographics(patient_id="7", patient_name=name, birth_date=chance.choice(["", "19001301", "20000229"]))
            events.append(SubjectDemographicsChanged(subject_id=SUBJECT, sex=sex, demographics=demographics))
        else:
            made = REFUSED if kind == "refused" else FAILED
            events.append(msgspec.structs.replace(made, series_uid=series))
    return events


async def test_every_version_of_every_resource_is_valid_r5(event_log: EventLog) -> None:
    await project(event_log, EVERY_KIND)
    made = await bodies(event_log)
    for body in made:
        validate(body)
    assert {body["resourceType"] for body in made} == {
        "Patient", "ImagingStudy", "ImagingSelection", "BodyStructure", "Observation", "Device", "Provenance",
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
async def test_any_history_is_valid_r5_and_the_same_in_batches_of_any_size(event_log: EventLog, seed: int) -> None:
    await append(event_log, random_history(seed))
    projection = FhirProjection()
    await Runner(event_log, [projection], batch=1).catch_up()
    async with event_log.pool.acquire() as connection:
        one_by_one = await table_digests(connection, projection)
        for batch in (3, 500):
            await Runner(event_log, [projection], batch=batch).rebuild("fhir")
            assert await table_digests(connection, projection) == one_by_one
    for body in await bodies(event_log):
        validate(body)


async def test_versions_follow_each_other_without_gap_or_overlap(event_log: EventLog) -> None:
    await project(event_log, EVERY_KIND)
    rows = await event_log.pool.fetch(
        f"SELECT type, id, version, position_from, position_to FROM {SCHEMA}.resource ORDER BY type, id, version"
    )
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        assert row["position_to"] is None or row["position_from"] < row["position_to"]
        if following is not None and (row["type"], row["id"]) == (following["type"], following["id"]):
            assert following["version"] == row["version"] + 1
            assert following["position_from"] == row["position_to"]
        else:
            assert row["position_to"] is None


async def test_a_study_grows_with_its_instances(event_log: EventLog) -> None:
    await project(event_log, [*REGISTERED, stored(STUDY, SERIES, [1, 2]), stored(STUDY, SERIES, [3])])
    versions = await history(event_log, "ImagingStudy", study_id(STUDY))
    assert [one["status"] for one in versions] == ["registered", "available", "available"]
    assert [one.get("numberOfInstances", 0) for one in versions] == [0, 2, 3]
    (series,) = versions[-1]["series"]
    assert [one["uid"] for one in series["instance"]] == [f"{SERIES}.{n}" for n in (1, 2, 3)]
    assert versions[-1]["identifier"] == [{"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}]
    assert versions[-1]["started"] == "2024-01-31"


async def test_instance_numbers_are_kept_where_the_batch_shares_them(event_log: EventLog) -> None:
    shared = stored(STUDY, SERIES, [1, 2], t00200013=("IS", 7))
    await project(event_log, [*REGISTERED, shared])
    study = (await history(event_log, "ImagingStudy", study_id(STUDY)))[-1]
    assert [one.get("number") for one in study["series"][0]["instance"]] == [7, 7]


async def test_a_finding_is_a_body_structure_with_its_measurements(event_log: EventLog) -> None:
    await project(event_log, [*REGISTERED, stored(STUDY, SERIES, [1]), indexed(STRUCTURES[:1])])
    key = finding_key(SERIES, "baseline", "lung_left")
    (structure,) = [b for b in await bodies(event_log, "BodyStructure") if b["id"] != index_id(SERIES)]
    (observation,) = await bodies(event_log, "Observation")
    included = structure["includedStructure"][0]
    assert structure["identifier"][0]["value"] == key
    assert [one["code"] for one in included["structure"]["coding"]] == ["39607008", "RID1326"]
    assert included["laterality"]["coding"][0]["code"] == "7771000"
    assert [one["code"] for one in structure["meta"]["security"]] == ["AIAST"]
    assert observation["bodyStructure"]["reference"] == f"BodyStructure/{structure['id']}"
    assert "bodySite" not in observation
    assert observation["status"] == "preliminary"
    values = {one["code"]["coding"][0]["code"]: one for one in observation["component"]}
    assert (values["118565006"]["valueQuantity"]["value"], values["118565006"]["valueQuantity"]["code"]) == (1234.5, "mm3")
    assert (values["112181"]["valueQuantity"]["value"], values["112181"]["valueQuantity"]["code"]) == (-812.25, "[hnsf'U]")
    assert values["touches-edge"]["valueBoolean"] is False


async def test_codes_carry_the_names_that_dicom_gives_them(event_log: EventLog) -> None:
    await project(event_log, [*REGISTERED, stored(STUDY, SERIES, [1]), indexed(STRUCTURES[:1])])
    (observation,) = await bodies(event_log, "Observation")
    (algorithm,) = await bodies(event_log, "Device")
    (selection,) = {one["id"]: one for one in await bodies(event_log, "ImagingSelection")}.values()
    displays = {one["code"]["coding"][0]["code"]: one["code"]["coding"][0]["display"] for one in observation["component"]}
    assert displays["112181"] == "Mean Attenuation Coefficient"  # PS3.16, annex D
    assert algorithm["type"][0]["coding"][0]["display"] == "Artificial Intelligence"
    assert selection["code"]["coding"][0]["display"] == "Source series for segmentation"


async def test_a_rerun_with_other_weights_is_a_new_version_of_the_same_finding(event_log: EventLog) -> None:
    rerun = indexed(STRUCTURES[:1], weights="w2", volume_mm3=999.0)
    await project(event_log, [*REGISTERED, stored(STUDY, SERIES, [1]), indexed(STRUCTURES[:1]), rerun])
    observed = await history(event_log, "Observation", observation_id(finding_key(SERIES, "baseline", "lung_left")))
    assert [one["component"][0]["valueQuantity"]["value"] for one in observed] == [1234.5, 999.0]
    assert [one["meta"]["versionId"] for one in observed] == ["1", "2"]


async def test_what_a_rerun_does_not_find_any_more_is_withdrawn_and_can_come_back(event_log: EventLog) -> None:
    runs = [indexed(STRUCTURES), indexed(STRUCTURES[:2], weights="w2"), indexed(STRUCTURES, weights="w3")]
    await project(event_log, [*REGISTERED, stored(STUDY, SERIES, [1]), *runs])
    key = finding_key(SERIES, "baseline", "liver")
    structures = await history(event_log, "BodyStructure", key)
    observations = await history(event_log, "Observation", observation_id(key))
    assert [one["active"] for one in structures] == [True, False, True]
    assert [one["status"] for one in observations] == ["preliminary", "entered-in-error", "preliminary"]
    index = (await history(event_log, "BodyStructure", index_id(SERIES)))[1]
    assert len(index["includedStructure"]) == 2


async def test_the_series_points_at_its_index(event_log: EventLog) -> None:
    await project(event_log, [*REGISTERED, stored(STUDY, SERIES, [1]), indexed(STRUCTURES)])
    study = (await history(event_log, "ImagingStudy", study_id(STUDY)))[-1]
    assert study["series"][0]["bodySite"]["reference"]["reference"] == f"BodyStructure/{index_id(SERIES)}"


async def test_every_event_has_one_provenance_with_its_position(event_log: EventLog) -> None:
    await project(event_log, EVERY_KIND)
    positions = [
        one["valueIdentifier"]["value"]
        for body in await bodies(event_log, "Provenance")
        for one in body["extension"]
        if one.get("valueIdentifier", {}).get("system") == "urn:anamnesis:log:position"
    ]
    assert positions == [str(n) for n in range(1, len(EVERY_KIND) + 1)]


async def test_provenance_targets_exist_at_the_versions_that_it_names(event_log: EventLog) -> None:
    await project(event_log, EVERY_KIND)
    known = {(b["resourceType"], b["id"], b["meta"]["versionId"]) for b in await bodies(event_log)}
    for body in await bodies(event_log, "Provenance"):
        assert body["target"]
        for target in body["target"]:
            if "reference" not in target:
                continue  # a refused file became no resource
            kind, resource_id, *version = target["reference"].replace("/_history/", "/").split("/")
            assert not version or (kind, resource_id, version[0]) in known


async def test_an_index_names_its_device_and_on_whose_behalf(event_log: EventLog) -> None:
    await project(event_log, [*REGISTERED, stored(STUDY, SERIES, [1]), indexed(STRUCTURES)])
    agent = (await bodies(event_log, "Provenance"))[-1]["agent"][0]
    (algorithm,) = await bodies(event_log, "Device")
    assert agent["who"]["reference"].split("/_history/")[0] == f"Device/{algorithm['id']}"
    assert agent["onBehalfOf"]["identifier"]["value"] == "token:1"


@pytest.mark.parametrize(("event", "word"), [(REFUSED, "too-few-slices"), (FAILED, "MemoryError")])
async def test_why_a_series_has_no_index_can_be_read(event_log: EventLog, event: Event, word: str) -> None:
    await project(event_log, [*REGISTERED, stored(STUDY, SERIES, [1]), event])
    provenance = (await bodies(event_log, "Provenance"))[-1]
    assert word in msgspec.json.encode(provenance).decode()
    assert selection_id(SERIES) in provenance["target"][0]["reference"]


async def test_no_resource_holds_what_identifies_a_person(event_log: EventLog) -> None:
    await project(event_log, EVERY_KIND)
    everything = msgspec.json.encode(await bodies(event_log)).decode()
    assert not [word for word in ("DOE", "JANE", "MRN-7", "1970-01-02", "19700102", "山田") if word in everything]


async def test_erased_headers_leave_a_valid_study(event_log: EventLog) -> None:
    erased = msgspec.structs.replace(stored(STUDY, SERIES, [1, 2]), common={}, headers=[])
    await project(event_log, [SubjectRegistered(subject_id=SUBJECT), StudyRegistered(study_uid=STUDY, subject_id=SUBJECT), erased])
    for body in await bodies(event_log):
        validate(body)


async def test_malformed_values_of_a_data_set_never_make_an_invalid_resource(event_log: EventLog) -> None:
    broken = stored(
        STUDY,
        SERIES,
        [1, 2],
        t00080020=("DA", "20241341"),
        t0008103E=("LO", "  "),
        t00200011=("IS", -5),
        t00080060=("CS", "ct "),
    )
    broken = msgspec.structs.replace(broken, modality=" ")
    nameless = msgspec.structs.replace(stored(STUDY, "not a uid " + "1" * 80, [1]), modality="")
    await project(event_log, [*REGISTERED, broken, nameless])
    for body in await bodies(event_log):
        validate(body)


@pytest.mark.parametrize(
    "hostile",
    [
        {"modality": "C\0T"},
        {"modality": "X" * 5000},
        {"headers": [{"00080020": {"vr": "DA", "Value": ["99991231"]}}]},
    ],
)
async def test_hostile_values_do_not_pause_the_projection(event_log: EventLog, hostile: dict[str, Any]) -> None:
    event = msgspec.structs.replace(stored(STUDY, SERIES, [1]), **hostile)
    await project(event_log, [*REGISTERED, event])
    assert await event_log.pool.fetchval("SELECT problem FROM projection_checkpoint WHERE name = 'fhir'") is None
    assert len(await bodies(event_log, "Provenance")) == 3


async def test_hostile_demographics_do_not_pause_the_projection(event_log: EventLog) -> None:
    person = Demographics(patient_id="7\0", patient_name="A^\0B", birth_date="\0")
    await project(event_log, [SubjectRegistered(subject_id=SUBJECT, demographics=person)])
    assert await event_log.pool.fetchval("SELECT problem FROM projection_checkpoint WHERE name = 'fhir'") is None
