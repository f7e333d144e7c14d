"""Exports as they are kept: what was asked for, how far each has come, and the folder of its files.

A row says all that is needed to go on after a kill. What was asked for is sealed, since it may name a person. The files hold persons'
data in the clear, as an answer would: they are below the data folder, for its owner alone, and go when they expire, when the export is
cancelled, and when a subject is erased that they may hold.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Generic, TypeVar

import asyncpg
import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from eventlog.leases import lease
from eventlog.log import EventLog
from server.errors import ErasureWaits

RUNNING, DONE, FAILED, ERASED = "running", "done", "failed", "erased"
PATIENCE_S = 60.0
_NONCE = 12
_START_LOCK = 0x65787074
"""Two exports that are asked for at once are counted one after the other."""
_COLUMNS = "export_id, principal_id, state, asked, progress, problem, made_at, ended_at"

A = TypeVar("A")
P = TypeVar("P")


class Kind(msgspec.Struct, Generic[A, P], frozen=True, kw_only=True):
    """A kind of exports: its table, the folder of its files below the data folder, and how what was asked for and progress are written.

    ``sealed_for`` is what the key is derived for that seals what was asked for. ``goes_on``: one that failed may be taken up again, and
    keeps its files until it expires.
    """

    name: str
    table: str
    folder: str
    sealed_for: str
    asked: type[A]
    progress: type[P]
    goes_on: bool = False

    def lease_key(self, export_id: str) -> str:
        """Who has it makes the export."""
        return f"{self.name} export {export_id}"

    @property
    def with_files(self) -> tuple[str, ...]:
        """States of exports that may have files."""
        return (RUNNING, DONE, FAILED) if self.goes_on else (RUNNING, DONE)


class Job(msgspec.Struct, Generic[A, P], frozen=True, kw_only=True):
    """``asked`` is None once an erasure took the export."""

    export_id: str
    principal_id: str
    state: str
    asked: A | None
    progress: P
    problem: str | None
    made_at: datetime
    ended_at: datetime | None


class TooMany(Exception):
    """Raised when as many exports are being made as may be at the same time."""


class Jobs(Generic[A, P]):
    def __init__(self, kind: Kind[A, P], log: EventLog, data_dir: Path) -> None:
        self.kind = kind
        self._log = log
        self.folder = data_dir / kind.folder

    def folder_of(self, export_id: str) -> Path:
        return self.folder / export_id

    async def start(self, asked: A, principal_id: str, known_position: int, most: int) -> str:
        """The id of a new export. Raises TooMany where ``most`` are being made."""
        export_id = secrets.token_hex(16)
        async with self._log.pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _START_LOCK)
            if await connection.fetchval(f"SELECT count(*) FROM {self.kind.table} WHERE state = $1", RUNNING) >= most:
                raise TooMany
            await connection.execute(
                f"INSERT INTO {self.kind.table} (export_id, principal_id, state, asked, progress, known_position) VALUES ($1, $2, $3, $4, $5, $6)",
                export_id,
                principal_id,
                RUNNING,
                self._seal(export_id, asked),
                msgspec.json.encode(self.kind.progress()),
                known_position,
            )
        return export_id

    async def find(self, export_id: str) -> Job[A, P] | None:
        row = await self._log.pool.fetchrow(f"SELECT {_COLUMNS} FROM {self.kind.table} WHERE export_id = $1", export_id)
        return None if row is None else self._job(row)

    async def running(self) -> list[str]:
        rows = await self._log.pool.fetch(
            f"SELECT export_id FROM {self.kind.table} WHERE state = $1 ORDER BY made_at, export_id", RUNNING
        )
        return [row["export_id"] for row in rows]

    async def note(self, export_id: str, progress: P) -> bool:
        """Keeps how far an export has come; whether it is still wanted."""
        done = await self._log.pool.execute(
            f"UPDATE {self.kind.table} SET progress = $2 WHERE export_id = $1 AND state = $3",
            export_id,
            msgspec.json.encode(progress),
            RUNNING,
        )
        return bool(done == "UPDATE 1")

    async def end(self, export_id: str, state: str, problem: str | None = None) -> bool:
        """Whether it was still wanted."""
        done = await self._log.pool.execute(
            f"UPDATE {self.kind.table} SET state = $2, problem = $3, ended_at = now() WHERE export_id = $1 AND state = $4",
            export_id,
            state,
            problem,
            RUNNING,
        )
        return bool(done == "UPDATE 1")

    async def has_failed(self, export_id: str) -> bool:
        """And is there to be taken up again, or to be looked at."""
        job = await self.find(export_id)
        return job is not None and job.state == FAILED

    async def resume(self, export_id: str) -> bool:
        """Takes up one that failed; whether there was one."""
        done = await self._log.pool.execute(
            f"UPDATE {self.kind.table} SET state = $2, problem = NULL, ended_at = NULL WHERE export_id = $1 AND state = $3",
            export_id,
            RUNNING,
            FAILED,
        )
        return bool(done == "UPDATE 1")

    async def cancel(self, export_id: str) -> None:
        """Who is at it notices, and removes what it wrote since."""
        await self._log.pool.execute(f"DELETE FROM {self.kind.table} WHERE export_id = $1", export_id)
        await self.remove_files(export_id)

    async def expire(self, keep: timedelta) -> None:
        await self._log.pool.execute(
            f"DELETE FROM {self.kind.table} WHERE state <> $1 AND ended_at < now() - $2::interval", RUNNING, keep
        )

    async def sweep(self) -> None:
        """Removes the folders of exports that are not there any more, unless somebody is still at one."""
        kept = await self._log.pool.fetch(f"SELECT export_id FROM {self.kind.table} WHERE state = ANY($1)", self.kind.with_files)
        for export_id in sorted({*await asyncio.to_thread(self._folders)} - {row["export_id"] for row in kept}):
            async with lease(self._log, self.kind.lease_key(export_id)) as ours:
                if ours:
                    await self.remove_files(export_id)

    async def remove_files(self, export_id: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self.folder_of(export_id), True)

    async def forget_before(self, position: int) -> None:
        """Takes every export that was made before the read model held this position: an erased subject may be in it.

        Returns when no file of them is left and nobody writes one. Raises ErasureWaits.
        """
        await self._log.pool.execute(
            f"UPDATE {self.kind.table} SET state = $2, asked = '', progress = $3, problem = NULL, ended_at = now()"
            " WHERE known_position < $1 AND state <> $2",
            position,
            ERASED,
            msgspec.json.encode(self.kind.progress()),
        )
        rows = await self._log.pool.fetch(f"SELECT export_id FROM {self.kind.table} WHERE state = ANY($1)", self.kind.with_files)
        deadline = time.monotonic() + PATIENCE_S
        for export_id in sorted({*await asyncio.to_thread(self._folders)} - {row["export_id"] for row in rows}):
            while not await self._removed(export_id):
                if time.monotonic() > deadline:
                    raise ErasureWaits("an export that may hold the subject is still being written")
                await asyncio.sleep(0.2)

    async def _removed(self, export_id: str) -> bool:
        async with lease(self._log, self.kind.lease_key(export_id)) as ours:
            if ours:
                await self.remove_files(export_id)
            return ours

    def _folders(self) -> Sequence[str]:
        return [one.name for one in self.folder.iterdir()] if self.folder.is_dir() else []

    def _job(self, row: asyncpg.Record) -> Job[A, P]:
        return Job(
            export_id=row["export_id"],
            principal_id=row["principal_id"],
            state=row["state"],
            asked=self._open(row["export_id"], row["asked"]) if row["asked"] else None,
            progress=msgspec.json.decode(row["progress"], type=self.kind.progress),
            problem=row["problem"],
            made_at=row["made_at"],
            ended_at=row["ended_at"],
        )

    def _seal(self, export_id: str, asked: A) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._cipher().encrypt(nonce, msgspec.json.encode(asked), export_id.encode("ascii"))

    def _open(self, export_id: str, sealed: bytes) -> A:
        opened = self._cipher().decrypt(sealed[:_NONCE], sealed[_NONCE:], export_id.encode("ascii"))
        return msgspec.json.decode(opened, type=self.kind.asked)

    def _cipher(self) -> AESGCM:
        return AESGCM(self._log.vault.derive(self.kind.sealed_for))
