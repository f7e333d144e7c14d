"""Which instances a path names, and where their bytes lie: one statement for each kind of path."""

from __future__ import annotations

import asyncpg
import msgspec

from server.dicomweb.errors import TargetNotFound


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An instance to be retrieved. ``size`` is that of the stored Part 10 file in bytes."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    sha256: str
    size: int
    frames: int
    has_pixel_data: bool


_COLUMNS = "i.study_uid, i.series_uid, i.sop_instance_uid, i.transfer_syntax_uid, i.sha256, i.size, i.frames, i.has_pixel_data"
_OF_STUDY = f"""
    SELECT {_COLUMNS} FROM dicom_v1.series e JOIN dicom_v1.instance i ON i.series_uid = e.series_uid
    WHERE e.study_uid = $1 ORDER BY e.series_number, e.series_uid, i.instance_number, i.sop_instance_uid
"""
_OF_SERIES = f"""
    SELECT {_COLUMNS} FROM dicom_v1.instance i WHERE i.study_uid = $1 AND i.series_uid = $2
    ORDER BY i.instance_number, i.sop_instance_uid
"""
_INSTANCE = f"""
    SELECT {_COLUMNS} FROM dicom_v1.instance i
    WHERE i.study_uid = $1 AND i.series_uid = $2 AND i.sop_instance_uid = $3
"""


async def find_targets(pool: asyncpg.Pool, study_uid: str, series_uid: str | None = None) -> list[Target]:
    """All instances of a study or series, in order. Raises TargetNotFound."""
    refuse_impossible(study_uid, series_uid)
    if series_uid is None:
        rows = await pool.fetch(_OF_STUDY, study_uid)
    else:
        rows = await pool.fetch(_OF_SERIES, study_uid, series_uid)
    if not rows:
        raise not_found(study_uid, series_uid)
    return [Target(**dict(row)) for row in rows]


async def find_target(pool: asyncpg.Pool, study_uid: str, series_uid: str, sop_instance_uid: str) -> Target:
    """One instance. Raises TargetNotFound."""
    refuse_impossible(study_uid, series_uid, sop_instance_uid)
    row = await pool.fetchrow(_INSTANCE, study_uid, series_uid, sop_instance_uid)
    if row is None:
        raise not_found(study_uid, series_uid, sop_instance_uid)
    return Target(**dict(row))


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
