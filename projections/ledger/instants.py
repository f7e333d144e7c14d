"""Which position an instant means.

``recorded_at`` is the clock of whoever appended, so it may step back from one position to the next; the running maximum
``latest_at`` never does. What the log held at an instant is everything before the first event that was recorded later.
"""

from __future__ import annotations

from datetime import datetime

import asyncpg

from domain.ids import Position
from projections.ledger.projection import NAME, SCHEMA, VERSION

_POSITION_AT = f"""
    SELECT coalesce(
        (SELECT position - 1 FROM {SCHEMA}.entry WHERE latest_at > $1 ORDER BY latest_at, position LIMIT 1),
        (SELECT position FROM public.projection_checkpoint WHERE name = '{NAME}' AND version = {VERSION}),
        0
    )
"""


async def position_at(pool: asyncpg.Pool, instant: datetime) -> Position:
    """The position before the first event that was recorded later than ``instant``: the same for ever once there is one.

    When none is later, the position that the ledger has reached. ``instant`` carries its offset from UTC.
    """
    return Position(await pool.fetchval(_POSITION_AT, instant))
