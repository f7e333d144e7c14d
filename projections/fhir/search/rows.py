"""The rows that a version of a resource is found by: one for each value that some search parameter of its type looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import msgspec

from projections.fhir.definitions import resource_types
from projections.fhir.fhirpath import Branch, Values
from projections.fhir.search.parameters import TABLES, Source, number_of, sources
from projections.fhir.search.values import CONVERTERS, Converter, identifiers_of_references, identifiers_of_type

Json = dict[str, Any]
Row = tuple[Any, ...]
"""Number of the source, what is compared (see values), which of the containers of a composite, key of the version."""
Rows = dict[str, list[Row]]
"""By table."""
_Job = Callable[[Json, int, Rows], None]


LABELS = frozenset({"meta.profile", "meta.security", "meta.tag"})
"""What a resource is labelled with."""
LABEL = -1
"""In place of the number of a container, of rows of labels: an index of their own tells which labels there are."""


class Plan(msgspec.Struct, frozen=True):
    """What there is to do for a resource of a type."""

    by_name: dict[str, tuple[tuple[str | None, _Job], ...]]
    """Name of a top-level element → what there is to do where a resource has it, and some of it the name within."""
    always: tuple[_Job, ...]


def no_rows() -> Rows:
    return {table: [] for table in TABLES.values()}


def add_rows(body: Json, key: int, rows: Rows, plan: Plan | None = None) -> None:
    """Appends the rows of a resource, in the order of its elements, so that the same resource gives the same rows.

    Of all parameters that its type has in R5 and in the guide, or of those that the plan is for.
    """
    if plan is None:
        plan = _plan(body["resourceType"])
    for name, value in body.items():
        jobs = plan.by_name.get(name)
        if jobs is not None:
            within = _names(value)
            for second, job in jobs:
                if second is None or second in within:
                    job(body, key, rows)
    for job in plan.always:
        job(body, key, rows)


def compile_all() -> None:
    """For every type, what its first resource would have to wait for. Takes about a second."""
    for resource_type in resource_types():
        _plan(resource_type)


def _names(value: Any) -> set[str]:
    """Of the elements within one, or within any of a list."""
    if type(value) is dict:
        return set(value)
    return {name for one in value if type(one) is dict for name in one} if type(value) is list else set()


def of_type_number(source: Source) -> int:
    """Of the rows that `:of-type` looks at."""
    return number_of("", "of-type", "", str(source.number), "")


def rows_of(source: Source) -> tuple[tuple[str, int], ...]:
    """The tables, and the numbers in them, under which a source may have rows."""
    own = (TABLES[source.kind], source.number)
    if source.kind == "reference":
        return (own, ("token", source.number))
    return (own, ("token", of_type_number(source))) if source.kind == "token" else (own,)


@cache
def _plan(resource_type: str) -> Plan:
    return plan_of(sources(resource_type))


def plan_of(of_sources: Iterable[Source]) -> Plan:
    """For the rows of these sources, all of one type of resource."""
    by_name: dict[str, list[tuple[str | None, _Job]]] = {}
    always: list[_Job] = []
    for source in of_sources:
        jobs = [_job(source, source.number, CONVERTERS[source.kind], TABLES[source.kind])]
        if source.kind == "reference" and source.branch.type in ("Reference", "CodeableReference"):
            jobs.append(_job(source, source.number, identifiers_of_references, "token"))
        if source.kind == "token" and source.branch.type == "Identifier":
            jobs.append(_job(source, of_type_number(source), identifiers_of_type, "token"))
        first, second = _first_names(source)
        if first is None:
            always += jobs
        else:
            by_name.setdefault(first, []).extend((second, job) for job in jobs)
    return Plan({name: tuple(jobs) for name, jobs in by_name.items()}, tuple(always))


def _first_names(source: Source) -> tuple[str | None, str | None]:
    """The names without which there is nothing to do; None where that cannot be told."""
    if source.container is None:
        return source.branch.first, source.branch.second
    inner = source.branch.first if len(source.container.steps) == 1 else source.container.second
    return source.container.first, inner


def _job(source: Source, number: int, convert: Converter, table: str) -> _Job:
    values, value_type, container = _way(source.branch), source.branch.type, source.container
    if container is None:
        nth = LABEL if source.branch.path in LABELS else 0

        def add(body: Json, key: int, rows: Rows) -> None:
            found = values(body)
            if found:
                made = [(number, *columns, nth, key) for value in found for columns in convert(value, value_type)]
                rows[table] += made if len(made) < 2 else dict.fromkeys(made)

        return add

    containers = _way(container)

    def add_parts(body: Json, key: int, rows: Rows) -> None:
        made = [
            (number, *columns, nth, key)
            for nth, inner in enumerate(containers(body))
            for value in values(inner)
            for columns in convert(value, value_type)
        ]
        rows[table] += dict.fromkeys(made)

    return add_parts


def _way(branch: Branch) -> Callable[[Any], Values]:
    """The branch as a function; of one step without what a loop over steps costs."""
    if len(branch.steps) == 1:
        (step,) = branch.steps
        return lambda node: step([node])
    return branch.values
