"""A site with real images of several modalities, and findings that were made: what is in it is known from the files alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pydicom
from msgspec import structs
from served_site import LIVER, Site, indexed

from domain import series
from domain.findings import Structure, finding_key
from domain.ids import series_stream
from domain.principal import device
from domain.review import ReviewFinding, Verdict
from domain.series import RequestIndexing, Series
from eventlog.aggregate import execute, load
from server.reviews import review_finding

FILES = (
    "ct/totalseg_siemens_body20/*",
    "ct/gantry_tilt_siemens4/*",
    "modalities/mr_tcga_lihc_siemens30/*",
    "modalities/mr_enhanced/IM*",
    "modalities/pt/1.dcm",
    "modalities/cr_dx/dx_image.dcm",
    "modalities/us/US-RGB*",
)
FINDINGS = {
    "ct/totalseg_siemens_body20": {"liver": (1432.5, True, Verdict.ACCEPTED), "spleen": (210.25, True, None), "lung_left": (900.0, False, None)},
    "ct/gantry_tilt_siemens4": {"liver": (1250.0, True, Verdict.REJECTED)},
    "modalities/mr_tcga_lihc_siemens30": {"liver": (1301.0, True, Verdict.ACCEPTED), "kidney_left": (160.5, True, None)},
    "modalities/pt/1.dcm": {"liver": (1600.0, False, Verdict.ACCEPTED)},
}
"""Made ones, by folder and label: volume in mL, whether whole, and what a reviewer said."""
AT_ONCE = 10


@dataclass(frozen=True)
class MadeFinding:
    series_uid: str
    label: str
    volume_ml: float
    whole: bool
    verdict: str


def files_by_series(dicom_data: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in [file for pattern in FILES for file in sorted(dicom_data.glob(pattern))]:
        found.setdefault(str(pydicom.dcmread(file, stop_before_pixels=True).SeriesInstanceUID), []).append(file)
    return found


async def store_files(site: Site, sources: dict[str, list[Path]]) -> None:
    for files in sources.values():
        for first in range(0, len(files), AT_ONCE):
            await site.store(*(file.read_bytes() for file in files[first : first + AT_ONCE]))


async def make_findings(site: Site, sources: dict[str, list[Path]]) -> list[MadeFinding]:
    """As a segmenter found them and a person reviewed them; what the site knows now, each with its series."""
    made = []
    for folder, by_label in FINDINGS.items():
        uid = next(uid for uid, files in sources.items() if folder in str(files[0]))
        await index(site, uid, by_label)
        made += [MadeFinding(uid, label, volume, whole, verdict or "unreviewed") for label, (volume, whole, verdict) in by_label.items()]
    return made


async def index(site: Site, series_uid: str, by_label: dict[str, tuple[float, bool, Verdict | None]]) -> None:
    log, stream, worker = site.services.log, series_stream(series_uid), device("worker")
    asked = RequestIndexing(series_uid=series_uid, segmenter="baseline", reason="quiet")
    await execute(log, stream, Series(), series.evolve, lambda state: series.request_indexing(state, asked), principal=worker)
    state, _ = await load(log, stream, Series(), series.evolve)
    result = indexed(state, series_uid, *(Structure(label=label, snomed=LIVER.snomed) for label in by_label))
    findings = [
        structs.replace(one, volume_mm3=volume * 1000, touches_edge=not whole)
        for one, (volume, whole, _) in zip(result.findings, by_label.values(), strict=True)
    ]
    result = structs.replace(result, findings=findings)
    await execute(log, stream, Series(), series.evolve, lambda state: series.record_indexing(state, result), principal=worker)
    await site.caught_up()  # reviews look findings up in the ledger
    reviewer = await site.principal("reviews:write")
    for label, (_, _, verdict) in by_label.items():
        if verdict is not None:
            await review_finding(log, reviewer, ReviewFinding(finding_key=finding_key(series_uid, "baseline", label), verdict=verdict))
    await site.caught_up()
