"""A log that an earlier release wrote, brought to the newest schema: its digests get their outer layer, and it can be sealed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import asyncpg
from alembic.script import ScriptDirectory
from pydantic import SecretStr

from domain.principal import device
from eventlog.checking import check_log
from eventlog.envelope import envelope_sha256
from eventlog.log import EventLog
from eventlog.schema import migrate, newest_revision, scripts_folder
from eventlog.sealer import seal
from eventlog.settings import LogSettings
from eventlog.vault import make_key_encryption_key

WHO = device("test")
WRITTEN = [
    ("study-1.2", "StudyRegistered", {"study_uid": "1.2", "subject_id": "s"}),
    ("study-1.2", "StudyRenumbered", {"study_uid": "1.2", "other_study_uid": ""}),  # of a type that no code knows any more
    ("subject-s", "SubjectRegistered", {"sealed": "AQ==", "sex": "F", "subject_id": "s"}),
    (
        "series-1.2.3",
        "InstanceConflicted",
        {
            "conflicting_sha256": "cd" * 32,
            "conflicting_size": 5,
            "door": "stow",
            "kept_sha256": "ab" * 32,
            "series_uid": "1.2.3",
            "sop_instance_uid": "1.2.3.4",
            "study_uid": "1.2",
        },
    ),
]


def test_the_newest_schema_is_the_one_that_alembic_ends_at() -> None:
    assert ScriptDirectory(str(scripts_folder())).get_heads() == [newest_revision()]


async def test_digests_of_before_the_seals_are_carried_over(database_url: str, tmp_path: Path) -> None:
    settings = LogSettings(data_dir=tmp_path / "data", database_url=SecretStr(database_url))
    make_key_encryption_key(settings)
    await migrate(settings, "0002_access_token")
    connection = await asyncpg.connect(database_url)
    versions: dict[str, int] = {}
    for position, (stream, type_name, fields) in enumerate(WRITTEN * 600, start=1):
        versions[stream] = versions.get(stream, 0) + 1
        data = json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()
        event_id, correlation_id, now = uuid4(), uuid4(), datetime.now(UTC)
        digest = envelope_sha256(
            event_id=event_id, stream=stream, type=type_name, schema_version=1, occurred_at=now, recorded_at=now, principal=WHO,
            correlation_id=correlation_id, causation_id=None, origin="local", data=data,
        )  # fmt: skip
        await connection.execute(
            "INSERT INTO event (position, event_id, stream, version, type, schema_version, occurred_at, recorded_at, principal,"
            " correlation_id, causation_id, origin, data, digest)"
            " VALUES ($1, $2, $3, $4, $5, 1, $6, $6, $7, $8, NULL, 'local', $9, $10)",
            position, event_id, stream, versions[stream], type_name, now, '{"id":"device:test","kind":"device"}', correlation_id, data,
            bytes.fromhex(digest),
        )  # fmt: skip
    await connection.execute("UPDATE log_head SET position = $1", len(WRITTEN) * 600)
    await connection.close()
    await migrate(settings)
    log = await EventLog.open(settings)
    try:
        await seal(log)
        checked = await check_log(log)
        assert checked.holds, checked.discrepancies[:3]
        assert (checked.events, checked.unknown) == (2400, 600)
        refused = None
        try:
            await log.pool.execute("UPDATE event SET origin = 'elsewhere'")
        except asyncpg.InsufficientPrivilegeError as error:
            refused = error
        assert refused is not None
    finally:
        await log.close()
