"""DICOM elements of a study or a series, as its headers have them."""

from __future__ import annotations

from typing import Any

import strawberry

from domain.condition import Level
from projections.cohort.errors import FieldUnknown
from projections.cohort.fields import Field, field_named
from server.graphql.context import recordable
from server.graphql.nodes.node import Node
from server.graphql.rows import elements_of
from server.graphql.scalars import Value


@strawberry.type(description="A DICOM element as the headers have it.")
class Element:
    tag: str = strawberry.field(description="GGGGEEEE in hexadecimal digits; of private ones group, creator and element; joined by points within sequences.")
    name: str = strawberry.field(description="Its keyword; of private ones as `tag`.")
    unit: str = strawberry.field(description="UCUM code of the unit of a number; empty where it has none.")
    values: list[Value] = strawberry.field(description="Its distinct values, numbers as numbers, dates as YYYY-MM-DD.")


@strawberry.interface(description="What has DICOM headers.")
class WithElements:
    @strawberry.field(description="A DICOM element by keyword, number or private creator (`SliceThickness`, `00180050`); null where no header of this level has it.")
    async def element(self, name: str) -> Element | None:
        found = elements(self, [name])
        return found[0] if found else None

    @strawberry.field(description="DICOM elements by keyword, number or private creator, those that are there.")
    async def elements(self, names: list[str]) -> list[Element]:
        return elements(self, names)


def elements(node: Any, names: list[str]) -> list[Element]:
    """Raises FieldUnknown, and ScopeMissing for an element that identifies."""
    assert isinstance(node, Node)
    fields = [_element(name, node.level) for name in names]
    if any(field.identifies for field in fields):
        node.reading.context.require_identities()
    node.reading.context.fields.update(recordable(field.name for field in fields))
    known = elements_of(node.row)
    return [
        Element(tag=field.key, name=field.name, unit=field.unit, values=[Value(one) for one in known[field.key]])
        for field in fields
        if field.level is node.level and field.key in known
    ]


def _element(name: str, level: Level) -> Field:
    field = field_named(name, level)
    if field.is_element:
        return field
    raise FieldUnknown(f"{name} is no DICOM element: ask for the field of that name")


def first(known: dict[str, list[Any]], key: str) -> Any:
    """The first value of an element."""
    values = known.get(key)
    return values[0] if values else None


def first_text(known: dict[str, list[Any]], key: str) -> str | None:
    value = first(known, key)
    return None if value is None else str(value)


def first_number(known: dict[str, list[Any]], key: str) -> float | None:
    value = first(known, key)
    return float(value) if isinstance(value, int | float) else None
