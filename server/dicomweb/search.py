"""A search as the client wrote it (PS3.18, 10.6.1): what must match, what is to be returned, which page; nothing is guessed.

An unknown key is an error that names it: ignoring one would answer with studies that nobody asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec
from pydicom.datadict import tag_for_keyword

from projections.dicom import attributes as a
from server.as_of import PARAMETER
from server.dicomweb.errors import QueryInvalid
from server.dicomweb.keys import Key, Level, find_key
from server.dicomweb.matching import Parameters, condition

MAX_RESULTS = 5000
"""Most results in one answer to a search that is not confined to a study; the rest is for further pages."""
MAX_PUT_TOGETHER = 1000
"""The same where the answers are not ready-made."""

_FUZZY = "The fuzzymatching parameter is not supported. Only literal matching has been performed."
_EMPTY = "The emptyvaluematching parameter is not supported. A key without a value matches everything."


class Search(msgspec.Struct, kw_only=True):
    """``include``: tags asked for beyond the ready-made answer; ``everything``: includefield=all."""

    level: Level
    study_uid: str | None
    series_uid: str | None
    conditions: list[str]
    parameters: Parameters
    include: frozenset[str]
    everything: bool
    limit: int | None
    offset: int
    warnings: list[str]

    @property
    def is_ready_made(self) -> bool:
        """The stored answers are the whole answer: nothing is asked for beyond them, and no level above belongs to it."""
        confined_to = (self.study_uid is not None) + (self.series_uid is not None)
        return not self.everything and not self.include and confined_to == self.level - 1


def parse_search(level: Level, query: Iterable[tuple[str, str]], study_uid: str | None = None, series_uid: str | None = None) -> Search:
    """Raises QueryInvalid, which names every parameter that is unknown."""
    parameters = Parameters()
    keys: dict[str, tuple[Key, list[str]]] = {}
    control: dict[str, list[str]] = {}
    unknown: list[str] = []
    for name, value in query:
        if name in _CONTROL:
            control.setdefault(name, []).append(value)
        elif (key := find_key(name)) is None:
            unknown.append(name)
        elif key.level > level:
            raise QueryInvalid(
                f"{key.keyword} is an attribute of {key.level.plural}: search /{key.level.plural}"
                + (", or match ModalitiesInStudy" if key.tag == a.MODALITY else "")
            )
        else:
            keys.setdefault(key.tag, (key, []))[1].append(value)
    if unknown:
        raise QueryInvalid(f"cannot match {', '.join(_shown(name) for name in unknown)}: no such key in a search for {level.plural}")
    conditions = []
    if study_uid is not None:
        conditions.append(f"s.study_uid = {parameters.bind(study_uid)}")
    if series_uid is not None:
        conditions.append(f"e.series_uid = {parameters.bind(series_uid)}")
    for key, written in keys.values():
        if len(written) > 1 and key.kind not in ("uid", "uids", "code", "codes"):
            raise QueryInvalid(f"{key.keyword} is given {len(written)} times: give it once")
        found = condition(key, ",".join(written), parameters)
        if found is not None:
            conditions.append(found)
    include, everything = _include(control.get("includefield", []))
    search = Search(
        level=level,
        study_uid=study_uid,
        series_uid=series_uid,
        conditions=conditions,
        parameters=parameters,
        include=frozenset(tag for tag in include if _could_be_answered(tag, level)),
        everything=everything,
        limit=_count("limit", control),
        offset=_count("offset", control) or 0,
        warnings=[text for name, text in (("fuzzymatching", _FUZZY), ("emptyvaluematching", _EMPTY)) if _flag(name, control)],
    )
    if study_uid is None:
        ceiling = MAX_RESULTS if search.is_ready_made else MAX_PUT_TOGETHER
        search.limit = ceiling if search.limit is None else min(search.limit, ceiling)
    return search


_CONTROL = frozenset(
    {"limit", "offset", "includefield", "fuzzymatching", "emptyvaluematching", "multiplevaluematching", "accept", "charset", PARAMETER}
)


def _shown(name: str) -> str:
    """The name of an unknown parameter, as far as it can be one: something else could be a person's data."""
    return name if re.fullmatch(r"[0-9A-Za-z.]{1,64}", name, re.ASCII) else "a parameter whose name is no keyword or tag"


def _include(written: Iterable[str]) -> tuple[set[str], bool]:
    """The tags of includefield (keywords or tags, several divided by commas; of a path into sequences, the outermost)."""
    tags: set[str] = set()
    everything = False
    for name in (piece.strip() for text in written for piece in text.split(",")):
        outermost = name.split(".")[0]
        if name == "all":
            everything = True
        elif re.fullmatch(r"[0-9A-Fa-f]{8}", outermost, re.ASCII):
            tags.add(outermost.upper())
        elif (tag := tag_for_keyword(outermost)) is not None:
            tags.add(f"{tag:08X}")
        elif name:
            raise QueryInvalid(f"includefield names {_shown(name)}, which is no attribute")
    return tags, everything


def _could_be_answered(tag: str, level: Level) -> bool:
    """Whether including this tag needs more than the ready-made answer: a list of studies has no Modality to give."""
    if tag in a.PLAIN_ANSWER[level.name.lower()]:
        return False
    of_study = tag in a.STUDY_ATTRIBUTES or tag.startswith("0010")
    if level is Level.STUDY:
        return of_study
    return level is Level.INSTANCE or of_study or tag in a.SERIES_ATTRIBUTES or tag in a.PLAIN_ANSWER["study"]


def _count(name: str, control: dict[str, list[str]]) -> int | None:
    written = control.get(name)
    if written is None:
        return None
    if len(written) != 1 or not re.fullmatch(r"[0-9]{1,9}", written[0], re.ASCII):
        raise QueryInvalid(f"{name} takes one number, 0 or more")
    return int(written[0])


def _flag(name: str, control: dict[str, list[str]]) -> bool:
    values = control.get(name, ["false"])
    if len(values) != 1 or values[0].lower() not in ("true", "false"):
        raise QueryInvalid(f"{name} takes true or false")
    return values[0].lower() == "true"
