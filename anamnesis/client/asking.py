"""What is asked of a server and what it answers, without I/O: a transport, sync or async, does the asking.

Whatever takes several requests is written once, as a generator of them (``Steps``), which the transport runs to its end.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from anamnesis.client import errors

T = TypeVar("T")
POSITION = "Anamnesis-Position"
"""The header that says as of which position of the log an answer is."""


class Sink(Protocol):
    """What takes the body of an answer as it comes. ``begin`` comes first, and anew when the request is tried again."""

    def begin(self, headers: Mapping[str, str]) -> None: ...

    def write(self, chunk: bytes) -> None: ...

    def end(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request. ``is_safe``: asking twice does no more than asking once, so it is tried again when an answer breaks off.

    ``busy``: what an answer of status 200 has in it that says to ask again after a while.
    """

    path: str
    method: str = "GET"
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    accept: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    is_safe: bool = True
    busy: bytes = b""
    into: Sink | None = None


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """Raises ServerFailed when it is none."""
        try:
            return json.loads(self.content)
        except ValueError:
            raise errors.ServerFailed("the answer is no JSON: is this a server of Anamnesis?", status=self.status) from None


@dataclass(frozen=True)
class Pause:
    """Steps that wait for the server ask again after so many seconds; what they are sent then says nothing."""

    seconds: float


Steps = Generator[Ask | Pause, Answer, T]


def refusal(answer: Answer) -> errors.AnamnesisError:
    """The error that an answer other than success is."""
    detail = _detail(answer)
    match answer.status:
        case 401:
            return errors.TokenRefused(detail or "the server wants a token that it knows", status=401)
        case 403:
            return errors.NotPermitted(detail or "the token does not reach as far", status=403)
        case 404:
            return errors.NotFound(detail or "there is no such thing", status=404)
        case 429 | 502 | 503 | 504:
            return errors.ServerFailed(detail or "the server is busy, or starting", status=answer.status)
        case status if status >= 500:
            return errors.ServerFailed(detail or f"the server failed ({status})", status=status)
        case status:
            return errors.QuestionRefused(detail or f"the server refused ({status})", status=status)


def _detail(answer: Answer) -> str:
    """Of problem details (RFC 9457); nothing of anything else, which may be some proxy's page."""
    if "json" not in answer.headers.get("content-type", ""):
        return ""
    try:
        body = json.loads(answer.content)
    except ValueError:
        return ""
    return str(body.get("detail", "")) if isinstance(body, dict) else ""
