"""What the classes of TotalSegmentator's task `total` are in SNOMED CT and RadLex.

total.csv merges TotalSegmentator's own SNOMED table with the RadLex codes that the IMPETUS CT indexer published, and mends the
errors of both: the side is always beside the base concept, a structure is never a disorder nor an "entire" one, the hip is the bone
(28254004) and not its region, and where a RadLex code is a list, one code for many structures, or of something else, there is
none. Labels are our own. SNOMED CT needs a licence in some countries.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources

from domain.findings import RADLEX, SNOMED_CT, Code, Laterality, Structure


@cache
def structures() -> dict[str, Structure]:
    """Class name → structure, for all 117 classes of `total`."""
    text = resources.files(__name__).joinpath("total.csv").read_text("utf-8")
    return {row["label"]: _structure(row) for row in csv.DictReader(text.splitlines())}


def _structure(row: dict[str, str]) -> Structure:
    return Structure(
        label=row["label"],
        snomed=Code(SNOMED_CT, row["snomed"], row["display"]),
        radlex=Code(RADLEX, row["radlex"], row["label"].replace("_", " ")) if row["radlex"] else None,
        laterality=Laterality(row["laterality"]) if row["laterality"] else None,
        morphology=Code(SNOMED_CT, row["morphology"], row["morphology_display"]) if row["morphology"] else None,
    )
