"""Do an engine and the naive loop agree? Random questions of random histories, now and as of random positions.

``ANAMNESIS_TEST_COHORT_EXAMPLES`` sets how many histories are tried (a few by default); each is asked QUESTIONS questions.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import cohort_history
from conftest import drop_database, fresh_database
from hypothesis import strategies as st
from naive_cohort import ABOVE, NaiveCohort
from pydantic import SecretStr
from random_history import Step

from domain.condition import All, Between, Condition, Contains, Followed, Has, Level, Not, OneOf, Present, Query, Value
from domain.condition import Any as AnyOf
from eventlog.log import EventLog
from eventlog.schema import migrate
from eventlog.settings import LogSettings
from eventlog.vault import make_key_encryption_key
from projections.cohort.engine import After, Asked, Engine, FacetAsked, Order

EXAMPLES = int(os.environ.get("ANAMNESIS_TEST_COHORT_EXAMPLES", "4"))
QUESTIONS = 40
EngineOf = Callable[[EventLog], AbstractAsyncContextManager[Engine]]
"""Brings an engine up to the head of a log."""

_DATES = ["2024-03-01", "2024-03-03", "2024-03-05", "2020-02-03", "2021-01-01"]
CODES: dict[str, dict[str, list[Value]]] = {
    "subject": {"sex": ["M", "F", "O", ""]},
    "study": {"PatientID": ["MRN-0", "MRN-1"], "PatientName": ["Doe^Jane", "Müller^Jörg"], "PatientName.family": ["Doe", "DOE"], "StudyDescription": ["CT CHEST"]},
    "series": {
        "indexing": ["none", "indexed", "requested"],
        "Modality": ["CT", "SEG"],
        "ImageType": ["AXIAL", "MPR", "PRIMARY"],
        "ProtocolName": ["Thorax", "ABDOMEN VENÖS", ""],
        "series_uid": ["1.2.1.1", "1.2.2.1"],
        "RequestAttributesSequence.ScheduledProcedureStepID": ["STEP3", "STEP6"],
    },
    "instance": {"sop_instance_uid": ["1.2.1.1.1", "1.2.2.1.2"]},
    "finding": {"label": ["liver", "spleen"], "verdict": ["accepted", "rejected", "unreviewed"], "structure": ["10200004"], "laterality": ["left"]},
    "fact": {"resource_type": ["Condition", "Consent"], "code": ["E11", "44054006", "2345-7"], "status": ["active", "final"], "value_code": ["permit", "deny"]},
    "tag": {"level": ["series", "subject"], "project": ["alpha"], "name": ["quality", "train"], "value": ["good", ""]},
}
NUMBERS: dict[str, dict[str, list[float]]] = {
    "study": {"age_years": [0.5, 45, 54.17, 68.67], "PatientAge": [0.5, 45]},
    "series": {
        "instance_count": [1, 2, 3],
        "bytes": [1001, 2003, 3006],
        "slice_spacing_mm": [2, 2.5],
        "SliceThickness": [0.75, 1.5, 5],
        "SeriesNumber": [0, 2],
        "InstanceNumber": [1, 2],
        "ImagePositionPatient": [0, 2.5, 5],
        '(0019,"SIEMENS MR HEADER",0C)': [100, 400],
    },
    "instance": {"bytes": [1001, 1002]},
    "finding": {"volume_ml": [0.01, 0.012, 0.02], "mean_hu": [1.5]},
    "fact": {"value": [1.26, 7]},
}
SEVERAL = ("SliceThickness", "InstanceNumber", "ImagePositionPatient")
"""Differ within a series."""
DATES = {"study": ["study_date", "StudyDate"], "fact": ["date"]}
TIMES = {"study": ["StudyTime"]}
TEXTS = {
    "study": ["StudyDescription", "PatientName", "PatientName.family"],
    "series": ["ProtocolName", "SeriesDescription", "ImageType"],
    "finding": ["label"],
    "fact": ["code"],
    "tag": ["value", "name"],
}
WORDS = ["abd", "venos", "Thorax Lunge", "1,5", "müller", "doe", "a", "", "axial 1", "Thoarx", "abdmen", "groesser", "größer", "liver", "E1", "oo", "ct chst"]


def level_fields(level: str, table: dict[str, Any]) -> list[tuple[str, str]]:
    """(home, field) of what can be asked of a level; of one name, the nearest."""
    found: dict[str, str] = {}
    for home in (level, *ABOVE[level]):
        for field in table.get(home, ()):
            found.setdefault(field, home)
    return [(home, field) for field, home in found.items()]


class Asker:
    """Makes questions, out of one source of chance."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def asked(self, positions: int) -> Asked:
        level = self.chance.choice([*ABOVE, "series", "study"])
        where = self.condition(level, 3) if self.chance.random() < 0.8 else None
        ticked = {}
        for home, field in self.chance.sample(level_fields(level, CODES), k=min(len(level_fields(level, CODES)), self.chance.choice([0, 0, 1, 2]))):
            values = CODES[home][field]
            ticked[field] = tuple(self.chance.sample(values, k=min(len(values), self.chance.choice([0, 1, 2]))))
        position = self.chance.choice([positions, self.chance.randint(0, positions)])
        return Asked(query=Query(level=Level(level), where=where), position=position, ticked=ticked)

    def condition(self, level: str, depth: int) -> Condition:
        kind = self.chance.choice(["leaf", "leaf", "all", "any", "not", "has", "has", "followed"]) if depth else "leaf"
        match kind:
            case "all" | "any":
                parts = tuple(self.condition(level, depth - 1) for _ in range(self.chance.randint(0, 3)))
                return All(parts) if kind == "all" else AnyOf(parts)
            case "not":
                return Not(self.condition(level, depth - 1))
            case "has" if others := self._others(level):
                other = self.chance.choice(others)
                where = self.condition(other, depth - 1) if self.chance.random() < 0.8 else None
                return Has(level=Level(other), where=where, at_least=self.chance.choice([1, 1, 1, 2, 3]))
            case "followed" if level == "subject":
                least = self.chance.choice([-3, 0, 1, 2])
                most = self.chance.choice([None, least, 3])
                return Followed(baseline=self.condition("study", depth - 1), follow_up=self.condition("study", depth - 1), at_least_days=least, at_most_days=most)
        return self.leaf(level)

    def _others(self, level: str) -> list[str]:
        found = [other for other in ABOVE if other in ABOVE[level] or level in ABOVE[other]]
        if level in ("subject", "study", "series", "instance", "finding"):
            found.append("tag")
        if "subject" in ABOVE[level] and level != "fact":
            found.append("fact")
        return found

    def leaf(self, level: str) -> Condition:
        choice = self.chance.choice
        match choice(["code", "code", "number", "range", "range", "date", "time", "present", "text", "text"]):
            case "number" if known := level_fields(level, NUMBERS):
                home, field = choice(known)
                return OneOf(field, tuple(self.chance.sample(NUMBERS[home][field], k=1)))
            case "range" if known := level_fields(level, NUMBERS):
                every = choice([False, True])
                several = [(home, field) for home, field in known if field in SEVERAL] if every else []
                home, field = choice(several or known)
                return Between(field=field, every=every, **self._bounds(NUMBERS[home][field]))
            case "date" if known := level_fields(level, DATES):
                field = choice(known)[1]
                return choice([Between(field=field, **self._bounds(_DATES)), OneOf(field, (choice(_DATES),))])
            case "time" if known := level_fields(level, TIMES):
                return Between(field=choice(known)[1], **self._bounds(["01:30:00", "04:30:00"]))
            case "present":
                return Present(choice([field for table in (CODES, NUMBERS, DATES) for _, field in level_fields(level, table)]))
            case "text" if known := level_fields(level, TEXTS):
                return Contains(choice(known)[1], choice(WORDS), choice([False, True]))
        if level in ("finding",) and self.chance.random() < 0.2:
            return OneOf("whole", (choice([True, False]),))
        home, field = choice(level_fields(level, CODES))
        values = CODES[home][field]
        return OneOf(field, tuple(self.chance.sample(values, k=min(len(values), choice([1, 2])))))

    def _bounds(self, values: list[Any]) -> dict[str, Any]:
        low, high = sorted(self.chance.choices(values, k=2))
        bounds = {self.chance.choice(["at_least", "more_than"]): low, self.chance.choice(["at_most", "less_than"]): high}
        if self.chance.random() < 0.3:
            bounds.pop(self.chance.choice(list(bounds)))
        return bounds

    def any_field(self, level: str) -> str:
        return self.chance.choice([field for table in (CODES, NUMBERS, DATES, TIMES) for _, field in level_fields(level, table)])


async def agrees(engine: Engine, naive: NaiveCohort, asked: Asked, asker: Asker) -> None:
    """Members, counts, facets, histograms and pages of one question."""
    chance, level = asker.chance, str(asked.query.level)
    assert await engine.counts(asked) == naive.counts(asked), asked
    for other in [level, *ABOVE[level], *(below for below in ABOVE if level in ABOVE[below])]:
        found = [id_ async for batch in engine.members(asked, Level(other)) for id_ in batch]
        assert found == naive.members(asked, Level(other)), (asked, other)
    persons = level != "tag" and chance.random() < 0.5
    fields = [*asked.ticked, *(asker.any_field(level) for _ in range(2))]
    wanted = [FacetAsked(field=field, size=chance.choice([1, 2, 20]), subjects=persons) for field in dict.fromkeys(fields)]
    for made, one in zip(await engine.facets(asked, wanted), wanted, strict=True):
        assert made == naive.facet(asked, one), (asked, one)
    if known := [field for table in (NUMBERS, DATES) for _, field in level_fields(level, table)]:
        await _agrees_on_histogram(engine, naive, asked, chance.choice(known), chance.randint(1, 5))
    order = chance.choice([None, Order(field=asker.any_field(level), descending=chance.random() < 0.5)])
    every = naive.ordered(asked, order)
    for backwards in (False, True):
        after = After(every[-1 - len(every) // 2][1], every[-1 - len(every) // 2][0]) if every and chance.random() < 0.7 else None
        first = chance.choice([0, 1, 3, 50])
        page = await engine.page(asked, first, order, after, backwards=backwards)
        expected = naive.page(asked, first, order, after, backwards=backwards)
        assert (list(page.ids), list(page.keys), page.has_more) == (expected.ids, expected.keys, expected.has_more), (asked, order, after, backwards)


async def _agrees_on_histogram(engine: Engine, naive: NaiveCohort, asked: Asked, field: str, bins: int) -> None:
    made = await engine.histogram(asked, field, bins)
    values, missing = naive.numbers(asked, field)
    assert (made.missing, made.low, made.high) == (missing, min(values, default=None), max(values, default=None)), (asked, field)
    for n, one in enumerate(made.bins, 1):
        inside = [value for value in values if one.low <= value and (value < one.high or (n == len(made.bins) and value <= one.high))]  # type: ignore[operator]
        assert one.count == len(inside), (asked, field, one)
    assert sum(one.count for one in made.bins) == len(values)


async def ask_of_history(server: str, folder: Path, history: list[list[Step]], seed: int, engine_of: EngineOf, questions: int = QUESTIONS) -> None:
    """Appends the history to a log of its own, and compares the engine with the naive loop."""
    url = await fresh_database(server)
    try:
        settings = LogSettings(data_dir=folder, database_url=SecretStr(url))
        make_key_encryption_key(settings)
        await migrate(settings)
        log = await EventLog.open(settings)
        try:
            events = await cohort_history.append(log, history)
            naive, asker = NaiveCohort(events), Asker(random.Random(seed))
            async with engine_of(log) as engine:
                for _ in range(questions):
                    await agrees(engine, naive, asker.asked(len(events)), asker)
        finally:
            await log.close()
    finally:
        await drop_database(server, url)


def run(server: str, folder: Path, history: list[list[Step]], seed: int, engine_of: EngineOf) -> None:
    asyncio.run(ask_of_history(server, folder, history, seed, engine_of))


long_histories = st.lists(st.lists(cohort_history.steps, min_size=6, max_size=12), min_size=2, max_size=5)
seeds = st.integers(0, 2**32)
