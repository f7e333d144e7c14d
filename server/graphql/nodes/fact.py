"""What a clinical record says of a subject."""

from __future__ import annotations

import datetime

import strawberry

from domain.condition import Level
from server.graphql.nodes.node import Node, common
from server.graphql.nodes.subject import Subject, subject_of
from server.graphql.reading import Reading
from server.graphql.rows import Row


@strawberry.type(description="What a clinical record says of a subject: a Condition's code, an Observation's value, a consent.")
class Fact(Node):
    resource_type: str = strawberry.field(description="FHIR resource type.")
    resource: str = strawberry.field(description="Reference to the FHIR resource: Condition/….")
    system: str = strawberry.field(description="URI of the code system.")
    code: str = strawberry.field(description="In that system.")
    status: str = strawberry.field(description="As the resource has it.")
    value: float | None = strawberry.field(description="A number in `unit`.")
    unit: str = strawberry.field(description="UCUM code that quantities of its kind are converted to; empty where there is no number.")
    value_code: str = strawberry.field(description="A coded value; of a Consent permit or deny; empty where there is none.")
    date: datetime.date | None = strawberry.field(description="When it was so: onset, effective or performed, else recorded; of a month or year, its first day.")

    @strawberry.field(description="Of whom it is.")
    def subject(self) -> Subject:
        return subject_of(self.row, self.reading)  # type: ignore[return-value]


_OWN = ("resource_type", "system", "code", "status", "value", "unit", "value_code", "date")


def fact(row: Row, reading: Reading) -> Fact:
    own = {name: row[name] for name in _OWN}
    return Fact(**common(Level.FACT, row, reading), **own, resource=f"{row['resource_type']}/{row['resource_id']}")
