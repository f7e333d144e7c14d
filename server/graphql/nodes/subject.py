"""A person, by pseudonym."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry
from strawberry.utils.await_maybe import AwaitableOrValue

from domain.condition import Level
from server.graphql.conditions import ConditionInput
from server.graphql.connections import Connection
from server.graphql.nodes.node import CHILDREN, Tagged, belonging, common
from server.graphql.pages import FIRST
from server.graphql.reading import Reading
from server.graphql.rows import Row

if TYPE_CHECKING:
    from server.graphql.nodes.fact import Fact
    from server.graphql.nodes.finding import Finding
    from server.graphql.nodes.series import Series
    from server.graphql.nodes.study import Study


@strawberry.type(description="A person, by pseudonym.")
class Subject(Tagged):
    subject_id: str = strawberry.field(description="The pseudonym.")
    sex: str = strawberry.field(description="F, M, O, or empty: not known.")
    patient: str = strawberry.field(description="Reference to the FHIR resource: Patient/….")

    @strawberry.field(description="Date of birth. It identifies: the scope `identities:read` is needed.")
    def born(self) -> datetime.date | None:
        self.reading.context.require_identities()
        born: datetime.date | None = self.row["born"]
        return born

    @strawberry.field(description=CHILDREN)
    async def studies(
        self, where: ConditionInput | None = None, first: int = FIRST, after: str | None = None
    ) -> Connection[Annotated[Study, strawberry.lazy("server.graphql.nodes.study")]]:
        from server.graphql.nodes.study import study

        return belonging(self, Level.STUDY, study, where, first, after)

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

    @strawberry.field(description=CHILDREN)
    async def facts(
        self, where: ConditionInput | None = None, first: int = FIRST, after: str | None = None
    ) -> Connection[Annotated[Fact, strawberry.lazy("server.graphql.nodes.fact")]]:
        from server.graphql.nodes.fact import fact

        return belonging(self, Level.FACT, fact, where, first, after)


def subject(row: Row, reading: Reading) -> Subject:
    subject_id = row["subject_id"]
    return Subject(**common(Level.SUBJECT, row, reading), subject_id=subject_id, sex=row["sex"], patient=f"Patient/{subject_id}")


def subject_of(row: Row, reading: Reading) -> AwaitableOrValue[Subject]:
    """Of whom a row is: at once, where it is here already."""
    known = reading.known(Level.SUBJECT, row["subject"])
    return _subject_later(row, reading) if known is None else subject(known, reading)


async def _subject_later(row: Row, reading: Reading) -> Subject:
    found = await reading.row(Level.SUBJECT, row["subject"])
    assert found is not None
    return subject(found, reading)
