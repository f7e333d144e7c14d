"""The tables of a backup but that of the events: each whole, in PostgreSQL's text form, as it was at the position.

They are enumerated from the catalogue, so that a table which a later version adds is not forgotten. Left out are views of the
log that are built again, and what the manifest says itself.
"""

from __future__ import annotations

import hashlib
import uuid
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping

import asyncpg

from server.backup.destination import Destination
from server.backup.errors import BackupDamaged
from server.backup.manifest import Manifest, TableFile
from server.backup.sealed import SealedWriter, open_sealed
from server.backup.segments import unpacked

LEFT_OUT = frozenset({"event", "projection_checkpoint", "alembic_version", "half_restored", "fhir_export", "dataset_export"})
"""Events are in segments; projections are built again; the manifest names the schema's revision; exports are files of a day."""
KEYS = "subject_key"
_NULL = b"\\N"

_COLUMNS = """
SELECT c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
GROUP BY c.relname ORDER BY c.relname
"""


async def columns_of_tables(connection: asyncpg.Connection) -> dict[str, list[str]]:
    """Every table of ours, with its columns."""
    return {row["name"]: list(row["columns"]) for row in await connection.fetch(_COLUMNS)}


async def sequences(connection: asyncpg.Connection) -> dict[str, int]:
    """The sequences that were used, with their last values."""
    rows = await connection.fetch("SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL")
    return {row["sequencename"]: row["last_value"] for row in rows}


class TableWriter:
    """One table on its way into a backup."""

    def __init__(self, sealed: SealedWriter) -> None:
        self._sealed = sealed
        self._packer = zlib.compressobj(1)
        self._digest = hashlib.sha256()
        self._rows = 0

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        self._rows += data.count(b"\n")  # a line break within a value is written as \n
        self._sealed.write(self._packer.compress(data))

    def finish(self, name: str, file: str, columns: list[str]) -> TableFile:
        self._sealed.write(self._packer.flush())
        self._sealed.finish()
        return TableFile(name=name, file=file, columns=columns, rows=self._rows, sha256=self._digest.hexdigest())


async def dump(connection: asyncpg.Connection, destination: Destination, key: bytes, folder: str) -> tuple[list[TableFile], int]:
    """Every table but those left out, as this connection's transaction sees them; and how many bytes that made."""
    written, size = [], 0
    for table, columns in (await columns_of_tables(connection)).items():
        if table in LEFT_OUT:
            continue
        name = f"{folder}/{table}"
        with destination.create(name) as file:
            writer = TableWriter(SealedWriter(file, key, name))

            async def take(data: bytes, writer: TableWriter = writer) -> None:
                writer.write(data)

            await connection.copy_from_table(table, schema_name="public", columns=columns, output=take, format="text")
            written.append(writer.finish(table, table, columns))
            size += file.tell()
    return written, size


def content(destination: Destination, key: bytes, manifest: Manifest, table: TableFile) -> Iterator[bytes]:
    """A table's rows as COPY text. Raises BackupDamaged, at the end at the latest."""
    name = f"{manifest.folder}/{table.file}"
    digest, rows = hashlib.sha256(), 0
    with destination.open(name) as file:
        for data in unpacked(open_sealed(file, key, name), name):
            digest.update(data)
            rows += data.count(b"\n")
            yield data
    if digest.hexdigest() != table.sha256 or rows != table.rows:
        raise BackupDamaged(f"{name} in the backup is damaged: it is not what {manifest.name} names")


def records(destination: Destination, key: bytes, manifest: Manifest, table: TableFile) -> Iterator[Mapping[str, bytes | None]]:
    """A table's rows as column → value in COPY's text (escapes as they are)."""
    for line in lines(content(destination, key, manifest, table)):
        fields = line.split(b"\t")
        yield {name: None if value == _NULL else value for name, value in zip(table.columns, fields, strict=True)}


def lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Without their line breaks."""
    waiting = b""
    for chunk in chunks:
        *whole, waiting = (waiting + chunk).split(b"\n")
        yield from whole
    if waiting:
        yield waiting


def destroyed_subjects(destination: Destination, key: bytes, manifest: Manifest) -> set[str]:
    """Subjects whose keys this backup does not hold any more."""
    table = manifest.table(KEYS)
    if table is None:
        return set()
    found = records(destination, key, manifest, table)
    return {(row["subject_id"] or b"").decode("utf-8") for row in found if row["wrapped"] is None}


def without_keys(destination: Destination, key: bytes, manifest: Manifest, destroyed: Mapping[str, bytes]) -> TableFile | None:
    """Writes the backup's table of keys anew, under another name, without those of destroyed subjects (subject → when, as COPY
    text)."""
    table = manifest.table(KEYS)
    if table is None:
        return None
    file_name = f"{KEYS}-{uuid.uuid4().hex[:8]}"
    name = f"{manifest.folder}/{file_name}"
    with destination.create(name) as file:
        writer = TableWriter(SealedWriter(file, key, name))
        for row in records(destination, key, manifest, table):
            when = destroyed.get((row["subject_id"] or b"").decode("utf-8"))
            if when is not None:
                row = {**row, "wrapped": None} | ({"destroyed_at": when} if "destroyed_at" in row else {})
            writer.write(b"\t".join(_NULL if row[column] is None else row[column] or b"" for column in table.columns) + b"\n")
        return writer.finish(table.name, file_name, table.columns)


async def load(connection: asyncpg.Connection, destination: Destination, key: bytes, manifest: Manifest, table: TableFile) -> None:
    """Puts the table's rows in the place of whatever a migration put there. In the caller's transaction, as the tables' owner."""

    async def source() -> AsyncIterator[bytes]:
        for data in content(destination, key, manifest, table):
            yield data

    await connection.execute(f'ALTER TABLE public."{table.name}" DISABLE TRIGGER USER; DELETE FROM public."{table.name}"')
    await connection.copy_to_table(table.name, schema_name="public", columns=table.columns, source=source(), format="text")
    await connection.execute(f'ALTER TABLE public."{table.name}" ENABLE TRIGGER USER')
