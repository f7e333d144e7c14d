"""What a form fills in: typed conditions on the fields that are asked for most. All that is given holds; of a list, one."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import strawberry

from domain.condition import All, Between, Condition, Contains, Has, Level, Not, OneOf

_LIST = "One of these."


@strawberry.input(description="Bounds of a number, in the unit of what they bound; at least one.")
class NumberRange:
    at_least: float | None = strawberry.field(default=None, description="≥ this.")
    more_than: float | None = strawberry.field(default=None, description="> this.")
    at_most: float | None = strawberry.field(default=None, description="≤ this.")
    less_than: float | None = strawberry.field(default=None, description="< this.")


@strawberry.input(description="Bounds of a date, both included; at least one.")
class DateRange:
    at_least: datetime.date | None = strawberry.field(default=None, description="On this day or later.")
    at_most: datetime.date | None = strawberry.field(default=None, description="On this day or earlier.")


@strawberry.input(description="What a clinical record says of the subject (Condition, Observation, …). All that is given holds of one fact.")
class FactForm:
    resource_type: list[str] | None = strawberry.field(default=None, description="Condition, Observation, …")
    system: str | None = strawberry.field(default=None, description="The code system's URI.")
    code: list[str] | None = strawberry.field(default=None, description="Codes of that system, one of which it has.")
    status: list[str] | None = strawberry.field(default=None, description="As the resource has it: active, final, …")
    value: NumberRange | None = strawberry.field(default=None, description="In the unit that the record has.")
    date: DateRange | None = strawberry.field(default=None, description="When it began, or was observed.")


@strawberry.input(description="A tag that it has.")
class TagForm:
    name: str = strawberry.field(description="The tag's name.")
    value: list[str] | None = strawberry.field(default=None, description="One of these values; any without.")
    project: str | None = strawberry.field(default=None, description="In this project; in any without.")


@strawberry.input(description="About a subject.")
class SubjectForm:
    sex: list[str] | None = strawberry.field(default=None, description=f"F, M or O. {_LIST}")
    has_fact: list[FactForm] | None = strawberry.field(default=None, description="It has a fact for each of these.")
    has_no_fact: list[FactForm] | None = strawberry.field(default=None, description="It has none for any of these.")
    has_tag: list[TagForm] | None = strawberry.field(default=None, description="It has each of these.")


@strawberry.input(description="About a study.")
class StudyForm:
    date: DateRange | None = strawberry.field(default=None, description="Study date.")
    age_years: NumberRange | None = strawberry.field(default=None, description="The subject's age at the study, in years.")
    description: str | None = strawberry.field(default=None, description="Text that the study's description holds.")
    has_tag: list[TagForm] | None = strawberry.field(default=None, description="It has each of these.")


@strawberry.input(description="About a series.")
class SeriesForm:
    modality: list[str] | None = strawberry.field(default=None, description=f"CT, MR, … {_LIST}")
    body_part: list[str] | None = strawberry.field(default=None, description=f"Body Part Examined (0018,0015). {_LIST}")
    manufacturer: list[str] | None = strawberry.field(default=None, description=_LIST)
    model: list[str] | None = strawberry.field(default=None, description=f"Manufacturer's Model Name (0008,1090). {_LIST}")
    kernel: list[str] | None = strawberry.field(default=None, description=f"Convolution Kernel (0018,1210). {_LIST}")
    description: str | None = strawberry.field(default=None, description="Text that the series' description holds.")
    protocol: str | None = strawberry.field(default=None, description="Text that the protocol's name holds.")
    slice_thickness_mm: NumberRange | None = strawberry.field(default=None, description="Slice Thickness (0018,0050) in mm, of every instance.")
    slice_spacing_mm: NumberRange | None = strawberry.field(default=None, description="Between neighbouring slices, in mm, as measured from positions.")
    kvp: NumberRange | None = strawberry.field(default=None, description="KVP (0018,0060) in kV.")
    instances: NumberRange | None = strawberry.field(default=None, description="How many instances it has.")
    has_finding: list[FindingForm] | None = strawberry.field(default=None, description="It has a finding for each of these.")
    has_no_finding: list[FindingForm] | None = strawberry.field(default=None, description="It has none for any of these.")
    has_tag: list[TagForm] | None = strawberry.field(default=None, description="It has each of these.")


@strawberry.input(description="About a finding: one structure in one series as one segmenter saw it.")
class FindingForm:
    label: list[str] | None = strawberry.field(default=None, description=f"As the segmenter calls the structure. {_LIST}")
    structure: list[str] | None = strawberry.field(default=None, description=f"SNOMED CT code of the structure. {_LIST}")
    laterality: list[str] | None = strawberry.field(default=None, description=f"left or right. {_LIST}")
    morphology: list[str] | None = strawberry.field(default=None, description=f"SNOMED CT code of the morphology. {_LIST}")
    volume_ml: NumberRange | None = strawberry.field(default=None, description="Volume in mL.")
    mean_hu: NumberRange | None = strawberry.field(default=None, description="Mean attenuation in Hounsfield units.")
    whole: bool | None = strawberry.field(default=None, description="The structure lies within the image and does not touch its edge.")
    verdict: list[str] | None = strawberry.field(default=None, description=f"accepted, rejected or unreviewed. {_LIST}")
    segmenter: list[str] | None = strawberry.field(default=None, description=_LIST)
    has_tag: list[TagForm] | None = strawberry.field(default=None, description="It has each of these.")


Form = SubjectForm | StudyForm | SeriesForm | FindingForm


def filled_in(form: Form, of: Level, asked: Level) -> Condition:
    """The condition that a form stands for, of the level that is asked: of another one, that it has or belongs to such a thing."""
    condition = All(tuple(_CONDITIONS[type(form)](form)))
    return condition if of is asked else Has(level=of, where=condition)


def _subject(form: SubjectForm) -> Iterator[Condition]:
    yield from _one_of("sex", form.sex)
    yield from (Has(level=Level.FACT, where=_fact(one)) for one in form.has_fact or ())
    yield from (Not(Has(level=Level.FACT, where=_fact(one))) for one in form.has_no_fact or ())
    yield from _tags(form.has_tag)


def _study(form: StudyForm) -> Iterator[Condition]:
    yield from _dates("study_date", form.date)
    yield from _numbers("age_years", form.age_years)
    yield from _text("StudyDescription", form.description)
    yield from _tags(form.has_tag)


def _series(form: SeriesForm) -> Iterator[Condition]:
    yield from _one_of("Modality", form.modality)
    yield from _one_of("BodyPartExamined", form.body_part)
    yield from _one_of("Manufacturer", form.manufacturer)
    yield from _one_of("ManufacturerModelName", form.model)
    yield from _one_of("ConvolutionKernel", form.kernel)
    yield from _text("SeriesDescription", form.description)
    yield from _text("ProtocolName", form.protocol)
    yield from _numbers("SliceThickness", form.slice_thickness_mm, every=True)
    yield from _numbers("slice_spacing_mm", form.slice_spacing_mm)
    yield from _numbers("KVP", form.kvp)
    yield from _numbers("instance_count", form.instances)
    yield from (Has(level=Level.FINDING, where=All(tuple(_finding(one)))) for one in form.has_finding or ())
    yield from (Not(Has(level=Level.FINDING, where=All(tuple(_finding(one))))) for one in form.has_no_finding or ())
    yield from _tags(form.has_tag)


def _finding(form: FindingForm) -> Iterator[Condition]:
    for name in ("label", "structure", "laterality", "morphology", "verdict", "segmenter"):
        yield from _one_of(name, getattr(form, name))
    yield from _numbers("volume_ml", form.volume_ml)
    yield from _numbers("mean_hu", form.mean_hu)
    if form.whole is not None:
        yield OneOf("whole", (form.whole,))
    yield from _tags(form.has_tag)


_CONDITIONS: dict[type[Form], Callable[[Any], Iterator[Condition]]] = {SubjectForm: _subject, StudyForm: _study, SeriesForm: _series, FindingForm: _finding}


def _fact(form: FactForm) -> Condition:
    conditions = [*_one_of("resource_type", form.resource_type), *_one_of("code", form.code), *_one_of("status", form.status)]
    conditions += _one_of("system", None if form.system is None else [form.system])
    return All((*conditions, *_numbers("value", form.value), *_dates("date", form.date)))


def _tags(tags: Sequence[TagForm] | None) -> Iterator[Condition]:
    for tag in tags or ():
        yield Has(level=Level.TAG, where=All((OneOf("name", (tag.name,)), *_one_of("value", tag.value), *_one_of("project", tag.project and [tag.project]))))


def _one_of(field: str, values: Sequence[str] | None) -> Iterator[Condition]:
    if values:
        yield OneOf(field, tuple(values))


def _text(field: str, text: str | None) -> Iterator[Condition]:
    if text:
        yield Contains(field, text)


def _numbers(field: str, bounds: NumberRange | None, *, every: bool = False) -> Iterator[Condition]:
    given = {} if bounds is None else {name: bound for name, bound in vars(bounds).items() if bound is not None}
    if given:
        yield Between(field=field, every=every, **given)


def _dates(field: str, bounds: DateRange | None) -> Iterator[Condition]:
    given = {} if bounds is None else {name: bound.isoformat() for name, bound in vars(bounds).items() if bound is not None}
    if given:
        yield Between(field=field, **given)
