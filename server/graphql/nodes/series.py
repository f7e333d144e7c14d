"""A DICOM series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import strawberry
from strawberry.utils.await_maybe import AwaitableOrValue

from domain.condition import Level
from projections.fhir.vocabulary import selection_id
from server.graphql.conditions import ConditionInput
from server.graphql.connections import Connection
from server.graphql.headers import SERIES_KEYS
from server.graphql.nodes.element import WithElements, first_number, first_text
from server.graphql.nodes.node import CHILDREN, Tagged, belonging, common
from server.graphql.nodes.study import Study, study_of
from server.graphql.nodes.subject import Subject, subject_of
from server.graphql.pages import FIRST
from server.graphql.reading import Reading
from server.graphql.rows import Row, elements_of
from server.graphql.scalars import Long

if TYPE_CHECKING:
    from server.graphql.nodes.finding import Finding
    from server.graphql.nodes.instance import Instance


@strawberry.type(description="A DICOM series.")
class Series(Tagged, WithElements):
    series_uid: str = strawberry.field(description="Series Instance UID (0020,000E).")
    modality: str | None = strawberry.field(description="Modality (0008,0060).")
    body_part: str | None = strawberry.field(description="Body Part Examined (0018,0015).")
    description: str | None = strawberry.field(description="Series Description (0008,103E).")
    protocol: str | None = strawberry.field(description="Protocol Name (0018,1030).")
    manufacturer: str | None = strawberry.field(description="Manufacturer (0008,0070).")
    model: str | None = strawberry.field(description="Manufacturer's Model Name (0008,1090).")
    kernel: str | None = strawberry.field(description="Convolution Kernel (0018,1210); the first, where there are several.")
    slice_thickness_mm: float | None = strawberry.field(description="Slice Thickness (0018,0050) in mm; the first, where there are several.")
    slice_spacing_mm: float | None = strawberry.field(
        description="Distance of neighbouring slices in mm, by their positions; null where it is not uniform or not known."
    )
    kvp: float | None = strawberry.field(description="KVP (0018,0060) in kV; the first, where there are several.")
    instance_count: int = strawberry.field(description="How many instances it has.")
    frame_count: int = strawberry.field(description="How many frames they have.")
    bytes: Long = strawberry.field(description="Bytes of their files.")
    series_digest: str = strawberry.field(description="SHA-256 that names exactly its instances and their content.")
    indexing: str = strawberry.field(description="Where segmentation stands: none, requested, indexed, refused or failed.")
    imaging_selection: str = strawberry.field(description="Reference to the FHIR resource: ImagingSelection/….")

    @strawberry.field(description="The study that it is of.")
    def study(self) -> Study:
        return study_of(self.row, self.reading)  # type: ignore[return-value]

    @strawberry.field(description="The person that it is of.")
    def subject(self) -> Subject:
        return subject_of(self.row, self.reading)  # type: ignore[return-value]

    @strawberry.field(description=CHILDREN)
    async def findings(
        self, where: ConditionInput | None = None, first: int = FIRST, after: str | None = None
    ) -> Connection[Annotated[Finding, strawberry.lazy("server.graphql.nodes.finding")]]:
        from server.graphql.nodes.finding import finding

        return belonging(self, Level.FINDING, finding, where, first, after)

    @strawberry.field(description=CHILDREN)
    async def instances(
        self, first: int = FIRST, after: str | None = None
    ) -> Connection[Annotated[Instance, strawberry.lazy("server.graphql.nodes.instance")]]:
        from server.graphql.nodes.instance import instance

        return belonging(self, Level.INSTANCE, instance, None, first, after)


def series(row: Row, reading: Reading) -> Series:
    known, key = elements_of(row), SERIES_KEYS
    return Series(
        **common(Level.SERIES, row, reading),
        series_uid=row["series_uid"],
        modality=first_text(known, key["modality"]),
        body_part=first_text(known, key["bodyPart"]),
        description=first_text(known, key["description"]),
        protocol=first_text(known, key["protocol"]),
        manufacturer=first_text(known, key["manufacturer"]),
        model=first_text(known, key["model"]),
        kernel=first_text(known, key["kernel"]),
        slice_thickness_mm=first_number(known, key["sliceThicknessMm"]),
        slice_spacing_mm=row["slice_spacing_mm"],
        kvp=first_number(known, key["kvp"]),
        instance_count=row["instance_count"],
        frame_count=row["frame_count"],
        bytes=row["bytes"],
        series_digest=row["series_digest"],
        indexing=row["indexing"],
        imaging_selection=f"ImagingSelection/{selection_id(row['series_uid'])}",
    )


def series_of(row: Row, reading: Reading) -> AwaitableOrValue[Series]:
    """Where a row belongs: at once, where it is here already."""
    known = reading.known(Level.SERIES, row["series"])
    return _series_later(row, reading) if known is None else series(known, reading)


async def _series_later(row: Row, reading: Reading) -> Series:
    found = await reading.row(Level.SERIES, row["series"])
    assert found is not None
    return series(found, reading)
