"""How DICOM elements are named in questions: by keyword, number, private creator, and as paths into sequences.

``SliceThickness``, ``00180050`` and ``(0018,0050)`` are one element; ``(0019,"SIEMENS MR HEADER",0A)`` is that of a private creator
(PS3.5, 7.8.1), whatever block it reserved; ``RequestAttributesSequence.ScheduledProcedureStepID`` is one within the items of a sequence, and
``PatientName.family`` a component of a person's name (PS3.5, 6.2.1). Each has one *key*, under which its values are kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache

import msgspec
from pydicom import datadict

from projections.cohort.identifying import is_identifying
from projections.cohort.units import UNITS
from projections.dicom.attributes import SOP_INSTANCE_UID, STUDY_ATTRIBUTES

MAX_DEPTH = 4
"""Sequences within sequences: three, and the element in their items."""

NAME_COMPONENTS = ("family", "given", "middle", "prefix", "suffix")
NAME_GROUPS = ("ideographic", "phonetic")
"""Beside the alphabetic group, which the element itself stands for."""


class Kind(StrEnum):
    """What can be asked of a field: ranges of numbers, dates and times; text within codes and text; equality of all."""

    CODE = "code"
    TEXT = "text"
    NUMBER = "number"
    DATE = "date"
    TIME = "time"
    BOOLEAN = "boolean"
    UID = "uid"


_KINDS = {
    **dict.fromkeys(("CS", "AE", "AT"), Kind.CODE),
    **dict.fromkeys(("SH", "LO", "ST", "LT", "UT", "UC", "UR", "PN"), Kind.TEXT),
    **dict.fromkeys(("DS", "IS", "FL", "FD", "SL", "SS", "SV", "UL", "US", "UV", "AS"), Kind.NUMBER),
    **dict.fromkeys(("DA", "DT"), Kind.DATE),
    "TM": Kind.TIME,
    "UI": Kind.UID,
}
"""By value representation (PS3.5, 6.2); what is not here (bulk data) has no values that could be asked for."""


class Element(msgspec.Struct, frozen=True, kw_only=True):
    """``key``: tags joined by points (``00400275.00400009``), a private one as it is named, a part of a name behind it (``00100010.family``).

    ``name``: the canonical spelling, with keywords where there are any. ``vr``: of the dictionary; empty for a private element that it
    does not know, whose values are text.
    """

    key: str
    name: str
    vr: str
    kind: Kind
    unit: str
    description: str
    identifies: bool
    of_study: bool


_PRIVATE = r'\([0-9A-Fa-f]{4}, ?"[^"]{1,64}", ?[0-9A-Fa-f]{2}\)'
_NUMBER = r"\([0-9A-Fa-f]{4}, ?[0-9A-Fa-f]{4}\)|[0-9A-Fa-f]{8}|[0-9A-Fa-f]{4},[0-9A-Fa-f]{4}"
_STEP = re.compile(rf"(?P<private>{_PRIVATE})|(?P<number>{_NUMBER})|(?P<word>[A-Za-z][A-Za-z0-9]*)")


@lru_cache(maxsize=16384)
def element_named(name: str) -> Element | None:
    """None where it names no element whose values are kept."""
    steps, at = [], 0
    while at < len(name):
        found = _STEP.match(name, at)
        if found is None or (found.end() < len(name) and name[found.end()] != "."):
            return None
        steps.append(found)
        at = found.end() + 1
    if not steps or name.endswith("."):
        return None
    part = ""
    if len(steps) > 1 and steps[-1][0] in (*NAME_COMPONENTS, *NAME_GROUPS):
        part = steps.pop()[0]
    keys = [_key(step) for step in steps]
    return None if any(key is None for key in keys) else element_of([key for key in keys if key is not None], part)


def element_of(path: Sequence[str], part: str = "") -> Element | None:
    """By the tags of a path, each eight hexadecimal digits or a private one's name; None where there is none, or it has no values.

    Nor has what only names the instance: that is one of our own fields.
    """
    if not 1 <= len(path) <= MAX_DEPTH or path[0] == SOP_INSTANCE_UID or any(vr_of(tag) != "SQ" for tag in path[:-1]):
        return None
    leaf = path[-1]
    vr = vr_of(leaf)
    kind = Kind.TEXT if not vr and is_private(leaf) else _KINDS.get(vr)
    if kind is None or (part and vr != "PN"):
        return None
    last = f".{part}" if part else ""
    description = ", ".join(_description(tag) for tag in reversed(path))
    return Element(
        key=".".join(path) + last,
        name=".".join(_spelling(tag) for tag in path) + last,
        vr=vr,
        kind=kind,
        unit="a" if vr == "AS" else UNITS.get(leaf, ""),
        description=f"{description} ({part})" if part else description,
        identifies=is_identifying(leaf, vr),
        of_study=path[0] in STUDY_ATTRIBUTES or path[0].startswith("0010"),
    )


def private_key(group: str, creator: str, element: str) -> str:
    """``(0019,"SIEMENS MR HEADER",0A)`` of group 0019, that creator and element 100A (or 110A …)."""
    return f'({group.upper()},"{creator}",{element[-2:].upper()})'


def is_private(tag: str) -> bool:
    return tag.startswith("(")


@lru_cache(maxsize=16384)
def vr_of(tag: str) -> str:
    """Of the dictionary; empty for what it does not know. Of several, which is the same kind for us, the first."""
    try:
        if is_private(tag):
            group, creator, element = _private_parts(tag)
            return str(datadict.private_dictionary_VR((int(group, 16) << 16) | 0x1000 | int(element, 16), creator))
        return str(datadict.dictionary_VR(int(tag, 16))).split(" or ")[0]
    except KeyError:
        return ""


def keywords() -> list[str]:
    """Of all elements whose values are kept: what a mistyped name is compared with."""
    return sorted(entry[4] for entry in datadict.DicomDictionary.values() if entry[4] and entry[0].split(" or ")[0] in _KINDS)


def _key(step: re.Match[str]) -> str | None:
    if step["private"]:
        return private_key(*_private_parts(step["private"]))
    if step["number"]:
        digits = re.sub(r"[(), ]", "", step["number"]).upper()
        return digits if int(digits[:4], 16) % 2 == 0 and vr_of(digits) else None
    tag = datadict.tag_for_keyword(step["word"])
    return None if tag is None else f"{tag:08X}"


def _private_parts(name: str) -> tuple[str, str, str]:
    group, rest = name[1:-1].split(",", 1)
    creator, element = rest.rsplit(",", 1)
    return group, creator.strip()[1:-1], element.strip()


def _spelling(tag: str) -> str:
    return tag if is_private(tag) else datadict.keyword_for_tag(int(tag, 16)) or tag


def _description(tag: str) -> str:
    try:
        if is_private(tag):
            group, creator, element = _private_parts(tag)
            said = datadict.private_dictionary_description((int(group, 16) << 16) | 0x1000 | int(element, 16), creator)
            return f"{said.strip('[]')} {tag}"
        return f"{datadict.dictionary_description(int(tag, 16))} ({tag[:4]},{tag[4:]})"
    except KeyError:
        return tag
