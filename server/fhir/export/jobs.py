"""Exports as they are kept: what was asked for, how far each has come, and the folder of its files.

A row says all that is needed to go on after a kill. What was asked for is sealed, since a filter may name a person. The files hold
persons' data in the clear, as an answer would: they are below the data folder, for its owner alone, and go when they expire, when the
export is cancelled, and when a subject is erased that they may hold.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from eventlog.leases import lease
from eventlog.log import EventLog
from eventlog.vault import Vault
from server.auth.principals import Authenticated
from server.errors import ErasureWaits

RUNNING, DONE, FAILED, ERASED = "running", "done", "failed", "erased"
FOLDER = "exports"
PATIENCE_S = 60.0
_PURPOSE = "fhir exports: what was asked for"
_NONCE = 12
_START_LOCK = 0x65787074
"""Two exports that are asked for at once are counted one after the other."""
_COLUMNS = "export_id, principal_id, state, asked, progress, problem, made_at, ended_at"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is exported, to whom, and as of when.

    ``since``: only what was made beyond this position. ``patients``: only what is in the compartments of these. ``filters``: by type,
    the searches of which one has to find a resource.
    """

    reader: Authenticated
    route: str
    request: str
    level: str
    schema: str
    """Of the read model that it is made from: another one's keys would be other places."""
    position: int
    transaction_time: datetime
    types: tuple[str, ...]
    since: int | None = None
    patients: tuple[str, ...] | None = None
    filters: dict[str, tuple[tuple[tuple[str, str], ...], ...]] = {}
    elements: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


class File(msgspec.Struct, kw_only=True):
    """``kind`` is the manifest's: output, deleted or error. ``size`` in bytes."""

    name: str
    kind: str
    type: str
    count: int = 0
    size: int = 0


class Progress(msgspec.Struct, kw_only=True):
    """What of an export is on the disk: the steps that are done, where in the next one it goes on, and the files."""

    step: int = 0
    after: str = ""
    files: list[File] = []

    @property
    def resources(self) -> int:
        return sum(one.count for one in self.files)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """``asked`` is None once an erasure took the export."""

    export_id: str
    principal_id: str
    state: str
    asked: Asked | None
    progress: Progress
    problem: str | None
    made_at: datetime
    ended_at: datetime | None


class TooMany(Exception):
    """Raised when as many exports are being made as may be at the same time."""


class Jobs:
    def __init__(self, log: EventLog, data_dir: Path) -> None:
        self._log = log
        self._vault = log.vault
        self.folder = data_dir / FOLDER

    def folder_of(self, export_id: str) -> Path:
        return self.folder / export_id

    async def start(self, asked: Asked, known_position: int, most: int) -> str:
        """The id of a new export. Raises TooMany where ``most`` are being made."""
        export_id = secrets.token_hex(16)
        async with self._log.pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _START_LOCK)
            if await connection.fetchval("SELECT count(*) FROM fhir_export WHERE state = $1", RUNNING) >= most:
                raise TooMany
            await connection.execute(
                "INSERT INTO fhir_export (export_id, principal_id, state, asked, progress, known_position) VALUES ($1, $2, $3, $4, $5, $6)",
                export_id,
                asked.reader.principal.id,
                RUNNING,
                _seal(self._vault, export_id, asked),
                msgspec.json.encode(Progress()),
                known_position,
            )
        return export_id

    async def find(self, export_id: str) -> Job | None:
        row = await self._log.pool.fetchrow(f"SELECT {_COLUMNS} FROM fhir_export WHERE export_id = $1", export_id)
        return None if row is None else _job(self._vault, row)

    async def running(self) -> list[str]:
        rows = await self._log.pool.fetch(
            "SELECT export_id FROM fhir_export WHERE state = $1 ORDER BY made_at, export_id", RUNNING
        )
        return [row["export_id"] for row in rows]

    async def note(self, export_id: str, progress: Progress) -> bool:
        """Keeps how far an export has come; whether it is still wanted."""
        done = await self._log.pool.execute(
            "UPDATE fhir_export SET progress = $2 WHERE export_id = $1 AND state = $3",
            export_id,
            msgspec.json.encode(progress),
            RUNNING,
        )
        return bool(done == "UPDATE 1")

    async def end(self, export_id: str, state: str, problem: str | None = None) -> bool:
        """Whether it was still wanted."""
        done = await self._log.pool.execute(
            "UPDATE fhir_export SET state = $2, problem = $3, ended_at = now() WHERE export_id = $1 AND state = $4",
            export_id,
            state,
            problem,
            RUNNING,
        )
        return bool(done == "UPDATE 1")

    async def cancel(self, export_id: str) -> None:
        """Who is at it notices, and removes what it wrote since."""
        await self._log.pool.execute("DELETE FROM fhir_export WHERE export_id = $1", export_id)
        await self.remove_files(export_id)

    async def expire(self, keep: timedelta) -> None:
        await self._log.pool.execute(
            "DELETE FROM fhir_export WHERE state <> $1 AND ended_at < now() - $2::interval", RUNNING, keep
        )

    async def sweep(self) -> None:
        """Removes the folders of exports that are not there any more, unless somebody is still at one."""
        kept = await self._log.pool.fetch("SELECT export_id FROM fhir_export WHERE state IN ($1, $2)", RUNNING, DONE)
        for export_id in sorted({*await asyncio.to_thread(self._folders)} - {row["export_id"] for row in kept}):
            async with lease(self._log, lease_key(export_id)) as ours:
                if ours:
                    await self.remove_files(export_id)

    async def remove_files(self, export_id: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self.folder_of(export_id), True)

    async def forget_before(self, position: int) -> None:
        """Takes every export that was made before the read model held this position: an erased subject may be in it.

        Returns when no file of them is left and nobody writes one. Raises ErasureWaits.
        """
        await self._log.pool.execute(
            "UPDATE fhir_export SET state = $2, asked = '', progress = $3, problem = NULL, ended_at = now()"
            " WHERE known_position < $1 AND state <> $2",
            position,
            ERASED,
            msgspec.json.encode(Progress()),
        )
        rows = await self._log.pool.fetch("SELECT export_id FROM fhir_export WHERE state IN ($1, $2)", RUNNING, DONE)
        deadline = time.monotonic() + PATIENCE_S
        for export_id in sorted({*await asyncio.to_thread(self._folders)} - {row["export_id"] for row in rows}):
            while not await self._removed(export_id):
                if time.monotonic() > deadline:
                    raise ErasureWaits("an export that may hold the subject is still being written")
                await asyncio.sleep(0.2)

    async def _removed(self, export_id: str) -> bool:
        async with lease(self._log, lease_key(export_id)) as ours:
            if ours:
                await self.remove_files(export_id)
            return ours

    def _folders(self) -> Sequence[str]:
        return [one.name for one in self.folder.iterdir()] if self.folder.is_dir() else []


def lease_key(export_id: str) -> str:
    """Who has it makes the export."""
    return f"fhir export {export_id}"


def _job(vault: Vault, row: asyncpg.Record) -> Job:
    return Job(
        export_id=row["export_id"],
        principal_id=row["principal_id"],
        state=row["state"],
        asked=_open(vault, row["export_id"], row["asked"]) if row["asked"] else None,
        progress=msgspec.json.decode(row["progress"], type=Progress),
        problem=row["problem"],
        made_at=row["made_at"],
        ended_at=row["ended_at"],
    )


def _seal(vault: Vault, export_id: str, asked: Asked) -> bytes:
    nonce = secrets.token_bytes(_NONCE)
    return nonce + AESGCM(vault.derive(_PURPOSE)).encrypt(nonce, msgspec.json.encode(asked), export_id.encode("ascii"))


def _open(vault: Vault, export_id: str, sealed: bytes) -> Asked:
    opened = AESGCM(vault.derive(_PURPOSE)).decrypt(sealed[:_NONCE], sealed[_NONCE:], export_id.encode("ascii"))
    return msgspec.json.decode(opened, type=Asked)
