"""Every resource that the projection makes of the log conforms to its profile, and what is changed of it does not.

Two readers of the profiles have to agree: the server's validator, and the short one of profile_check, which knows no invariants.
"""

from __future__ import annotations

import copy
from collections import Counter

import msgspec
import pytest
from fhir.resources import get_fhir_model_class
from golden.write_examples import EXAMPLES, FOLDER
from golden_log import golden_log, names, put_into
from mixed_log import fill
from profile_check import faults

from eventlog.log import EventLog
from projections.fhir import guide
from projections.fhir.projection import FhirProjection
from projections.fhir.vocabulary import LOG_ENTRY_EXTENSION, Json
from projections.projection import schema_name
from projections.runner import Runner
from server.fhir.validation.validator import faults_of

OF_THE_LOG = {url for ids in guide.PROFILES.values() for url in map(guide.profile_url, ids)}


async def test_all_that_a_mixed_log_gives_conforms(event_log: EventLog) -> None:
    await fill(event_log, 400)
    made = await _made(event_log)
    assert _conforming(made) == OF_THE_LOG - {guide.profile_url("access-audit-event")}
    assert len(made) > 800 and None not in {guide.profile_of(one) for one in made}


@pytest.mark.parametrize("name", names())
async def test_all_that_a_golden_log_gives_conforms(event_log: EventLog, name: str) -> None:
    await put_into(event_log, golden_log(name))
    made = await _made(event_log)
    assert OF_THE_LOG - _conforming(made) <= {guide.profile_url("access-audit-event")}
    assert not [one["id"] for one in made if _names_an_event(one) and guide.profile_of(one) is None]


CHANGES: list[tuple[str, str, object]] = [
    ("pseudonymous-patient", "name", [{"family": "Somebody"}]),
    ("pseudonymous-patient", "birthDate", "1970-01-02"),
    ("pseudonymous-patient", "meta.security", []),
    ("curated-study", "identifier", []),
    ("curated-study", "numberOfSeries", None),
    ("series-selection", "instance", [{"uid": "1.2.3"}]),
    ("series-selection", "code.coding", [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "121191"}]),
    ("finding-structure", "includedStructure.0.laterality", {"coding": [{"system": "http://snomed.info/sct", "code": "51440002"}]}),
    ("finding-structure", "includedStructure.0.structure.coding", [{"system": "http://www.radlex.org", "code": "RID58"}]),
    ("series-index", "active", None),
    ("finding-measurement", "status", "cancelled"),
    ("finding-measurement", "component.0.valueQuantity.code", "mL"),
    ("finding-measurement", "component.2", None),
    ("finding-measurement", "component.3.code.coding.0.code", "something-else"),
    ("finding-measurement", "bodySite", {"text": "liver"}),
    ("segmenter", "type", []),
    ("log-provenance", "activity.coding.0.system", "http://example.org"),
    ("log-provenance", "extension.1", None),
    ("log-provenance-signed", "signature.0.type", [{"system": "urn:iso-astm:E1762-95:2013", "code": "1.2.840.10065.1.12.1.14"}]),
    ("access-audit-event", "agent.0.who.identifier.system", "http://example.org"),
    ("access-audit-event", "extension.2", None),
]
"""Example, where in it, and what is put there instead (None: it is taken out)."""


@pytest.mark.parametrize(("example", "where", "instead"), CHANGES, ids=[f"{example}-{where}" for example, where, _ in CHANGES])
def test_what_does_not_conform_is_found(example: str, where: str, instead: object) -> None:
    resource = _example(example)
    url = guide.profile_of(resource)
    assert url is not None
    changed = _changed(resource, where.split("."), instead)
    assert faults(changed, url) != []
    assert faults_of(changed, [url]) != []


@pytest.mark.parametrize(
    ("example", "where", "instead", "key"),
    [
        ("log-provenance", "extension.1.valueIdentifier.system", "urn:anamnesis:log:position", "log-entry-both"),
        ("access-audit-event", "extension.0.valueIdentifier.system", "urn:anamnesis:site", "log-entry-system"),
        ("access-audit-event-refused", "outcome.detail", None, "outcome-says-why"),
        ("curated-study", "identifier.0.value", "1.2.3", "dicom-uid"),
        ("curated-study", "numberOfInstances", 99, "study-counts"),
        ("series-index", "active", False, "index-active"),
        ("series-index", "includedStructure.0.id", None, "index-names-findings"),
    ],
)
def test_invariants_of_profiles_are_kept(example: str, where: str, instead: object, key: str) -> None:
    resource = _example(example)
    url = guide.profile_of(resource)
    assert url is not None
    found = faults_of(_changed(resource, where.split("."), instead), [url])
    assert [fault for fault in found if fault.text.startswith(f"{key}:")], found


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_conform(name: str) -> None:
    _conforming([_example(name)])


async def _made(log: EventLog) -> list[Json]:
    """Every version of every resource that the log implies."""
    projection = FhirProjection()
    await Runner(log, [projection]).catch_up()
    rows = await log.pool.fetch(f"SELECT body FROM {schema_name(projection)}.resource WHERE body <> '' AND position_from > 0")
    return [msgspec.json.decode(row["body"]) for row in rows]


def _conforming(resources: list[Json]) -> set[str]:
    """The profiles of these resources, each of which conforms to its own and to R5. What a client wrote has none."""
    found: Counter[str] = Counter()
    seen: set[str] = set()
    for resource in resources:
        url = guide.profile_of(resource)
        if url is not None:
            seen.add(url)
            get_fhir_model_class(resource["resourceType"]).model_validate(copy.deepcopy(resource))
            found.update(f"{url}: {fault}" for fault in faults(resource, url))
            found.update(f"{url}: {fault.expression}: {fault.text}" for fault in faults_of(resource, [url]))
    assert found == Counter()
    return seen


def _names_an_event(resource: Json) -> bool:
    return LOG_ENTRY_EXTENSION in {one.get("url") for one in resource.get("extension", [])}


def _example(name: str) -> Json:
    return msgspec.json.decode((FOLDER / f"{name}.json").read_bytes())


def _changed(resource: Json, path: list[str], instead: object) -> Json:
    *parents, last = [int(step) if step.isdigit() else step for step in path]
    changed: Json = copy.deepcopy(resource)
    parent: object = changed
    for step in parents:
        parent = parent[step]  # type: ignore[index]
    if instead is None:
        del parent[last]  # type: ignore[attr-defined]
    else:
        parent[last] = instead  # type: ignore[index]
    return changed
