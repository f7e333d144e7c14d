"""Clients that ask one after the other, as fast as they are answered, all from one process: what a load of requests takes.

Answers are parsed by httptools, which uvicorn uses too, so that the clients take little of what the server could have.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import httptools
import msgspec

Request = tuple[str, str, bytes]
"""Method, path with query, body."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Of one kind of request; times in milliseconds."""

    count: int
    per_s: float
    p50_ms: float
    p99_ms: float


class Refused(RuntimeError):
    """A request was not answered as it had to be: its time would mean nothing."""


def measure(url: str, request: Callable[[int], Request], *, headers: Mapping[str, str], clients: int, seconds: float) -> Measured:
    """``request`` gives the nth request. Raises Refused."""
    return asyncio.run(_measure(url, request, headers, clients, seconds))


def one(url: str, request: Request, *, headers: Mapping[str, str]) -> bytes:
    """The body that answers a single request. Raises Refused."""

    async def ask() -> bytes:
        client = await _Client.connected(url, headers)
        try:
            return await client.ask(request)
        finally:
            client.close()

    return asyncio.run(ask())


async def _measure(url: str, request: Callable[[int], Request], headers: Mapping[str, str], clients: int, seconds: float) -> Measured:
    connected = [await _Client.connected(url, headers) for _ in range(clients)]
    times: list[float] = []
    asked = 0

    async def keep_asking(client: _Client, until: float) -> None:
        nonlocal asked
        while (began := time.perf_counter()) < until:
            nth, asked = asked, asked + 1
            await client.ask(request(nth))
            times.append(time.perf_counter() - began)

    try:
        began = time.perf_counter()
        await asyncio.gather(*(keep_asking(client, began + seconds) for client in connected))
        took = time.perf_counter() - began
    finally:
        for client in connected:
            client.close()
    times.sort()
    return Measured(
        count=len(times),
        per_s=len(times) / took,
        p50_ms=1000 * times[len(times) // 2],
        p99_ms=1000 * times[min(len(times) - 1, int(len(times) * 0.99))],
    )


class _Client(asyncio.Protocol):
    """One connection, kept alive, with one request on its way."""

    def __init__(self, host: str, headers: Mapping[str, str]) -> None:
        self._head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": host, **headers}.items())
        self._answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._body: list[bytes] = []

    @classmethod
    async def connected(cls, url: str, headers: Mapping[str, str]) -> _Client:
        where = urlsplit(url)
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: cls(where.netloc, headers), where.hostname or "127.0.0.1", where.port or 80)
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)

    async def ask(self, request: Request) -> bytes:
        method, path, body = request
        self._answered = asyncio.get_running_loop().create_future()
        self._body = []
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self._transport.write(f"{method} {path} HTTP/1.1\r\n{self._head}{length}\r\n".encode("ascii") + body)
        answer = await self._answered
        if self._parser.get_status_code() >= 300:
            raise Refused(f"{method} {path}: {self._parser.get_status_code()} {answer[:500]!r}")
        return answer

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        # The parser is made anew, since it has the status of the first answer otherwise.
        self._answered.set_result(b"".join(self._body))

    def connection_lost(self, error: Exception | None) -> None:
        if not self._answered.done():
            self._answered.set_exception(Refused(f"the server closed the connection ({error})"))
