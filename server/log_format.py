"""How errors are written into the process's own log: what they are and where they arose. Their text may hold a person's data
(a value that would not parse, a row that broke a constraint), so it is left out."""

from __future__ import annotations

import logging
import traceback
from types import TracebackType

LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class PlacesOnly(logging.Formatter):
    def formatException(self, ei: _ExceptionInfo) -> str:
        return "\n".join(_places(ei[1])) if ei[1] is not None else ""


def _places(error: BaseException) -> list[str]:
    """The error, what it came from, and the members of a group, innermost last."""
    lines = [f"{type(error).__module__}.{type(error).__qualname__}"]
    lines += [f"  {frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    for member in getattr(error, "exceptions", ()):
        lines += _places(member)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return lines + (["from", *_places(cause)] if cause is not None else [])


def log_to_stderr(level: int = logging.INFO) -> None:
    """Sends everything that is logged to stderr in this form."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlacesOnly(LINE))
    logging.basicConfig(level=level, handlers=[handler])
