"""Questions that come at the same time are asked as one, by a query that begins after each of them came."""

from __future__ import annotations

import asyncio

import pytest

from eventlog.together import Together


class Book:
    """Answers slowly, by what stands in it when it is asked."""

    def __init__(self) -> None:
        self.page = 0
        self.asked: list[list[str]] = []
        self.fails = False

    async def ask(self, keys: list[str]) -> dict[str, int]:
        self.asked.append(keys)
        page = self.page
        await asyncio.sleep(0.02)
        if self.fails:
            raise LookupError
        return dict.fromkeys(keys, page)


async def test_those_of_a_moment_are_one() -> None:
    book = Book()
    together = Together(book.ask)
    assert await asyncio.gather(*(together.get(key) for key in "abcab")) == [0] * 5
    assert book.asked == [["a", "b", "c"]]


async def test_no_answer_is_older_than_its_question() -> None:
    book = Book()
    together = Together(book.ask)

    async def reader(nth: int) -> None:
        for _ in range(20):
            written = book.page
            found = await together.get("a")
            assert found is not None
            assert found >= written
            await asyncio.sleep(0.001 * nth)

    async def writer() -> None:
        while True:
            book.page += 1
            await asyncio.sleep(0.003)

    writing = asyncio.create_task(writer())
    await asyncio.gather(*(reader(nth) for nth in range(10)))
    writing.cancel()
    assert len(book.asked) < 100  # of 200 questions


async def test_more_than_the_most_are_asked_in_parts() -> None:
    book = Book()
    together = Together(book.ask, most=2)
    await asyncio.gather(*(together.get(key) for key in "abcde"))
    assert sorted(map(len, book.asked)) == [1, 2, 2]


async def test_who_goes_away_takes_nobody_along() -> None:
    book = Book()
    together = Together(book.ask)
    first, second = (asyncio.create_task(together.get("a")) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    assert await second == 0


async def test_who_waits_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventlog.together.PATIENCE_S", 0.001)
    with pytest.raises(ConnectionError):
        await Together(Book().ask).get("a")


async def test_what_fails_fails_for_those_who_asked_and_for_no_other() -> None:
    book = Book()
    book.fails = True
    together = Together(book.ask)
    with pytest.raises(LookupError):
        await together.get("a")
    book.fails = False
    assert await together.get("a") == 0
