"""Records as tables of pandas and polars: a column for each field, and one for each DICOM element that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from anamnesis.client.kept import MemberRecord
from anamnesis.client.packages import package
from anamnesis.client.records import RECORDS, Record


def columns(records: Sequence[Record], level: str, elements: Sequence[str]) -> dict[str, list[Any]]:
    """An element's column has values where no thing has several, and lists of values where one has."""
    own = [one.name for one in fields(RECORDS[level]) if one.name != "elements"]
    made: dict[str, list[Any]] = {name: [getattr(record, name) for record in records] for name in own}
    for name in elements:
        values = [list(getattr(record, "elements", {}).get(name, ())) for record in records]
        is_single = all(len(of_one) <= 1 for of_one in values)
        made[name] = [of_one[0] if of_one else None for of_one in values] if is_single else values
    return made


def to_pandas(records: Sequence[Record], level: str, elements: Sequence[str]) -> Any:
    """A pandas.DataFrame; dates are datetime64."""
    pandas = package("pandas", "a DataFrame of pandas")
    frame = pandas.DataFrame(columns(records, level, elements))
    if "study_date" in frame:
        frame["study_date"] = pandas.to_datetime(frame["study_date"])
    return frame


def to_polars(records: Sequence[Record], level: str, elements: Sequence[str]) -> Any:
    """A polars.DataFrame; dates are dates."""
    polars = package("polars", "a DataFrame of polars")
    frame = polars.DataFrame(columns(records, level, elements), strict=False, infer_schema_length=None)
    return frame.with_columns(polars.col("study_date").cast(polars.String).str.to_date()) if "study_date" in frame.columns else frame


def members_to_pandas(members: Sequence[MemberRecord]) -> Any:
    """A row for each series of a dataset's version."""
    pandas = package("pandas", "a DataFrame of pandas")
    own = [one.name for one in fields(MemberRecord) if one.name != "instances"]
    return pandas.DataFrame({name: [getattr(member, name) for member in members] for name in own})
