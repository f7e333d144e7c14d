"""What resolvers read as of one position: one by one they ask, and many at once are fetched (no statement a row)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from strawberry.dataloader import DataLoader

from domain.condition import All, Condition, Level, OneOf, Query
from projections.cohort.engine import Asked
from projections.cohort.fields import BELONGS_TO
from server.graphql import headers, rows
from server.graphql.rows import Row

if TYPE_CHECKING:
    from server.graphql.context import Context

_BATCH = 2000


class Belonging(msgspec.Struct, frozen=True):
    """What of a level belongs to an entity, and meets a condition. ``key``: by which people know the entity."""

    parent: Level
    id: int
    key: str
    level: Level
    where: Condition | None


class Reading:
    def __init__(self, context: Context, position: int) -> None:
        self.context = context
        self.position = position
        self._known: dict[Level, dict[int, Row]] = {level: {} for level in Level}
        self._rows: dict[Level, DataLoader[int, Row | None]] = {}
        self._belonging: DataLoader[Belonging, list[int]] = DataLoader(self._load_belonging, max_batch_size=_BATCH)
        self._tags: DataLoader[tuple[Level, int], list[Row]] = DataLoader(self._load_tags, max_batch_size=_BATCH)
        self._made: DataLoader[tuple[Level, int], list[Row]] = DataLoader(self._load_made, max_batch_size=_BATCH)

    async def row(self, level: Level, id: int) -> Row | None:
        return await self._loader(level).load(id)

    async def many(self, level: Level, ids: Sequence[int]) -> list[Row | None]:
        """In one statement, and remembered for what is asked of them one by one."""
        found = await self._fetch(level, list(ids))
        self._loader(level).prime_many(dict(zip(ids, found, strict=True)))
        return found

    def known(self, level: Level, id: int) -> Row | None:
        """A row that is here already."""
        return self._known[level].get(id)

    def asks_for(self, name: str) -> bool:
        """Whether a field of this name is asked for, anywhere in the document."""
        return self.context.asking is None or name in self.context.asking.names

    async def what_they_belong_to(self, level: Level, found: Sequence[Row | None]) -> None:
        """Fetches what a page's entities belong to at once, where it is asked for: then nothing waits for each of them."""
        for above in (Level.SERIES, Level.STUDY, Level.SUBJECT):
            if above in BELONGS_TO[level] and above != level and self.asks_for(above.value):
                ids = {row[above.value] for row in found if row is not None and above.value in row}
                missing = sorted(ids - self._known[above].keys())
                if missing:
                    await self.many(above, missing)

    async def by_key(self, level: Level, key: str) -> Row | None:
        """An entity by the key that people know it by."""
        ids = await rows.ids_by_key(self._pool, level, [key], self.position)
        return await self.row(level, ids[key]) if key in ids else None

    async def belonging(self, wanted: Belonging) -> list[int]:
        """Ids, ascending."""
        return await self._belonging.load(wanted)

    async def tags(self, level: Level, id: int) -> list[Row]:
        return await self._tags.load((level, id))

    async def made(self, level: Level, id: int) -> list[Row]:
        return await self._made.load((level, id))

    def query_of(self, wanted: Belonging) -> Query:
        """What belongs to the entity, as a question of its own."""
        mine = OneOf(rows.KEYS[wanted.parent], (wanted.key,))
        return Query(level=wanted.level, where=mine if wanted.where is None else All((mine, wanted.where)))

    @property
    def _pool(self) -> Any:
        return self.context.services.pool

    def _loader(self, level: Level) -> DataLoader[int, Row | None]:
        if level not in self._rows:

            async def load(ids: list[int]) -> list[Row | None]:
                return await self._fetch(level, ids)

            self._rows[level] = DataLoader(load, max_batch_size=_BATCH)
        return self._rows[level]

    async def _fetch(self, level: Level, ids: list[int]) -> list[Row | None]:
        names = None if self.context.asking is None else self.context.asking.names
        found = await rows.rows(self._pool, level, ids, self.position, headers.wanted(level, names))
        seen = self.context.subjects
        if level is Level.SUBJECT:
            seen.update(found)
        elif level not in (Level.INSTANCE, Level.TAG):
            seen.update(row["subject"] for row in found.values())
        self._known[level].update(found)
        return [found.get(one) for one in ids]

    async def _load_belonging(self, wanted: list[Belonging]) -> list[list[int]]:
        groups: dict[tuple[Level, Level, bytes], list[Belonging]] = defaultdict(list)
        for one in wanted:
            groups[_alike(one)].append(one)
        found = await asyncio.gather(*(self._load_group(group) for group in groups.values()))
        by_group = dict(zip(groups, found, strict=True))
        return [by_group[_alike(one)].get(one.id, []) for one in wanted]

    async def _load_group(self, group: list[Belonging]) -> dict[int, list[int]]:
        first = group[0]
        if first.where is None:
            return await rows.children(self._pool, first.parent, [one.id for one in group], first.level, self.position)
        theirs = OneOf(rows.KEYS[first.parent], tuple(one.key for one in group))
        asked = Asked(query=Query(level=first.level, where=All((theirs, first.where))), position=self.position)
        ids = [one async for batch in self.context.engine.members(asked, first.level) for one in batch]
        return await rows.parents_of(self._pool, first.level, ids, first.parent, self.position)

    async def _load_tags(self, wanted: list[tuple[Level, int]]) -> list[list[Row]]:
        return await self._by_level(wanted, rows.tags)

    async def _load_made(self, wanted: list[tuple[Level, int]]) -> list[list[Row]]:
        return await self._by_level(wanted, rows.made_by)

    async def _by_level(self, wanted: list[tuple[Level, int]], fetch: Any) -> list[list[Row]]:
        ids: dict[Level, list[int]] = defaultdict(list)
        for level, id in wanted:
            ids[level].append(id)
        found = {level: await fetch(self._pool, level, those, self.position) for level, those in ids.items()}
        return [found[level].get(id, []) for level, id in wanted]


def _alike(one: Belonging) -> tuple[Level, Level, bytes]:
    """What is fetched together: all but whose it is."""
    return one.parent, one.level, _ENCODER.encode(one.where)


_ENCODER = msgspec.json.Encoder(order="sorted")
