"""Rotating the key-encryption key: killed at any point and run again, beside writers, and never two at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import asyncpg
import pytest
from tampering import append_studies

from domain.principal import device
from domain.subject import Demographics, SubjectRegistered
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.errors import KeyEncryptionKeyWrong, RotationUnderway
from eventlog.kek import key_lines, load_keys, make_key_encryption_key
from eventlog.log import EventLog
from eventlog.rotation import keys_status, rotate
from eventlog.sealer import rotate_key, seal

ROTATE_AND_DIE = """
import asyncio, os, signal, sys
import asyncpg
from eventlog import rotation
from eventlog.settings import LogSettings

rotation.BATCH = 7
dies_at = sys.argv[2]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def heard(done, all_):
    if dies_at.isdigit() and done >= int(dies_at):
        die()

if dies_at == "key made":
    add = rotation.add_key
    rotation.add_key = lambda settings: (add(settings), die())
if dies_at == "all done":
    rotation.keep_first_key = die

async def main():
    connection = await asyncpg.connect(sys.argv[1])
    await rotation.rotate(LogSettings(), connection, heard)

asyncio.run(main())
"""
SUBJECTS = 40


async def register(log: EventLog, names: Sequence[str]) -> None:
    streams = [
        StreamAppend(
            stream=f"subject-{name}",
            events=[NewEvent(event=SubjectRegistered(subject_id=name, demographics=Demographics(patient_name=name)))],
        )
        for name in names
    ]
    await log.append(streams, principal=device("test"))


async def names_read(log: EventLog) -> set[str]:
    events = [one.event for one in await log.read(0, 10_000, [SubjectRegistered])]
    return {event.demographics.patient_name for event in events if isinstance(event, SubjectRegistered)}


@contextlib.asynccontextmanager
async def opened_anew(log: EventLog) -> AsyncIterator[EventLog]:
    other = await EventLog.open(log.settings)
    try:
        yield other
    finally:
        await other.close()


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("dies_at", ["key made", "1", "15", "all done"])
async def test_a_rotation_that_is_killed_goes_on_when_run_again(
    event_log: EventLog, database_url: str, connection: asyncpg.Connection, dies_at: str
) -> None:
    await register(event_log, [f"n{n}" for n in range(SUBJECTS)])
    await append_studies(event_log, 1)
    await seal(event_log)  # makes a signing key, which is under the key too
    old = load_keys(event_log.settings).first_id
    environment = {**os.environ, "ANAMNESIS_DATA_DIR": str(event_log.settings.data_dir)}
    command = [sys.executable, "-W", "ignore", "-c", ROTATE_AND_DIE, database_url, dies_at]
    killed = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(key_lines(event_log.settings)) == 2  # both, until the last secret is done
    async with opened_anew(event_log) as other:  # every process reads and writes on in between
        assert len(await names_read(other)) == SUBJECTS
        await register(other, ["between"])
        assert (await keys_status(other.settings, connection)).rotation_is_unfinished == (dies_at != "all done")

    heard: list[tuple[int, int]] = []
    rotated = await rotate(event_log.settings, connection, lambda done, all_: heard.append((done, all_)))
    assert load_keys(event_log.settings).ids == [rotated.kek_id] and rotated.kek_id != old
    assert all(done <= all_ for done, all_ in heard) and heard[-1] == (rotated.secrets, rotated.secrets) if heard else rotated.secrets == 0
    status = await keys_status(event_log.settings, connection)
    assert status.secrets == {rotated.kek_id: SUBJECTS + 3} and status.wraps == rotated.kek_id  # + between, the site, the signing key
    async with opened_anew(event_log) as other:
        assert await names_read(other) == {f"n{n}" for n in range(SUBJECTS)} | {"between"}
        await append_studies(other, 1, 1)
        await seal(other)


async def test_writers_go_on_while_it_is_rotated_again_and_again(event_log: EventLog, connection: asyncpg.Connection) -> None:
    async with opened_anew(event_log) as writer:
        done = asyncio.Event()
        written: list[str] = []

        async def write() -> None:
            while not done.is_set() or len(written) < 30:
                name = f"w{len(written)}"
                await register(writer, [name])
                written.append(name)

        writing = asyncio.create_task(write())
        ids = [(await rotate(event_log.settings, connection)).kek_id for _ in range(4)]
        done.set()
        await writing
        assert len(set(ids)) == 4
        async with opened_anew(event_log) as reader:
            assert await names_read(reader) == set(written)


async def test_two_at_once_are_refused_and_the_key_stays(event_log: EventLog, connection: asyncpg.Connection) -> None:
    await register(event_log, [f"n{n}" for n in range(20)])
    async with event_log.pool.acquire() as another:
        results = await asyncio.gather(
            rotate(event_log.settings, connection), rotate(event_log.settings, another), return_exceptions=True
        )
    assert [type(one) for one in results if isinstance(one, Exception)] == [RotationUnderway]
    async with opened_anew(event_log) as other:
        assert len(await names_read(other)) == 20


async def test_a_process_that_was_open_before_wraps_its_next_secret_under_the_new_key(
    event_log: EventLog, connection: asyncpg.Connection
) -> None:
    rotated = await rotate(event_log.settings, connection)
    await append_studies(event_log, 1)
    await seal(event_log)
    await rotate_key(event_log)
    assert (await keys_status(event_log.settings, connection)).secrets.keys() == {rotated.kek_id}


async def test_a_rotation_mends_no_wrong_key(event_log: EventLog, connection: asyncpg.Connection) -> None:
    await register(event_log, ["n"])
    kek_file = event_log.settings.kek_file
    kept = kek_file.read_text()
    kek_file.unlink()
    make_key_encryption_key(event_log.settings)
    with pytest.raises(KeyEncryptionKeyWrong):
        await rotate(event_log.settings, connection)
    kek_file.write_text(kept)
    async with opened_anew(event_log) as other:
        assert await names_read(other) == {"n"}


def test_the_command_shows_progress_and_the_state(event_log: EventLog, database_url: str, tmp_path: Path) -> None:
    environment = {
        **os.environ, "ANAMNESIS_DATA_DIR": str(event_log.settings.data_dir), "ANAMNESIS_DATABASE_URL": database_url, "PYTHONWARNINGS": "ignore",
    }  # fmt: skip

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([sys.executable, "-m", "server.cli", "keys", *arguments], env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done

    before = json.loads(run("status", "--json").stdout)
    assert before["secrets"] == {before["wraps"]: 1} and before["source"] == str(event_log.settings.kek_file)
    rotated = run("rotate", "--json")
    assert "Wrapping keys anew" in rotated.stderr and json.loads(rotated.stdout)["secrets"] == 1
    after = json.loads(run("status", "--json").stdout)
    assert after["at_hand"] == [after["wraps"]] == [json.loads(rotated.stdout)["kek_id"]] != before["at_hand"]
    assert str(event_log.settings.kek_file) in run("rotate").stdout
    environment["ANAMNESIS_KEY_ENCRYPTION_KEY"] = event_log.settings.kek_file.read_text().strip()
    assert "set a new key there" in run("rotate", code=2).stderr
