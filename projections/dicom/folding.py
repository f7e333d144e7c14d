"""How text is compared in searches (PS3.4 C.2.2.2): the form in which values are kept for matching, and grams for wildcards.

Names match whatever their case, with accents kept apart, in every component group (alphabetic, ideographic, phonetic);
all other text matches case-sensitively, as the standard says. Padding does not count.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable
from typing import Any

MAX_CHARACTERS = 400
"""Longer values are cut for matching: an index entry of PostgreSQL holds at most 2.7 kB, and a DICOM value 64 characters."""

GRAM = 3


def folded_text(value: str) -> str:
    """Text as it is compared: NFC, without padding."""
    return unicodedata.normalize("NFC", value.replace("\0", " ")).strip()[:MAX_CHARACTERS]


def folded_name(value: str) -> str:
    """One component group of a person's name (PS3.5, 6.2.1) as it is compared: case folded, trailing delimiters dropped."""
    components = [part.strip() for part in folded_text(value).casefold().split("^")]
    while components and not components[-1]:
        components.pop()
    return unicodedata.normalize("NFC", "^".join(components))[:MAX_CHARACTERS]


def name_groups(element: Any) -> tuple[str, str, str]:
    """The alphabetic, ideographic and phonetic group of a PN element in DICOM JSON, folded; the first name only."""
    value = element.get("Value") if isinstance(element, dict) else None
    name = value[0] if isinstance(value, list) and value else None
    if isinstance(name, str):
        return folded_name(name), "", ""
    if not isinstance(name, dict):
        return "", "", ""
    alphabetic, ideographic, phonetic = (str(name.get(g) or "") for g in ("Alphabetic", "Ideographic", "Phonetic"))
    return folded_name(alphabetic), folded_name(ideographic), folded_name(phonetic)


def folded_date(value: str) -> str:
    """YYYYMMDD, from the ACR-NEMA form YYYY.MM.DD too; empty for what is no date."""
    digits = value.strip(" \0").replace(".", "")
    return digits if re.fullmatch(r"[0-9]{4}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])", digits, re.ASCII) else ""


_TIME = re.compile(r"([01][0-9]|2[0-3])(?:([0-5][0-9])(?:([0-5][0-9]|60)(?:\.([0-9]{1,6}))?)?)?", re.ASCII)


def folded_time(value: str, *, latest: bool = False) -> str:
    """HHMMSS.FFFFFF, what is left out filled up with the earliest (or latest) moment; empty for what is no time."""
    found = _TIME.fullmatch(value.strip(" \0").replace(":", ""))
    if found is None:
        return ""
    minute, second, fraction = ("59", "59", "9") if latest else ("00", "00", "0")
    return f"{found[1]}{found[2] or minute}{found[3] or second}.{(found[4] or '').ljust(6, fraction)}"


def grams(attribute: str, texts: Iterable[str]) -> list[int]:
    """The runs of three characters in these texts, each with its attribute hashed to 32 bits: what a wildcard search looks up.

    The embedded database has no pg_trgm. A hit is always compared again with the text itself, so that two runs of
    the same hash only cost time.
    """
    found = {zlib.crc32(f"{attribute}:{text[start : start + GRAM]}".encode()) for text in texts for start in range(len(text) - GRAM + 1)}
    return sorted(code - 2**32 if code >= 2**31 else code for code in found)
