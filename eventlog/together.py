"""Questions to the database that are alike and come at the same time, asked as one.

Whoever asks gets the answer of a query that began after they asked, so it is as fresh as one of their own; while one is under way, the
next ones gather.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Generic, TypeVar

PATIENCE_S = 10.0
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Together(Generic[K, V]):
    def __init__(self, ask: Callable[[list[K]], Awaitable[Mapping[K, V]]], most: int = 100) -> None:
        """``ask`` is given each key once, at most so many; a key that it gives nothing for has no answer."""
        self._ask = ask
        self._most = most
        self._wanted: dict[K, None] = {}
        self._coming: asyncio.Task[Mapping[K, V]] | None = None
        self._under_way: asyncio.Task[Mapping[K, V]] | None = None

    async def get(self, key: K) -> V | None:
        """The answer for a key. Raises what asking raises, and ConnectionError where it takes too long."""
        if self._coming is None or len(self._wanted) >= self._most:
            self._wanted = {}
            self._coming = asyncio.create_task(self._next(self._wanted, self._coming or self._under_way))
        self._wanted[key] = None
        answers = await asyncio.shield(self._coming)  # others wait for it too
        return answers.get(key)

    async def _next(self, wanted: dict[K, None], before: asyncio.Task[Mapping[K, V]] | None) -> Mapping[K, V]:
        if before is not None and not before.done():
            await asyncio.wait([before])
        self._under_way = asyncio.current_task()
        if self._wanted is wanted:
            self._coming = None
        try:
            async with asyncio.timeout(PATIENCE_S):  # who came later might wait in vain for a connection that is gone
                return await self._ask(list(wanted))
        except TimeoutError:
            raise ConnectionError(f"no answer within {PATIENCE_S:g} seconds") from None
