"""Everything that can be asked of subjects, studies, series, instances, findings, facts and tags: our own fields, and any DICOM element.

A field has a home: the level whose rows hold its values. Asked of something else, it is looked up in what that belongs to: ``sex`` of a
series is that of its subject. Elements that describe patient and study are at home in the study, all others in the series.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

import msgspec

from domain.condition import Level
from projections.cohort.errors import FieldUnknown
from projections.cohort.naming import Kind, element_named, keywords


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """``level``: its home. ``unit``: UCUM. ``identifies``: it says who somebody is, and is for those alone who may see that.

    One of ours is a ``column`` of its level's table, with one value (text: none where it is empty). An element has a ``key`` in the
    column ``elements`` of its level, and any number of values; ``column`` is empty.
    """

    name: str
    level: Level
    kind: Kind
    description: str
    unit: str = ""
    identifies: bool = False
    column: str = ""
    key: str = ""

    @property
    def is_element(self) -> bool:
        return not self.column


BELONGS_TO: Mapping[Level, tuple[Level, ...]] = {
    Level.SUBJECT: (),
    Level.STUDY: (Level.SUBJECT,),
    Level.SERIES: (Level.STUDY, Level.SUBJECT),
    Level.INSTANCE: (Level.SERIES, Level.STUDY, Level.SUBJECT),
    Level.FINDING: (Level.SERIES, Level.STUDY, Level.SUBJECT),
    Level.FACT: (Level.SUBJECT,),
    Level.TAG: (),
}
"""What an entity belongs to, nearest first. A tag is on a thing of any level: ask that thing for its tags instead."""

_OWN: Mapping[Level, tuple[tuple[str, Kind, str, str], ...]] = {
    Level.SUBJECT: (
        ("subject_id", Kind.UID, "", "The subject's pseudonym: a UUID"),
        ("sex", Kind.CODE, "", "M, F or O: what a Patient resource says, else the latest image; no value where neither does"),
    ),
    Level.STUDY: (
        ("study_uid", Kind.UID, "", "Study Instance UID (0020,000D)"),
        ("study_date", Kind.DATE, "", "Study Date (0008,0020)"),
        (
            "age_years",
            Kind.NUMBER,
            "a",
            "Age on the day of the study, with the part of the year since the last birthday, to the hundredth; without a birth date, Patient's Age (0010,1010)",
        ),
    ),
    Level.SERIES: (
        ("series_uid", Kind.UID, "", "Series Instance UID (0020,000E)"),
        ("instance_count", Kind.NUMBER, "", "Instances stored"),
        ("frame_count", Kind.NUMBER, "", "Frames of all instances"),
        ("bytes", Kind.NUMBER, "By", "Size of its files"),
        ("series_digest", Kind.UID, "", "SHA-256 that names exactly its instances and their content"),
        (
            "slice_spacing_mm",
            Kind.NUMBER,
            "mm",
            "Distance of neighbouring slices by their positions along the normal, to the micrometre; no value where it is not uniform or not known",
        ),
        ("indexing", Kind.CODE, "", "Where segmentation stands: none, requested, indexed, refused or failed, as the latest event says"),
    ),
    Level.INSTANCE: (
        ("sop_instance_uid", Kind.UID, "", "SOP Instance UID (0008,0018)"),
        ("sop_class_uid", Kind.UID, "", "SOP Class UID (0008,0016)"),
        ("transfer_syntax_uid", Kind.UID, "", "Transfer syntax of the stored file"),
        ("sha256", Kind.UID, "", "SHA-256 of the stored file"),
        ("bytes", Kind.NUMBER, "By", "Size of the file"),
        ("frame_count", Kind.NUMBER, "", "Frames"),
    ),
    Level.FINDING: (
        ("finding_key", Kind.UID, "", "What identifies it across indexes by the same segmenter: a UUID"),
        ("label", Kind.CODE, "", "The structure as the segmenter names it"),
        ("structure", Kind.CODE, "", "The structure in SNOMED CT"),
        ("laterality", Kind.CODE, "", "left or right, in the patient"),
        ("morphology", Kind.CODE, "", "What was seen of the structure, in SNOMED CT, where it is not the structure itself (a cyst)"),
        ("segmenter", Kind.CODE, "", "What saw it"),
        ("segmenter_version", Kind.CODE, "", "Version of the segmenter"),
        ("volume_ml", Kind.NUMBER, "mL", "Volume"),
        ("mean_hu", Kind.NUMBER, "[hnsf'U]", "Mean attenuation"),
        ("whole", Kind.BOOLEAN, "", "It does not reach the edge of the field of view: the volume is that of all of it"),
        ("verdict", Kind.CODE, "", "The latest review: accepted, rejected, or unreviewed since it was indexed"),
    ),
    Level.FACT: (
        ("resource_type", Kind.CODE, "", "FHIR type of the clinical record"),
        ("resource_id", Kind.UID, "", "FHIR id of the clinical record"),
        ("system", Kind.UID, "", "Code system, as its FHIR canonical URL"),
        ("code", Kind.CODE, "", "What is said, in that system: one fact for each coding"),
        ("status", Kind.CODE, "", "active, final, completed, …: the record's own, of a Condition the clinical status unless refuted or entered in error"),
        ("value", Kind.NUMBER, "", "A quantity, in the unit beside it"),
        ("unit", Kind.CODE, "", "UCUM code that quantities of its kind are converted to (as in FHIR searches), so that they compare"),
        ("value_code", Kind.CODE, "", "A coded value; of a Consent, permit or deny"),
        ("date", Kind.DATE, "", "When it was so: onset, effective or performed, else recorded; of a month or year, its first day"),
    ),
    Level.TAG: (
        ("level", Kind.CODE, "", "What is tagged: subject, study, series, instance or project"),
        ("project", Kind.CODE, "", "The project that the tag belongs to"),
        ("name", Kind.CODE, "", "Its name"),
        ("value", Kind.TEXT, "", "Its value; none where it has only a name"),
    ),
}

OWN: Mapping[Level, Mapping[str, Field]] = {
    level: {
        name: Field(name=name, level=level, kind=kind, unit=unit, description=description, column=name) for name, kind, unit, description in fields
    }
    for level, fields in _OWN.items()
}
"""Our own fields, by level and name."""


_OURS = {"SOPInstanceUID": "sop_instance_uid", "00080018": "sop_instance_uid"}
"""An element that differs between all instances, and is asked of them alone."""


def own_fields(level: Level) -> Iterator[Field]:
    """All that can be asked of a level but elements: its own, and those of what it belongs to (of the same name, the nearest)."""
    seen: set[str] = set()
    for home in (level, *BELONGS_TO[level]):
        for field in OWN[home].values():
            if field.name not in seen:
                seen.add(field.name)
                yield field


@lru_cache(maxsize=16384)
def field_named(name: str, level: Level) -> Field:
    """The field that a name means when it is asked of a level. Raises FieldUnknown, which names similar ones."""
    homes = (level, *BELONGS_TO[level])
    name = _OURS.get(re.sub(r"[(), ]", "", name), name)
    for home in homes:
        if name in OWN[home]:
            return OWN[home][name]
    element = element_named(name)
    if element is not None:
        home = Level.STUDY if element.of_study else Level.SERIES
        if home not in homes:
            raise FieldUnknown(f"{element.name} is an element of level {home}: of level {level} ask whether it has {_a(home)} that …" if level != Level.TAG else _of_tag(element.name))
        return Field(
            name=element.name,
            level=home,
            kind=element.kind,
            unit=element.unit,
            description=element.description,
            identifies=element.identifies,
            key=element.key,
        )
    elsewhere = [home for home in Level if name in OWN[home]]
    if elsewhere:
        raise FieldUnknown(_of_tag(name) if level == Level.TAG else f"{name} is a field of level {elsewhere[0]}: of level {level} ask whether it has {_a(elsewhere[0])} that …")
    similar = _similar(name, level)
    raise FieldUnknown(f"there is no field or DICOM element {name[:100]!r} of level {level}" + (f": did you mean {similar}?" if similar else ""))


def _of_tag(name: str) -> str:
    return f"{name} is no field of a tag: ask what is tagged for it, and whether it has a tag that …"


def _similar(name: str, level: Level) -> str:
    known = {field.name.casefold(): field.name for field in own_fields(level)} | {keyword.casefold(): keyword for keyword in keywords()}
    last = name[:100].casefold().rsplit(".", 1)[-1]
    return ", ".join(known[one] for one in difflib.get_close_matches(last, known, n=3, cutoff=0.7))


def _a(level: Level) -> str:
    return f"an {level}" if level == Level.INSTANCE else f"a {level}"
