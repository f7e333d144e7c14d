"""How far the FHIR read model has come: what is answered as it stands is as of there."""

from __future__ import annotations

from domain.ids import Position
from projections.checkpoint import reached
from projections.fhir.projection import FhirProjection
from server.services import Services


async def reached_position(services: Services) -> Position:
    return await reached(services.pool, FhirProjection.name, FhirProjection.version)
