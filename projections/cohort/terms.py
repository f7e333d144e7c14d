"""Text as it is searched: folded, with the trigrams that an index finds it by, and a number for each value of each field.

A text is found by a part of it, whatever case and accents; *tolerant*, also where at least half of the trigrams of the words asked for
are in it (words begin with two blanks and end with one, as in pg_trgm), so that a letter too many, too few or wrong does not hide it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

import asyncpg

from projections.dicom.folding import GRAM, grams
from projections.fhir.search.values import folded

TOLERANCE = 0.5
"""Of the trigrams asked for, so many have to be there. Of "abdmen" five of seven are in "abdomen", of "livr" three of five in "liver"."""

_ADD = """
INSERT INTO text_value (key, value, term, folded, grams)
SELECT key, value, term, folded, string_to_array(nullif(grams, ''), ',')::integer[]
FROM (SELECT unnest($1::text[]) AS key, unnest($2::text[]) AS value, unnest($3::bigint[]) AS term, unnest($4::text[]) AS folded, unnest($5::text[]) AS grams) g
ON CONFLICT (term) DO NOTHING
"""


@lru_cache(maxsize=65536)
def term(key: str, value: str) -> int:
    """64 bits of a hash, as PostgreSQL's bigint."""
    return int.from_bytes(hashlib.blake2b(f"{key}\0{value}".encode(), digest_size=8).digest(), "big", signed=True)


def searched(key: str, text: str) -> list[int]:
    """Hashed trigrams by which a text that holds this one, folded, is found; of a short one, none."""
    return grams(key, [text])


def words(text: str) -> list[str]:
    return [f"  {word} " for word in text.split()]


class Dictionary:
    """What a batch adds to the values that can be searched."""

    def __init__(self) -> None:
        self._added: dict[int, tuple[str, str]] = {}

    def add(self, key: str, values: Iterable[str]) -> None:
        for value in values:
            if value:
                self._added[term(key, value)] = (key, value)

    async def write(self, connection: asyncpg.Connection) -> None:
        if not self._added:
            return
        known = await connection.fetch(
            "SELECT k.t FROM unnest($1::bigint[]) AS k (t) CROSS JOIN LATERAL (SELECT FROM text_value WHERE term = k.t OFFSET 0) v", list(self._added)
        )
        for row in known:
            del self._added[row["t"]]
        made = sorted((*of, number) for number, of in self._added.items())
        texts = [folded(value) for _, value, _ in made]
        every = [
            ",".join(map(str, grams(key, [text, *words(text)]))) for (key, _, _), text in zip(made, texts, strict=True)
        ]
        await connection.execute(_ADD, [one[0] for one in made], [one[1] for one in made], [one[2] for one in made], texts, every)


def least_common(count: int) -> int:
    """Of so many trigrams asked for, how many have to be there."""
    return max(1, int(-(-count * TOLERANCE // 1)))


__all__ = ["GRAM", "TOLERANCE", "Dictionary", "folded", "least_common", "searched", "term", "words"]
