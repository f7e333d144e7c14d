"""Facets, histograms and totals of what a condition selects."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

import numpy as np

from domain.condition import All, Condition, Level, OneOf, Value
from projections.cohort.engine import Asked, Bin, Counts, Facet, FacetAsked, FacetValue, Histogram
from projections.cohort.errors import FieldRefused
from projections.cohort.fields import Field, field_named
from projections.cohort.naming import Kind
from projections.cohort.postgresql.counting import edges_of
from projections.columns.column import Column, Encoded, Plain
from projections.columns.dictionary import Dictionary, in_order
from projections.columns.errors import NotAColumn
from projections.columns.moment import Moment, Step
from projections.columns.selection import Selection
from projections.columns.table import Frame


def ticks(asked: Asked) -> list[tuple[str, OneOf]]:
    """What is ticked, as conditions. A facet without a tick does not narrow."""
    return [(field, OneOf(field, tuple(values))) for field, values in asked.ticked.items() if values]


def whole_condition(asked: Asked) -> Condition | None:
    """With all that is ticked."""
    parts = [each for each in (asked.query.where, *(tick for _, tick in ticks(asked))) if each is not None]
    return None if not parts else parts[0] if len(parts) == 1 else All(tuple(parts))


def count(moment: Moment, asked: Asked) -> Counts:
    level = asked.query.level
    selection = moment.select(level, whole_condition(asked))
    found = {level: selection.size}
    flags: dict[Level, np.ndarray] = {}
    for above in selection.frame.table.belongs if level != Level.TAG else ():
        flags[above] = selection.owner_flags(above, moment.frame(above).entities)
        found[above] = int(np.count_nonzero(flags[above]))
    series = moment.frame(Level.SERIES)
    mask = series.everything()
    if level == Level.SERIES:
        mask = selection.mask
    elif Level.SERIES in flags:
        mask = mask & flags[Level.SERIES].take(series.entity)
    elif level in (Level.SUBJECT, Level.STUDY):
        mask = mask & _own_flags(selection).take(series.owner(level))
    elif Level.SUBJECT in flags:
        mask = mask & flags[Level.SUBJECT].take(series.owner(Level.SUBJECT))
    else:
        mask = np.zeros(len(series), bool)
    if level in (Level.SUBJECT, Level.STUDY):
        found[Level.SERIES] = int(np.count_nonzero(mask))
        if level == Level.SUBJECT:
            studies = moment.frame(Level.STUDY)
            found[Level.STUDY] = int(np.count_nonzero(_own_flags(selection).take(studies.owner(level)) & studies.everything()))
    if level in (Level.SUBJECT, Level.STUDY, Level.SERIES):
        found[Level.FINDING] = int(_findings_of(moment, level)[:-1][_own_flags(selection)[:-1]].sum())
    return Counts(
        subjects=found.get(Level.SUBJECT, 0),
        studies=found.get(Level.STUDY, 0),
        series=found.get(Level.SERIES, 0),
        findings=found.get(Level.FINDING, 0),
        instances=_sum(series, "instance_count", selection if level == Level.SERIES else mask),
        bytes=_sum(series, "bytes", selection if level == Level.SERIES else mask),
    )


def _own_flags(selection: Selection) -> np.ndarray:
    """Of the entities of its own level, which are selected; one more entry at the end, for none."""
    flags = np.zeros(selection.frame.entities + 1, bool)
    flags[selection.frame.entity.take(selection.rows)] = True
    return flags


def _findings_of(moment: Moment, level: Level) -> np.ndarray:
    """How many findings each entity of the level has."""
    entities = moment.frame(level).entities
    return moment.select(Level.FINDING, None).per_owner(level, entities)


def _sum(frame: Frame, name: str, of: Selection | np.ndarray) -> int:
    column = frame.table.columns[name]
    assert isinstance(column, Plain)
    return of.total(column) if isinstance(of, Selection) else int(frame.values(column)[of].sum())


def facets(moment: Moment, asked: Asked, facets_asked: Sequence[FacetAsked], steps: list[Step] | None = None) -> list[Facet]:
    """Each without its own ticks. The rows that fail no tick count everywhere; those that fail one alone, in that one's facet."""
    level = asked.query.level
    ticked = ticks(asked)
    fields = {facet.field: field_named(facet.field, level) for facet in facets_asked}
    ticked_fields = [field_named(name, level) for name, _ in ticked]
    everywhere = moment.select(level, whole_condition(asked), steps)
    without: dict[tuple[Level, str], Selection] = {}
    for field in {fields[facet.field].name: fields[facet.field] for facet in facets_asked}.values():
        own = [n for n, other in enumerate(ticked_fields) if _is_same(field, other)]
        if own:
            left = _with_ticks(asked, {name: values for n, (name, values) in enumerate(asked.ticked.items()) if not _is_same(field, field_named(name, level))})
            without[field.level, field.name] = moment.select(level, whole_condition(left))
    return [_facet(moment, fields[facet.field], facet, without.get((fields[facet.field].level, fields[facet.field].name), everywhere)) for facet in facets_asked]


def _with_ticks(asked: Asked, ticked: Mapping[str, Sequence[Value]]) -> Asked:
    return Asked(query=asked.query, position=asked.position, ticked=ticked)


def _is_same(one: Field, other: Field) -> bool:
    return (one.level, one.column, one.key) == (other.level, other.column, other.key)


def _facet(moment: Moment, field: Field, asked: FacetAsked, selection: Selection) -> Facet:
    column = _column(moment, field)
    if isinstance(column, Plain):
        return _facet_of_numbers(moment, field, column, asked, selection)
    dictionary = column.dictionary
    code_counts = _code_counts(moment, field, column, selection)
    value_counts = dictionary.value_counts(code_counts)
    top = dictionary.most_frequent(value_counts, asked.size)
    subjects = _subjects(moment, field, column, selection, top) if asked.subjects else [None] * len(top)
    return Facet(
        field=asked.field,
        values=[FacetValue(dictionary.values[place], int(value_counts[place]), persons) for place, persons in zip(top, subjects, strict=True)],
        distinct=int(np.count_nonzero(value_counts)),
        missing=int(code_counts[0]),
    )


def _column(moment: Moment, field: Field) -> Column:
    column = moment.column(field)
    if column is None:
        raise NotAColumn(field.name)
    return column


def _code_counts(moment: Moment, field: Field, column: Encoded, selection: Selection) -> np.ndarray:
    """How many of the selection have each code: of a field above its level, each entity there counts as often as it is selected."""
    if field.level == selection.frame.table.level:
        return selection.code_counts(column)
    upper = moment.frame(field.level)
    weights = selection.per_owner(field.level, upper.entities)
    rows = upper.row_of()
    there = rows[:-1] >= 0
    codes = upper.codes(column).take(rows[:-1][there])
    counts = np.bincount(codes, weights=weights[:-1][there], minlength=len(column.dictionary)).astype(np.int64)
    counts[0] += int(weights[:-1][~there].sum() + weights[-1])
    return counts


def _codes_of(moment: Moment, field: Field, column: Encoded, selection: Selection) -> np.ndarray:
    """The code of each selected row."""
    if field.level == selection.frame.table.level:
        return selection.frame.codes(column).take(selection.rows)
    upper = moment.frame(field.level)
    rows = upper.row_of().take(selection.frame.owner(field.level).take(selection.rows))
    return np.where(rows < 0, 0, upper.codes(column).take(np.maximum(rows, 0))) if len(upper) else np.zeros(selection.size, np.uint8)


def _subjects_of(moment: Moment, selection: Selection) -> tuple[np.ndarray, int]:
    """The subject of each selected row, and how many subjects there are."""
    frame = selection.frame
    if frame.table.level == Level.SUBJECT:
        return frame.entity.take(selection.rows), frame.entities
    if Level.SUBJECT not in frame.table.belongs or frame.table.level == Level.TAG:
        raise FieldRefused("persons cannot be counted of this level")
    return frame.owner(Level.SUBJECT).take(selection.rows), moment.frame(Level.SUBJECT).entities


def _subjects(moment: Moment, field: Field, column: Encoded, selection: Selection, top: Sequence[int]) -> list[int]:
    """How many persons have each of these values."""
    if not top:
        return []
    codes, (owners, entities) = _codes_of(moment, field, column, selection), _subjects_of(moment, selection)
    flags = np.zeros((len(top), entities + 1), bool)
    for rank, place in enumerate(top):
        holding = column.dictionary.holding(column.dictionary.values[place])
        if len(holding) > 1:
            table = np.zeros(len(column.dictionary) + 1, bool)
            table[list(holding)] = True
            flags[rank][owners[table.take(codes)]] = True
    single = np.full(len(column.dictionary) + 1, -1, np.int32)
    for rank, place in enumerate(top):
        holding = column.dictionary.holding(column.dictionary.values[place])
        if len(holding) == 1:
            single[holding[0]] = rank
    if (single >= 0).any():
        if any(len(column.dictionary.entries[code]) > 1 for code in np.flatnonzero(single >= 0).tolist()):
            for rank, place in enumerate(top):  # an entry with several of them
                for code in column.dictionary.holding(column.dictionary.values[place]):
                    flags[rank][owners[codes == code]] = True
        else:
            ranks = single.take(codes)
            there = ranks >= 0
            flags.reshape(-1)[ranks[there].astype(np.int64) * (entities + 1) + np.where(owners[there] < 0, entities, owners[there])] = True
    return [int(each) for each in np.count_nonzero(flags[:, :-1], axis=1)]


def _numbers_of(moment: Moment, field: Field, column: Plain, selection: Selection) -> np.ndarray:
    """The number of each selected row; NaN for none."""
    if field.level == selection.frame.table.level:
        return selection.frame.values(column).take(selection.rows)
    upper = moment.frame(field.level)
    rows = upper.row_of().take(selection.frame.owner(field.level).take(selection.rows))
    values = upper.values(column).take(np.maximum(rows, 0)) if len(upper) else np.zeros(len(rows))
    return np.where(rows < 0, np.nan, values)


def _facet_of_numbers(moment: Moment, field: Field, column: Plain, asked: FacetAsked, selection: Selection) -> Facet:
    numbers = _numbers_of(moment, field, column, selection)
    there = ~np.isnan(numbers) if numbers.dtype.kind == "f" else np.ones(len(numbers), bool)
    values, counts = np.unique(numbers[there], return_counts=True)
    dictionary = Dictionary((value,) for value in values.tolist())
    top = dictionary.most_frequent(counts, asked.size)
    persons: list[int | None] = [None] * len(top)
    if asked.subjects:
        owners, _ = _subjects_of(moment, selection)
        persons = [len(np.unique(owners[(numbers == values[place]) & (owners >= 0)])) for place in top]
    return Facet(
        field=asked.field,
        values=[FacetValue(dictionary.values[place], int(counts[place]), persons[n]) for n, place in enumerate(top)],
        distinct=len(values),
        missing=int(len(numbers) - np.count_nonzero(there)),
    )


def histogram(moment: Moment, asked: Asked, name: str, bins: int) -> Histogram:
    """Bins are equally wide; of dates, whole days."""
    if bins < 1:
        raise FieldRefused("a histogram has at least one bin")
    level = asked.query.level
    field = field_named(name, level)
    if field.kind not in (Kind.NUMBER, Kind.DATE):
        raise FieldRefused(f"{field.name} is a {field.kind}: a histogram is of numbers or dates")
    column = _column(moment, field)
    selection = moment.select(level, whole_condition(asked))
    if isinstance(column, Plain):
        numbers = _numbers_of(moment, field, column, selection)
        there = ~np.isnan(numbers) if numbers.dtype.kind == "f" else np.ones(len(numbers), bool)
        values, counts = np.unique(numbers[there], return_counts=True)
        missing = int(len(numbers) - np.count_nonzero(there))
    else:
        code_counts = _code_counts(moment, field, column, selection)
        value_counts = column.dictionary.value_counts(code_counts)
        places = np.flatnonzero(value_counts)
        known = sorted(((column.dictionary.values[place], int(value_counts[place])) for place in places.tolist()), key=lambda each: in_order(each[0]))
        converted = [_day(value) if field.kind == Kind.DATE else float(value) for value, _ in known]
        values, counts = np.array(converted, float), np.array([each for _, each in known], np.int64)
        missing = int(code_counts[0])
    return binned(name, values, counts, missing, bins, of_dates=field.kind == Kind.DATE)


def binned(name: str, values: np.ndarray, counts: np.ndarray, missing: int, bins: int, *, of_dates: bool) -> Histogram:
    """``values``: distinct, ascending."""
    if not len(values):
        return Histogram(field=name, bins=[], low=None, high=None, missing=missing)
    low, high = float(values[0]), float(values[-1])
    edges = edges_of(low, high, bins, of_dates=of_dates)
    said: list[Value] = [_date(edge) for edge in edges] if of_dates else list(edges)
    found = np.clip(np.searchsorted(edges, values, "right") - 1, 0, len(edges) - 2)
    totals = np.bincount(found, weights=counts, minlength=len(edges) - 1).astype(np.int64)
    made = [Bin(said[n], said[n + 1], int(totals[n])) for n in range(len(edges) - 1)]
    ends: tuple[Value, Value] = (_date(low), _date(high)) if of_dates else (low, high)
    return Histogram(field=name, bins=made, low=ends[0], high=ends[1], missing=missing)


def _day(value: Value) -> float:
    return float(datetime.date.fromisoformat(str(value)).toordinal())


def _date(day: float) -> str:
    return datetime.date.fromordinal(int(day)).isoformat()
