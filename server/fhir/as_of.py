"""`_asof` in a FHIR request, and instants in `_at` and `_since`: where they cannot be meant, an OperationOutcome that names them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from domain.ids import Position
from projections.fhir.projection import FhirProjection
from server.as_of import PARAMETER, AsOfInvalid, known_position, period, written
from server.fhir.outcome import FhirError

Given = Sequence[tuple[str, str]]


async def asked_position(pool: asyncpg.Pool, given: Given) -> Position | None:
    """The position that these parameters ask for, once the read model has it; None for as it stands.

    Raises FhirError (400) and ProjectionBehind.
    """
    try:
        text = written(given)
        return None if text is None else await known_position(pool, FhirProjection(), text)
    except AsOfInvalid as error:
        raise FhirError(400, "value", f"{PARAMETER}: {error}", f"http.{PARAMETER}") from error


def asked_period(given: Given, name: str) -> tuple[datetime, datetime] | None:
    """The interval that the date or instant of a parameter covers. Raises FhirError (400)."""
    text = single(given, name)
    try:
        return None if text is None else period(text)
    except AsOfInvalid as error:
        raise FhirError(400, "value", f"{name}: {error}", f"http.{name}") from error


def single(given: Given, name: str) -> str | None:
    """The value of a parameter that may be given once. Raises FhirError (400)."""
    values = [value for one, value in given if one == name]
    if len(values) > 1:
        raise FhirError(400, "value", f"{name} is given {len(values)} times: give it once", f"http.{name}")
    return values[0] if values else None
