"""Text that holds a text: looked up in the dictionary of values by trigrams, and then in the rows that have these values.

The dictionary is asked first, so that the planner knows which values are meant, and how many rows have them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import asyncpg

from domain.condition import All, Any, Condition, Contains, Followed, Has, Level, Not
from projections.cohort.errors import FieldRefused
from projections.cohort.fields import Field, field_named
from projections.cohort.postgresql.statement import Statement
from projections.cohort.postgresql.values import TEXTS
from projections.cohort.projection import SCHEMA
from projections.cohort.terms import GRAM, folded, least_common, searched, words
from projections.dicom.folding import grams

FEW = 16
"""Values that rows are compared with at once."""


async def begun(pool: asyncpg.Pool, position: int, level: Level, where: Condition | None) -> Statement:
    """A statement that knows the values which hold the texts that are asked for. Raises FieldUnknown and FieldRefused."""
    s = Statement(position)
    for field, text, tolerant in dict.fromkeys(_texts(where, level)):
        s.holding[_dictionary_key(field), text, tolerant] = await _values(pool, field, text, tolerant)
    return s


def contains(field: Field, alias: str, text: str, tolerant: bool, s: Statement) -> str:
    """That a value of the field holds the text."""
    found = s.holding.get((_dictionary_key(field), text, tolerant), [])
    if not found:
        return "false"
    if field.is_element:
        return has_terms(field, alias, [term for term, _ in found], s)
    return f"{alias}.{field.column} = ANY({s.argument([value for _, value in found], 'text[]')})"


def has_terms(field: Field, alias: str, terms: Sequence[int], s: Statement) -> str:
    """That a row has one of these values. Many are looked up one by one: to compare every row with all of them would take minutes."""
    wanted = s.argument(terms, "bigint[]")
    if len(terms) <= FEW:
        return f"{alias}.terms && {wanted}"
    there = s.alias()
    return (
        f"({alias}.id, {alias}.position_from) IN (SELECT f.id, f.position_from FROM unnest({wanted}) AS w (term) CROSS JOIN LATERAL"
        f" (SELECT {there}.id, {there}.position_from FROM {s.table(field.level, there)} WHERE {there}.terms @> ARRAY[w.term] AND {s.held(there)} OFFSET 0) f)"
    )


def _texts(where: Condition | None, level: Level) -> Iterator[tuple[Field, str, bool]]:
    match where:
        case All(of) | Any(of):
            for each in of:
                yield from _texts(each, level)
        case Not(of):
            yield from _texts(of, level)
        case Has():
            yield from _texts(where.where, where.level)
        case Followed():
            yield from _texts(where.baseline, Level.STUDY)
            yield from _texts(where.follow_up, Level.STUDY)
        case Contains():
            field = field_named(where.field, level)
            if field.kind not in TEXTS:
                raise FieldRefused(f"{field.name} is a {field.kind}: text within it cannot be searched, ask for the whole value")
            yield field, where.text, where.tolerant


async def _values(pool: asyncpg.Pool, field: Field, text: str, tolerant: bool) -> list[tuple[int, str]]:
    """Terms and values."""
    s = Statement()
    wanted, key = folded(text.replace("\0", " ")), _dictionary_key(field)
    of_key = f"key = {s.argument(key, 'text')}"
    holds = f"strpos(folded, {s.argument(wanted, 'text')}) > 0"
    if len(wanted) >= GRAM:
        holds = f"grams @> {s.argument(searched(key, wanted), 'integer[]')} AND {holds}"
    alike = grams(key, words(wanted)) if tolerant else []
    if alike:
        asked = s.argument(alike, "integer[]")
        common = f"(SELECT count(*) FROM unnest(grams) AS g (gram) WHERE g.gram = ANY({asked}))"
        holds = f"({holds} OR (grams && {asked} AND {common} >= {least_common(len(alike))}))"
    rows = await pool.fetch(f"SELECT term, value FROM {SCHEMA}.text_value WHERE {of_key} AND {holds}", *s.arguments)
    return [(row["term"], row["value"]) for row in rows]


def _dictionary_key(field: Field) -> str:
    return field.key if field.is_element else f"{field.level}.{field.column}"
