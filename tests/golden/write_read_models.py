"""Writes down what the read models make of the golden logs: `python tests/golden/write_read_models.py`.

A digest of each table, for each golden log and each projection at its version. What stands there for a release's log is not written
again: a projection that makes other rows of the same events has a new version, and is so built anew wherever it runs.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import asyncpg
from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).parents[1]))

from golden_log import FOLDER, golden_log, names, put_into

from eventlog.embedded import EmbeddedPostgres
from eventlog.log import EventLog
from eventlog.schema import migrate
from eventlog.settings import LogSettings
from eventlog.vault import make_key_encryption_key
from projections.catalogue import all_projections
from projections.digest import table_digests
from projections.projection import schema_name
from projections.runner import Runner

READ_MODELS = FOLDER / "read_models.json"

T = TypeVar("T")


async def digests(log: EventLog, name: str) -> dict[str, dict[str, str]]:
    """Schema (fhir_v2) → table → digest, once the empty log holds this golden one and every projection has caught up."""
    await put_into(log, golden_log(name))
    await Runner(log, all_projections()).catch_up()
    async with log.pool.acquire() as connection:
        await connection.execute("SET TimeZone = 'UTC'")
        return {schema_name(projection): await table_digests(connection, projection) for projection in all_projections()}


async def of_a_fresh_database(server: str, folder: str, name: str, asked: Callable[[EventLog, str], Awaitable[T]]) -> T:
    """What is asked of an empty log, in a database of its own, for this golden log."""
    database = f"golden_{names().index(name)}"
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {database}")
    await connection.close()
    url = server.replace("/postgres", f"/{database}", 1) if server.endswith("/postgres") else server.replace("/postgres?", f"/{database}?", 1)
    settings = LogSettings(data_dir=Path(folder) / database, database_url=SecretStr(url))
    make_key_encryption_key(settings)
    await migrate(settings)
    log = await EventLog.open(settings)
    try:
        return await asked(log, name)
    finally:
        await log.close()


def main() -> None:
    known = json.loads(READ_MODELS.read_text()) if READ_MODELS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder) / "postgresql")
        for name in names():
            for schema, tables in asyncio.run(of_a_fresh_database(server.url("postgres"), folder, name, digests)).items():
                if name == "unreleased":
                    known.setdefault(name, {})[schema] = tables
                else:
                    known.setdefault(name, {}).setdefault(schema, tables)
        server.leave()
    READ_MODELS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
