"""One structure in one series as one segmenter saw it."""

from __future__ import annotations

import strawberry

from domain.condition import Level
from projections.fhir.vocabulary import observation_id
from server.graphql.nodes.node import Tagged, common
from server.graphql.nodes.series import Series, series_of
from server.graphql.nodes.study import Study, study_of
from server.graphql.nodes.subject import Subject, subject_of
from server.graphql.reading import Reading
from server.graphql.rows import Row


@strawberry.type(description="One structure in one series, as one segmenter saw it.")
class Finding(Tagged):
    finding_key: str = strawberry.field(description="Its name in events and reviews.")
    label: str = strawberry.field(description="As the segmenter calls the structure.")
    structure: str = strawberry.field(description="SNOMED CT code of the structure; empty where it has none.")
    laterality: str = strawberry.field(description="left or right, in the patient; else empty.")
    morphology: str = strawberry.field(description="What was seen of the structure, where it is not the structure itself: SNOMED CT code, else empty.")
    volume_ml: float = strawberry.field(description="Volume in mL.")
    mean_hu: float = strawberry.field(description="Mean attenuation in Hounsfield units.")
    whole: bool = strawberry.field(description="It does not reach the edge of the field of view: the volume is that of all of it.")
    verdict: str = strawberry.field(description="The latest review: accepted or rejected, or unreviewed since it was indexed.")
    segmenter: str = strawberry.field(description="What saw it.")
    segmenter_version: str = strawberry.field(description="Its version.")
    observation: str = strawberry.field(description="Reference to its measurements in FHIR: Observation/….")
    body_structure: str = strawberry.field(description="Reference to the structure in FHIR: BodyStructure/….")

    @strawberry.field(description="Where it was seen.")
    def series(self) -> Series:
        return series_of(self.row, self.reading)  # type: ignore[return-value]

    @strawberry.field(description="The study of that series.")
    def study(self) -> Study:
        return study_of(self.row, self.reading)  # type: ignore[return-value]

    @strawberry.field(description="In whom.")
    def subject(self) -> Subject:
        return subject_of(self.row, self.reading)  # type: ignore[return-value]


_OWN = ("finding_key", "label", "structure", "laterality", "morphology", "volume_ml", "mean_hu", "whole", "verdict", "segmenter", "segmenter_version")


def finding(row: Row, reading: Reading) -> Finding:
    own, key = {name: row[name] for name in _OWN}, row["finding_key"]
    return Finding(**common(Level.FINDING, row, reading), **own, observation=f"Observation/{observation_id(key)}", body_structure=f"BodyStructure/{key}")
