"""Random histories of cohort rows, and a naive loop in Python that answers what engines do: no index, no code, no array."""

from __future__ import annotations

import datetime
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from domain.condition import All, Between, Condition, Contains, Followed, Has, Level, Not, OneOf, Present, Value
from domain.condition import Any as AnyOf
from projections.cohort.engine import After, Asked, FacetAsked, Order
from projections.cohort.fields import field_named

LABELS = ("liver", "spleen", "lung_left", "kidney")
ABOVE = {
    Level.SUBJECT: {},
    Level.STUDY: {Level.SUBJECT: "subject"},
    Level.SERIES: {Level.STUDY: "study", Level.SUBJECT: "subject"},
    Level.FINDING: {Level.SERIES: "series", Level.STUDY: "study", Level.SUBJECT: "subject"},
    Level.FACT: {Level.SUBJECT: "subject"},
    Level.TAG: {},
}
Row = dict[str, Any]


class World:
    """Versions of entities, as the tables hold them; ``head`` is the last position."""

    def __init__(self, seed: int, events: int = 60) -> None:
        self.rows: dict[Level, list[Row]] = {level: [] for level in ABOVE}
        self.head = 0
        self.random = random.Random(seed)
        for _ in range(events):
            self.step()

    def standing(self, level: Level, position: int) -> list[Row]:
        return [row for row in self.rows[level] if row["position_from"] <= position and (row["position_to"] is None or row["position_to"] > position)]

    def step(self) -> None:
        """Something happens."""
        self.head += 1
        self.random.choices([self._subject, self._study, self._series, self._findings, self._fact, self._tag, self._change], [2, 3, 5, 4, 2, 2, 6])[0]()

    def erase(self, subject: int) -> set[tuple[str, int]]:
        """All that belongs to the subject vanishes; gives what an erasure lists."""
        self.head += 1
        gone = {(level.value, row["id"]) for level in ABOVE for row in self.rows[level] if row["id"] == subject or row.get("subject") == subject}
        for level in ABOVE:
            self.rows[level] = [row for row in self.rows[level] if (level.value, row["id"]) not in gone and (row.get("level"), row.get("target")) not in gone]
        return {(level, id_) for level, id_ in gone if level in ("subject", "study", "series")}

    def _add(self, level: Level, number: int = 0, /, **values: Any) -> Row:
        row = {"id": self.head * 4096 + number, "position_from": self.head, "position_to": None, **values}
        self.rows[level].append(row)
        return row

    def _pick(self, level: Level) -> Row | None:
        there = self.standing(level, self.head)
        return self.random.choice(there) if there else None

    def _subject(self) -> None:
        self._add(Level.SUBJECT, subject_id=f"s{self.head}", sex=self.random.choice(("", "F", "M")), born=None)

    def _study(self) -> None:
        subject = self._pick(Level.SUBJECT)
        if subject:
            pick = self.random.choice
            date = pick((None, datetime.date(2020, 1, 1), datetime.date(2020, 6, 30), datetime.date(2021, 3, 1)))
            elements = {"00081030": [pick(("Thorax", "ABDOMEN", "Schädel"))]} if self.random.random() < 0.8 else {}
            self._add(Level.STUDY, study_uid=f"1.{self.head}", subject=subject["id"], study_date=date, age_years=pick((None, 31.25, 64.0)), elements=elements)

    def _series(self) -> None:
        study = self._pick(Level.STUDY)
        if study:
            for number in range(self.random.randint(1, 3)):
                self._add(Level.SERIES, number, series_uid=f"2.{self.head}.{number}", study=study["id"], subject=study["subject"], **self._series_values())

    def _series_values(self) -> Row:
        pick = self.random.choice
        elements: dict[str, Any] = {"00080060": [pick(("CT", "MR", "PT"))]}
        if self.random.random() < 0.7:
            elements["00180050"] = pick(([1], [1.5], [1.5, 3], [5.0, 1]))
        if self.random.random() < 0.7:
            elements["00080008"] = pick((["ORIGINAL", "PRIMARY"], ["DERIVED"], ["ORIGINAL"], ["PRIMARY", "ORIGINAL"]))
        if self.random.random() < 0.5:
            elements["0008103E"] = [pick(("axial thin", "Axial THICK", "localizer", "Übersicht"))]
        elements["00089999"] = ["never a column"]
        return {
            "instance_count": self.random.randint(1, 4), "frame_count": 4, "bytes": self.random.randint(10, 99), "series_digest": "d",
            "slice_spacing_mm": pick((None, 1.0, 2.5)), "indexing": pick(("none", "indexed")), "elements": elements,
        }  # fmt: skip

    def _findings(self) -> None:
        series = self._pick(Level.SERIES)
        if series:
            for number, label in enumerate(self.random.sample(LABELS, self.random.randint(1, 4))):
                self._add(
                    Level.FINDING, number, finding_key=f"f{self.head}.{number}", series=series["id"], study=series["study"], subject=series["subject"],
                    segmenter="baseline", segmenter_version="1", label=label, structure=label[:3], laterality="left" if "left" in label else "", morphology="",
                    volume_ml=float(self.random.randint(1, 5)), mean_hu=self.random.uniform(-10, 10), whole=self.random.random() < 0.5, verdict=self.random.choice(("accepted", "rejected", "unreviewed")),
                )  # fmt: skip

    def _fact(self) -> None:
        subject = self._pick(Level.SUBJECT)
        if subject:
            self._add(
                Level.FACT, subject=subject["id"], resource_type="Condition", resource_id=f"r{self.head}", system="icd", code=self.random.choice(("C22", "I10")),
                status="active", value=self.random.choice((None, 4.5)), unit="", value_code="", date=None,
            )  # fmt: skip

    def _tag(self) -> None:
        level = self.random.choice((Level.SUBJECT, Level.STUDY, Level.SERIES, Level.FINDING))
        target = self._pick(level)
        if target:
            self._add(Level.TAG, level=level.value, target=target["id"], project="p", name=self.random.choice(("hard", "phase")), value=self.random.choice(("", "portal")))

    def _change(self) -> None:
        """A version ends, and mostly another begins."""
        level = self.random.choice((Level.SUBJECT, Level.STUDY, Level.SERIES, Level.SERIES, Level.FINDING, Level.TAG))
        row = self._pick(level)
        if row is None or row["position_from"] == self.head:
            return
        row["position_to"] = self.head
        changed = {**row, "position_from": self.head, "position_to": None}
        match level:
            case Level.SUBJECT:
                changed["sex"] = self.random.choice(("F", "M", ""))
            case Level.STUDY:
                changed["age_years"] = 50.0
            case Level.SERIES:
                changed |= self._series_values()
            case Level.FINDING:
                changed["verdict"] = "accepted"
            case Level.TAG:
                return
        self.rows[level].append(changed)


class Naive:
    """A loop over all rows for every question."""

    def __init__(self, world: World, position: int) -> None:
        self.at = {level: {row["id"]: row for row in world.standing(level, position)} for level in ABOVE}

    def values(self, level: Level, row: Row, name: str) -> tuple[Value, ...]:
        field = field_named(name, level)
        home: Row | None = row
        if field.level != level:
            home = self.at[field.level].get(row[ABOVE[level][field.level]])
        if home is None:
            return ()
        if field.is_element:
            return tuple(home["elements"].get(field.key, ()))
        value = home[field.column]
        if isinstance(value, datetime.date):
            value = value.isoformat()
        return () if value is None or value == "" else (value,)

    def meets(self, level: Level, row: Row, condition: Condition | None) -> bool:
        match condition:
            case None:
                return True
            case OneOf(field, wanted):
                return any(value in wanted for value in self.values(level, row, field))
            case Present(field):
                return bool(self.values(level, row, field))
            case Contains(field, text):
                return any(text.casefold() in str(value).casefold() for value in self.values(level, row, field))
            case Between():
                found = [_lies(condition, value) for value in self.values(level, row, condition.field)]
                return bool(found) and (all(found) if condition.every else any(found))
            case All(of):
                return all(self.meets(level, row, each) for each in of)
            case AnyOf(of):
                return any(self.meets(level, row, each) for each in of)
            case Not(of):
                return not self.meets(level, row, of)
            case Has():
                return sum(self.meets(condition.level, other, condition.where) for other in self.related(level, row, condition.level)) >= condition.at_least
            case Followed():
                return self._followed(row, condition)
        raise AssertionError(condition)

    def related(self, level: Level, row: Row, other: Level) -> Iterator[Row]:
        """What the entity has of another level, or belongs to."""
        if other == Level.TAG:
            yield from (tag for tag in self.at[other].values() if (tag["level"], tag["target"]) == (level.value, row["id"]))
        elif other in ABOVE[level]:
            found = self.at[other].get(row[ABOVE[level][other]])
            yield from () if found is None else (found,)
        elif level in ABOVE[other]:
            yield from (each for each in self.at[other].values() if each[ABOVE[other][level]] == row["id"])
        else:
            yield from (each for each in self.at[other].values() if each["subject"] == row["subject"])

    def _followed(self, row: Row, asked: Followed) -> bool:
        studies = [study for study in self.related(Level.SUBJECT, row, Level.STUDY) if study["study_date"] is not None]
        for first in studies:
            for second in studies:
                days = (second["study_date"] - first["study_date"]).days
                in_time = second is not first and asked.at_least_days <= days <= (10**9 if asked.at_most_days is None else asked.at_most_days)
                if in_time and self.meets(Level.STUDY, first, asked.baseline) and self.meets(Level.STUDY, second, asked.follow_up):
                    return True
        return False

    def select(self, asked: Asked, but: str = "") -> list[Row]:
        level = asked.query.level
        ticked = [OneOf(field, tuple(values)) for field, values in asked.ticked.items() if field != but and values]
        return [
            row
            for _, row in sorted(self.at[level].items())
            if self.meets(level, row, asked.query.where) and all(self.meets(level, row, tick) for tick in ticked)
        ]

    def facet(self, asked: Asked, facet: FacetAsked) -> tuple[list[tuple[Value, int, int | None]], int, int]:
        """Values with counts, how many there are, and how many entities have none."""
        level = asked.query.level
        rows = self.select(asked, but=facet.field)
        counts: Counter[Value] = Counter()
        persons: dict[Value, set[int]] = {}
        missing = 0
        for row in rows:
            values = set(self.values(level, row, facet.field))
            missing += not values
            counts.update(values)
            for value in values:
                persons.setdefault(value, set()).add(row["id"] if level == Level.SUBJECT else row.get("subject", 0))
        top = sorted(counts.items(), key=lambda each: (-each[1], each[0]))[: facet.size]
        return [(value, count, len(persons[value]) if facet.subjects else None) for value, count in top], len(counts), missing

    def order(self, asked: Asked, order: Order | None) -> list[tuple[Value | None, int]]:
        """Keys and ids of all that was asked for, in order."""
        keyed: list[tuple[Value | None, int]] = []
        for row in self.select(asked):
            values = self.values(asked.query.level, row, order.field) if order is not None else ()
            key = (max if order is not None and order.descending else min)(values) if values else None
            keyed.append((key, row["id"]))
        there = sorted((each for each in keyed if each[0] is not None), key=lambda each: each[1])
        there.sort(key=lambda each: each[0], reverse=order is not None and order.descending)  # type: ignore[arg-type, return-value]
        return there + sorted((each for each in keyed if each[0] is None), key=lambda each: each[1])

    def counts(self, asked: Asked) -> tuple[int, int, int, int, int, int]:
        """Subjects, studies, series, findings, instances, bytes."""
        level, rows = asked.query.level, self.select(asked)
        found: dict[Level, dict[int, Row]] = {}
        for each in (Level.SUBJECT, Level.STUDY, Level.SERIES, Level.FINDING):
            found[each] = {}
            if each == level:
                found[each] = {row["id"]: row for row in rows}
            elif each in ABOVE[level] or level in ABOVE[each]:
                found[each] = {other["id"]: other for row in rows for other in self.related(level, row, each)}
        series = found[Level.SERIES].values()
        return (*(len(found[each]) for each in found), sum(s["instance_count"] for s in series), sum(s["bytes"] for s in series))  # type: ignore[return-value]


def _lies(between: Between, value: Any) -> bool:
    return (
        (between.at_least is None or value >= between.at_least)
        and (between.more_than is None or value > between.more_than)
        and (between.at_most is None or value <= between.at_most)
        and (between.less_than is None or value < between.less_than)
    )


def after(keyed: tuple[Value | None, int]) -> After:
    return After(*keyed)


def records(level: Level, rows: Iterable[Row], columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """As the database gives them."""
    return [tuple(json.dumps(row[name]) if name == "elements" else row[name] for name in columns) for row in sorted(rows, key=lambda row: (row["id"], row["position_from"]))]
