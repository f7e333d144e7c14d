"""What schemathesis has to be told of this server, in its own process: how DICOM is sent, and which things there are to be asked for.

Half of the requests that are meant to be valid ask for what is there. Which half is told by the text that was drawn, so that a request is the same again.
"""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis

KNOWN: dict[str, str] = json.loads(os.environ.get("ANAMNESIS_TEST_KNOWN", "{}"))
"""Name of a part of a path → a value that something has."""


@schemathesis.serializer("application/dicom")
def dicom(ctx: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8")


schemathesis.serializer.alias("multipart/related", "application/dicom")


@schemathesis.hook
def before_call(ctx: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """All parts of a path together: they name one thing."""
    parts = case.path_parameters
    if not parts or case.meta is None or not case.meta.generation.mode.is_positive or not KNOWN.keys() >= parts.keys():
        return
    if sum(map(len, map(str, parts.values()))) % 2:
        case.path_parameters = {name: KNOWN[name] for name in parts}
