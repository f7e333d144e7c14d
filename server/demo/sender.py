"""Sends files over a real C-STORE association (pynetdicom)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.presentation import build_context

from archive.errors import ArchiveError
from archive.header import InstanceHeader, read_header

MAX_CONTEXTS = 128
ANSWER_TIMEOUT_S = 120.0
"""An instance is on the disk before it is answered, and right after the installation the disk has a gigabyte of it to write."""


class SendFailed(Exception):
    """Raised when the association is refused or an instance is not accepted."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    series: list[str]
    instances: int


def dicom_files(folder: Path) -> list[tuple[Path, InstanceHeader]]:
    """The DICOM files below a folder, with their headers; others are left out."""
    found: list[tuple[Path, InstanceHeader]] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else [folder]:
        try:
            found.append((path, read_header(path)))
        except ArchiveError:
            continue
    if not found:
        raise SendFailed(f"there is no DICOM file in {folder}")
    return found


def send(files: list[tuple[Path, InstanceHeader]], address: tuple[str, int], sent: Callable[[], object]) -> Sent:
    """Sends all of them over one association, each in the transfer syntax that it has. Raises SendFailed."""
    ae = AE(ae_title="DEMO")
    ae.dimse_timeout = ANSWER_TIMEOUT_S
    wanted = sorted({(header.sop_class_uid, header.transfer_syntax_uid) for _, header in files})
    if len(wanted) > MAX_CONTEXTS:
        raise SendFailed(f"{len(wanted)} kinds of instances do not fit into one association: choose a smaller folder")
    ae.requested_contexts = [build_context(sop_class, syntax) for sop_class, syntax in wanted]
    association = ae.associate(*address)
    if not association.is_established:
        raise SendFailed("the association was not accepted")
    try:
        for path, _ in files:
            status = association.send_c_store(dcmread(path, force=True))
            if "Status" not in status or status.Status != 0x0000:
                raise SendFailed(f"an instance was answered {status.get('Status', 'nothing')}")
            sent()
    finally:
        association.release()
    return Sent(series=list(dict.fromkeys(header.series_uid for _, header in files)), instances=len(files))
