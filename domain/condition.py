"""What a cohort builder asks: conditions on subjects, studies, series and findings, as a tree that can be stored and asked again.

A condition is true or false of one entity, never unknown: a comparison of what has no value is false, and ``Not`` of it true. Where a
field has several values (ImageType, what differs between the instances of a series), one that meets the condition is enough, unless
``every`` says that all have to. A field of what an entity belongs to (sex, of a series) is looked up there; what belongs *to* an
entity is asked for by ``Has``.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

Value = str | float | bool
"""A date is YYYY-MM-DD, a time HH:MM:SS, a number in the field's unit."""


class Level(StrEnum):
    """What is counted and listed. Facts are what clinical records say of a subject; a tag is on a thing of any level or a project."""

    SUBJECT = "subject"
    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"
    FINDING = "finding"
    FACT = "fact"
    TAG = "tag"


class OneOf(msgspec.Struct, frozen=True, tag="one-of", tag_field="is"):
    """The field has one of these values. Text is compared as it is, numbers as numbers."""

    field: str
    values: tuple[Value, ...]


class Between(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="between", tag_field="is"):
    """The field lies between bounds: numbers, dates or times. At least one bound is given."""

    field: str
    at_least: float | str | None = None
    more_than: float | str | None = None
    at_most: float | str | None = None
    less_than: float | str | None = None
    every: bool = False
    """All of its values lie there, and it has one."""


class Present(msgspec.Struct, frozen=True, tag="present", tag_field="is"):
    """The field has a value."""

    field: str


class Contains(msgspec.Struct, frozen=True, omit_defaults=True, tag="contains", tag_field="is"):
    """The field's text holds this text, whatever the case and accents. ``tolerant``: also with letters wrong (trigrams, see search)."""

    field: str
    text: str
    tolerant: bool = False


class All(msgspec.Struct, frozen=True, tag="all", tag_field="is"):
    """Each of these holds; of none: true."""

    of: tuple[Condition, ...]


class Any(msgspec.Struct, frozen=True, tag="any", tag_field="is"):
    """One of these holds; of none: false."""

    of: tuple[Condition, ...]


class Not(msgspec.Struct, frozen=True, tag="not", tag_field="is"):
    of: Condition


class Has(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="has", tag_field="is"):
    """At least so many of what belongs to the entity meet the condition.

    A subject has studies, series, findings and facts; a study has series and findings; a series has findings; each of them has
    tags. Of a level above the entity, what is meant is what the entity belongs to: a series "has" facts of its subject, and
    ``Has(level=subject, where=…)`` of a series is a condition on its subject.
    """

    level: Level
    where: Condition | None = None
    at_least: int = 1


class Followed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="followed", tag_field="is"):
    """Of a subject: it has a study that meets ``baseline``, and another one so many days later that meets ``follow_up``.

    Both are conditions on studies; studies without a date take no part. Days are from date to date; both bounds are included.
    """

    baseline: Condition
    follow_up: Condition
    at_least_days: int = 1
    at_most_days: int | None = None


Condition = OneOf | Between | Present | Contains | All | Any | Not | Has | Followed


class Query(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The entities of a level that meet a condition; all of them without one."""

    level: Level
    where: Condition | None = None


_ENCODER = msgspec.json.Encoder(order="sorted")
_DECODER = msgspec.json.Decoder(Query)


def encode(query: Query) -> bytes:
    """The same bytes for the same query, whoever writes it."""
    return _ENCODER.encode(query)


def decode(data: bytes) -> Query:
    """Raises msgspec.ValidationError, whose text says where (``at $.where.of[1]``)."""
    return _DECODER.decode(data)
