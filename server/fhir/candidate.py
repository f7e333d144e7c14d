"""Would a condition hold for a resource, were it stored? Asked of the same SQL as a search, over what is stored and this one beside.

So it means the same as a search does, chains to what is stored included, and nothing is written for it.
"""

from __future__ import annotations

import asyncpg
import msgspec

from projections.fhir.projection import SCHEMA
from projections.fhir.search.rows import add_rows, no_rows
from projections.fhir.vocabulary import Json
from server.fhir.conditions import Condition
from server.fhir.within import Clause

KEY = -1
"""Of the candidate: no stored version has it."""
_NOW = 2**62
_COLUMNS = {
    "token": ("source int", "code text", "system text", "text text", "nth int", "key bigint"),
    "reference": ("source int", "target text", "nth int", "key bigint"),
    "date": ("source int", "low timestamptz", "high timestamptz", "nth int", "key bigint"),
    "string": ("source int", "folded text", "exact text", "nth int", "key bigint"),
    "uri": ("source int", "value text", "nth int", "key bigint"),
    "quantity": (
        "source int", "low float8", "high float8", "code text", "system text", "unit text", "canonical text", "canonical_low float8",
        "canonical_high float8", "nth int", "key bigint",
    ),
}  # fmt: skip
"""Table → its columns, in order (projections.fhir.tables)."""
_RESOURCE = "type, id, version, position_from, position_to, last_updated, body, key"


async def would_hold(pool: asyncpg.Pool, condition: Condition, resource: Json) -> bool:
    """``resource`` has its type and id, and what its rows come from."""
    rows = no_rows()
    # As the read model has it: what comes of the log has no Decimal left where rows are made.
    add_rows(msgspec.json.decode(_ENCODER.encode(resource)), KEY, rows)
    clause = Clause([_NOW, resource["resourceType"], resource["id"]], "$1")
    own = f"SELECT $2::text COLLATE \"C\", $3::text COLLATE \"C\", 1, $1::bigint, NULL::bigint, now(), '', {KEY}::bigint"
    parts = [_beside("resource", _RESOURCE, own)]
    for table, columns in _COLUMNS.items():
        names = ", ".join(column.split()[0] for column in columns)
        values = list(zip(*rows[table], strict=True)) or [()] * len(columns)
        given = []
        for column, found in zip(columns, values, strict=True):
            kind = column.split()[1]
            given.append(f"unnest({clause.argument(list(found))}::{kind}[]){_COLLATED if kind == 'text' else ''}")
        parts.append(_beside(table, names, f"SELECT {', '.join(given)}"))
    asked = condition.sql("r", clause).replace(f"{SCHEMA}.", "")  # no value is ever in the text
    text = f"WITH {', '.join(parts)} SELECT EXISTS (SELECT FROM ({own}) AS r ({_RESOURCE}) WHERE {asked})"
    return bool(await pool.fetchval(text, *clause.arguments))


_ENCODER = msgspec.json.Encoder(decimal_format="number")
_COLLATED = ' COLLATE "C"'


def _beside(table: str, columns: str, own: str) -> str:
    return f"{table} AS NOT MATERIALIZED (SELECT {columns} FROM {SCHEMA}.{table} UNION ALL {own})"
