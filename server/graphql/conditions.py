"""Conditions as GraphQL takes them, which mirror domain.condition; what a form fills in compiles to the same."""

from __future__ import annotations

from typing import Any as AnyInput

import strawberry

from domain.condition import All, Any, Between, Condition, Contains, Followed, Has, Not, OneOf, Present
from domain.condition import Value as FieldValue
from server.graphql.errors import Code, GraphqlError
from server.graphql.forms import FindingForm, SeriesForm, StudyForm, SubjectForm, filled_in
from server.graphql.levels import Level
from server.graphql.scalars import Value


@strawberry.input(description="The field has one of these values. Text is compared as it is, numbers as numbers.")
class OneOfInput:
    field: str = strawberry.field(description="A field of ours, or a DICOM element by keyword or number (`fields` finds them).")
    values: list[Value] = strawberry.field(description="At least one.")


@strawberry.input(description="The field lies between bounds, of which at least one is given. Dates are YYYY-MM-DD.")
class BetweenInput:
    field: str = strawberry.field(description="A field of numbers, dates or times.")
    at_least: Value | None = strawberry.field(default=None, description="≥ this, in the field's unit.")
    more_than: Value | None = strawberry.field(default=None, description="> this.")
    at_most: Value | None = strawberry.field(default=None, description="≤ this.")
    less_than: Value | None = strawberry.field(default=None, description="< this.")
    every: bool = strawberry.field(default=False, description="All of its values lie there, and it has one; else one is enough.")


@strawberry.input(description="The field has a value.")
class PresentInput:
    field: str = strawberry.field(description="Any field.")


@strawberry.input(description="The field's text holds this text, whatever the case and accents.")
class ContainsInput:
    field: str = strawberry.field(description="A field of text.")
    text: str = strawberry.field(description="What it holds.")
    tolerant: bool = strawberry.field(default=False, description="Also with letters wrong.")


@strawberry.input(description="At least so many of what belongs to the entity meet the condition; of a level above, what it belongs to does.")
class HasInput:
    level: Level = strawberry.field(description="What it has, or belongs to.")
    where: ConditionInput | None = strawberry.field(default=None, description="What they meet; any will do without one.")
    at_least: int = strawberry.field(default=1, description="How many.")


@strawberry.input(description="Of a subject: it has a study that meets `baseline`, and another one so many days later that meets `followUp`.")
class FollowedInput:
    baseline: ConditionInput = strawberry.field(description="Of the earlier study.")
    follow_up: ConditionInput = strawberry.field(description="Of the later study.")
    at_least_days: int = strawberry.field(default=1, description="Days from date to date, included.")
    at_most_days: int | None = strawberry.field(default=None, description="Days from date to date, included.")


@strawberry.input(
    one_of=True,
    description="True or false of one entity, never unknown: a comparison of what has no value is false, and `not` of it true. Exactly one is given."
    " `subject`, `study`, `series` and `finding` are what a form fills in: of the level that is asked for, of what it belongs to, or of one that it has.",
)
class ConditionInput:
    all: list[ConditionInput] | None = strawberry.field(default=strawberry.UNSET, description="Each of these holds; of none: true.")
    any: list[ConditionInput] | None = strawberry.field(default=strawberry.UNSET, description="One of these holds; of none: false.")
    not_: ConditionInput | None = strawberry.field(default=strawberry.UNSET, name="not", description="This does not hold.")
    one_of: OneOfInput | None = strawberry.field(default=strawberry.UNSET, description="A field has one of some values.")
    between: BetweenInput | None = strawberry.field(default=strawberry.UNSET, description="A field lies between bounds.")
    present: PresentInput | None = strawberry.field(default=strawberry.UNSET, description="A field has a value.")
    contains: ContainsInput | None = strawberry.field(default=strawberry.UNSET, description="A field's text holds a text.")
    has: HasInput | None = strawberry.field(default=strawberry.UNSET, description="It has, or belongs to, what meets a condition.")
    followed: FollowedInput | None = strawberry.field(default=strawberry.UNSET, description="A subject with a baseline and a follow-up.")
    subject: SubjectForm | None = strawberry.field(default=strawberry.UNSET, description="A form about the subject.")
    study: StudyForm | None = strawberry.field(default=strawberry.UNSET, description="A form about a study.")
    series: SeriesForm | None = strawberry.field(default=strawberry.UNSET, description="A form about a series.")
    finding: FindingForm | None = strawberry.field(default=strawberry.UNSET, description="A form about a finding.")


MAX_DEPTH = 20
MAX_PARTS = 1000
"""Conditions within one condition, forms' included."""
_FORMS = {"subject": Level.SUBJECT, "study": Level.STUDY, "series": Level.SERIES, "finding": Level.FINDING}


def compiled(where: ConditionInput | None, level: Level) -> Condition | None:
    """What is meant, asked of a level. Raises GraphqlError."""
    return None if where is None else _Compiler().condition(where, level, 1)


class _Compiler:
    def __init__(self) -> None:
        self._parts = 0

    def condition(self, where: ConditionInput, level: Level, depth: int) -> Condition:
        self._parts += 1
        if depth > MAX_DEPTH:
            raise GraphqlError(Code.TOO_DEEP, f"conditions are nested more than {MAX_DEPTH} deep", most=MAX_DEPTH)
        if self._parts > MAX_PARTS:
            raise GraphqlError(Code.TOO_COSTLY, f"a condition has at most {MAX_PARTS} parts: give many values of one field in one `oneOf`", most=MAX_PARTS)
        name, given = _given(where)
        match given:
            case OneOfInput():
                return OneOf(given.field, _values(given.values))
            case BetweenInput():
                bounds = {name: _bound(getattr(given, name)) for name in ("at_least", "more_than", "at_most", "less_than")}
                if all(bound is None for bound in bounds.values()):
                    raise GraphqlError(Code.BAD_INPUT, "`between` needs at least one bound: atLeast, moreThan, atMost or lessThan")
                return Between(field=given.field, every=given.every, **bounds)
            case PresentInput():
                return Present(given.field)
            case ContainsInput():
                return Contains(given.field, given.text, given.tolerant)
            case HasInput():
                if given.at_least < 1:
                    raise GraphqlError(Code.BAD_INPUT, "`has` asks for at least one: to ask for none, put `not` around it")
                within = None if given.where is None else self.condition(given.where, given.level, depth + 1)
                return Has(level=given.level, where=within, at_least=given.at_least)
            case FollowedInput():
                baseline, follow_up = (self.condition(one, Level.STUDY, depth + 1) for one in (given.baseline, given.follow_up))
                return Followed(baseline=baseline, follow_up=follow_up, at_least_days=given.at_least_days, at_most_days=given.at_most_days)
            case list():
                of = tuple(self.condition(one, level, depth + 1) for one in given)
                return All(of) if name == "all" else Any(of)
            case ConditionInput():
                return Not(self.condition(given, level, depth + 1))
        return filled_in(given, _FORMS[name], level)


def _given(where: ConditionInput) -> tuple[str, AnyInput]:
    for name, given in vars(where).items():
        if given is not strawberry.UNSET and given is not None:
            return name, given
    raise GraphqlError(Code.BAD_INPUT, "a condition names one thing, and none is given")


def _values(given: list[Value]) -> tuple[FieldValue, ...]:
    if not given:
        raise GraphqlError(Code.BAD_INPUT, "`oneOf` needs at least one value")
    return tuple(given)  # type: ignore[arg-type]


def _bound(given: Value | None) -> float | str | None:
    if isinstance(given, bool):
        raise GraphqlError(Code.BAD_INPUT, "true and false are no bounds")
    return given  # type: ignore[return-value]
