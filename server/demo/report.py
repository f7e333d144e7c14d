"""What the demonstration shows of FHIR answers, as rows of tables."""

from __future__ import annotations

from typing import Any

import msgspec

from domain.findings import finding_key
from domain.series import SeriesIndexed
from server.demo.site import DemoSite


class FindingRow(msgspec.Struct, frozen=True, kw_only=True):
    """A finding as FHIR tells it, and where it is (from the event: FHIR has no place for it yet)."""

    label: str
    display: str
    laterality: str | None
    volume_mm3: float
    mean_hu: float
    touches_edge: bool
    observation_id: str
    bounding_box_mm: tuple[tuple[float, float, float], tuple[float, float, float]]


async def findings_of(site: DemoSite, series_uid: str) -> list[FindingRow]:
    """The findings of a series' last index, read by FHIR search."""
    indexed = [e.event for e in await site.events_of(series_uid) if isinstance(e.event, SeriesIndexed)][-1]
    rows: list[FindingRow] = []
    for finding in indexed.findings:
        key = finding_key(series_uid, indexed.run.segmenter, finding.structure.label)
        structure = await site.get(f"BodyStructure/{key}")
        (observation,) = await site.resources("Observation", **{"body-structure": key})
        included = structure["includedStructure"][0]
        values = {one["code"]["coding"][0]["code"]: one for one in observation["component"]}
        rows.append(
            FindingRow(
                label=finding.structure.label,
                display=included["structure"]["coding"][0]["display"],
                laterality=included.get("laterality", {}).get("coding", [{}])[0].get("display"),
                volume_mm3=values["118565006"]["valueQuantity"]["value"],
                mean_hu=values["112181"]["valueQuantity"]["value"],
                touches_edge=values["touches-edge"]["valueBoolean"],
                observation_id=observation["id"],
                bounding_box_mm=finding.bounding_box_mm,
            )
        )
    return rows


def study_rows(study: dict[str, Any], series_uid: str) -> list[tuple[str, str]]:
    series = next((one for one in study["series"] if one["uid"] == series_uid), study["series"][0])
    return [
        ("id", study["id"]),
        ("identifier", study["identifier"][0]["value"]),
        ("status", study["status"]),
        ("started", study.get("started", "")),
        ("modality", ", ".join(one["coding"][0]["code"] for one in study["modality"])),
        ("series", f"{series['uid']} ({series['numberOfInstances']} instances)"),
        ("subject", study["subject"]["reference"]),
    ]


def provenance_rows(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    agent = provenance["agent"][0]
    entry = {one["valueIdentifier"]["system"]: one["valueIdentifier"]["value"] for one in provenance["extension"]}
    rows = [
        ("activity", provenance["activity"]["text"]),
        ("recorded", provenance["recorded"]),
        ("agent", agent["who"].get("reference") or agent["who"]["identifier"]["value"]),
        ("on behalf of", agent.get("onBehalfOf", {}).get("identifier", {}).get("value", "")),
        ("made from", ", ".join(one["what"]["reference"] for one in provenance.get("entity", []))),
        ("targets", f"{len(provenance['target'])} resources at their versions"),
    ]
    return rows + [(system.removeprefix("urn:anamnesis:"), value) for system, value in entry.items()]


def within(findings: list[FindingRow], label: str, volume_mm3: float, tolerance: float) -> bool:
    """Whether a finding of this label has the volume, within a share of it."""
    return any(f.label == label and abs(f.volume_mm3 / volume_mm3 - 1) <= tolerance for f in findings)
