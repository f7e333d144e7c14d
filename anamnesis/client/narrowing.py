"""How a cohort is narrowed, ordered and placed in time, which asks nothing: the same of sync and async cohorts."""

from __future__ import annotations

from dataclasses import replace
from typing import Generic, Self, TypeVar

from anamnesis.client.conditions import Condition
from anamnesis.client.language import parse
from anamnesis.client.question import Question
from anamnesis.client.records import Value

TransportT = TypeVar("TransportT")
AsOf = int | str | None
"""A position of the log, or the end of an instant or date (2026-11-20, 2026-11-20T10:00:00Z); None: as it stands."""
Where = Condition | str | None
"""A condition that was built, or the text of one (see anamnesis.client.language)."""


class Narrowing(Generic[TransportT]):
    def __init__(self, question: Question, transport: TransportT) -> None:
        self.question, self._transport = question, transport

    def _with(self, question: Question) -> Self:
        return type(self)(question, self._transport)

    def where(self, narrower: Where) -> Self:
        """Those that meet this too."""
        also = condition(narrower)
        return self if also is None else self._with(self.question.narrowed(also))

    def ticked(self, name: str, *values: Value) -> Self:
        """Those with one of these values; in this field's own facet the others are still counted (drill-sideways)."""
        return self._with(self.question.with_ticks(name, values))

    def at(self, as_of: AsOf) -> Self:
        """As of a position of the log, or of an instant or date (its end)."""
        return self._with(replace(self.question, as_of=as_of))

    def order_by(self, name: str, *, descending: bool = False) -> Self:
        """By a field's smallest value, or its largest where descending; what has none comes last."""
        return self._with(replace(self.question, order=(name, descending)))

    def with_elements(self, *names: str) -> Self:
        """Studies and series with these DICOM elements, by keyword or number, in ``elements`` and in tables."""
        return self._with(replace(self.question, elements=names))

    def __repr__(self) -> str:
        where = "" if self.question.where is None else f" where {self.question.where}"
        as_of = "" if self.question.as_of is None else f" as of {self.question.as_of}"
        return f"<{type(self).__name__}: {self.question.level}{where}{as_of}>"


def condition(where: Where) -> Condition | None:
    """Raises ConditionUnreadable."""
    return parse(where) if isinstance(where, str) else where
