"""What belongs to what, as SQL: from a row of one level to those of another."""

from __future__ import annotations

from domain.condition import Level
from projections.cohort.errors import FieldRefused
from projections.cohort.fields import BELONGS_TO
from projections.cohort.postgresql.statement import Statement

TAGGED = (Level.SUBJECT, Level.STUDY, Level.SERIES, Level.INSTANCE)


def belongs(level: Level, alias: str, above: Level, s: Statement) -> str:
    """The id of what a row belongs to."""
    if level == above:
        return f"{alias}.id"
    if level == Level.INSTANCE and above != Level.SERIES:
        series = s.alias()
        return f"(SELECT {series}.{above} FROM {s.table(Level.SERIES, series)} WHERE {series}.id = {alias}.series AND {s.held(series)})"
    return f"{alias}.{above}"


def related(level: Level, alias: str, other: Level, there: str, s: Statement) -> str:
    """That a row of another level belongs to this one, or this one to it. Raises FieldRefused where neither can be."""
    if other in BELONGS_TO[level]:
        return f"{there}.id = {belongs(level, alias, other, s)}"
    if level in BELONGS_TO[other]:
        if other == Level.INSTANCE and level != Level.SERIES:
            series = s.alias()
            return f"{there}.series IN (SELECT {series}.id FROM {s.table(Level.SERIES, series)} WHERE {series}.{level} = {alias}.id AND {s.held(series)})"
        return f"{there}.{level} = {alias}.id"
    if other == Level.TAG and level in (*TAGGED, Level.FINDING):
        return f"{there}.level = {s.argument(str(level), 'text')} AND {there}.target = {alias}.id"
    if other == Level.FACT and Level.SUBJECT in BELONGS_TO[level] and level != Level.FACT:
        return f"{there}.subject = {belongs(level, alias, Level.SUBJECT, s)}"
    raise FieldRefused(f"a {level} has no {other}")
