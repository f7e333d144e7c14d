"""The two transports: the same steps, run by a thread that waits or by a coroutine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Any, TypeVar

import httpx
import tenacity

from anamnesis.client.asking import Answer, Ask, Pause, Steps, refusal
from anamnesis.client.connection import Connection
from anamnesis.client.errors import ServerFailed, ServerUnreachable

T = TypeVar("T")
LONGEST_WAIT_S = 30.0
_NOTHING = Answer(0, {}, b"")
_TRY_AGAIN = {429, 502, 503, 504}


class _Refused(Exception):
    """An answer that may be another one after a while."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


class SyncTransport:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._http = httpx.Client(base_url=connection.server, headers=connection.headers, timeout=connection.timeout, verify=connection.tls)

    def run(self, steps: Steps[T]) -> T:
        """To the end of them. Raises what they raise, and an AnamnesisError for what is not answered."""
        progress = _Progress(steps)
        while (ask := progress.next) is not None:
            if isinstance(ask, Pause):
                time.sleep(ask.seconds)
                progress.go_on(_NOTHING)
                continue
            try:
                answer: Answer = tenacity.Retrying(**_policy(self.connection, ask))(self._send, ask)
            except Exception as error:
                progress.fail(_named(error, self.connection))
            else:
                progress.go_on(answer)
        result: T = progress.result
        return result

    def _send(self, ask: Ask) -> Answer:
        response = self._http.send(self.connection.request(self._http, ask), stream=True)
        try:
            if ask.into is None or not response.is_success:
                return _answer(ask, response, response.read())
            ask.into.begin(response.headers)
            for chunk in response.iter_bytes():
                ask.into.write(chunk)
            ask.into.end()
            return _answer(ask, response, b"")
        finally:
            response.close()

    def close(self) -> None:
        self._http.close()


class AsyncTransport:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._http = httpx.AsyncClient(base_url=connection.server, headers=connection.headers, timeout=connection.timeout, verify=connection.tls)

    async def run(self, steps: Steps[T]) -> T:
        """As SyncTransport.run; between requests the steps run in a thread, since they write files and decode pixels."""
        progress = await asyncio.to_thread(_Progress, steps)
        while (ask := progress.next) is not None:
            if isinstance(ask, Pause):
                await asyncio.sleep(ask.seconds)
                await asyncio.to_thread(progress.go_on, _NOTHING)
                continue
            try:
                answer: Answer = await tenacity.AsyncRetrying(**_policy(self.connection, ask))(self._send, ask)
            except Exception as error:
                await asyncio.to_thread(progress.fail, _named(error, self.connection))
            else:
                await asyncio.to_thread(progress.go_on, answer)
        result: T = progress.result
        return result

    async def _send(self, ask: Ask) -> Answer:
        response = await self._http.send(self.connection.request(self._http, ask), stream=True)
        try:
            if ask.into is None or not response.is_success:
                return _answer(ask, response, await response.aread())
            await asyncio.to_thread(ask.into.begin, response.headers)
            async for chunk in response.aiter_bytes():
                await asyncio.to_thread(ask.into.write, chunk)
            await asyncio.to_thread(ask.into.end)
            return _answer(ask, response, b"")
        finally:
            await response.aclose()

    async def close(self) -> None:
        await self._http.aclose()


class _Progress:
    """How far steps are: ``next`` is what they ask, until ``result`` is theirs."""

    def __init__(self, steps: Generator[Ask | Pause, Answer, Any]) -> None:
        self._steps = steps
        self.next: Ask | Pause | None = None
        self.result: Any = None
        self._advance(lambda: next(steps))

    def go_on(self, answer: Answer) -> None:
        self._advance(lambda: self._steps.send(answer))

    def fail(self, error: Exception) -> None:
        self._advance(lambda: self._steps.throw(error))

    def _advance(self, step: Any) -> None:
        try:
            self.next = step()
        except StopIteration as done:
            self.next, self.result = None, done.value


def _answer(ask: Ask, response: httpx.Response, content: bytes) -> Answer:
    """Raises _Refused for what may be answered after a while, an AnamnesisError for what will not."""
    answer = Answer(response.status_code, response.headers, content)
    if answer.status in _TRY_AGAIN or (ask.busy and ask.busy in content):
        raise _Refused(answer)
    if not response.is_success:
        raise refusal(answer)
    return answer


def _policy(connection: Connection, ask: Ask) -> dict[str, Any]:
    """What is safe is tried again when the answer breaks off; the rest only where nothing reached the server, or it says so."""
    broken = httpx.TransportError if ask.is_safe else (httpx.ConnectError, httpx.ConnectTimeout)
    return {
        "retry": tenacity.retry_if_exception_type(broken) | tenacity.retry_if_exception(lambda error: isinstance(error, _Refused)),
        "stop": tenacity.stop_after_attempt(connection.attempts),
        "wait": _wait,
        "reraise": True,
    }


_BACKOFF = tenacity.wait_random_exponential(multiplier=0.2, max=LONGEST_WAIT_S)


def _wait(state: tenacity.RetryCallState) -> float:
    """As long as the server says, or longer each time."""
    error = state.outcome.exception() if state.outcome else None
    said = error.answer.headers.get("retry-after", "") if isinstance(error, _Refused) else ""
    return min(float(said), LONGEST_WAIT_S) if said.isdigit() else _BACKOFF(state)


def _named(error: Exception, connection: Connection) -> Exception:
    if isinstance(error, _Refused):
        is_behind = error.answer.status < 400
        return ServerFailed("the server is behind, or its database does not answer", code="UNAVAILABLE") if is_behind else refusal(error.answer)
    if isinstance(error, httpx.TransportError):
        return ServerUnreachable(f"{connection.server} does not answer, or broke off ({type(error).__name__})")
    return error
