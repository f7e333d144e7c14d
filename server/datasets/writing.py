"""An export's files, step by step, from its plan and the archive: the same bytes whenever, wherever, and however often interrupted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from archive.store import Store
from server.datasets.folder import File, Folder, Made, Step
from server.datasets.layouts import bids, croissant, datasheet, dicom, images, manifest, nnunet, tables
from server.datasets.plan import IMAGES, TABLES, Layout, LeftOut, Plan


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an export is: steps, and what of it is on the disk."""

    steps: int = 0
    done: int = 0
    files: int = 0
    bytes: int = 0

    @property
    def percent(self) -> int:
        return 100 * self.done // self.steps if self.steps else 0


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What an export came to. ``left_out``: entities that are missing in a layout, or in all."""

    manifest_sha256: str
    files: int
    bytes: int
    left_out: int


def write_export(plan: Plan, store: Store, root: Path, heard: Callable[[Progress], None] = lambda progress: None) -> Written:
    """Makes what is not there yet. Raises NotInArchive, ObjectDamaged, OSError."""
    folder = Folder(root)
    folder.take_up()
    labels = images.labels_of(plan, store) if IMAGES & {*plan.layouts} else {}
    work: list[tuple[str, Callable[[Step], None]]] = []
    for one in plan.series:
        if Layout.DICOM in plan.layouts:
            work.append((f"dicom {one.series_uid}", lambda step, one=one: dicom.write_series(step, one, store)))  # type: ignore[misc]
        if IMAGES & {*plan.layouts}:
            work.append((f"images {one.series_uid}", lambda step, one=one: images.write_series(step, plan, one, store, labels)))  # type: ignore[misc]
    if Layout.NNUNET in plan.layouts:
        work.append(("nnunet", lambda step: nnunet.write_descriptions(step, plan, _paths(folder), labels)))
    if Layout.BIDS in plan.layouts:
        work.append(("bids", lambda step: bids.write_descriptions(step, plan, _paths(folder))))
    if TABLES & {*plan.layouts}:
        work.append(("tables", lambda step: tables.write_tables(step, plan)))
    work += [
        ("datasheet", lambda step: datasheet.write_datasheet(step, plan, _files(folder), _left_out(plan, folder))),
        ("croissant", lambda step: croissant.write_croissant(step, plan, _files(folder))),
        ("manifest", lambda step: manifest.write_manifest(step, plan, _files(folder), _left_out(plan, folder))),
        ("sums", lambda step: manifest.write_sums(step, plan, _files(folder))),
    ]
    for done, (name, make) in enumerate(work):
        heard(Progress(steps=len(work), done=done, files=folder.files, bytes=folder.bytes))
        if name not in folder.made:
            step = folder.step(name)
            make(step)
            step.done()
    heard(Progress(steps=len(work), done=len(work), files=folder.files, bytes=folder.bytes))
    folder.finish()
    return Written(
        manifest_sha256=next(file.sha256 for file in folder.made["manifest"].files),
        files=folder.files,
        bytes=folder.bytes,
        left_out=len({one.entity for one in _left_out(plan, folder)}),
    )


def _files(folder: Folder) -> list[File]:
    return sorted((file for one in folder.made.values() for file in one.files), key=lambda file: file.path)


def _paths(folder: Folder) -> frozenset[str]:
    return frozenset(file.path for file in _files(folder))


def _left_out(plan: Plan, folder: Folder) -> Sequence[LeftOut]:
    made: Sequence[Made] = list(folder.made.values())
    return sorted([*plan.left_out, *(one for step in made for one in step.left_out)], key=lambda one: (one.entity, one.layout, one.reason))
