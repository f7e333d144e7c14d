"""A series as data sets, as an image, as NIfTI: what is done with its files once they are here."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from anamnesis.client.asking import Steps
from anamnesis.client.packages import pydicom
from anamnesis.client.retrieval import SeriesPath, Told, retrieve
from anamnesis.client.volume import read_volume, write_nifti

AsOf = int | str | None


def datasets(series: SeriesPath, as_of: AsOf, told: Told | None) -> Steps[list[Any]]:
    """Every instance as a data set of pydicom, by number, pixels and all."""
    with tempfile.TemporaryDirectory(prefix="anamnesis-") as folder:
        files = yield from retrieve(series, Path(folder), as_of, told)
        return [pydicom().dcmread(file) for file in files]


def image(series: SeriesPath, as_of: AsOf, told: Told | None, *, rescale: bool) -> Steps[Any]:
    with tempfile.TemporaryDirectory(prefix="anamnesis-") as folder:
        files = yield from retrieve(series, Path(folder), as_of, told)
        return read_volume(files, rescale=rescale)


def nifti(series: SeriesPath, path: Path, as_of: AsOf, told: Told | None, *, rescale: bool) -> Steps[Path]:
    made = yield from image(series, as_of, told, rescale=rescale)
    return write_nifti(made, path)
