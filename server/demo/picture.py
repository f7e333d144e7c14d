"""A slice with the findings' boxes over it, as a viewer would fetch it: rendered by WADO-RS, placed by its own geometry."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from projections.fhir.vocabulary import first_value
from server.demo.report import FindingRow
from server.demo.site import DemoSite, SiteFailed

COLOURS = ("#ffb000", "#4fc3f7", "#ff6f91", "#7ee081", "#c39bff", "#ffd54f")


async def draw_findings(site: DemoSite, study: dict[str, Any], series_uid: str, findings: list[FindingRow], target: Path) -> Path:
    """Writes a PNG of the middle slice and gives its path."""
    study_uid = study["identifier"][0]["value"].removeprefix("urn:oid:")
    base = f"/dicomweb/studies/{study_uid}/series/{series_uid}"
    instances = (await _get(site, f"{base}/metadata")).json()
    header = sorted(instances, key=_along_normal)[len(instances) // 2]
    uid = first_value(header, "00080018")
    picture = await _get(site, f"{base}/instances/{uid}/rendered?window=-40,900,linear", accept="image/png")
    image = Image.open(io.BytesIO(picture.content)).convert("RGB")
    draw = ImageDraw.Draw(image)
    for n, finding in enumerate(findings):
        box = _in_pixels(header, finding)
        if box is None:
            continue
        colour = COLOURS[n % len(COLOURS)]
        draw.rectangle(box, outline=colour, width=2)
        side = f" {finding.laterality.lower()}" if finding.laterality else ""
        draw.text((box[0] + 4, box[1] + 3), f"{finding.display}{side} {finding.volume_mm3 / 1000:.0f} mL", fill=colour)
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target)
    return target


async def _get(site: DemoSite, path: str, accept: str = "application/dicom+json") -> Any:
    answer = await site.client.get(path, headers={"Accept": accept})
    if answer.status_code != 200:
        raise SiteFailed(f"GET {path.split('?')[0].rsplit('/', 1)[-1]} was answered {answer.status_code}: {answer.text[:200]}")
    return answer


def _along_normal(header: dict[str, Any]) -> float:
    orientation = np.array(header["00200037"]["Value"], dtype=float)
    return float(np.array(header["00200032"]["Value"], dtype=float) @ np.cross(orientation[:3], orientation[3:]))


def _in_pixels(header: dict[str, Any], finding: FindingRow) -> tuple[int, int, int, int] | None:
    """The finding's box on this slice: x from, y from, x to, y to; None where the slice misses it."""
    orientation = np.array(header["00200037"]["Value"], dtype=float)
    row, column = orientation[:3], orientation[3:]
    normal = np.cross(row, column)
    origin = np.array(header["00200032"]["Value"], dtype=float)
    spacing = [float(v) for v in header["00280030"]["Value"]]
    low, high = (np.array(corner) for corner in finding.bounding_box_mm)
    corners = np.array([[(low, high)[(c >> axis) & 1][axis] for axis in range(3)] for c in range(8)]) - origin
    depth = corners @ normal
    if depth.min() > 1e-3 or depth.max() < -1e-3:
        return None
    x, y = corners @ row / spacing[1], corners @ column / spacing[0]
    return round(float(x.min())), round(float(y.min())), round(float(x.max())), round(float(y.max()))
