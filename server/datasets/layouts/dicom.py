"""DICOM as it is stored: the same bytes, in folders by subject, session and series. Headers hold what they held: identities too."""

from __future__ import annotations

import shutil

from archive.store import Store
from server.datasets.folder import Step
from server.datasets.plan import PlannedSeries, Source

FOLDER = "dicom"


def write_series(step: Step, series: PlannedSeries, store: Store) -> None:
    """Raises NotInArchive, ObjectDamaged, OSError."""
    for nth, source in enumerate(sorted(series.instances, key=_in_order), start=1):
        path = f"{FOLDER}/{series.path}/{nth:05d}.dcm"
        entity = f"instance:{source.sop_instance_uid}"
        with (
            step.file(path, entity, [source.position], source.sha256) as partial,
            store.open(source.sha256) as stored,
            partial.open("wb") as file,
        ):
            shutil.copyfileobj(stored, file, 1 << 20)


def _in_order(source: Source) -> tuple[bool, int, str]:
    """By Instance Number (0020,0013), where there is one."""
    return source.number is None, source.number or 0, source.sop_instance_uid
