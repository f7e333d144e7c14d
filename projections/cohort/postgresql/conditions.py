"""Conditions as SQL on a row of a level. What is not known is false: a comparison may be NULL, and ``Not`` takes NULL for false."""

from __future__ import annotations

from domain.condition import All, Any, Between, Condition, Contains, Followed, Has, Level, Not, OneOf, Present
from projections.cohort.errors import FieldRefused
from projections.cohort.fields import BELONGS_TO, Field, field_named
from projections.cohort.naming import Kind
from projections.cohort.postgresql import searching
from projections.cohort.postgresql.belonging import belongs, related
from projections.cohort.postgresql.statement import Statement
from projections.cohort.postgresql.values import TEXTS, asked_value, element_values, own_value, sql_kind
from projections.cohort.terms import term

Leaf = OneOf | Between | Present | Contains
_RANGES = (Kind.NUMBER, Kind.DATE, Kind.TIME)
_UID_COLUMNS = {"0020000D": "study_uid", "0020000E": "series_uid"}
"""Elements that are one of our own columns too, which has an index."""


def condition(asked: Condition, level: Level, alias: str, s: Statement) -> str:
    """Raises FieldUnknown and FieldRefused."""
    match asked:
        case All(of):
            return _joined([condition(each, level, alias, s) for each in of], " AND ", "true")
        case Any(of):
            return _joined([condition(each, level, alias, s) for each in of], " OR ", "false")
        case Not(of):
            return f"NOT coalesce({condition(of, level, alias, s)}, false)"
        case Has():
            return _has(asked, level, alias, s)
        case Followed():
            return _followed(asked, level, alias, s)
    return _leaf(asked, level, alias, s)


def _joined(parts: list[str], by: str, nothing: str) -> str:
    return "(" + by.join(f"({part})" for part in parts) + ")" if parts else nothing


def _leaf(leaf: Leaf, level: Level, alias: str, s: Statement) -> str:
    field = field_named(leaf.field, level)
    if field.level == level:
        return _met(leaf, field, alias, s)
    above = s.alias()
    return (
        f"EXISTS (SELECT FROM {s.table(field.level, above)} WHERE {above}.id = {belongs(level, alias, field.level, s)}"
        f" AND {s.held(above)} AND {_met(leaf, field, above, s)})"
    )


def _met(leaf: Leaf, field: Field, alias: str, s: Statement) -> str:
    match leaf:
        case Present():
            if field.is_element:
                return f"{alias}.elements ? {s.argument(field.key, 'text')}"
            return f"{own_value(field, alias)} IS NOT NULL"
        case Contains():
            return searching.contains(field, alias, leaf.text, leaf.tolerant, s)
        case OneOf():
            return _one_of(leaf, field, alias, s)
        case Between():
            return _between(leaf, field, alias, s)


def _one_of(leaf: OneOf, field: Field, alias: str, s: Statement) -> str:
    wanted = [asked_value(field, value) for value in leaf.values]
    if not field.is_element:
        if field.kind not in (Kind.NUMBER, Kind.DATE, Kind.BOOLEAN):
            return f"{alias}.{field.column} = ANY({s.argument([value for value in wanted if value], 'text[]')})"
        return f"{own_value(field, alias)} = ANY({s.argument(wanted, sql_kind(field) + '[]')})"
    if field.kind in TEXTS:
        return searching.has_terms(field, alias, [term(field.key, value) for value in wanted if value], s)
    if field.kind == Kind.NUMBER:
        return f"EXISTS (SELECT FROM ({element_values(field, alias, s)}) e WHERE e.value = ANY({s.argument(wanted, 'double precision[]')}))"
    here = f"({alias}.elements -> {s.argument(field.key, 'text')}) ?| {s.argument(wanted, 'text[]')}"
    if field.key in _UID_COLUMNS:
        return f"{alias}.{_UID_COLUMNS[field.key]} = ANY({s.argument(wanted, 'text[]')}) AND {here}"
    return here


def _between(leaf: Between, field: Field, alias: str, s: Statement) -> str:
    if field.kind not in _RANGES:
        raise FieldRefused(f"{field.name} is a {field.kind}: it has no ranges, ask for one of its values")
    bounds = [(sign, bound) for sign, bound in ((">=", leaf.at_least), (">", leaf.more_than), ("<=", leaf.at_most), ("<", leaf.less_than)) if bound is not None]
    if not bounds:
        raise FieldRefused(f"a range of {field.name} needs a bound")
    said = [f"%s {sign} {s.argument(asked_value(field, bound), sql_kind(field))}" for sign, bound in bounds]
    if not field.is_element:
        return " AND ".join(one % own_value(field, alias) for one in said)
    lies = " AND ".join(one % "e.value" for one in said)
    if leaf.every:
        key = s.argument(field.key, "text")
        return f"{alias}.elements ? {key} AND NOT EXISTS (SELECT FROM ({element_values(field, alias, s)}) e WHERE NOT ({lies}))"
    return f"EXISTS (SELECT FROM ({element_values(field, alias, s)}) e WHERE {lies})"


def _has(has: Has, level: Level, alias: str, s: Statement) -> str:
    is_settled = has.at_least < 1 or (has.at_least > 1 and has.level in BELONGS_TO[level])
    into = Statement(0) if is_settled else s
    there = into.alias()
    joined = related(level, alias, has.level, there, into)
    where = condition(has.where, has.level, there, into) if has.where is not None else "true"
    if is_settled:
        return "true" if has.at_least < 1 else "false"
    rows = f"FROM {s.table(has.level, there)} WHERE {joined} AND {s.held(there)} AND ({where})"
    if has.at_least == 1:
        return f"EXISTS (SELECT {rows})"
    return f"(SELECT count(*) FROM (SELECT {rows} LIMIT {has.at_least:d}) n) = {has.at_least:d}"


def _followed(asked: Followed, level: Level, alias: str, s: Statement) -> str:
    if level != Level.SUBJECT:
        raise FieldRefused("a follow-up is asked of subjects")
    first, second = s.alias(), s.alias()
    baseline = condition(asked.baseline, Level.STUDY, first, s)
    follow_up = condition(asked.follow_up, Level.STUDY, second, s)
    days = f"{second}.study_date - {first}.study_date"
    spans = f"{days} >= {s.argument(asked.at_least_days, 'bigint')}"
    if asked.at_most_days is not None:
        spans += f" AND {days} <= {s.argument(asked.at_most_days, 'bigint')}"
    return (
        f"EXISTS (SELECT FROM {s.table(Level.STUDY, first)} JOIN {s.table(Level.STUDY, second)}"
        f" ON {second}.subject = {first}.subject AND {second}.id <> {first}.id AND {spans}"
        f" WHERE {first}.subject = {alias}.id AND {s.held(first)} AND {s.held(second)} AND ({baseline}) AND ({follow_up}))"
    )
