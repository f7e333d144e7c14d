"""What a condition selects at one position: masks over rows, lifted from level to level by the ordinals of what belongs to what.

What is asked of one moment is kept while the moment is: the parts of a page (facets, a histogram, the list) share their condition. What
is asked of the present is kept with its table and goes on from there when something comes (projections.columns.lasting).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from domain.condition import All, Any, Between, Condition, Contains, Followed, Has, Level, Not, OneOf, Present
from projections.cohort.errors import FieldRefused
from projections.cohort.fields import Field, field_named
from projections.columns.column import Column, Encoded
from projections.columns.errors import NotAColumn
from projections.columns.groups import group_of
from projections.columns.kept import Kept
from projections.columns.lasting import Lasting
from projections.columns.pieces import taken
from projections.columns.predicates import check, met_by_codes, met_by_numbers
from projections.columns.selection import Selection, continued
from projections.columns.table import Frame, View

MASKS_BYTES, FLAGS_BYTES, SELECTIONS_BYTES, ANSWERS_BYTES = 32 << 20, 32 << 20, 96 << 20, 64 << 20
"""What a moment keeps of masks of the past, of what was said of entities, of selections, and of what the rows have answered."""
KEPT_AT_LEAST = 3
ANSWERS_AT_LEAST = 256
"""Those of one question must not push each other out."""
_ABOVE: Mapping[Level, tuple[Level, ...]] = {
    Level.SUBJECT: (),
    Level.STUDY: (Level.SUBJECT,),
    Level.SERIES: (Level.STUDY, Level.SUBJECT),
    Level.FINDING: (Level.SERIES, Level.STUDY, Level.SUBJECT),
    Level.FACT: (Level.SUBJECT,),
    Level.TAG: (),
}
HELD = frozenset(_ABOVE)
"""Levels that columns know. There are too many instances for that."""
Leaf = OneOf | Between | Present | Contains


class Step(msgspec.Struct, frozen=True):
    """A condition that was looked at: how many rows met it, and how long that took."""

    what: str
    met: int
    milliseconds: float


class Asking(msgspec.Struct, frozen=True):
    """A part of a condition that columns do not know: whoever reads the rows says which entities of the level meet it."""

    level: Level
    condition: Condition


class Moment:
    """``outside``: what the rows have answered, entities' ids in ascending order."""

    def __init__(self, views: Mapping[Level, View], position: int) -> None:
        self.position = position
        self._views = views
        self.outside = Kept[np.ndarray](lambda: ANSWERS_BYTES, ANSWERS_AT_LEAST)
        self._flags = Kept[np.ndarray](lambda: FLAGS_BYTES, KEPT_AT_LEAST)
        self._masks = Kept[np.ndarray](lambda: MASKS_BYTES, KEPT_AT_LEAST)
        self._selections = Kept[Selection](lambda: SELECTIONS_BYTES, KEPT_AT_LEAST)

    def frame(self, level: Level) -> Frame:
        return self._views[level].at(self.position)

    def column(self, field: Field) -> Column | None:
        """None where it is not in memory."""
        view = self._views.get(field.level)
        return view.table.columns.get(field.column or field.key) if view is not None else None

    def select(self, level: Level, condition: Condition | None, steps: list[Step] | None = None) -> Selection:
        """The entities of a level that meet a condition. Raises NotAColumn, FieldUnknown, FieldRefused."""
        key = _key(level, condition)
        found = self._selections.get(key)
        if found is None or steps is not None:
            found = self._selected(level, condition, key) if steps is None else Selection(self.frame(level), self._mask_of(level, condition, steps))
            self._selections.put(key, found)
        return found

    def _selected(self, level: Level, condition: Condition | None, key: bytes) -> Selection:
        frame = self.frame(level)
        if not frame.is_present:
            return Selection(frame, self._mask_of(level, condition))
        lasting, met = self._lasting(level, condition)
        before = lasting.tallies
        if before is not None and before.high <= frame.high and before.ended <= frame.ended:
            before = continued(before, frame, met, lambda above: self.frame(above).entities)
        else:
            before = None
        found = Selection(frame, met, before)
        lasting.count(found.tallies)
        return found

    def _mask_of(self, level: Level, condition: Condition | None, steps: list[Step] | None = None) -> np.ndarray | None:
        return None if condition is None else self._mask(level, condition, steps)

    def asks(self, level: Level, condition: Condition | None) -> Iterator[Asking]:
        """What has to be asked outside before the condition can be looked up here."""
        match condition:
            case None:
                return
            case All(of) | Any(of):
                for each in of:
                    yield from self.asks(level, each)
            case Not(of):
                yield from self.asks(level, of)
            case Has() if self._has_path(level, condition.level):
                yield from self.asks(condition.level, condition.where)
            case Followed() if level == Level.SUBJECT:
                yield from self.asks(Level.STUDY, condition.baseline)
                yield from self.asks(Level.STUDY, condition.follow_up)
            case Has() | Followed():
                yield Asking(level, condition)
            case _:
                field = field_named(condition.field, level)
                check(condition, field)
                if self.column(field) is None or (isinstance(condition, Contains) and condition.tolerant):
                    yield Asking(level, condition)

    def _has_path(self, level: Level, other: Level) -> bool:
        if level not in HELD or other not in HELD:
            return False
        if other == Level.TAG:
            return level in (Level.SUBJECT, Level.STUDY, Level.SERIES, Level.FINDING)
        return other in _ABOVE[level] or level in _ABOVE[other] or (other == Level.FACT and Level.SUBJECT in _ABOVE[level] and level != Level.FACT)

    def _mask(self, level: Level, condition: Condition, steps: list[Step] | None = None) -> np.ndarray:
        """Over all rows of the frame, whether they stand or not."""
        if steps is not None:
            return self._explained(level, condition, steps)
        if self.frame(level).is_present:
            _, met = self._lasting(level, condition)
            assert met is not None
            return met
        key = _key(level, condition)
        found = self._masks.get(key)
        if found is None:
            found = self._met(level, condition, None)
            self._masks.put(key, found)
        return found

    def _explained(self, level: Level, condition: Condition, steps: list[Step]) -> np.ndarray:
        began = time.perf_counter()
        found = self._met(level, condition, None, steps)
        if not isinstance(condition, All | Any | Not):
            standing = self.frame(level).stands
            met = int(np.count_nonzero(found if standing is None else found & standing))
            steps.append(Step(f"{level}: {_words(condition)}", met, 1000 * (time.perf_counter() - began)))
        return found

    def _lasting(self, level: Level, condition: Condition | None) -> tuple[Lasting, np.ndarray | None]:
        """What is known of a condition in the present, and which rows meet it, whether they stand or not; None where all do."""
        frame, key = self.frame(level), _key(level, condition)
        kept = frame.table.lasting
        known = kept.get(key)
        if condition is None:
            if known is None:
                kept.put(key, known := Lasting(None, {}))
            return known, None
        leans = {(self._over(level, part), _key(level, part)): self._said(level, part) for part in self._leaning(level, condition)}
        met = None if known is None else known.met(len(frame), leans, lambda rows: self._met(level, condition, rows))
        if known is None or met is None:
            met = self._met(level, condition, None)
            kept.put(key, known := Lasting(met, leans))
        return known, met

    def _leaning(self, level: Level, condition: Condition) -> Iterator[Condition]:
        """The parts that rows of the level do not decide themselves."""
        if _key(level, condition) in self.outside:
            yield condition
            return
        match condition:
            case All(of) | Any(of):
                for each in of:
                    yield from self._leaning(level, each)
            case Not(of):
                yield from self._leaning(level, of)
            case Has() if _is_constant(level, condition):
                return
            case Has() | Followed():
                yield condition
            case _ if field_named(condition.field, level).level != level:
                yield condition

    def _met(self, level: Level, condition: Condition, rows: np.ndarray | None, steps: list[Step] | None = None) -> np.ndarray:
        """Of these rows of the frame (all: None), which meet the condition."""
        if len(self.outside) and _key(level, condition) in self.outside:
            return self._lifted(level, condition, rows)
        part = (lambda each: self._mask(level, each, steps)) if rows is None else (lambda each: self._met(level, each, rows))
        match condition:
            case All(of):
                found = np.ones(len(self.frame(level)) if rows is None else len(rows), bool)
                for each in of:
                    found &= part(each)
                return found
            case Any(of):
                found = np.zeros(len(self.frame(level)) if rows is None else len(rows), bool)
                for each in of:
                    found |= part(each)
                return found
            case Not(of):
                return ~part(of)
            case Has() if _is_constant(level, condition):
                return np.full(len(self.frame(level)) if rows is None else len(rows), condition.at_least < 1)
            case Has() | Followed():
                return self._lifted(level, condition, rows)
        return self._leaf(level, condition, rows)

    def _leaf(self, level: Level, leaf: Leaf, rows: np.ndarray | None) -> np.ndarray:
        field = field_named(leaf.field, level)
        column = self.column(field)
        if column is None:
            raise NotAColumn(field.name)
        if field.level != level:
            return self._lifted(level, leaf, rows)
        frame = self.frame(level)
        if isinstance(column, Encoded):
            codes = frame.codes(column)
            return met_by_codes(leaf, column, codes if rows is None else codes.take(rows))
        numbers = frame.values(column)
        return met_by_numbers(leaf, column, numbers if rows is None else numbers.take(rows))

    def _lifted(self, level: Level, part: Condition, rows: np.ndarray | None) -> np.ndarray:
        """What is said of entities, for the rows that are of them or belong to them."""
        over = self._over(level, part)
        frame = self.frame(level)
        places = frame.entity if over == level else frame.owner(over)
        return taken(self._said(level, part), places if rows is None else places.take(rows))

    def _over(self, level: Level, part: Condition) -> Level:
        """The level whose entities a part of a condition is said of, where rows of ``level`` do not decide it themselves."""
        if _key(level, part) in self.outside:
            return level
        match part:
            case Has():
                if part.level in _ABOVE[level]:
                    return part.level
                return level if level in _ABOVE[part.level] or part.level == Level.TAG else Level.SUBJECT
            case OneOf() | Between() | Present() | Contains():
                return field_named(part.field, level).level
        return Level.SUBJECT

    def _said(self, level: Level, part: Condition) -> np.ndarray:
        """Of which entities of the level that it is said of it holds; one more at the end, for none."""
        over = self._over(level, part)
        key = over, _key(level, part)
        found = self._flags.get(key)
        if found is None:
            found = self._flags_of(level, over, part)
            self._flags.put(key, found)
        return found

    def _flags_of(self, level: Level, over: Level, part: Condition) -> np.ndarray:
        frame = self.frame(over)
        flags = np.zeros(frame.entities + 1, bool)
        ids = self.outside.get(_key(level, part))
        if ids is not None:
            ordinals = frame.table.ordinals(ids)
            flags[ordinals[(ordinals >= 0) & (ordinals < frame.entities)]] = True
        elif isinstance(part, Followed):
            flags[self._followed(level, part)] = True
        elif isinstance(part, Has) and over != part.level:
            owners = self.frame(part.level).owner(over).take(self.rows_that_meet(part.level, part.where))
            if part.at_least == 1:
                flags[owners] = True
            else:
                flags = np.bincount(owners[owners >= 0], minlength=frame.entities + 1) >= part.at_least
        else:
            condition = part.where if isinstance(part, Has) else part
            flags[frame.entity.take(self.select(over, condition).rows)] = True
        flags[-1] = False
        return flags

    def rows_that_meet(self, level: Level, condition: Condition | None) -> np.ndarray:
        """Places of the rows that stand and meet it. Where the level's rows are grouped by what is asked for, only those are looked at."""
        frame = self.frame(level)
        for leaf, others in _narrowest_first(condition):
            group = group_of(frame, leaf)
            if group is None:
                continue
            if frame.stands is not None:
                group = group[frame.stands.take(group)]
            for other in others:
                group = group[self._met(level, other, group)]
            return group
        return self.select(level, condition).rows

    def _followed(self, level: Level, asked: Followed) -> np.ndarray:
        """Ordinals of subjects."""
        if level != Level.SUBJECT:
            raise FieldRefused("a follow-up is asked of subjects")
        studies = self.frame(Level.STUDY)
        days = self._study_days()
        dated = studies.everything() & (days != _NO_DAY)
        first = np.flatnonzero(dated & self._mask(Level.STUDY, asked.baseline))
        second = np.flatnonzero(dated & self._mask(Level.STUDY, asked.follow_up))
        owner = studies.owner(Level.SUBJECT)
        span = np.int64(1) << 24
        later = np.sort(owner[second].astype(np.int64) * span + days[second])
        least, most = max(asked.at_least_days, -_FARTHEST), min(asked.at_most_days if asked.at_most_days is not None else _FARTHEST, _FARTHEST)
        at = owner[first].astype(np.int64) * span
        low = np.searchsorted(later, at + np.clip(days[first] + least, 0, span - 1), "left")
        high = np.searchsorted(later, at + np.clip(days[first] + most, 0, span - 1), "right")
        counts = high - low
        if least <= 0 <= most:  # not the same study
            itself = np.zeros(len(studies), bool)
            itself[second] = True
            counts = counts - itself[first]
        return owner[first[counts > 0]]

    def _study_days(self) -> np.ndarray:
        """Of each study, its date as a number of days."""
        frame = self.frame(Level.STUDY)
        column = frame.table.columns["study_date"]
        assert isinstance(column, Encoded)
        entries = column.dictionary.entries[: len(column.dictionary)]
        days = np.array([np.datetime64(str(entry[0]), "D").astype(np.int64) + _DAY_ZERO if entry else _NO_DAY for entry in entries], np.int64)
        return days.take(frame.codes(column))

    def answered(self, asking: Asking, ids: np.ndarray) -> None:
        """What the rows said."""
        self.outside.put(_key(asking.level, asking.condition), ids)

    def is_answered(self, asking: Asking) -> bool:
        return _key(asking.level, asking.condition) in self.outside


def _is_constant(level: Level, has: Has) -> bool:
    """It holds of all rows, or of none: one row belongs to one entity of a level above."""
    return has.at_least < 1 or (has.level in _ABOVE[level] and has.at_least > 1)


_FARTHEST = 1 << 22
_DAY_ZERO = 1 << 22
_NO_DAY = -1
_ENCODER = msgspec.json.Encoder()


def _key(level: Level, condition: Condition | None) -> bytes:
    return level.encode() + _ENCODER.encode(condition)


def _words(condition: Condition) -> str:
    """What is asked, without the values: they may be of a person."""
    match condition:
        case Has():
            return f"has {condition.level}"
        case Followed():
            return "followed"
        case OneOf() | Between() | Present() | Contains():
            return f"{condition.field} {type(condition).__struct_config__.tag}"
    return str(type(condition).__struct_config__.tag)


def _narrowest_first(condition: Condition | None) -> Iterator[tuple[OneOf, Sequence[Condition]]]:
    """Conditions that may be looked up in a group, with what else has to hold."""
    parts: Sequence[Condition] = condition.of if isinstance(condition, All) else () if condition is None else (condition,)
    for n, part in enumerate(parts):
        if isinstance(part, OneOf):
            yield part, [*parts[:n], *parts[n + 1 :]]
