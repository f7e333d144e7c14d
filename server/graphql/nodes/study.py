"""A DICOM study."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry
from strawberry.utils.await_maybe import AwaitableOrValue

from domain.condition import Level
from projections.fhir.vocabulary import study_id
from server.graphql.conditions import ConditionInput
from server.graphql.connections import Connection
from server.graphql.headers import STUDY_KEYS
from server.graphql.nodes.element import WithElements, first_text
from server.graphql.nodes.node import CHILDREN, Tagged, belonging, common
from server.graphql.nodes.subject import Subject, subject_of
from server.graphql.pages import FIRST
from server.graphql.reading import Reading
from server.graphql.rows import Row, elements_of

if TYPE_CHECKING:
    from server.graphql.nodes.finding import Finding
    from server.graphql.nodes.series import Series


@strawberry.type(description="A DICOM study.")
class Study(Tagged, WithElements):
    study_uid: str = strawberry.field(description="Study Instance UID (0020,000D).")
    study_date: datetime.date | None = strawberry.field(description="Study Date (0008,0020).")
    age_years: float | None = strawberry.field(description="The subject's age at the study, in years.")
    description: str | None = strawberry.field(description="Study Description (0008,1030).")
    imaging_study: str = strawberry.field(description="Reference to the FHIR resource: ImagingStudy/….")

    @strawberry.field(description="The person that it is of.")
    def subject(self) -> Subject:
        return subject_of(self.row, self.reading)  # type: ignore[return-value]

    @strawberry.field(description=CHILDREN)
    async def series(
        self, where: ConditionInput | None = None, first: int = FIRST, after: str | None = None
    ) -> Connection[Annotated[Series, strawberry.lazy("server.graphql.nodes.series")]]:
        from server.graphql.nodes.series import series

        return belonging(self, Level.SERIES, series, where, first, after)

    @strawberry.field(description=CHILDREN)
    async def findings(
        self, where: ConditionInput | None = None, first: int = FIRST, after: str | None = None
    ) -> Connection[Annotated[Finding, strawberry.lazy("server.graphql.nodes.finding")]]:
        from server.graphql.nodes.finding import finding

        return belonging(self, Level.FINDING, finding, where, first, after)


def study(row: Row, reading: Reading) -> Study:
    return Study(
        **common(Level.STUDY, row, reading),
        study_uid=row["study_uid"],
        study_date=row["study_date"],
        age_years=row["age_years"],
        description=first_text(elements_of(row), STUDY_KEYS["description"]),
        imaging_study=f"ImagingStudy/{study_id(row['study_uid'])}",
    )


def study_of(row: Row, reading: Reading) -> AwaitableOrValue[Study]:
    """Where a row belongs: at once, where it is here already."""
    known = reading.known(Level.STUDY, row["study"])
    return _study_later(row, reading) if known is None else study(known, reading)


async def _study_later(row: Row, reading: Reading) -> Study:
    found = await reading.row(Level.STUDY, row["study"])
    assert found is not None
    return study(found, reading)
