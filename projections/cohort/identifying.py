"""Which DICOM elements say who somebody is: shown and asked about only for those who may see identities.

From PS3.15, table E.1-1, those that by themselves lead to a person: names, numbers that a hospital gives to persons and their
visits and orders, birth date, addresses, and free text in which any of these may stand. What curation cannot do without, and a search
shows to everybody who may search (PS3.18, 10.6), is not among them: sex, age, size, weight, dates, UIDs, descriptions, devices and sites.
"""

from __future__ import annotations


def _tags(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


IDENTIFYING = _tags(
    # Patient: ids and their issuer, birth, death, insurance, address, telephone, rank, locator, residence, religion, occupation
    "00100020 00100021 00100030 00100032 00100033 00100034 00101000 00101040 00101050 00101080 00101081 00101090 00102150 00102152"
    " 00102154 00102155 00102180 001021F0"
    # Study, visit and order: numbers that are looked up in a register
    " 00080050 00200010 00380010 0038001E 00380060 00380062 00380300 00380400 00380500 00400009 00400253 00401001 00401004 00402010"
    " 00402016 00402017 4008011A"
    # Specimens and subjects of trials
    " 0040050A 00400512 00400551 004006FA 00120040 00120042"
)

_FREE_TEXT = frozenset({"LT", "ST", "UT"})
_SAYS_NOBODY = frozenset({"DS", "IS", "FL", "FD", "SL", "SS", "SV", "UL", "US", "UV", "CS", "AT", "TM"})
"""Of private elements, only these: what else a vendor writes may be a name."""


def is_identifying(tag: str, vr: str) -> bool:
    """Of an element by its tag (or a private one's name) and the dictionary's value representation."""
    if tag.startswith("("):
        return vr not in _SAYS_NOBODY
    return vr == "PN" or vr in _FREE_TEXT or tag in IDENTIFYING
