"""The DICOM read model as it stands, or as of a position: which rows a statement reads, and which position its answer has.

A statement over the rows as they stand names the tables alone, and reads the checkpoint in the same snapshot. One as of a
position reads the history beside them. Both have the same columns and the same order, so the answers are the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import asyncpg
import msgspec
from fastapi import Request

from domain.ids import Position
from projections.dicom.projection import NAME, SCHEMA, VERSION, DicomProjection
from server.as_of import PARAMETER, AsOfInvalid, known_position, written
from server.dicomweb.errors import QueryInvalid
from server.services import Services

_EVER = 2**63 - 1


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """Parts of a statement: what to select studies and series from, and the position as an expression."""

    study: str
    series: str
    position: str
    is_past: bool

    def held(self, alias: str) -> str:
        """The condition on studies or series of this alias."""
        return f"{alias}.position <= {self.position} AND {alias}.position_to > {self.position}" if self.is_past else "true"

    def was_there(self, alias: str) -> str:
        """The condition on instances, which stay what they are once they are there."""
        return f"{alias}.position <= {self.position}" if self.is_past else "true"


AS_IT_STANDS = Rows(
    study=f"{SCHEMA}.study",
    series=f"{SCHEMA}.series",
    position=f"(SELECT position FROM public.projection_checkpoint WHERE name = '{NAME}' AND version = {VERSION})",
    is_past=False,
)


def as_of(placeholder: str) -> Rows:
    """As of the position that this parameter of the statement has."""
    return Rows(study=_with_history("study"), series=_with_history("series"), position=f"{placeholder}::bigint", is_past=True)


def _with_history(table: str) -> str:
    """Every version of a study or series: PostgreSQL takes a search apart over both tables, each by its own index."""
    return f"(SELECT *, {_EVER} AS position_to FROM {SCHEMA}.{table} UNION ALL SELECT * FROM {SCHEMA}.{table}_history)"


async def asked_position(request: Request) -> Position | None:
    """The position that the request asks to be answered as of, once the read model has it; None for as it stands.

    Raises QueryInvalid and ProjectionBehind.
    """
    services: Services = request.app.state.services
    try:
        text = written(request.query_params.multi_items())
        return None if text is None else await known_position(services.pool, DicomProjection(), text)
    except AsOfInvalid as error:
        raise QueryInvalid(f"{PARAMETER}: {error}") from error


async def fetch(request: Request, statement: Callable[[Rows], str], *uids: str) -> list[asyncpg.Record]:
    """The rows of a statement about what the path names, as of the position that is asked for or as it stands."""
    services: Services = request.app.state.services
    position = await asked_position(request)
    if position is None:
        return list(await services.pool.fetch(statement(AS_IT_STANDS), *uids))
    return list(await services.pool.fetch(statement(as_of(f"${len(uids) + 1}")), *uids, position))
