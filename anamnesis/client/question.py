"""A question about a cohort, and what can be asked of it: immutable, and without I/O. Sync and async cohorts are made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from anamnesis.client.asking import Steps
from anamnesis.client.conditions import Condition
from anamnesis.client.graphql import as_of_input, ask, condition_input, node_selection, read_record
from anamnesis.client.records import (
    RECORDS,
    Counts,
    Explanation,
    Facet,
    FieldInfo,
    Histogram,
    Record,
    Value,
)
from anamnesis.client.shapes import as_name, read, selection

PAGE_SIZE = 200
_CONNECTIONS = {"subject": "subjects", "study": "studies", "series": "series", "finding": "findings"}
_COHORT = (
    "query Cohort($level: Level!, $where: ConditionInput, $ticked: [TickInput!], $asOf: AsOfInput{more}) "
    "{{ cohort(level: $level, where: $where, ticked: $ticked, asOf: $asOf) {{ position {of} }} }}"
)


@dataclass(frozen=True, kw_only=True)
class Page:
    """``position``: as of which it is; ``cursor``: what the page after it begins after; ``total``: how many on all pages, of a first page."""

    records: Sequence[Record]
    position: int
    cursor: str | None
    has_more: bool
    total: int | None


@dataclass(frozen=True, kw_only=True)
class Question:
    level: str
    where: Condition | None = None
    ticked: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    as_of: int | str | None = None
    elements: tuple[str, ...] = ()
    order: tuple[str, bool] | None = None

    def narrowed(self, where: Condition) -> Question:
        return replace(self, where=where if self.where is None else self.where & where)

    def with_ticks(self, name: str, values: Sequence[Value]) -> Question:
        return replace(self, ticked={**self.ticked, name: tuple(values)})

    @property
    def _variables(self) -> dict[str, Any]:
        return {
            "where": condition_input(self.where.to_json()) if self.where is not None else None,
            "ticked": [{"field": name, "values": list(values)} for name, values in self.ticked.items()],
            "asOf": as_of_input(self.as_of),
        }

    def _cohort(self, of: str, more: str = "", **variables: Any) -> Steps[dict[str, Any]]:
        document = _COHORT.format(more=more, of=of)
        data = yield from ask(document, {"level": as_name(self.level), **self._variables, **variables})
        cohort: dict[str, Any] = data["cohort"]
        return cohort

    def position(self) -> Steps[int]:
        cohort = yield from self._cohort("")
        return int(cohort["position"])

    def pinned(self) -> Steps[Question]:
        """The same question as of the position that it would be answered at now."""
        position = yield from self.position()
        return replace(self, as_of=position)

    def counts(self) -> Steps[Counts]:
        cohort = yield from self._cohort(f"counts {{ {selection(Counts)} }}")
        return read(Counts, cohort["counts"])

    def count(self) -> Steps[int]:
        counts = yield from self.counts()
        return int(getattr(counts, _CONNECTIONS[self.level]))

    def facets(self, names: Sequence[str], *, size: int, subjects: bool) -> Steps[dict[str, Facet]]:
        asked = [{"field": name, "size": size, "subjects": subjects} for name in names]
        of = f"facets(fields: $fields) {{ {selection(Facet)} }}"
        cohort = yield from self._cohort(of, ", $fields: [FacetInput!]!", fields=asked)
        return {name: read(Facet, facet) for name, facet in zip(names, cohort["facets"], strict=True)}

    def histogram(self, name: str, bins: int) -> Steps[Histogram]:
        of = f"histogram(field: $field, bins: $bins) {{ {selection(Histogram)} }}"
        cohort = yield from self._cohort(of, ", $field: String!, $bins: Int!", field=name, bins=bins)
        return read(Histogram, cohort["histogram"])

    def explain(self) -> Steps[Explanation]:
        cohort = yield from self._cohort(f"explain {{ {selection(Explanation)} }}")
        return read(Explanation, cohort["explain"])

    def query(self) -> Steps[str]:
        cohort = yield from self._cohort("query")
        return str(cohort["query"])

    def page(self, size: int = PAGE_SIZE, after: str | None = None) -> Steps[Page]:
        """The first page, or the one after a cursor, which holds the position: pages are of one state, whatever arrives meanwhile."""
        connection, record = _CONNECTIONS[self.level], RECORDS[self.level]
        chosen = node_selection(record, self.level, self.elements)
        elements = "".join(f", $element{n}: String!" for n in range(len(self.elements)))
        total = "" if after else "totalCount"
        document = (
            f"query Page($where: ConditionInput, $ticked: [TickInput!], $asOf: AsOfInput, $orderBy: OrderInput, $first: Int!, $after: String{elements}) "
            f"{{ {connection}(where: $where, ticked: $ticked, asOf: $asOf, orderBy: $orderBy, first: $first, after: $after) "
            f"{{ position {total} pageInfo {{ hasNextPage endCursor }} nodes {{ {chosen} }} }} }}"
        )
        order = {"field": self.order[0], "descending": self.order[1]} if self.order else None
        variables = {**self._variables, "orderBy": order, "first": size, "after": after}
        data = yield from ask(document, {**variables, **{f"element{n}": name for n, name in enumerate(self.elements)}})
        page = data[connection]
        return Page(
            records=[read_record(record, node, self.elements) for node in page["nodes"]],
            position=int(page["position"]),
            cursor=page["pageInfo"]["endCursor"],
            has_more=page["pageInfo"]["hasNextPage"],
            total=page.get("totalCount"),
        )

    def records(self, limit: int | None = None) -> Steps[Page]:
        """All of them, or the first so many, as one page."""
        first = page = yield from self.page(_size(limit, 0))
        found = [*page.records]
        while page.has_more and (limit is None or len(found) < limit):
            page = yield from self.page(_size(limit, len(found)), page.cursor)
            found += page.records
        return replace(page, records=found, total=first.total)


def _size(limit: int | None, found: int) -> int:
    return PAGE_SIZE if limit is None else max(1, min(PAGE_SIZE, limit - found))


def fields(level: str, like: str, first: int) -> Steps[list[FieldInfo]]:
    document = f"query Fields($level: Level!, $like: String!, $first: Int!) {{ fields(level: $level, like: $like, first: $first) {{ {selection(FieldInfo)} }} }}"
    data = yield from ask(document, {"level": as_name(level), "like": like, "first": first})
    return [read(FieldInfo, one) for one in data["fields"]]


def position() -> Steps[int]:
    data = yield from ask("query Position { position }", {})
    return int(data["position"])
