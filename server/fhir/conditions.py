"""What a search asks of a resource, as SQL on a version's row: that some row of a source holds, or none, or that another resource does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from projections.fhir.projection import SCHEMA
from projections.fhir.search.parameters import TABLES, Look, Parameter
from server.fhir.comparisons import DateTest, Test, any_of


class Statement(Protocol):
    """What conditions write into."""

    def argument(self, value: object) -> str: ...
    def held(self, alias: str) -> str: ...
    def alias(self) -> str:
        """Of another resource: a new one each time."""


class Condition(Protocol):
    def sql(self, version: str, statement: Statement) -> str:
        """``version`` is the alias of a row of ``resource``."""


def joined(condition: Condition, version: str, statement: Statement, tables: list[str], beyond: str = "") -> list[str]:
    """The condition as tests on ``tables``, to which those that it looks into are added, so that the planner may begin with whichever
    finds least. A version then comes once for each row that passes. What is no plain look stays one test.

    ``beyond``: the key behind which a page begins. Said of the rows, too, an index in the order of keys begins there.
    """
    match condition:
        case HasRow(is_negated=False):
            row = statement.alias()
            tables.append(f"{condition.rows(statement)} {row}")
            begins = [f"{row}.key > {beyond}"] if beyond else []
            return [f"{row}.key = {version}.key", *begins, of(condition.numbers, row), any_of([test(row, statement.argument) for test in condition.tests])]
        case Chained(numbers=numbers, alternatives=((target_type, inner),)):
            link, other = statement.alias(), statement.alias()
            tables += [f"{SCHEMA}.reference {link}", f"{SCHEMA}.resource {other}"]
            refers = [f"{link}.key = {version}.key", of(numbers, link), *_leads_to(link, target_type, other, statement)]
            return [*refers, f"{other}.type = {statement.argument(target_type)}", statement.held(other), *joined(inner, other, statement, tables)]
        case ReferredBy(numbers=numbers, other_type=other_type, inner=inner):
            link, other = statement.alias(), statement.alias()
            tables += [f"{SCHEMA}.reference {link}", f"{SCHEMA}.resource {other}"]
            refers = [f"{link}.key = {other}.key", of(numbers, link), *_leads_to(link, condition.own_type, version, statement)]
            return [*refers, f"{other}.type = {statement.argument(other_type)}", statement.held(other), *joined(inner, other, statement, tables)]
    return [condition.sql(version, statement)]


def _leads_to(link: str, target_type: str, version: str, statement: Statement) -> list[str]:
    """From either end: the target is looked up by the id, or the id by the target."""
    prefix = f"{target_type}/"
    return [f"{link}.target = {statement.argument(prefix)} || {version}.id", f"{version}.id = substr({link}.target, {len(prefix) + 1})"]


class HasId(msgspec.Struct, frozen=True):
    ids: tuple[str, ...]
    is_negated: bool = False

    def sql(self, version: str, statement: Statement) -> str:
        test = f"{version}.id = ANY({statement.argument(list(self.ids))}::text[])"
        return f"NOT {test}" if self.is_negated else test


class WasUpdated(msgspec.Struct, frozen=True):
    tests: tuple[Test, ...]

    def sql(self, version: str, statement: Statement) -> str:
        return any_of([test(version, statement.argument) for test in self.tests])


class Never(msgspec.Struct, frozen=True):
    """What no resource can have: a reference to a type that the parameter does not take."""

    def sql(self, version: str, statement: Statement) -> str:
        return "FALSE"


class HasRow(msgspec.Struct, frozen=True):
    """Some row of these sources passes one of the tests; negated, none does."""

    table: str
    numbers: tuple[int, ...]
    tests: tuple[Test, ...]
    is_negated: bool = False

    def sql(self, version: str, statement: Statement) -> str:
        tests = any_of([test("s", statement.argument) for test in self.tests])
        exists = f"EXISTS (SELECT FROM {self.rows(statement)} s WHERE s.key = {version}.key AND {of(self.numbers, 's')} AND {tests})"
        return f"NOT {exists}" if self.is_negated else exists

    def rows(self, statement: Statement) -> str:
        """The table, or those of its rows that can be looked up."""
        table, (first, *others) = f"{SCHEMA}.{self.table}", self.tests
        found = first.rows(table, of(self.numbers, "d"), statement.argument) if isinstance(first, DateTest) and not others else None
        return found or table


class IsMissing(msgspec.Struct, frozen=True):
    """No source of the parameter has a row; or, not missing, some has."""

    looks: tuple[tuple[str, Look], ...]
    """With the table of each."""
    is_missing: bool

    def sql(self, version: str, statement: Statement) -> str:
        tests = any_of([_has_row(version, table, look, statement) for table, look in self.looks])
        return f"NOT {tests}" if self.is_missing else tests


class HasParts(msgspec.Struct, frozen=True):
    """A composite: its parts are in one container, each alternative a test for each part."""

    parts: tuple[tuple[str, tuple[Look, ...]], ...]
    """Table and looks of each."""
    alternatives: tuple[tuple[Test, ...], ...]

    def sql(self, version: str, statement: Statement) -> str:
        return any_of([self._in(container, version, tests, statement) for container in self._containers() for tests in self.alternatives])

    def _containers(self) -> list[str]:
        return sorted({_container(look) for _, looks in self.parts for look in looks})

    def _in(self, container: str, version: str, tests: tuple[Test, ...], statement: Statement) -> str:
        joined, conditions = [], []
        for nth, ((table, looks), test) in enumerate(zip(self.parts, tests, strict=True)):
            numbers = tuple(look.source.number for look in looks if _container(look) == container)
            if not numbers:
                return "FALSE"
            joined.append(f"{SCHEMA}.{table} p{nth}")
            conditions += [f"p{nth}.key = {version}.key", of(numbers, f"p{nth}"), test(f"p{nth}", statement.argument)]
            if nth:
                conditions.append(f"p{nth}.nth = p0.nth")
        return f"EXISTS (SELECT FROM {', '.join(joined)} WHERE {' AND '.join(conditions)})"


class Chained(msgspec.Struct, frozen=True):
    """It refers to a resource of a type for which a condition holds (R5 search.html#chaining). Alternatives by type."""

    numbers: tuple[int, ...]
    alternatives: tuple[tuple[str, Condition], ...]

    def sql(self, version: str, statement: Statement) -> str:
        return any_of([self._to(target_type, inner, version, statement) for target_type, inner in self.alternatives])

    def _to(self, target_type: str, inner: Condition, version: str, statement: Statement) -> str:
        other, kind = statement.alias(), statement.argument(target_type)
        return (
            f"EXISTS (SELECT FROM {SCHEMA}.reference l JOIN {SCHEMA}.resource {other} ON {other}.type = {kind}"
            f" AND l.target = {statement.argument(f'{target_type}/')} || {other}.id AND {statement.held(other)}"
            f" WHERE l.key = {version}.key AND {of(self.numbers, 'l')} AND {inner.sql(other, statement)})"
        )


class ReferredBy(msgspec.Struct, frozen=True):
    """A resource of a type refers to it, for which a condition holds (R5 search.html#has)."""

    own_type: str
    other_type: str
    numbers: tuple[int, ...]
    inner: Condition

    def sql(self, version: str, statement: Statement) -> str:
        other = statement.alias()
        return (
            f"EXISTS (SELECT FROM {SCHEMA}.reference l JOIN {SCHEMA}.resource {other} ON {other}.key = l.key"
            f" AND {other}.type = {statement.argument(self.other_type)} AND {statement.held(other)}"
            f" WHERE l.target = {statement.argument(f'{self.own_type}/')} || {version}.id AND {of(self.numbers, 'l')}"
            f" AND {self.inner.sql(other, statement)})"
        )


KEYED = (HasRow, IsMissing, HasParts)
"""Conditions that ask for nothing of a version but its key."""


def of(numbers: Sequence[int], alias: str) -> str:
    """Numbers of sources stand in the text: the planner then knows how many rows each has."""
    return f"{alias}.source = {numbers[0]}" if len(numbers) == 1 else f"{alias}.source IN ({', '.join(map(str, numbers))})"


def looks_of(parameter: Parameter) -> tuple[tuple[str, Look], ...]:
    own = tuple((TABLES[look.source.kind], look) for look in parameter.looks)
    return own + tuple((TABLES[part.kind], look) for part in parameter.parts for look in part.looks)


def _container(look: Look) -> str:
    return look.source.container.path if look.source.container is not None else ""


def _has_row(version: str, table: str, look: Look, statement: Statement) -> str:
    targets = ""
    if look.target is not None:  # here, or elsewhere
        here, elsewhere = statement.argument(f"{look.target}/%"), statement.argument(f"%/{look.target}/%")
        targets = f" AND (s.target LIKE {here} OR s.target LIKE {elsewhere})"
    return f"EXISTS (SELECT FROM {SCHEMA}.{table} s WHERE s.key = {version}.key AND s.source = {look.source.number}{targets})"
