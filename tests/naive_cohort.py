"""Cohorts counted by a loop over events: what every engine has to agree with. It shares no code with the projection or the engines.

The world is kept as it was after each event, as plain dictionaries; an erasure goes through all of them. Fit for tens of events.
"""

from __future__ import annotations

import copy
import datetime
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pydicom.datadict import dictionary_keyword, dictionary_VR, private_dictionary_VR

from domain.clinical_record import ClinicalRecordDeleted, ClinicalRecordWritten, own_subject_id
from domain.condition import All, Between, Condition, Contains, Followed, Has, Level, Not, OneOf, Present, Value
from domain.condition import Any as AnyOf
from domain.event import Event
from domain.findings import finding_key
from domain.review import FindingReviewed
from domain.series import (
    IndexingFailed,
    IndexingRefused,
    IndexingRequested,
    InstancesStored,
    SeriesIndexed,
    series_digest,
)
from domain.subject import SubjectDemographicsChanged, SubjectErased, SubjectRegistered
from domain.tag import TagRemoved, TagSet
from projections.cohort.engine import After, Asked, Counts, Facet, FacetAsked, FacetValue, Order, Page

ABOVE = {
    "subject": [],
    "study": ["subject"],
    "series": ["study", "subject"],
    "instance": ["series", "study", "subject"],
    "finding": ["series", "study", "subject"],
    "fact": ["subject"],
    "tag": [],
}
OF_STUDY = {"StudyDate", "StudyTime", "StudyDescription", "AccessionNumber", "ClinicalTrialSubjectID"}
Entity = dict[str, Any]
"""Own fields and elements by name (elements: lists of values), ``id``, and the ids of what it belongs to under ``@study`` and so on."""
World = dict[str, dict[int, Entity]]


class NaiveCohort:
    """``worlds[n]`` is what held at position n."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.worlds: list[World] = [{level: {} for level in ABOVE}]
        self._erased: set[str] = set()
        for position, event in enumerate(events, 1):
            world = copy.deepcopy(self.worlds[-1])
            if isinstance(event, SubjectErased):
                self._erased.add(event.subject_id)
                for other in [world, *self.worlds]:
                    _erase(other, event)
            else:
                _happens(world, event, position, self._erased)
            self.worlds.append(world)

    def selected(self, asked: Asked, but: str | None = None) -> list[Entity]:
        world, level = self.worlds[asked.position], str(asked.query.level)
        ticks = [OneOf(field, tuple(values)) for field, values in asked.ticked.items() if values and field != but]
        where = All(((asked.query.where,) if asked.query.where is not None else ()) + tuple(ticks))
        return [one for _, one in sorted(world[level].items()) if meets(world, level, one, where)]

    def counts(self, asked: Asked) -> Counts:
        world, level = self.worlds[asked.position], str(asked.query.level)
        selected = self.selected(asked)
        ids = {one["id"] for one in selected}
        found = {level: len(selected)}
        for above in ABOVE[level]:
            found[above] = len({_owner(world, level, one, above) for one in selected})
        for below in ABOVE:
            if level in ABOVE[below]:
                found[below] = sum(_owner(world, below, one, level) in ids for one in world[below].values())
        series = _series_in_question(world, level, selected)
        return Counts(
            subjects=found.get("subject", 0),
            studies=found.get("study", 0),
            series=found.get("series", 0),
            findings=found.get("finding", 0),
            instances=sum(one["instance_count"] for one in series),
            bytes=sum(one["bytes"] for one in series),
        )

    def facet(self, asked: Asked, wanted: FacetAsked) -> Facet:
        world, level = self.worlds[asked.position], str(asked.query.level)
        selected = self.selected(asked, but=wanted.field)
        counts: Counter[Value] = Counter()
        subjects: dict[Value, set[int]] = {}
        missing = 0
        for one in selected:
            values = set(values_of(world, level, one, wanted.field))
            missing += not values
            counts.update(values)
            for value in values:
                if wanted.subjects:
                    subjects.setdefault(value, set()).add(_owner(world, level, one, "subject"))
        top = sorted(counts, key=lambda value: (-counts[value], value))[: wanted.size]
        made = [FacetValue(value, counts[value], len(subjects[value]) if wanted.subjects else None) for value in top]
        return Facet(field=wanted.field, values=made, distinct=len(counts), missing=missing)

    def numbers(self, asked: Asked, field: str) -> tuple[list[Value], int]:
        """All values of what is selected, and how many entities have none."""
        world, level = self.worlds[asked.position], str(asked.query.level)
        every = [set(values_of(world, level, one, field)) for one in self.selected(asked)]
        return sorted(value for values in every for value in values), sum(not values for values in every)

    def ordered(self, asked: Asked, order: Order | None) -> list[tuple[int, Value | None]]:
        """All ids with what they are sorted by."""
        world, level = self.worlds[asked.position], str(asked.query.level)
        keyed = []
        for one in self.selected(asked):
            values = values_of(world, level, one, order.field) if order is not None else []
            keyed.append((one["id"], (max(values) if order is not None and order.descending else min(values)) if values else None))
        keyed.sort()
        there = sorted((one for one in keyed if one[1] is not None), key=lambda one: one[1], reverse=False)  # type: ignore[return-value, arg-type]
        if order is not None and order.descending:
            there = sorted((one for one in keyed if one[1] is not None), key=lambda one: one[1], reverse=True)  # type: ignore[return-value, arg-type]
        return there + [one for one in keyed if one[1] is None]

    def page(self, asked: Asked, first: int, order: Order | None, after: After | None, *, backwards: bool) -> Page:
        every = self.ordered(asked, order)
        if after is not None:
            at = every.index((after.id, after.key))
            every = every[:at] if backwards else every[at + 1 :]
        taken = (every[-first:] if first else []) if backwards else every[:first]
        return Page(ids=[one[0] for one in taken], keys=[one[1] for one in taken], has_more=len(every) > first)

    def members(self, asked: Asked, level: Level) -> list[int]:
        world, own, other = self.worlds[asked.position], str(asked.query.level), str(level)
        selected = self.selected(asked)
        if own == other:
            return [one["id"] for one in selected]
        if other in ABOVE[own]:
            return sorted({_owner(world, own, one, other) for one in selected})
        ids = {one["id"] for one in selected}
        return sorted(id_ for id_, one in world[other].items() if _owner(world, other, one, own) in ids)


def meets(world: World, level: str, entity: Entity, where: Condition) -> bool:
    match where:
        case All(of):
            return all(meets(world, level, entity, each) for each in of)
        case AnyOf(of):
            return any(meets(world, level, entity, each) for each in of)
        case Not(of):
            return not meets(world, level, entity, of)
        case Has():
            there = [one for one in _belonging(world, level, entity, str(where.level)) if where.where is None or meets(world, str(where.level), one, where.where)]
            return len(there) >= where.at_least
        case Followed():
            return _followed(world, entity, where)
    values = values_of(world, level, entity, where.field)
    match where:
        case OneOf():
            return any(value in where.values for value in values)
        case Present():
            return bool(values)
        case Contains():
            return any(_holds(str(value), where.text, where.tolerant) for value in values)
        case Between():
            lies = [_lies(value, where) for value in values]
            return bool(lies) and (all(lies) if where.every else any(lies))
    raise AssertionError(where)


def values_of(world: World, level: str, entity: Entity, field: str) -> list[Any]:
    """Of an entity, or of what it belongs to."""
    home = next(one for one in [level, *ABOVE[level]] if field in OWN[one] or _is_element_of(field, one))
    owner = entity if home == level else world[home][_owner(world, level, entity, home)]
    value = owner.get(field, [])
    return value if isinstance(value, list) else [] if value in (None, "") else [value]


OWN = {
    "subject": {"subject_id", "sex"},
    "study": {"study_uid", "study_date", "age_years"},
    "series": {"series_uid", "instance_count", "frame_count", "bytes", "series_digest", "slice_spacing_mm", "indexing"},
    "instance": {"sop_instance_uid", "sop_class_uid", "sha256", "bytes", "frame_count"},
    "finding": {"finding_key", "label", "structure", "laterality", "segmenter", "volume_ml", "mean_hu", "whole", "verdict"},
    "fact": {"resource_type", "system", "code", "status", "value", "unit", "value_code", "date"},
    "tag": {"level", "project", "name", "value"},
}


def _is_element_of(field: str, level: str) -> bool:
    if field[0].islower():
        return False
    first = field.split(".")[0]
    return level == ("study" if first in OF_STUDY or (first.startswith("Patient") and first not in ("PatientPosition",)) else "series")


def _owner(world: World, level: str, entity: Entity, above: str) -> int:
    if level == above:
        return int(entity["id"])
    if level == "instance" and above != "series":
        return int(world["series"][entity["@series"]][f"@{above}"])
    return int(entity[f"@{above}"])


def _belonging(world: World, level: str, entity: Entity, other: str) -> list[Entity]:
    if other in ABOVE[level]:
        return [world[other][_owner(world, level, entity, other)]]
    if level in ABOVE[other]:
        return [one for one in world[other].values() if _owner(world, other, one, level) == entity["id"]]
    if other == "tag":
        return [one for one in world["tag"].values() if (one["level"], one["@target"]) == (level, entity["id"])]
    assert other == "fact" and "subject" in ABOVE[level], (level, other)
    return [one for one in world["fact"].values() if one["@subject"] == _owner(world, level, entity, "subject")]


def _followed(world: World, subject: Entity, asked: Followed) -> bool:
    studies = [one for one in world["study"].values() if one["@subject"] == subject["id"] and one["study_date"]]
    for first in studies:
        for second in studies:
            if first is not second and meets(world, "study", first, asked.baseline) and meets(world, "study", second, asked.follow_up):
                days = (datetime.date.fromisoformat(second["study_date"]) - datetime.date.fromisoformat(first["study_date"])).days
                if days >= asked.at_least_days and (asked.at_most_days is None or days <= asked.at_most_days):
                    return True
    return False


def _lies(value: Any, where: Between) -> bool:
    return (
        (where.at_least is None or value >= where.at_least)
        and (where.more_than is None or value > where.more_than)
        and (where.at_most is None or value <= where.at_most)
        and (where.less_than is None or value < where.less_than)
    )


def _plain(text: str) -> str:
    bare = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))
    return " ".join(bare.casefold().split())


def _trigrams(text: str) -> set[str]:
    return {text[n : n + 3] for n in range(len(text) - 2)}


def _holds(value: str, text: str, tolerant: bool) -> bool:
    value, text = _plain(value), _plain(text)
    if text in value:
        return True
    asked = set().union(*(_trigrams(f"  {word} ") for word in text.split()))
    there = _trigrams(value).union(*(_trigrams(f"  {word} ") for word in value.split()))
    return tolerant and 2 * len(asked & there) >= len(asked) > 0


def _series_in_question(world: World, level: str, selected: Sequence[Entity]) -> list[Entity]:
    ids = {one["id"] for one in selected}
    if level in ("subject", "study", "series"):
        return [one for one in world["series"].values() if _owner(world, "series", one, level) in ids]
    if level == "tag":
        return []
    if level == "fact":
        return [one for one in world["series"].values() if one["@subject"] in {fact["@subject"] for fact in selected}]
    return [world["series"][id_] for id_ in {one["@series"] for one in selected}]


def _happens(world: World, event: Event, position: int, erased: set[str]) -> None:
    match event:
        case SubjectRegistered() | SubjectDemographicsChanged():
            subject = _subject(world, event.subject_id, position)
            born = event.demographics.birth_date
            subject["~seen"] = (event.sex, f"{born[:4]}-{born[4:6]}-{born[6:]}" if born else "")
            _who(world, subject)
        case InstancesStored():
            _stored(world, event, position)
        case IndexingRequested() | IndexingRefused() | IndexingFailed():
            if (series := _by(world, "series", "series_uid", event.series_uid)) is not None:
                series["indexing"] = {IndexingRequested: "requested", IndexingRefused: "refused", IndexingFailed: "failed"}[type(event)]
        case SeriesIndexed():
            _indexed(world, event, position)
        case FindingReviewed():
            if (finding := _by(world, "finding", "finding_key", event.finding_key)) is not None:
                finding["verdict"] = str(event.verdict)
        case ClinicalRecordWritten() | ClinicalRecordDeleted():
            _record(world, event, position)
        case TagSet() | TagRemoved():
            _tag(world, event, position)


def _by(world: World, level: str, name: str, value: str) -> Entity | None:
    return next((one for one in world[level].values() if one[name] == value), None)


def _subject(world: World, subject_id: str, position: int) -> Entity:
    known = _by(world, "subject", "subject_id", subject_id)
    if known is None:
        known = world["subject"][position * 4096] = {"id": position * 4096, "subject_id": subject_id, "sex": "", "~born": "", "~seen": ("", ""), "~said": None}
    return known


def _who(world: World, subject: Entity) -> None:
    (sex, born), said = subject["~seen"], subject["~said"]
    if said is not None and "gender" in said:
        sex = {"male": "M", "female": "F", "other": "O"}.get(said["gender"], "")
    if said is not None and "birthDate" in said and not born.startswith(said["birthDate"]):
        born = said["birthDate"]
    subject["sex"], subject["~born"] = sex, born if len(born) == 10 else ""
    for study in world["study"].values():
        if study["@subject"] == subject["id"]:
            _age(world, study)


def _age(world: World, study: Entity) -> None:
    born, day = world["subject"][study["@subject"]]["~born"], study["study_date"]
    said = study.get("PatientAge", [])
    study["age_years"] = said[0] if said else None
    if born and day and born <= day:
        first, on = datetime.date.fromisoformat(born), datetime.date.fromisoformat(day)
        years = on.year - first.year - ((on.month, on.day) < (first.month, first.day))
        birthday, following = first.replace(year=first.year + years), first.replace(year=first.year + years + 1)
        study["age_years"] = years + int((on - birthday).days * 100 / (following - birthday).days) / 100


def _stored(world: World, event: InstancesStored, position: int) -> None:
    subject = _subject(world, event.subject_id, position)
    study = _by(world, "study", "study_uid", event.study_uid)
    if study is None:
        study = {"id": position * 4096 + 1, "study_uid": event.study_uid, "@subject": subject["id"], "study_date": None, "age_years": None}
        world["study"][study["id"]] = study
    series = _by(world, "series", "series_uid", event.series_uid)
    if series is None:
        fresh = {"instance_count": 0, "frame_count": 0, "bytes": 0, "indexing": "none", "~places": [], "~files": {}}
        series = {"id": position * 4096 + 2, "series_uid": event.series_uid, "@study": study["id"], "@subject": subject["id"], **fresh}
        world["series"][series["id"]] = series
    for number, (instance, own) in enumerate(zip(event.instances, event.headers, strict=True), 3):
        header = {**event.common, **own}
        for name, value in _elements(header):
            values = (study if _is_element_of(name, "study") else series).setdefault(name, [])
            if value not in values:
                values.append(value)
        series["instance_count"] += 1
        series["frame_count"] += instance.number_of_frames
        series["bytes"] += instance.size
        series["~files"][instance.sop_instance_uid] = instance.sha256
        series["~places"].append(header["00200032"]["Value"][2] if "00200037" in header else None)
        world["instance"][position * 4096 + number] = {
            "id": position * 4096 + number,
            "@series": series["id"],
            "sop_instance_uid": instance.sop_instance_uid,
            "sop_class_uid": instance.sop_class_uid,
            "sha256": instance.sha256,
            "bytes": instance.size,
            "frame_count": instance.number_of_frames,
        }
    series["series_digest"] = series_digest(series["~files"])
    series["slice_spacing_mm"] = _spacing(series["~places"])
    study["study_date"] = next(iter(study.get("StudyDate", [])), None)
    _age(world, study)


def _spacing(places: Sequence[float | None]) -> float | None:
    if None in places:
        return None
    there = sorted(set(places))  # type: ignore[type-var]
    gaps = [round(b - a, 6) for a, b in pairwise(there)]  # type: ignore[operator]
    typical = sorted(gaps)[len(gaps) // 2] if len(gaps) % 2 else sum(sorted(gaps)[len(gaps) // 2 - 1 : len(gaps) // 2 + 1]) / 2
    if not gaps or any(abs(gap - typical) > max(0.05, typical / 50) for gap in gaps):
        return None
    return round((there[-1] - there[0]) / len(gaps), 3)  # type: ignore[operator]


def _elements(header: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    for tag, element in header.items():
        if int(tag[:4], 16) % 2:
            if tag[4:6] == "00":
                continue
            creator = header[f"{tag[:4]}00{tag[4:6]}"]["Value"][0]
            name = f'({tag[:4]},"{creator}",{tag[6:]})'
            vr = private_dictionary_VR(int(tag, 16), creator)
        else:
            name, vr = dictionary_keyword(int(tag, 16)), dictionary_VR(int(tag, 16))
        for value in element.get("Value", []):
            yield from _values(f"{within}{name}", vr, value)


def _values(name: str, vr: str, value: Any) -> Iterator[tuple[str, Any]]:
    if vr == "SQ":
        yield from _elements(value, f"{name}.")
    elif vr == "PN":
        if value["Alphabetic"]:
            yield name, value["Alphabetic"]
            for part, text in zip(("family", "given"), value["Alphabetic"].split("^"), strict=True):
                yield f"{name}.{part}", text
    elif vr in ("DS", "IS"):
        if isinstance(value, int | float) or re.fullmatch(r"[-+.\d]+", value):
            yield name, float(value)
    elif vr == "DA":
        yield name, f"{value[:4]}-{value[4:6]}-{value[6:]}"
    elif vr == "TM":
        yield name, f"{value[:2]}:{value[2:4]}:{value[4:6]}"
    elif vr == "AS":
        if value != "junk":
            yield name, {"Y": 1, "M": 1 / 12}[value[3]] * int(value[:3])
    elif value:
        yield name, value


def _indexed(world: World, event: SeriesIndexed, position: int) -> None:
    series = _by(world, "series", "series_uid", event.series_uid)
    if series is None:
        return
    series["indexing"] = "indexed"
    before = {one["finding_key"]: one["id"] for one in world["finding"].values() if one["@series"] == series["id"] and one["segmenter"] == event.run.segmenter}
    for id_ in before.values():
        del world["finding"][id_]
    for number, finding in enumerate(event.findings):
        key = finding_key(event.series_uid, event.run.segmenter, finding.structure.label)
        id_ = before.get(key, position * 4096 + number)
        world["finding"][id_] = {
            "id": id_,
            "@series": series["id"],
            "@study": series["@study"],
            "@subject": series["@subject"],
            "finding_key": key,
            "label": finding.structure.label,
            "structure": finding.structure.snomed.code,
            "laterality": finding.structure.laterality or "",
            "segmenter": event.run.segmenter,
            "volume_ml": finding.volume_mm3 / 1000,
            "mean_hu": finding.mean_hu,
            "whole": not finding.touches_edge,
            "verdict": "unreviewed",
        }


def _record(world: World, event: ClinicalRecordWritten | ClinicalRecordDeleted, position: int) -> None:
    if event.subject_id in ("", own_subject_id(event.resource_type, event.resource_id)):
        return
    subject = _subject(world, event.subject_id, position)
    resource = event.resource if isinstance(event, ClinicalRecordWritten) else None
    if event.resource_type == "Patient":
        subject["~said"] = resource
        _who(world, subject)
        return
    said = list(_facts(resource or {}))
    named = (event.resource_type, event.resource_id)
    for id_, one in list(world["fact"].items()):
        if one["~record"] == named:
            content = {name: one[name] for name in ("system", "code", "status", "value", "unit", "value_code", "date")}
            if content in said:
                said[said.index(content)] = {}  # it is still there
            else:
                del world["fact"][id_]
    fresh = [one for one in said if one]
    for number, content in enumerate(fresh, 1):
        id_ = position * 4096 + number
        world["fact"][id_] = {"id": id_, "~record": named, "@subject": subject["id"], "resource_type": named[0], **content}


UNITS = {"mg/dL": 0.01, "g/L": 1.0}


def _facts(resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Of the shapes that cohort_history makes."""
    if not resource:
        return
    about = resource.get("code") or resource["category"][0]
    status = resource.get("status") or resource["clinicalStatus"]["coding"][0]["code"]
    date = resource.get("onsetDateTime") or resource.get("effectiveDateTime") or ""
    date = (date[:10] + "-01-01"[len(date[:10]) - 4 :])[:10] if date else None
    for coding in about["coding"]:
        fact = {"system": coding.get("system", ""), "code": coding["code"], "status": status, "value": None, "unit": "", "value_code": "", "date": date}
        if "decision" in resource:
            fact["value_code"] = resource["decision"]
        if "valueQuantity" in resource:
            quantity = resource["valueQuantity"]
            fact |= {"value": float(quantity["value"]), "unit": quantity.get("unit", "")}
            if "code" in quantity:
                fact |= {"value": round(float(quantity["value"]) * UNITS[quantity["code"]], 9), "unit": "kilogram / meter ** 3"}
        yield fact


def _tag(world: World, event: TagSet | TagRemoved, position: int) -> None:
    level = str(event.level)
    by = {"subject": ("subject_id", event.subject_id), "study": ("study_uid", event.study_uid), "series": ("series_uid", event.series_uid)}
    by["instance"] = ("sop_instance_uid", event.sop_instance_uid)
    found = {"id": 0} if level == "project" else _by(world, level, *by[level])
    if found is None:
        return
    named = {"level": level, "@target": found["id"], "project": event.project_id, "name": event.name}
    before = next((id_ for id_, one in world["tag"].items() if {name: one[name] for name in named} == named), None)
    if isinstance(event, TagSet):
        id_ = before if before is not None else position * 4096
        world["tag"][id_] = {"id": id_, **named, "value": event.value}
    elif before is not None:
        del world["tag"][before]


def _erase(world: World, event: SubjectErased) -> None:
    gone: dict[str, set[int]] = {
        "subject": {id_ for id_, one in world["subject"].items() if one["subject_id"] == event.subject_id},
        "study": {id_ for id_, one in world["study"].items() if one["study_uid"] in event.study_uids},
        "series": {id_ for id_, one in world["series"].items() if one["series_uid"] in event.series_uids},
    }
    gone["instance"] = {id_ for id_, one in world["instance"].items() if one["@series"] in gone["series"]}
    gone["finding"] = {id_ for id_, one in world["finding"].items() if one["@series"] in gone["series"]}
    gone["fact"] = {id_ for id_, one in world["fact"].items() if one["@subject"] in gone["subject"]}
    gone["tag"] = {id_ for id_, one in world["tag"].items() if one["level"] != "project" and one["@target"] in gone[one["level"]]}
    for level, ids in gone.items():
        for id_ in ids:
            del world[level][id_]
