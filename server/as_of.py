"""As of: a place in the log, named by its position or by an instant, as of which a question is answered.

An instant or a date means the end of the interval that it covers: 2026-11 is what was known when November 2026 was over, and
2026-11-20T10:00 what was known when that minute was. Without an offset it is in UTC. Digits alone are a position, so a year
is written with its month.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec

from domain.ids import Position
from projections.checkpoint import reached, wait_for
from projections.fhir.search.dates import interval
from projections.ledger.instants import position_at
from projections.ledger.projection import LedgerProjection
from projections.projection import Projection
from server.errors import ServerError

PARAMETER = "_asof"
HEADER = "Anamnesis-Position"
"""The response header that says which position an answer was given as of."""

_HEAD = "SELECT position FROM public.log_head"
_TICK = timedelta(microseconds=1)
"""The step of ``recorded_at``."""
_DATE_TIME = re.compile(
    r"[0-9]{4}(-[0-9]{2}(-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[-+][0-9]{2}:[0-9]{2})?)?)?)?",
    re.ASCII,
)
_FORMS = "write digits, YYYY-MM, YYYY-MM-DD, or YYYY-MM-DDThh:mm:ss with Z or an offset"


class AsOfInvalid(ServerError):
    """Raised when what is asked as of is no position and no instant, or a position that the log has not reached."""


class AsOf(msgspec.Struct, frozen=True, kw_only=True):
    """Either a position (0 is before the first event) or the last moment of the interval that an instant covers."""

    at_position: int | None = None
    at_instant: datetime | None = None

    @classmethod
    def parse(cls, text: str) -> AsOf:
        """Raises AsOfInvalid."""
        if re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
            return cls(at_position=int(text))
        return cls(at_instant=period(text)[1] - _TICK)

    async def position(self, pool: asyncpg.Pool) -> Position:
        """The position that this means now. Raises AsOfInvalid, and ProjectionBehind when the ledger lags.

        An instant after the last event means the end of the log, and so may mean a later position when it is asked again.
        """
        head: int = await pool.fetchval(_HEAD)
        if self.at_position is not None:
            if self.at_position > head:
                raise AsOfInvalid(f"the log ends at position {head}: there is no position {self.at_position} yet")
            return Position(self.at_position)
        assert self.at_instant is not None
        return await position_when(pool, self.at_instant)


def written(given: Iterable[tuple[str, str]], name: str = PARAMETER) -> str | None:
    """What a request with these parameters asks as of; None for as it stands. Raises AsOfInvalid.

    A name that is nearly right is refused: the answer would be as it stands, and nobody would notice.
    """
    values = []
    for one, value in given:
        if one == name:
            values.append(value)
        elif one.lower().replace("_", "").replace("-", "") == "asof":
            raise AsOfInvalid(f"the parameter is called {name} here")
    if len(values) > 1:
        raise AsOfInvalid(f"one answer is as of one position, and {len(values)} are given: give one")
    return values[0] if values else None


async def position_when(pool: asyncpg.Pool, instant: datetime) -> Position:
    """The last position before anything was recorded later than ``instant``. Raises ProjectionBehind when the ledger lags."""
    ledger = LedgerProjection()
    known = await reached(pool, ledger.name, ledger.version)
    position = await position_at(pool, instant)
    if position < known:  # a later event is known, so this stands
        return position
    await wait_for(pool, ledger, await pool.fetchval(_HEAD))
    return await position_at(pool, instant)


async def known_position(pool: asyncpg.Pool, projection: Projection, text: str) -> Position:
    """The position that ``text`` means, once the projection has reached it. Raises AsOfInvalid and ProjectionBehind."""
    position = await AsOf.parse(text).position(pool)
    await wait_for(pool, projection, position)
    return position


def period(text: str) -> tuple[datetime, datetime]:
    """The interval [low, high) that a FHIR date, dateTime or instant covers by its precision, in UTC. Raises AsOfInvalid."""
    written = text.strip().replace(" ", "+")  # a plus sign that was not escaped in the query
    try:
        if not _DATE_TIME.fullmatch(written):
            raise ValueError
        low, high = (end.astimezone(UTC) for end in interval(written))
        fraction = re.search(r"\.([0-9]+)", written)
        return low, low + 10 ** (6 - len(fraction[1])) * _TICK if fraction else high
    except (ValueError, OverflowError):
        raise AsOfInvalid(f"{_shown(text)} is no position and no instant: {_FORMS}") from None


def _shown(text: str) -> str:
    """Only what could be a position or an instant is repeated: it might be a person's data."""
    return repr(text) if re.fullmatch(r"[-+:.TZ0-9 ]{1,40}", text, re.ASCII) else "what is given"
