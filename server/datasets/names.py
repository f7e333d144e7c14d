"""How the files of an export are named: the same for the same members, readable, and by nothing that identifies a person.

Persons are named by the beginning of their pseudonym, studies by their order in time, series by the order of their numbers. manifest.json
says which UIDs these are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

LEAST_CHARACTERS = 8
_CONTRASTS = {"t1": "T1w", "t1w": "T1w", "t2": "T2w", "t2w": "T2w", "flair": "FLAIR", "pd": "PDw", "pdw": "PDw", "t2star": "T2starw"}
"""Words of a description → suffixes that BIDS has for anatomical MR."""


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """What orders a series: within its person by the study's date and time, within its study by its number."""

    subject_id: str
    study_uid: str
    series_uid: str
    modality: str
    studied: str
    number: int | None


def subject_labels(subject_ids: Iterable[str]) -> dict[str, str]:
    """Subject → sub-1a2b3c4d: as many characters as tell all apart, at least eight."""
    plain = {one: re.sub(r"[^0-9a-z]", "", one.lower()) for one in subject_ids}
    length = LEAST_CHARACTERS
    while len({text[:length] for text in plain.values()}) < len(plain) and length < max(map(len, plain.values())):
        length += 1
    return {one: f"sub-{text[:length]}" for one, text in plain.items()}


def paths_of(series: Sequence[Placed], labels: Mapping[str, str]) -> dict[str, str]:
    """Series → sub-1a2b3c4d/ses-01/ser-02-CT."""
    sessions = _ordinals((one.subject_id, (one.studied, one.study_uid)) for one in series)
    numbers = _ordinals((one.study_uid, (one.number is None, one.number or 0, one.series_uid)) for one in series)
    found = {}
    for one in series:
        session = sessions[one.subject_id][one.studied, one.study_uid]
        number = numbers[one.study_uid][one.number is None, one.number or 0, one.series_uid]
        kind = re.sub(r"[^A-Za-z0-9]", "", one.modality) or "OT"
        found[one.series_uid] = f"{labels[one.subject_id]}/ses-{session:02d}/ser-{number:02d}-{kind}"
    return found


def suffix_of(descriptions: Iterable[str]) -> str:
    """The contrast of an MR series, where words of its descriptions say one and no other."""
    words = {word for text in descriptions for word in re.split(r"[^a-z0-9]+", text.lower().replace("t2*", "t2star"))}
    found = {_CONTRASTS[word] for word in words if word in _CONTRASTS}
    return found.pop() if len(found) == 1 else ""


def _ordinals(placed: Iterable[tuple[str, tuple[Any, ...]]]) -> Mapping[str, dict[tuple[Any, ...], int]]:
    """Within each group, key → its place from 1."""
    groups: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    for group, key in placed:
        groups[group].add(key)
    return {group: {key: at for at, key in enumerate(sorted(keys), start=1)} for group, keys in groups.items()}
