"""Which instances a path names, and where their bytes lie: one statement for each kind of path."""

from __future__ import annotations

import msgspec
from fastapi import Request

from projections.dicom.projection import SCHEMA
from server.dicomweb.as_of import Rows, fetch
from server.dicomweb.errors import TargetNotFound


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An instance to be retrieved. ``size`` is that of the stored Part 10 file in bytes, ``as_of`` the position of the answer."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    sha256: str
    size: int
    frames: int
    has_pixel_data: bool
    as_of: int


def _columns(rows: Rows) -> str:
    return (
        "i.study_uid, i.series_uid, i.sop_instance_uid, i.transfer_syntax_uid, i.sha256, i.size, i.frames, i.has_pixel_data,"
        f" {rows.position} AS as_of"
    )


def _of_study(rows: Rows) -> str:
    return f"""
        SELECT {_columns(rows)} FROM {rows.series} e JOIN {SCHEMA}.instance i ON i.series_uid = e.series_uid
        WHERE e.study_uid = $1 AND {rows.held("e")} AND {rows.was_there("i")}
        ORDER BY e.series_number, e.series_uid, i.instance_number, i.sop_instance_uid
    """


def _of_series(rows: Rows) -> str:
    return f"""
        SELECT {_columns(rows)} FROM {SCHEMA}.instance i
        WHERE i.study_uid = $1 AND i.series_uid = $2 AND {rows.was_there("i")}
        ORDER BY i.instance_number, i.sop_instance_uid
    """


def _instance(rows: Rows) -> str:
    return f"""
        SELECT {_columns(rows)} FROM {SCHEMA}.instance i
        WHERE i.study_uid = $1 AND i.series_uid = $2 AND i.sop_instance_uid = $3 AND {rows.was_there("i")}
    """


async def find_targets(request: Request, study_uid: str, series_uid: str | None = None) -> list[Target]:
    """All instances of a study or series, in order. Raises TargetNotFound, QueryInvalid and ProjectionBehind."""
    refuse_impossible(study_uid, series_uid)
    if series_uid is None:
        rows = await fetch(request, _of_study, study_uid)
    else:
        rows = await fetch(request, _of_series, study_uid, series_uid)
    if not rows:
        raise not_found(study_uid, series_uid)
    return [Target(**dict(row)) for row in rows]


async def find_target(request: Request, study_uid: str, series_uid: str, sop_instance_uid: str) -> Target:
    """One instance. Raises TargetNotFound, QueryInvalid and ProjectionBehind."""
    refuse_impossible(study_uid, series_uid, sop_instance_uid)
    rows = await fetch(request, _instance, study_uid, series_uid, sop_instance_uid)
    if not rows:
        raise not_found(study_uid, series_uid, sop_instance_uid)
    return Target(**dict(rows[0]))


def refuse_impossible(*uids: str | None) -> None:
    """A NUL cannot be in a UID, nor in PostgreSQL's text. Raises TargetNotFound."""
    if any(uid is not None and "\0" in uid for uid in uids):
        raise TargetNotFound("the path holds a NUL character: no UID does")


def not_found(study_uid: str, series_uid: str | None = None, sop_instance_uid: str | None = None) -> TargetNotFound:
    """Says what there is none of."""
    if sop_instance_uid is not None:
        return TargetNotFound(f"there is no instance {sop_instance_uid} in series {series_uid} of study {study_uid}")
    if series_uid is not None:
        return TargetNotFound(f"there is no series {series_uid} in study {study_uid}")
    return TargetNotFound(f"there is no study {study_uid}")
