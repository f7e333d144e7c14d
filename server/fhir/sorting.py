"""`_sort`: by any parameter that has rows, by `_id` and by `_lastUpdated` (R5 search.html#sort).

Of several values the least counts where the order ascends, the greatest where it descends; an interval counts by where it begins.
What has none comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from projections.fhir.projection import SCHEMA
from projections.fhir.search.parameters import TABLES, is_single
from server.fhir.as_of import Given
from server.fhir.conditions import of
from server.fhir.outcome import FhirError
from server.fhir.parameters import known_parameter

SORT = "_sort"
MAX_KEYS = 4
_COLUMNS = {
    "token": ("code", "text"),
    "reference": ("target", "text"),
    "string": ("folded", "text"),
    "uri": ("value", "text"),
    "date": ("low", "timestamptz"),
    "number": ("low", "float8"),
    "quantity": ("canonical_low", "float8"),
}
"""Type of a parameter → the column that counts, and its type."""


class SortKey(msgspec.Struct, frozen=True, kw_only=True):
    column: str
    """Of the version itself, or of the rows of ``table``."""
    kind: str
    """text, timestamptz or float8."""
    is_descending: bool
    table: str | None = None
    numbers: tuple[int, ...] = ()
    is_single: bool = False
    """No version has more than one value."""

    @property
    def direction(self) -> str:
        return "DESC" if self.is_descending else "ASC"

    @property
    def order(self) -> str:
        return self.direction if self.table is None else f"{self.direction} NULLS LAST"

    def sql(self, version: str) -> str:
        if self.table is None:
            return f"{version}.{self.column}"
        best = "max" if self.is_descending else "min"
        return f"(SELECT {best}(s.{self.column}) FROM {SCHEMA}.{self.table} s WHERE s.key = {version}.key AND {of(self.numbers, 's')})"

    def rows(self) -> str:
        """Every value with the key of its version, source by source, so that each comes from an index in order."""
        place = "" if self.is_single else ", ctid AS place"
        each = f"(SELECT key, {self.column} AS value{place} FROM {SCHEMA}.{self.table} WHERE source = {{}} ORDER BY {self.column} {self.direction})"
        return " UNION ALL ".join(each.format(one) for one in self.numbers)

    def best(self, row: str) -> str:
        """That a version has no other value that counts before this one, nor the same once more."""
        if self.is_single:
            return ""
        value, better = f"s.{self.column}", ">" if self.is_descending else "<"
        before = f"({value} {better} {row}.value OR ({value} = {row}.value AND s.ctid < {row}.place))"
        return f" AND NOT EXISTS (SELECT FROM {SCHEMA}.{self.table} s WHERE s.key = {row}.key AND {of(self.numbers, 's')} AND {before})"

    def beyond(self, row: str, mark: list[Any], argument: Callable[[object], str]) -> str:
        """That a value, or among equal ones a key, comes after those of the mark."""
        value, key = argument(self.value(mark[0])), argument(mark[-1])
        sign = "<" if self.is_descending else ">"
        return f" AND {row}.value {sign}= {value} AND ({row}.value {sign} {value} OR r.key > {key})"

    def value(self, written: Any) -> object:
        """As PostgreSQL compares it, of what stands in a mark."""
        return datetime.fromisoformat(written) if self.kind == "timestamptz" else written

    def has_row(self, version: str) -> str:
        return f"EXISTS (SELECT FROM {SCHEMA}.{self.table} s WHERE s.key = {version}.key AND {of(self.numbers, 's')})"


def sort_keys(resource_type: str, given: Given, *, lenient: bool) -> tuple[list[SortKey], list[str]]:
    """In order of weight, and the names that were left out because ``lenient`` handling was preferred. Raises FhirError (400)."""
    keys: list[SortKey] = []
    ignored: list[str] = []
    for one in (part.strip() for name, value in given if name == SORT for part in value.split(",")):
        code = one.removeprefix("-")
        found = _key(resource_type, code, is_descending=one.startswith("-"))
        if found is not None:
            keys.append(found)
        elif lenient:
            ignored.append(SORT)
        else:
            raise FhirError(400, "not-supported", f"{resource_type} cannot be sorted by {code!r}", f"http.{SORT}")
    if len(keys) > MAX_KEYS:
        raise FhirError(400, "too-costly", f"{SORT} takes at most {MAX_KEYS} parameters", f"http.{SORT}")
    return keys, ignored


def later(keys: Sequence[SortKey], mark: list[Any], argument: Callable[[object], str], columns: Sequence[str]) -> str:
    """What comes after the row whose values and key these are; ``columns`` are where the values stand."""
    test = f"r.key > {argument(mark[-1])}"
    for nth in reversed(range(len(keys))):
        column, value = columns[nth], mark[nth]
        if value is None:  # they come last: after it are only others that have none
            test = f"({column} IS NULL AND {test})"
            continue
        given = argument(keys[nth].value(value))
        sign = "<" if keys[nth].is_descending else ">"
        test = f"({column} {sign} {given} OR {column} IS NULL OR ({column} = {given} AND {test}))"
    return test


def _key(resource_type: str, code: str, *, is_descending: bool) -> SortKey | None:
    if code == "_id":
        return SortKey(column="id", kind="text", is_descending=is_descending)
    if code == "_lastUpdated":
        return SortKey(column="last_updated", kind="timestamptz", is_descending=is_descending)
    parameter = known_parameter(resource_type, code)
    if parameter is None or parameter.type not in _COLUMNS or not parameter.looks:
        return None
    column, kind = _COLUMNS[parameter.type]
    return SortKey(
        column=column,
        kind=kind,
        is_descending=is_descending,
        table=TABLES[parameter.type],
        numbers=tuple(sorted({look.source.number for look in parameter.looks})),
        is_single=parameter.type == "date" and is_single(resource_type, parameter),
    )
