"""Series as NIfTI files with their masks, in the places where nnU-Net and BIDS look for them; each series is converted once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from archive.errors import GeometryRefused, MaskRefused
from archive.header import read_header
from archive.masks import Segmentation, label_map, segments_of, series_segmented
from archive.store import Store
from archive.volume import ScalarVolume, read_scalar_volume, write_nifti
from server.datasets.folder import Step
from server.datasets.layouts import bids, nnunet
from server.datasets.plan import Layout, LeftOut, Plan, PlannedSeries, Source

NOT_IMAGES = frozenset({"SEG", "SR", "RTSTRUCT", "RTPLAN", "RTRECORD", "KO", "PR", "DOC", "REG", "RWV", "FID", "PLAN", "ECG", "HD", "AU"})
"""Modalities of objects that are no images (PS3.3, C.7.3.1.1.1)."""

Labels = Mapping[str, Mapping[str, int]]
"""By modality: name of a structure → its number in masks, from 1."""


def labels_of(plan: Plan, store: Store) -> Labels:
    """What the masks of the whole dataset show: each structure has one number, whichever series it is in. Raises NotInArchive."""
    names: dict[str, set[str]] = {}
    with TemporaryDirectory() as fetched:
        for series in plan.series:
            for source in series.masks:
                header = read_header(store.fetch(source.sha256, Path(fetched))).elements
                names.setdefault(series.modality, set()).update(one.name for one in segments_of(header))
    return {modality: {name: number for number, name in enumerate(sorted(found), start=1)} for modality, found in names.items()}


def write_series(step: Step, plan: Plan, series: PlannedSeries, store: Store, labels: Labels) -> None:
    """Raises NotInArchive, OSError. What cannot be converted is left out by name."""
    entity = f"series:{series.series_uid}"
    if series.modality in NOT_IMAGES:
        step.left_out.append(LeftOut(entity=entity, reason="not-an-image", detail=f"Modality (0008,0060) is {series.modality}", layout="images"))
        return
    with TemporaryDirectory() as fetched:
        folder = Path(fetched)
        try:
            volume = _volume(series.instances, store, folder)
        except GeometryRefused as error:
            step.left_out.append(LeftOut(entity=entity, reason=error.reason, detail=error.detail, layout="images"))
            return
        mask = _mask(step, series, volume, store, folder, labels.get(series.modality, {}))
    positions = [source.position for source in series.instances]
    image_paths = _paths(step, plan, series, mask is not None)
    _write(step, volume, volume.values, image_paths, entity, positions)
    if mask is not None:
        paths = [path for layout in plan.layouts if layout in _MASK_PATHS for path in _MASK_PATHS[layout](plan, series)]
        _write(step, volume, mask, paths, entity, [*positions, *(source.position for source in series.masks)])
    if Layout.BIDS in plan.layouts:
        bids.write_beside(step, series, labels.get(series.modality, {}) if mask is not None else {})


_MASK_PATHS = {Layout.NNUNET: nnunet.mask_paths, Layout.BIDS: bids.mask_paths}


def _volume(instances: Sequence[Source], store: Store, folder: Path) -> ScalarVolume:
    files = [store.fetch(source.sha256, folder) for source in instances]
    return read_scalar_volume(files, [read_header(file).elements for file in files])


def _mask(step: Step, series: PlannedSeries, volume: ScalarVolume, store: Store, folder: Path, labels: Mapping[str, int]) -> object | None:
    files = [store.fetch(source.sha256, folder) for source in series.masks]
    segmentations = [Segmentation(file=file, header=read_header(file).elements) for file in files]
    of_it = [one for one in segmentations if series.series_uid in series_segmented(one.header)]
    if not of_it:
        return None
    try:
        return label_map(volume.grid, of_it, labels)
    except MaskRefused as error:
        step.left_out.append(LeftOut(entity=f"series:{series.series_uid}", reason=error.reason, detail=error.detail, layout="masks"))
        return None


def _paths(step: Step, plan: Plan, series: PlannedSeries, has_mask: bool) -> list[str]:
    """Of the image. nnU-Net takes none that it can neither learn from nor be asked of."""
    paths = []
    if Layout.NNUNET in plan.layouts:
        reason = nnunet.why_not(plan, series, has_mask)
        if reason is None:
            paths.append(nnunet.image_path(plan, series))
        else:
            step.left_out.append(LeftOut(entity=f"series:{series.series_uid}", reason=reason, layout=Layout.NNUNET))
    if Layout.BIDS in plan.layouts:
        paths.append(bids.image_path(series))
    return paths


def _write(step: Step, volume: ScalarVolume, values: object, paths: Collection[str], entity: str, positions: Sequence[int]) -> None:
    first, *others = paths or [""]
    if not first:
        return
    with step.file(first, entity, positions) as partial:
        write_nifti(values, volume.grid, partial)  # type: ignore[arg-type]
    for path in others:
        step.copy(first, path)
