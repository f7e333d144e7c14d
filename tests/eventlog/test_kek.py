"""Where key-encryption keys come from: the environment, a file, and a key management service in a process of its own."""

from __future__ import annotations

import base64
import secrets
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import msgspec
import pytest
import socket_kms
from pydantic import SecretStr

from domain.principal import device
from domain.subject import Demographics, SubjectRegistered
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.errors import KeyEncryptionKeyMissing, KeyEncryptionKeyWrong, KmsFailed, KmsUnknown
from eventlog.kek import kek_id, load_keys, make_key_encryption_key
from eventlog.log import EventLog
from eventlog.rotation import rotate
from eventlog.settings import LogSettings

ANNA = SubjectRegistered(subject_id="s", sex="F", demographics=Demographics(patient_name="Anna^Beta"))


def new_key() -> SecretStr:
    return SecretStr(base64.b64encode(secrets.token_bytes(32)).decode("ascii"))


def with_key(settings: LogSettings, **keys: SecretStr | Path | str | None) -> LogSettings:
    return settings.model_copy(update=keys)


async def store(log: EventLog, subject_id: str = "s") -> None:
    event = msgspec.structs.replace(ANNA, subject_id=subject_id)
    await log.append([StreamAppend(stream=f"subject-{subject_id}", events=[NewEvent(event=event)])], principal=device("test"))


async def stored(settings: LogSettings) -> object:
    """What another process reads with these settings."""
    log = await EventLog.open(settings)
    try:
        return [one.event for one in await log.read_stream("subject-s")]
    finally:
        await log.close()


async def rotated(settings: LogSettings, url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return (await rotate(settings, connection)).secrets
    finally:
        await connection.close()


@pytest.fixture
def kms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """The service runs, and its plug-in is installed."""
    path = tmp_path / "kms.socket"
    service = subprocess.Popen([sys.executable, socket_kms.__file__, str(path)])
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
                break
            except OSError:
                assert service.poll() is None
                time.sleep(0.02)
    socket_kms.install(tmp_path / "installed")
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    monkeypatch.setenv(socket_kms.SOCKET_VARIABLE, str(path))
    yield service
    service.kill()
    service.wait()


def test_the_key_file_is_its_owners_alone_and_made_once(tmp_path: Path) -> None:
    settings = LogSettings(data_dir=tmp_path / "data")
    assert make_key_encryption_key(settings) and not make_key_encryption_key(settings)
    assert stat.S_IMODE(settings.kek_file.stat().st_mode) == 0o600
    assert settings.kek_file == tmp_path / "data" / "keys" / "kek"


def test_the_key_file_may_lie_elsewhere(tmp_path: Path) -> None:
    settings = LogSettings(data_dir=tmp_path / "data", key_encryption_key_file=tmp_path / "stick" / "anamnesis.key")
    assert make_key_encryption_key(settings)
    assert (tmp_path / "stick" / "anamnesis.key").exists() and not (tmp_path / "data").exists()
    assert len(load_keys(settings).ids) == 1


@pytest.mark.parametrize("text", ["", "no base64!", base64.b64encode(b"short").decode(), "gpg:x:AAAA"])
def test_what_is_no_key_is_refused_by_the_name_of_its_variable_and_never_shown(tmp_path: Path, text: str) -> None:
    settings = LogSettings(data_dir=tmp_path, key_encryption_key=SecretStr(text))
    with pytest.raises(KeyEncryptionKeyMissing, match="ANAMNESIS_KEY_ENCRYPTION_KEY") as refused:
        load_keys(settings)
    assert not text or text not in str(refused.value)


def test_without_any_key_it_says_where_one_would_be(tmp_path: Path) -> None:
    with pytest.raises(KeyEncryptionKeyMissing, match="keys/kek: put your copy there"):
        load_keys(LogSettings(data_dir=tmp_path))


async def test_another_key_does_not_open_the_site(event_log: EventLog) -> None:
    await store(event_log)
    with pytest.raises(KeyEncryptionKeyWrong, match="ANAMNESIS_PREVIOUS_KEY_ENCRYPTION_KEY"):
        await EventLog.open(with_key(event_log.settings, key_encryption_key=new_key(), key_encryption_key_file=Path("/nowhere")))


async def test_from_the_file_to_the_environment_and_to_another_key_there(event_log: EventLog, database_url: str) -> None:
    await store(event_log)
    first, second = new_key(), new_key()
    in_environment = with_key(event_log.settings, key_encryption_key=first)
    assert await rotated(in_environment, database_url) == 2  # the site's secret and the subject's
    event_log.settings.kek_file.unlink()
    assert await stored(in_environment) == [ANNA]
    both = with_key(in_environment, key_encryption_key=second, previous_key_encryption_key=first)
    assert await stored(both) == [ANNA]  # before it is rotated
    assert await rotated(both, database_url) == 2
    assert await stored(with_key(both, previous_key_encryption_key=None)) == [ANNA]


async def test_a_service_wraps_the_key_in_the_file(
    event_log: EventLog, database_url: str, kms: subprocess.Popen[bytes]
) -> None:
    await store(event_log)
    plain = load_keys(event_log.settings)
    by_service = with_key(event_log.settings, kms="test")
    await rotated(by_service, database_url)
    text = event_log.settings.kek_file.read_text()
    assert text.startswith("kms:test:") and text.count("\n") == 1
    assert load_keys(by_service).ids != plain.ids
    assert await stored(event_log.settings) == [ANNA]  # the file says which service: the setting is for new keys alone
    assert await stored(with_key(by_service, key_encryption_key=SecretStr(text.strip()), key_encryption_key_file=Path("/nowhere"))) == [ANNA]
    await rotated(by_service, database_url)
    assert await stored(by_service) == [ANNA] and event_log.settings.kek_file.read_text() != text

    await store(event_log, "t")
    kms.kill()
    kms.wait()
    await store(event_log, "u")  # a process that has the key asks no more
    with pytest.raises(KmsFailed, match=r"does not unwrap .ConnectionRefusedError.: see that it answers"):
        await stored(by_service)


def test_a_site_begins_with_a_service(tmp_path: Path, kms: subprocess.Popen[bytes]) -> None:
    settings = LogSettings(data_dir=tmp_path / "data", kms="test")
    assert make_key_encryption_key(settings)
    assert settings.kek_file.read_text().startswith("kms:test:")
    assert load_keys(settings).ids == [kek_id(load_keys(settings).first)]


def test_a_service_that_does_not_answer_leaves_no_key_behind(tmp_path: Path, kms: subprocess.Popen[bytes]) -> None:
    settings = LogSettings(data_dir=tmp_path / "data", kms="test")
    kms.kill()
    kms.wait()
    with pytest.raises(KmsFailed, match="does not wrap"):
        make_key_encryption_key(settings)
    assert not settings.kek_file.exists()


def test_a_service_that_no_package_gives_is_named(tmp_path: Path) -> None:
    with pytest.raises(KmsUnknown, match="no package gives a key management service nobody"):
        make_key_encryption_key(LogSettings(data_dir=tmp_path, kms="nobody"))


def test_what_a_service_did_not_wrap_is_refused(tmp_path: Path, kms: subprocess.Popen[bytes]) -> None:
    text = "kms:test:" + base64.b64encode(secrets.token_bytes(60)).decode("ascii")
    with pytest.raises(KmsFailed, match="PermissionError"):
        load_keys(LogSettings(data_dir=tmp_path, key_encryption_key=SecretStr(text)))
