"""The spool: durable when it says so, found again after a crash, and clean after everything else."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.errors import SpoolFull
from archive.part10 import read_part10
from archive.spool import Spool, SpooledInstance

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
IN_CI = os.environ.get("CI", "") not in ("", "false", "0")


def take(spool: Spool, number: int, data: bytes = b"\x08\x00\x16\x00", sender: str | None = "SCANNER") -> SpooledInstance:
    with spool.receive(
        sop_class_uid=CT, sop_instance_uid=f"1.2.{number}", transfer_syntax_uid=EXPLICIT, door="dimse", sender=sender
    ) as reception:
        reception.write(data)
        return reception.commit()


def test_a_committed_instance_is_a_part_10_file_under_its_digest(tmp_path: Path) -> None:
    spooled = take(Spool(tmp_path), 1, b"abcdef")
    data = spooled.path.read_bytes()
    assert spooled.sha256 == hashlib.sha256(data).hexdigest() and spooled.size == len(data)
    with spooled.path.open("rb") as file:
        meta = read_part10(file)
        assert file.seek(meta.dataset_offset) and file.read() == b"abcdef"
    assert (meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid) == (CT, "1.2.1", EXPLICIT)
    assert spooled.path.stat().st_mode & 0o077 == 0, "images are for their owner alone"


def test_what_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with spool.receive(sop_class_uid=CT, sop_instance_uid="1.2", transfer_syntax_uid=EXPLICIT, door="stow") as reception:
        reception.write(b"abc")
    with pytest.raises(ConnectionResetError):
        _aborted(spool)
    assert list(spool.folder.iterdir()) == []


def _aborted(spool: Spool) -> None:
    with spool.receive(sop_class_uid=CT, sop_instance_uid="1.2", transfer_syntax_uid=EXPLICIT, door="dimse") as reception:
        reception.write(b"abc")
        raise ConnectionResetError


CRASH = """
import sys
from pathlib import Path
from archive.spool import Spool
spool = Spool(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    with spool.receive(sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_instance_uid=f"1.2.{number}",
                       transfer_syntax_uid="1.2.840.10008.1.2.1", door="dimse", sender="SCANNER é") as reception:
        for _ in range(50):
            reception.write(b"x" * 1000)
        print(reception.commit().sha256, number, flush=True)
"""


def test_a_killed_process_leaves_what_it_acknowledged_and_the_next_takes_it_up(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", CRASH, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().split() for _ in range(20)]
    living = Spool(tmp_path)
    assert list(living.pending()) == [], "what a living process holds is its own"
    process.send_signal(signal.SIGKILL)
    acknowledged += [line.split() for line in process.stdout.read().splitlines() if len(line.split()) == 2]
    process.wait()
    left = {(p.sha256, p.sop_instance_uid, p.door, p.sender, p.sop_class_uid) for p in living.pending()}
    assert {(digest, f"1.2.{number}", "dimse", "SCANNER é", CT) for digest, number in acknowledged} <= left
    assert len(left) <= len(acknowledged) + 1, "one may be whole and not yet acknowledged"
    assert living.depth() == len(left)
    for spooled in living.pending():
        assert hashlib.sha256(spooled.path.read_bytes()).hexdigest() == spooled.sha256
        spooled.path.unlink()
    assert list(living.pending()) == [] and living.depth() == 0
    assert [f for f in tmp_path.iterdir() if f != living.folder] == [], "the folder of the dead process is gone"


def test_many_threads_commit_at_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    done: list[SpooledInstance] = []
    threads = [threading.Thread(target=lambda n=n: done.extend(take(spool, n * 100 + i) for i in range(20))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.path for one in done}) == spool.depth() == 160


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB. Only root may mount one: continuous integration runs as root."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        (pytest.fail if IN_CI else pytest.skip)(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_named_and_keeps_what_was_acknowledged(small_disk: Path) -> None:
    spool = Spool(small_disk)
    kept: list[SpooledInstance] = []
    with pytest.raises(SpoolFull, match="full"):
        _fill(spool, kept)
    assert kept and {p.name for p in spool.folder.iterdir()} == {one.path.name for one in kept}
    for one in kept:
        assert hashlib.sha256(one.path.read_bytes()).hexdigest() == one.sha256
    kept.pop().path.unlink()
    take(spool, 1000, b"x" * 20_000)


def _fill(spool: Spool, kept: list[SpooledInstance]) -> None:
    for number in range(100):
        kept.append(take(spool, number, b"x" * 20_000))
