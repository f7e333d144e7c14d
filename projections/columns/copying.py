"""All rows of a level by COPY, parsed by Arrow: ten times faster than rows one by one, for levels without elements.

In COPY's text format every line is a row, and no value is quoted. A piece in which something is escaped is parsed by hand.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import asyncpg
import numpy as np
import pyarrow as pa
import pyarrow.csv

from domain.condition import Level
from projections.columns.column import Coded
from projections.columns.dictionary import Values
from projections.columns.layout import DATE, FLAG, INTEGER, LAID, NUMBER, TEXT
from projections.columns.table import NEVER, NOTHING, Rows

PIECE_BYTES = 8 << 20
_ARROW = {TEXT: pa.dictionary(pa.int32(), pa.string()), NUMBER: pa.float64(), INTEGER: pa.int64()}
_ARROW |= {DATE: _ARROW[TEXT], FLAG: _ARROW[TEXT]}
_ESCAPES = {b"\\b": b"\b", b"\\f": b"\f", b"\\n": b"\n", b"\\r": b"\r", b"\\t": b"\t", b"\\v": b"\v"}


async def copy_rows(connection: asyncpg.Connection, schema: str, level: Level, take: Callable[[Rows], None]) -> None:
    """Gives the rows in pieces, in order of id and time. Within a transaction."""
    laid = LAID[level]
    links = list(dict.fromkeys(laid.belongs.values()))
    said = [f"to_char({name}, 'YYYY-MM-DD')" if kind == DATE else name for name, kind in laid.columns.items()]
    columns = ", ".join(("id", "position_from", f"coalesce(position_to, {NEVER})", *links, *said))
    names = ["id", "position_from", "position_to", *(f"link {link}" for link in links), *laid.columns]
    types = {name: pa.int64() for name in names[: 3 + len(links)]} | {name: _ARROW[kind] for name, kind in laid.columns.items()}
    rest = bytearray()

    async def received(data: bytes) -> None:
        rest.extend(data)
        if len(rest) > PIECE_BYTES:
            cut = rest.rfind(b"\n") + 1
            take(_rows(level, bytes(rest[:cut]), names, types))
            del rest[:cut]

    await connection.copy_from_query(
        f"SELECT {columns} FROM {schema}.{level} ORDER BY {level}.id, {level}.position_from", output=received, format="text", delimiter="\t", null=""
    )
    if rest:
        take(_rows(level, bytes(rest), names, types))


def _rows(level: Level, piece: bytes, names: Sequence[str], types: dict[str, pa.DataType]) -> Rows:
    table = _by_hand(piece, names, types) if b"\\" in piece else _parsed(piece, names, types)
    laid = LAID[level]
    rows = Rows.of(*(table[name].to_numpy() for name in names[:3]))
    for above, link in laid.belongs.items():
        owners = table[f"link {link}"].to_numpy()
        if level == Level.TAG:
            owners = np.where(np.array(table["level"].cast(pa.string()).to_pylist()) == above.value, owners, NOTHING)
        rows.belongs[above] = owners
    for name, kind in laid.columns.items():
        column = table[name]
        rows.columns[name] = _coded(column, kind) if kind in (TEXT, DATE, FLAG) else column.to_numpy()
    return rows


def _parsed(piece: bytes, names: Sequence[str], types: dict[str, pa.DataType]) -> pa.Table:
    return pyarrow.csv.read_csv(
        io.BytesIO(piece),
        pyarrow.csv.ReadOptions(column_names=list(names), block_size=len(piece) + 1),
        pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False, escape_char=False),
        pyarrow.csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True),
    )


def _by_hand(piece: bytes, names: Sequence[str], types: dict[str, pa.DataType]) -> pa.Table:
    lines = [[_unescaped(cell) for cell in line.split(b"\t")] for line in piece.splitlines()]
    arrays = []
    for name, cells in zip(names, zip(*lines, strict=True), strict=True):
        kind = types[name]
        read: Callable[[str], object] = int if kind == pa.int64() else float if kind == pa.float64() else str
        values = pa.array([read(cell) if cell else None for cell in cells], pa.string() if read is str else kind)
        arrays.append(values.dictionary_encode() if read is str else values)
    return pa.table(arrays, names=list(names))


def _unescaped(cell: bytes) -> str:
    if b"\\" not in cell:
        return cell.decode("utf-8")
    parts = [part if n == 0 else _ESCAPES.get(b"\\" + part[:1], part[:1]) + part[1:] for n, part in enumerate(cell.replace(b"\\\\", b"\0").split(b"\\"))]
    return b"".join(parts).replace(b"\0", b"\\").decode("utf-8")


def _coded(column: pa.ChunkedArray, kind: str) -> Coded:
    whole = column.combine_chunks()
    found = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
    entries: list[Values] = [(), *((value == "t",) if kind == FLAG else (value,) if value else () for value in found.dictionary.to_pylist())]
    return Coded((found.indices.fill_null(-1).to_numpy(zero_copy_only=False) + 1).astype(np.int64), entries)
