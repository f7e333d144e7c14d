"""The whole path by each of the three doors, with every real series: sent, stored, indexed, projected, fetched back."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fhir.resources
import httpx
import pytest
from ports import free_port
from running_site import Site

from archive.errors import Refused
from archive.header import read_header
from archive.part10 import read_part10
from domain.intake import FileRefused
from domain.series import IndexingFailed, IndexingRefused, InstanceConflicted, InstancesStored, SeriesIndexed
from eventlog.log import EventLog
from eventlog.settings import LogSettings
from projections.fhir.projection import CURATED

pytestmark = pytest.mark.slow

DCMTK = {**os.environ, "TCP_NODELAY": "1"}
PROPOSE = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.5": "-xr",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
}
"""Transfer syntax → the option by which storescu proposes it."""

Sent = dict[str, set[bytes]]
"""SOP Instance UID → the data sets that were sent under it."""


def data_set(data: bytes) -> bytes:
    return data[read_part10(io.BytesIO(data)).dataset_offset :]


def instances(folder: Path) -> list[Path]:
    """The files below that are instances; DICOMDIRs and broken files are other tests' subject."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in ("", ".dcm")):
        try:
            read_header(path)
        except Refused:
            continue
        found.append(path)
    return found


def as_sent(files: list[Path]) -> Sent:
    sent: Sent = defaultdict(set)
    for path in files:
        sent[read_header(path).sop_instance_uid].add(data_set(path.read_bytes()))
    return sent


def by_ingest(site: Site, files: list[Path], tmp_path: Path) -> Sent:
    site.run("ingest", *map(str, files), exit_codes=(0, 1))
    return as_sent(files)


def by_stow(site: Site, files: list[Path], tmp_path: Path) -> Sent:
    headers = {"Authorization": f"Bearer {site.token('dicom:write')}", "Content-Type": "multipart/related; boundary=edge-of-a-part"}
    with httpx.Client(headers=headers, timeout=120) as client:
        for start in range(0, len(files), 20):
            parts = [path.read_bytes() for path in files[start : start + 20]]
            body = b"".join(b"--edge-of-a-part\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts)
            answer = client.post(f"{site.url}/dicomweb/studies", content=body + b"--edge-of-a-part--")
            assert answer.status_code in (200, 202, 409), answer.text
    return as_sent(files)


def by_storescu(site: Site, files: list[Path], tmp_path: Path) -> Sent:
    """dcmtk encodes some data sets anew, so what it sent is what its own storescp, which keeps every bit, has received."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        syntax = read_header(path).transfer_syntax_uid
        if syntax in PROPOSE:
            groups[syntax].append(path)
    assert sum(len(group) for group in groups.values()) >= len(files) - 1  # storescu cannot propose deflated frames (SEG)
    with witness(tmp_path / "witness") as port:
        for syntax, group in groups.items():
            for receiver in (port, site.dimse_port):
                command = ["/usr/bin/storescu", "-R", "-nh", PROPOSE[syntax], "127.0.0.1", str(receiver), *map(str, group)]
                done = subprocess.run(command, env=DCMTK, capture_output=True, text=True, timeout=300)
                assert done.returncode == 0, done.stderr
    return as_sent(sorted((tmp_path / "witness").iterdir()))


@contextmanager
def witness(folder: Path) -> Iterator[int]:
    folder.mkdir()
    port = free_port()
    process = subprocess.Popen(["/usr/bin/storescp", "+xa", "+B", "+uf", "-od", str(folder), str(port)], env=DCMTK)
    try:
        for _ in range(200):
            if subprocess.run(["/usr/bin/echoscu", "127.0.0.1", str(port)], env=DCMTK, capture_output=True, timeout=20).returncode == 0:
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("door", [by_ingest, by_stow, by_storescu])
async def test_every_real_series_goes_the_whole_path(
    door: Callable[[Site, list[Path], Path], Sent], dicom_data: Path, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    site.run("init")
    site.start("server", "serve", "--with-worker")
    try:
        site.wait_until_ready()
        sent = door(site, instances(dicom_data), tmp_path)
        log = await EventLog.open(LogSettings(data_dir=tmp_path / "data"))
        try:
            served = await stored(log, set(sent))
            await each_ct_series_is_indexed_or_says_why(log)
            head = await log.head()
        finally:
            await log.close()
        await asyncio.to_thread(site.wait_until_projected, head)
        await asyncio.to_thread(all_is_served, site, served, sent)
    finally:
        site.stop()


async def stored(log: EventLog, wanted: set[str]) -> dict[str, str]:
    """SOP Instance UID → path of the instance, once each one that was sent is stored or refused by name."""
    deadline = time.monotonic() + 120
    while True:
        served: dict[str, str] = {}
        refused: dict[str | None, str] = {}
        for event in [e.event for e in await log.read(0, 100_000, [InstancesStored, InstanceConflicted, FileRefused])]:
            if isinstance(event, InstancesStored):
                folder = f"/studies/{event.study_uid}/series/{event.series_uid}/instances"
                served |= {i.sop_instance_uid: f"{folder}/{i.sop_instance_uid}" for i in event.instances}
            elif isinstance(event, FileRefused):
                refused[event.sop_instance_uid] = event.reason
        if wanted <= served.keys() | refused.keys():
            # A series may not name another study than its first instance did; nothing else that can be read is refused.
            assert {reason for uid, reason in refused.items() if uid not in served} <= {"other-study"}
            assert len(served) > 0.9 * len(wanted)
            return served
        assert time.monotonic() < deadline, f"{len(wanted - served.keys())} instances are neither stored nor refused"
        await asyncio.sleep(0.2)


async def each_ct_series_is_indexed_or_says_why(log: EventLog) -> None:
    deadline = time.monotonic() + 240
    while True:
        events = [e.event for e in await log.read(0, 100_000, [InstancesStored, SeriesIndexed, IndexingRefused, IndexingFailed])]
        waiting = {e.series_uid for e in events if isinstance(e, InstancesStored)}
        outcomes: dict[str, Any] = {e.series_uid: e for e in events if not isinstance(e, InstancesStored)}
        if waiting <= outcomes.keys():
            break
        assert time.monotonic() < deadline, f"{len(waiting - outcomes.keys())} series have neither an index nor a reason"
        await asyncio.sleep(0.5)
    indexed = [e for e in outcomes.values() if isinstance(e, SeriesIndexed)]
    refused = [e for e in outcomes.values() if isinstance(e, IndexingRefused)]
    assert len(indexed) + len(refused) == len(outcomes), [e for e in outcomes.values() if isinstance(e, IndexingFailed)]
    assert len(indexed) >= 4 and all(e.findings for e in indexed)
    assert all(e.reason and e.detail for e in refused)


def all_is_served(site: Site, served: dict[str, str], sent: Sent) -> None:
    """Each instance with the data set that was sent, and valid resources of each type."""
    headers = {"Authorization": f"Bearer {site.token('audit:read', 'dicom:read', 'fhir:read')}"}
    with httpx.Client(base_url=site.url, headers=headers, timeout=60) as client:
        for uid, path in served.items():
            answer = client.get(f"/dicomweb{path}", headers={"Accept": "application/dicom"})
            assert answer.status_code == 200, answer.text
            assert data_set(answer.content) in sent[uid]
        wait_for_accesses(client)
        for type_ in CURATED:
            assert everything_of(client, type_) > 0, type_


def wait_for_accesses(client: httpx.Client) -> None:
    """What was read is recorded in batches, a moment later."""
    deadline = time.monotonic() + 60
    while not client.get("/fhir/AuditEvent?_count=1").json().get("entry"):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def everything_of(client: httpx.Client, type_: str) -> int:
    """Pages through a type to its end; every resource must be valid R5. Gives their number."""
    count = 0
    url = f"/fhir/{type_}?_count=200"
    while url:
        bundle = client.get(url)
        assert bundle.status_code == 200, bundle.text
        for entry in bundle.json().get("entry", []):
            resource = entry["resource"]
            fhir.resources.get_fhir_model_class(resource["resourceType"]).model_validate(resource)
            count += 1
        url = next((link["url"] for link in bundle.json()["link"] if link["relation"] == "next"), "")
    return count
