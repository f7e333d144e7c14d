"""The golden logs (tests/golden): what each release wrote, as it stands there and put into a log."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from domain.event import Event
from domain.principal import Principal
from eventlog import codec
from eventlog.appender import Request, Row
from eventlog.envelope import envelope_sha256, event_digest
from eventlog.log import EventLog
from eventlog.sealing import SubjectKey

FOLDER = Path(__file__).with_name("golden")
CORRELATION = UUID("01890000-0000-7000-8000-00000000c0de")


class GoldenEvent(msgspec.Struct, frozen=True):
    """One event as a release stored it. ``data`` are the stored bytes as text."""

    event_id: UUID
    stream: str
    type: str
    schema_version: int
    at: datetime
    principal: Principal
    data: str

    def decode(self, keys: Mapping[str, SubjectKey]) -> Event:
        return codec.decode(self.type, self.schema_version, self.data.encode("utf-8"), self.event_id, keys)


class GoldenLog(msgspec.Struct, frozen=True):
    """``secrets`` are the subjects' keys; ``schemas`` the shape of every event type at that release (see golden/write.py)."""

    secrets: dict[str, bytes]
    schemas: dict[str, dict[str, Any]]
    events: list[GoldenEvent]

    @property
    def keys(self) -> dict[str, SubjectKey]:
        return {subject: SubjectKey.of(secret) for subject, secret in self.secrets.items()}


def names() -> list[str]:
    """Releases, and `unreleased`."""
    return sorted(path.stem for path in FOLDER.glob("*.ndjson"))


def golden_log(name: str) -> GoldenLog:
    first, *rest = (FOLDER / f"{name}.ndjson").read_text(encoding="utf-8").splitlines()
    head = json.loads(first)
    secrets = {subject: base64.b64decode(secret) for subject, secret in head["keys"].items()}
    return GoldenLog(secrets, head["schemas"], [msgspec.json.decode(line, type=GoldenEvent) for line in rest])


async def put_into(log: EventLog, golden: GoldenLog) -> None:
    """The stored bytes as they are, with the subjects' keys, into an empty log."""
    async with log.pool.acquire() as connection, connection.transaction():
        for subject, secret in golden.secrets.items():
            wrapped, kek_id = await log.vault.wrap(secret, connection)
            await connection.execute("INSERT INTO subject_key (subject_id, wrapped, kek_id) VALUES ($1, $2, $3)", subject, wrapped, kek_id)
    for one in golden.events:
        request = Request([one.stream], [None], [_row(one, golden)], asyncio.get_running_loop().create_future())
        await log._appender.append(request)


def _row(one: GoldenEvent, golden: GoldenLog) -> Row:
    data = one.data.encode("utf-8")
    sha256 = envelope_sha256(
        event_id=one.event_id,
        stream=one.stream,
        type=one.type,
        schema_version=one.schema_version,
        occurred_at=one.at,
        recorded_at=one.at,
        principal=one.principal,
        correlation_id=CORRELATION,
        causation_id=None,
        origin="golden",
        data=data,
    )
    digest = event_digest(sha256, one.event_id, one.decode(golden.keys).scope())
    principal = msgspec.json.encode(one.principal).decode("utf-8")
    return Row(0, 1, one.event_id, one.type, one.schema_version, one.at, one.at, principal, CORRELATION, None, "golden", data, digest)
