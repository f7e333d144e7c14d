"""Rows of series and findings as CSV, Excel, Parquet and JSON Lines, with the same columns and values in each."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
import pyarrow
import pyarrow.parquet
import xlsxwriter

from server.datasets.folder import Step
from server.datasets.plan import TABLES, Layout, LeftOut, Plan, Scalar

FOLDER = "tables"
MOST_EXCEL_ROWS = 1_048_575
"""Below the head."""
_MADE_ON = datetime(2000, 1, 1)
"""Excel files name a day on which they were made; it is the same for all, so that they are the same."""
_ENCODER = msgspec.json.Encoder()

Rows = Sequence[Mapping[str, Scalar]]


def write_tables(step: Step, plan: Plan) -> None:
    entity = f"dataset:{plan.about.dataset_id}"
    tables: list[tuple[str, Sequence[str], Rows, set[int]]] = [
        ("series", plan.series_columns, [one.row for one in plan.series], {p for one in plan.series for p in one.positions}),
        ("findings", plan.finding_columns, plan.findings, {p for positions in plan.finding_positions for p in positions}),
    ]
    for name, columns, rows, positions in tables:
        for layout in sorted(TABLES & {*plan.layouts}):
            path = f"{FOLDER}/{name}.{layout}"
            if layout is Layout.XLSX and len(rows) > MOST_EXCEL_ROWS:
                said = f"{len(rows)} rows: a sheet has {MOST_EXCEL_ROWS}"
                step.left_out.append(LeftOut(entity=entity, reason="too-many-rows", detail=said, layout=layout))
                continue
            with step.file(path, entity, sorted(positions)) as partial:
                _WRITERS[layout](partial, name, columns, rows)


def kind_of(column: str, rows: Rows) -> type:
    """str, float, int or bool: the one that all values of a column have, text where they have none in common."""
    kinds = {type(value) for row in rows if (value := row.get(column)) is not None}
    if kinds <= {int, float} and kinds:
        return float if float in kinds else int
    return kinds.pop() if len(kinds) == 1 else str


def _write_csv(path: Path, name: str, columns: Sequence[str], rows: Rows) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    path.write_text(text.getvalue(), encoding="utf-8")


def _cell(value: Scalar) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _write_jsonl(path: Path, name: str, columns: Sequence[str], rows: Rows) -> None:
    path.write_bytes(b"".join(_ENCODER.encode({column: row.get(column) for column in columns}) + b"\n" for row in rows))


def _write_xlsx(path: Path, name: str, columns: Sequence[str], rows: Rows) -> None:
    # Text stays text, whatever it begins with: a description may look like a formula.
    options = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    book = xlsxwriter.Workbook(str(path), options)
    book.set_properties({"created": _MADE_ON})
    sheet = book.add_worksheet(name)
    bold = book.add_format({"bold": True})
    sheet.freeze_panes(1, 0)
    for at, column in enumerate(columns):
        sheet.write_string(0, at, column, bold)
    for number, row in enumerate(rows, start=1):
        for at, column in enumerate(columns):
            if (value := row.get(column)) is not None:
                sheet.write(number, at, value)
    if rows:
        sheet.autofilter(0, 0, len(rows), len(columns) - 1)
    try:
        book.close()
    except xlsxwriter.exceptions.FileCreateError as error:
        raise error.args[0] if error.args and isinstance(error.args[0], OSError) else OSError(str(error)) from None


def _write_parquet(path: Path, name: str, columns: Sequence[str], rows: Rows) -> None:
    types = {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64(), bool: pyarrow.bool_()}
    arrays, fields = [], []
    for column in columns:
        kind = kind_of(column, rows)
        values = [None if (value := row.get(column)) is None else (_cell(value) if kind is str else kind(value)) for row in rows]
        arrays.append(pyarrow.array(values, types[kind]))
        fields.append(pyarrow.field(column, types[kind]))
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=pyarrow.schema(fields)), path, compression="zstd")


_WRITERS = {Layout.CSV: _write_csv, Layout.JSONL: _write_jsonl, Layout.XLSX: _write_xlsx, Layout.PARQUET: _write_parquet}
