"""What a client prefers (RFC 7240; R5 http.html#ops): ``Prefer: handling=lenient, return=minimal, respond-async``.

A preference that is not known, or has a value that is not known, is as if it were not there (RFC 7240, 2): it is no error.
"""

from __future__ import annotations

import re

import msgspec
from starlette.requests import Request

HANDLING = ("strict", "lenient")
RETURN = ("minimal", "representation", "OperationOutcome")

_LIST = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')
_MAX_CHARACTERS = 1000


class Preferences(msgspec.Struct, frozen=True, kw_only=True):
    handling: str = "strict"
    """What to do with a parameter that is not known: strict refuses, lenient leaves it out and says so."""
    returns: str | None = None
    """What a write is answered with; None where the client does not say."""
    respond_async: bool = False

    @property
    def is_lenient(self) -> bool:
        return self.handling == "lenient"


def preferences(request: Request) -> Preferences:
    """Of all its Prefer headers; of a preference that is given twice, the first (RFC 7240, 2)."""
    found: dict[str, str] = {}
    for part in _LIST.split(",".join(request.headers.getlist("prefer"))[:_MAX_CHARACTERS]):
        name, _, value = part.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    handling, returns = found.get("handling", "").lower(), found.get("return")
    return Preferences(
        handling=handling if handling in HANDLING else "strict",
        returns=returns if returns in RETURN else None,
        respond_async="respond-async" in found,
    )
