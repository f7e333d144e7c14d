"""How many, in what was asked for: counts, facets and histograms."""

from __future__ import annotations

import strawberry

from projections.cohort import engine, fields
from projections.cohort.engine import Explanation as Explained
from projections.cohort.naming import Kind
from server.graphql.levels import Level
from server.graphql.scalars import Long, Value

strawberry.enum(
    Kind,
    name="FieldKind",
    description="What can be asked of a field: ranges of numbers, dates and times; text within codes and text; equality of all.",
)


@strawberry.type(description="How many of each are in what was asked for: of levels above, those that it belongs to; of its level, itself.")
class Counts:
    subjects: int = strawberry.field(description="Persons.")
    studies: int = strawberry.field(description="Studies.")
    series: int = strawberry.field(description="Series.")
    findings: int = strawberry.field(description="Findings.")
    instances: int = strawberry.field(description="Instances of the series in question; of a subject or study, of all of its series.")
    bytes: Long = strawberry.field(description="Bytes of those instances' files.")

    @classmethod
    def of(cls, counts: engine.Counts) -> Counts:
        return cls(
            subjects=counts.subjects,
            studies=counts.studies,
            series=counts.series,
            findings=counts.findings,
            instances=counts.instances,
            bytes=Long(counts.bytes),
        )


@strawberry.type(description="A value of a facet.")
class FacetValue:
    value: Value = strawberry.field(description="As the field has it.")
    count: int = strawberry.field(description="Entities that have it.")
    subjects: int | None = strawberry.field(description="Persons that they are of, where that was asked for.")


@strawberry.type(description="The most frequent values of a field, most frequent first, equal ones by value. An entity counts once for each of its values.")
class Facet:
    field: str = strawberry.field(description="The field's name.")
    values: list[FacetValue] = strawberry.field(description="As many as were asked for, at most.")
    distinct: int = strawberry.field(description="How many values there are in all.")
    missing: int = strawberry.field(description="How many entities have none.")

    @classmethod
    def of(cls, facet: engine.Facet) -> Facet:
        values = [FacetValue(value=Value(one.value), count=one.count, subjects=one.subjects) for one in facet.values]
        return cls(field=facet.field, values=values, distinct=facet.distinct, missing=facet.missing)


@strawberry.type(description="A bin of a histogram: [low, high); the last one holds its high too.")
class Bin:
    low: Value = strawberry.field(description="In the field's unit; dates as YYYY-MM-DD.")
    high: Value = strawberry.field(description="In the field's unit; dates as YYYY-MM-DD.")
    count: int = strawberry.field(description="Values that lie there.")


@strawberry.type(description="How a field's numbers or dates are spread. Of an entity with several values, each counts.")
class Histogram:
    field: str = strawberry.field(description="The field's name.")
    bins: list[Bin] = strawberry.field(description="From low to high, equally wide; none where there are no values.")
    low: Value | None = strawberry.field(description="The smallest value.")
    high: Value | None = strawberry.field(description="The largest value.")
    missing: int = strawberry.field(description="How many entities have none.")

    @classmethod
    def of(cls, histogram: engine.Histogram) -> Histogram:
        bins = [Bin(low=Value(one.low), high=Value(one.high), count=one.count) for one in histogram.bins]
        low, high = (None if one is None else Value(one) for one in (histogram.low, histogram.high))
        return cls(field=histogram.field, bins=bins, low=low, high=high, missing=histogram.missing)


@strawberry.type(description="Something that was looked at to answer.")
class Step:
    what: str = strawberry.field(description="In words.")
    rows: int = strawberry.field(description="How many met it.")
    milliseconds: float = strawberry.field(description="How long it took, in ms.")


@strawberry.type(description="What was used to answer: the engine, and each condition in order.")
class Explanation:
    engine: str = strawberry.field(description="columns (in memory) or postgresql.")
    steps: list[Step] = strawberry.field(description="In the order in which they were looked at.")

    @classmethod
    def of(cls, explanation: Explained) -> Explanation:
        steps = [Step(what=what, rows=rows, milliseconds=milliseconds) for what, rows, milliseconds in explanation.steps]
        return cls(engine=explanation.engine, steps=steps)


@strawberry.type(description="A field that can be asked for.")
class Field:
    name: str = strawberry.field(description="As conditions, facets and orders name it.")
    level: Level = strawberry.field(description="What has it.")
    kind: Kind = strawberry.field(description="What can be asked of it.")
    unit: str = strawberry.field(description="UCUM code of the unit of a number; empty where it has none.")
    description: str = strawberry.field(description="What it says.")
    identifies: bool = strawberry.field(description="It can tell who a person is: the scope `identities:read` is needed.")

    @classmethod
    def of(cls, field: fields.Field) -> Field:
        return cls(
            name=field.name, level=field.level, kind=field.kind, unit=field.unit, description=field.description, identifies=field.identifies
        )


@strawberry.input(description="Values that are ticked in a facet: of each field one has to hold, but a facet's own ticks do not narrow what it counts.")
class TickInput:
    field: str = strawberry.field(description="The facet's field.")
    values: list[Value] = strawberry.field(description="At least one.")


@strawberry.input(description="A facet to be counted.")
class FacetInput:
    field: str = strawberry.field(description="Any field but long texts.")
    size: int = strawberry.field(default=20, description="How many values at most (1 to 1000).")
    subjects: bool = strawberry.field(default=False, description="Count persons too.")


@strawberry.input(description="By a field's smallest value (descending: its largest); what has none comes last, equal ones as they came.")
class OrderInput:
    field: str = strawberry.field(description="Any field.")
    descending: bool = strawberry.field(default=False, description="Largest first.")


@strawberry.input(one_of=True, description="A place in the log. Exactly one is given.")
class AsOfInput:
    position: Long | None = strawberry.field(default=strawberry.UNSET, description="That position.")
    instant: str | None = strawberry.field(
        default=strawberry.UNSET, description="The end of the interval that a date or an instant covers: 2026-11, 2026-11-20, 2026-11-20T10:00:00Z."
    )
