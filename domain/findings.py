"""What a segmenter saw in one series: findings, each a structure with a side, a volume and a mean attenuation."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

import msgspec

from domain.ids import derived_id


class Laterality(StrEnum):
    """In the patient, not in the picture."""

    LEFT = "left"
    RIGHT = "right"


class Code(msgspec.Struct, frozen=True):
    """A coded concept: ``system`` is the FHIR canonical URL of the code system."""

    system: str
    code: str
    display: str


SNOMED_CT = "http://snomed.info/sct"
RADLEX = "http://www.radlex.org"


class Structure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An anatomical structure as a segmenter names it (``label``) and as the terminologies do.

    ``snomed`` is the base concept, whose side ``laterality`` states; ``radlex`` is absent where no code is verified.
    ``morphology`` says what of it was seen when that is not the structure itself (a cyst of the kidney).
    """

    label: str
    snomed: Code
    radlex: Code | None = None
    laterality: Laterality | None = None
    morphology: Code | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One structure in one series, by one segmenter. Lengths in mm in the patient coordinate system (PS3.3 C.7.6.2.1.1: LPS)."""

    structure: Structure
    volume_mm3: float
    voxel_count: int
    mean_hu: float
    touches_edge: bool
    """The structure reaches the edge of the field of view, so that its volume is a lower bound."""
    centroid_mm: tuple[float, float, float]
    bounding_box_mm: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Smallest and largest coordinate of voxel centres along each patient axis."""


@lru_cache(maxsize=4096)  # a view of an index asks for each key four times
def finding_key(series_uid: str, segmenter: str, label: str) -> str:
    """What identifies a finding across re-runs of the same segmenter: a UUID as text."""
    return str(derived_id("finding", series_uid, segmenter, label))
