"""What an export is made of: all that shapes its bytes, and nothing else. No clock, no host, no one who asked.

A plan is made from the log once, as of the dataset's position, and written beside the files; whoever makes the files needs the plan and
the archive alone. The same events give the same plan at every site.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

Scalar = str | int | float | bool | None


class Layout(StrEnum):
    """The forms in which a dataset can leave."""

    DICOM = "dicom"
    NNUNET = "nnunet"
    BIDS = "bids"
    CSV = "csv"
    XLSX = "xlsx"
    PARQUET = "parquet"
    JSONL = "jsonl"


IMAGES = frozenset({Layout.NNUNET, Layout.BIDS})
TABLES = frozenset({Layout.CSV, Layout.XLSX, Layout.PARQUET, Layout.JSONL})


class Source(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stored instance, and the position of the event that says so. ``size`` in bytes."""

    sop_instance_uid: str
    sha256: str
    size: int
    number: int | None = None
    position: int


class PlannedSeries(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A member. ``masks``: instances of DICOM segmentations that name it, in the order in which they came.

    ``row`` is its row in tables, by column. ``positions`` are those of all events that the row comes from. ``description`` shapes names
    of files alone, and only by single words of it (see names).
    """

    subject_id: str
    study_uid: str
    series_uid: str
    modality: str
    part: str = ""
    path: str
    """Subject, session and series, as files are named: sub-1a2b3c4d/ses-01/ser-02-CT."""
    instances: list[Source]
    masks: list[Source] = []
    sidecar: dict[str, Scalar | list[Any]] = {}
    row: dict[str, Scalar]
    suffix: str = ""
    """Of MR in BIDS (T1w, …), where a description says it in one word."""
    positions: list[int]


class PlannedPerson(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``label``: how files name the person (sub-1a2b3c4d). ``age_years`` at the first study, 89 for all who were older."""

    subject_id: str
    label: str
    sex: str = ""
    age_years: float | None = None
    part: str = ""
    positions: list[int] = []


class LeftOut(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an export does not hold. ``reason`` is a code, ``layout`` empty where it is of all of them."""

    entity: str
    reason: str
    detail: str = ""
    layout: str = ""


class About(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The dataset, as its events say. ``digest``: SHA-256 of the list of its members (domain.members)."""

    dataset_id: str
    version: int
    position: int
    digest: str
    title: str
    description: str = ""
    license: str = ""
    license_text: str = ""
    intended_uses: list[str] = []
    use_note: str = ""
    consent: str = ""
    query: str = ""
    frozen_on: str
    """YYYY-MM-DD, of the event."""
    parts: list[str] = []
    split_seed: str = ""
    stratified_by: list[str] = []
    site: str = ""
    positions: list[int] = []


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """``columns`` of the tables, in order. ``findings`` are rows; the last column of each kind of row is not named but positions."""

    about: About
    layouts: list[Layout]
    series: list[PlannedSeries]
    persons: list[PlannedPerson]
    findings: list[dict[str, Scalar]]
    finding_positions: list[list[int]]
    series_columns: list[str]
    finding_columns: list[str]
    left_out: list[LeftOut]
    events: dict[str, tuple[str, str]]
    """Position → the event's id and type: of every position that is named here."""
    nnunet_id: int = 1


_ENCODER = msgspec.json.Encoder(order="sorted")


def encode(plan: Plan) -> bytes:
    return _ENCODER.encode(plan)


def decode(data: bytes) -> Plan:
    return msgspec.json.decode(data, type=Plan)
