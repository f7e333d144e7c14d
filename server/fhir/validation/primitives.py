"""The values of R5's primitive types (datatypes.html#primitive): their JSON types, patterns and ranges.

The patterns are those of the definitions, less two slips: that of `decimal` has a brace too many, and that of `dateTime` lets a time
stand without its zone, which the text forbids. A date must also be in the calendar.
"""

from __future__ import annotations

import math
import re
from calendar import monthrange
from collections.abc import Callable
from decimal import Decimal
from typing import Any

_YEAR = r"([0-9]([0-9]([0-9][1-9]|[1-9]0)|[1-9]00)|[1-9]000)"
_MONTH, _DAY = r"(0[1-9]|1[0-2])", r"(0[1-9]|[1-2][0-9]|3[0-1])"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]{1,9})?"
_ZONE = r"(Z|(\+|-)((0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_PATTERNS = {
    "base64Binary": r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
    "canonical": r"\S+",
    "code": r"[^\s]+( [^\s]+)*",
    "date": rf"{_YEAR}(-{_MONTH}(-{_DAY})?)?",
    "dateTime": rf"{_YEAR}(-{_MONTH}(-{_DAY}(T{_TIME}{_ZONE})?)?)?",
    "id": r"[A-Za-z0-9\-\.]{1,64}",
    "instant": rf"{_YEAR}-{_MONTH}-{_DAY}T{_TIME}{_ZONE}",
    "integer64": r"[0]|[-+]?[1-9][0-9]*",
    "markdown": r"[\s\S]+",
    "oid": r"urn:oid:[0-2](\.(0|[1-9][0-9]*))+",
    "string": r"[\s\S]+",
    "time": _TIME,
    "uri": r"\S+",
    "url": r"\S+",
    "uuid": r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "xhtml": r"[\s\S]+",
}
_COMPILED = {name: re.compile(pattern) for name, pattern in _PATTERNS.items()}
_RANGES = {"integer": (-(2**31), 2**31 - 1), "unsignedInt": (0, 2**31 - 1), "positiveInt": (1, 2**31 - 1)}
_INTEGER64 = 2**63
_LONGEST = 1024 * 1024
"""Characters of a string (datatypes.html#string)."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")

Said = tuple[str, str] | None
"""Code and text of an issue; None where the value is good."""


def fault_of(kind: str, value: Any) -> Said:
    """What is wrong with a primitive's value."""
    return _CHECKS.get(kind, _text)(kind, value)


def _text(kind: str, value: Any) -> Said:
    if not isinstance(value, str):
        return "structure", f"a {kind} is a JSON string"
    if not value:
        return "value", "a string is never empty: leave the element out"
    pattern = _COMPILED.get(kind)
    if pattern is not None and pattern.fullmatch(value) is None:
        return "value", f"this is no {kind}: R5 wants {pattern.pattern}"
    if len(value) > _LONGEST and kind in ("string", "markdown"):
        return "too-long", f"a {kind} has at most {_LONGEST} characters"
    if kind in ("string", "markdown") and _CONTROL.search(value):
        return "value", f"a {kind} holds no control characters but tab, carriage return and line feed"
    return None


def _boolean(kind: str, value: Any) -> Said:
    return None if isinstance(value, bool) else ("structure", "a boolean is true or false in JSON, without quotes")


def _integer(kind: str, value: Any) -> Said:
    if isinstance(value, bool) or not isinstance(value, int):
        return "structure", f"{'an' if kind[0] in 'iu' else 'a'} {kind} is a JSON number without a fraction or exponent"
    low, high = _RANGES[kind]
    return None if low <= value <= high else ("value", f"{kind} goes from {low} to {high}")


def _integer64(kind: str, value: Any) -> Said:
    said = _text(kind, value)
    if said is None and (len(value) > 20 or not -_INTEGER64 <= int(value) < _INTEGER64):
        return "value", f"{kind} goes from {-_INTEGER64} to {_INTEGER64 - 1}"
    return said


def _decimal(kind: str, value: Any) -> Said:
    """As decoded: a whole number may come as an int, and a fraction as a float or, where its digits are kept, as a Decimal."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return "structure", "a decimal is a JSON number"
    return None if not isinstance(value, float) or math.isfinite(value) else ("value", "this number is beyond what can be computed with")


def _date(kind: str, value: Any) -> Said:
    said = _text(kind, value)
    if said is None and len(value) >= 10 and int(value[8:10]) > monthrange(int(value[:4]), int(value[5:7]))[1]:
        return "value", f"this {kind} is not in the calendar"
    return said


_CHECKS: dict[str, Callable[[str, Any], Said]] = {
    "boolean": _boolean,
    "integer": _integer,
    "unsignedInt": _integer,
    "positiveInt": _integer,
    "integer64": _integer64,
    "decimal": _decimal,
    "date": _date,
    "dateTime": _date,
    "instant": _date,
}
