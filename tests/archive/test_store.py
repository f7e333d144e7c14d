"""The store: on the spool's file system, on another one, and behind fsspec; written once, checked on demand."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from archive.errors import NotInArchive, ObjectDamaged
from archive.spool import Spool, SpooledInstance
from archive.store import Store

MISSING = "0" * 64


def spooled(folder: Path, data: bytes = b"\x08\x00\x16\x00") -> SpooledInstance:
    with Spool(folder).receive(
        sop_class_uid="1.2", sop_instance_uid="1.2.3", transfer_syntax_uid="1.2.840.10008.1.2.1", door="ingest"
    ) as reception:
        reception.write(data)
        return reception.commit()


@pytest.fixture(params=["same file system", "another file system", "fsspec"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "same file system":
        yield Store(str(tmp_path / "archive"))
    elif request.param == "another file system":
        if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("/dev/shm and the temporary folder are one file system here")
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            yield Store(folder)
    else:
        yield Store("memory://archive")
        fsspec.filesystem("memory").store.clear()


def test_an_object_comes_back_with_its_bytes(store: Store, tmp_path: Path) -> None:
    one = spooled(tmp_path / "spool")
    data = one.path.read_bytes()
    assert not store.has(one.sha256)
    store.put(one)
    store.put(one)  # the same once more is the same
    one.path.unlink()
    assert store.has(one.sha256) and store.size(one.sha256) == len(data)
    with store.open(one.sha256) as file:
        assert file.read() == data
    assert store.fetch(one.sha256, tmp_path).read_bytes() == data
    store.verify(one.sha256)


def test_what_is_not_there_is_named(store: Store, tmp_path: Path) -> None:
    assert not store.has(MISSING)
    with pytest.raises(NotInArchive, match=MISSING):
        store.open(MISSING)
    with pytest.raises(NotInArchive):
        store.size(MISSING)
    with pytest.raises(NotInArchive):
        store.fetch(MISSING, tmp_path)
    with pytest.raises(NotInArchive):
        store.verify(MISSING)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "archive"))
    one = spooled(tmp_path / "spool", b"x" * 4096)
    store.put(one)
    path = store.local_path(one.sha256)
    assert path is not None
    with path.open("r+b") as file:
        file.seek(2000)
        file.write(b"y")
    with pytest.raises(ObjectDamaged, match=one.sha256):
        store.verify(one.sha256)


def test_the_spool_and_the_store_share_the_bytes_of_one_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "archive"))
    one = spooled(tmp_path / "spool")
    store.put(one)
    path = store.local_path(one.sha256)
    assert path is not None and path.samefile(one.path), "a hard link: no byte is written twice"
