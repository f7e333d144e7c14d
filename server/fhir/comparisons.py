"""How one value that is asked for compares with a row: for each type of search parameter, as SQL (R5 search.html#prefix, #modifiers).

Every function reads the text of a value and gives a test, which writes SQL on an alias of a row; no value ever gets into the text.
Raises FhirError (400) for what cannot be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec

from projections.fhir.search.dates import EARLIEST, LATEST, interval
from projections.fhir.search.units import unit
from projections.fhir.search.values import CURRENCY, MAX_CHARACTERS, UCUM, folded
from projections.fhir.tables import SPANS, span_of
from server.fhir.outcome import FhirError

Argument = Callable[[object], str]
"""Takes a value, gives what stands for it in SQL."""
Test = Callable[[str, Argument], str]
"""Alias of a row → SQL."""

LAST_CHARACTER = "\U0010ffff"
PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
_DATE_TESTS = {
    # A stored interval [low, high) against the given one, [a, b) (R5 search.html#prefix).
    "eq": "({low} >= {a} AND {high} <= {b})",
    "ne": "NOT ({low} >= {a} AND {high} <= {b})",
    "gt": "{high} > {b}",
    "lt": "{low} < {a}",
    "ge": "({high} > {b} OR ({low} >= {a} AND {high} <= {b}))",
    "le": "({low} < {a} OR ({low} >= {a} AND {high} <= {b}))",
    "sa": "{low} >= {b}",
    "eb": "{high} <= {a}",
    "ap": "({low} < {b} AND {high} > {a})",
}
_NUMBER_TESTS = {
    # A stored interval [low, high], mostly one point, against the value {v} and what its digits leave open, [a, b).
    "eq": "({low} >= {a} AND {high} <= {b})",
    "ne": "NOT ({low} >= {a} AND {high} <= {b})",
    "gt": "{high} > {v}",
    "lt": "{low} < {v}",
    "ge": "{high} >= {v}",
    "le": "{low} <= {v}",
    "sa": "{low} > {v}",
    "eb": "{high} < {v}",
    "ap": "({low} <= {b} AND {high} >= {a})",
}
_NUMBER = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,3})?")


class Amount(msgspec.Struct, frozen=True):
    """A number as it was written: its value, and the bounds of what its digits leave open (R5 search.html#number)."""

    value: float
    low: float
    high: float


class SameTest(msgspec.Struct, frozen=True):
    """Columns of a row have these values."""

    columns: tuple[tuple[str, str], ...]

    def __call__(self, s: str, arg: Argument) -> str:
        tests = " AND ".join(f"{s}.{column} = {arg(value)}" for column, value in self.columns)
        return tests if len(self.columns) == 1 else f"({tests})"


class TargetTest(msgspec.Struct, frozen=True):
    """A reference is one of these."""

    targets: tuple[str, ...]

    def __call__(self, s: str, arg: Argument) -> str:
        return f"{s}.target = ANY({arg(list(self.targets))}::text[])"


def token_test(name: str, value: str) -> Test:
    """`code`, `system|code`, `|code` (no system), `system|` (any code)."""
    given = split(value, "|")
    if len(given) > 2 or not any(given):
        raise _bad(name, f"{value!r} is none of code, system|code, |code and system|")
    code = given[-1][:MAX_CHARACTERS]
    if len(given) == 1:
        return SameTest((("code", code),))
    system = given[0][:MAX_CHARACTERS]
    return SameTest((("system", system),)) if not code else SameTest((("code", code), ("system", system)))


def of_type_test(name: str, value: str) -> Test:
    """`system|code|value` of an Identifier's type and its value; all of them are needed (R5 search.html#of-type)."""
    given = split(value, "|")
    if len(given) != 3 or not all(given):
        raise _bad(name, "of-type takes system|code|value, and all three")
    system, code, of_type = given
    return lambda s, arg: f"({s}.code = {arg(of_type[:MAX_CHARACTERS])} AND {s}.system = {arg(f'{system}|{code}'[:MAX_CHARACTERS])})"


def text_test(name: str, value: str) -> Test:
    """The text of a coding, concept or identifier begins so (R5 search.html#text)."""
    return _begins("text", folded(unescaped(value)))


def code_text_test(name: str, value: str) -> Test:
    """The code begins so, whatever its case (R5 search.html#code-text)."""
    pattern = f"{_escaped_like(unescaped(value).lower()[:MAX_CHARACTERS])}%"
    return lambda s, arg: f"lower({s}.code) LIKE {arg(pattern)}"


def string_test(name: str, value: str) -> Test:
    """Begins so, whatever its case and accents."""
    return _begins("folded", folded(unescaped(value)))


def contains_test(name: str, value: str) -> Test:
    pattern = f"%{_escaped_like(folded(unescaped(value))[:MAX_CHARACTERS])}%"
    return lambda s, arg: f"{s}.folded LIKE {arg(pattern)}"


def exact_test(name: str, value: str) -> Test:
    exact = unescaped(value)[:MAX_CHARACTERS]
    key = folded(unescaped(value))[:MAX_CHARACTERS]
    return lambda s, arg: f"({s}.folded = {arg(key)} AND {s}.exact = {arg(exact)})"


def uri_test(name: str, value: str) -> Test:
    return lambda s, arg: f"{s}.value = {arg(unescaped(value)[:MAX_CHARACTERS])}"


def uri_contains_test(name: str, value: str) -> Test:
    return lambda s, arg: f"{s}.value LIKE {arg(f'%{_escaped_like(unescaped(value)[:MAX_CHARACTERS])}%')}"


def uri_below_test(name: str, value: str) -> Test:
    """The uri begins so: the given one, and what is below it (R5 search.html#below)."""
    return _begins("value", unescaped(value))


def uri_above_test(name: str, value: str) -> Test:
    """The given uri, or what it is below of, segment by segment (R5 search.html#above)."""
    uri = unescaped(value)[:MAX_CHARACTERS]
    above = [uri[: nth + more] for nth, sign in enumerate(uri) if sign == "/" for more in (0, 1)]
    return lambda s, arg: f"{s}.value = ANY({arg([uri, *above])}::text[])"


class DateTest(msgspec.Struct, frozen=True):
    """What one or several values ask of one interval [low, high): all of it has to hold."""

    asked: tuple[tuple[str, datetime, datetime], ...]
    """Prefix, and the interval that was given, of each."""

    def __call__(self, s: str, arg: Argument) -> str:
        tests = [_filled(_DATE_TESTS[prefix], f"{s}.low", f"{s}.high", {"a": a, "b": b}, arg) for prefix, a, b in self.asked]
        return " AND ".join([*tests, *self._bounds(s, arg)])

    def also(self, other: DateTest) -> DateTest:
        return DateTest(self.asked + other.asked)

    def rows(self, table: str, numbers: str, arg: Argument) -> str | None:
        """The rows of these sources that may pass, as an index can look them up; None where there is nothing to look up by.

        An interval that ends after some instant, and begins before another, is looked up among those of its length.
        """
        begins, before, ends = self._begins(), self._before(), self._ends()
        if before is None or begins is not None or ends is None:
            return None
        last = arg(before)
        within = [f"d.low >= {arg(_earlier(ends, by))} AND d.low <= {last}" for by in SPANS] + [f"d.low <= {last}"]
        of_span = [f"SELECT * FROM {table} d WHERE {numbers} AND {span_of('d')} = {nth} AND {one}" for nth, one in enumerate(within)]
        return f"({' UNION ALL '.join(of_span)})"

    @property
    def within(self) -> tuple[datetime, datetime] | None:
        """From when and until when what is looked up begins, but for what begins earlier and lasts; None where an end is open."""
        begins, before, ends = self._begins(), self._before(), self._ends()
        first = begins if begins is not None else ends
        return None if first is None or before is None else (first, before)

    def _bounds(self, s: str, arg: Argument) -> list[str]:
        """What follows from the tests, and an index of where intervals begin can use."""
        begins, before = self._begins(), self._before()
        return [f"{s}.low >= {arg(begins)}", f"{s}.low <= {arg(before)}"] if begins is not None and before is not None else []

    def _begins(self) -> datetime | None:
        """Before this it does not begin."""
        return max((b if prefix == "sa" else a for prefix, a, b in self.asked if prefix in ("eq", "sa")), default=None)

    def _before(self) -> datetime | None:
        """After this it does not begin."""
        known = ("eq", "lt", "le", "eb", "ap")
        return min((a if prefix in ("lt", "eb") else b for prefix, a, b in self.asked if prefix in known), default=None)

    def _ends(self) -> datetime | None:
        """Before this it does not end."""
        return max((b if prefix == "gt" else a for prefix, a, b in self.asked if prefix in ("gt", "ge", "ap")), default=None)


def date_test(name: str, value: str) -> Test:
    prefix, (low, high) = asked_interval(name, value)
    return DateTest(((prefix, low, high),))


def updated_test(name: str, value: str) -> Test:
    """The same of the column ``last_updated`` of a version."""
    prefix, (low, high) = asked_interval(name, value)
    return lambda r, arg: _filled(_DATE_TESTS[prefix], f"{r}.last_updated", f"{r}.last_updated", {"a": low, "b": high}, arg)


def asked_interval(name: str, value: str) -> tuple[str, tuple[datetime, datetime]]:
    """A prefix, and the interval; of `ap`, widened on both sides by its own length, or by a day where that is more."""
    prefix, text = _prefixed(unescaped(value))
    try:
        low, high = interval(text.replace(" ", "+"))
        low, high = max(low, EARLIEST), min(high, LATEST)
    except (ValueError, OverflowError):
        raise _bad(name, f"{text!r} is no date (YYYY, YYYY-MM, YYYY-MM-DD or with a time)") from None
    if prefix == "ap":
        more = max(high - low, timedelta(days=1))
        low = low - more if low - EARLIEST > more else EARLIEST
        high = high + more if LATEST - high > more else LATEST
    return prefix, (low.astimezone(UTC), high.astimezone(UTC))


def number_test(name: str, value: str) -> Test:
    prefix, amount = _amount(name, unescaped(value))
    return _number_range(prefix, amount, "low", "high")


def quantity_test(name: str, value: str) -> Test:
    """`number`, `number|system|code` (UCUM in any unit of the kind), `number||code-or-unit`."""
    number, *rest = split(value, "|")
    prefix, amount = _amount(name, number)
    if not rest or rest == ["", ""]:
        return _number_range(prefix, amount, "low", "high")
    if len(rest) != 2:
        raise _bad(name, "a quantity is number, number|system|code or number||unit")
    system, code = (one[:MAX_CHARACTERS] for one in rest)
    if system == UCUM and code:
        known = unit(code)
        converted = Amount(known.of(amount.value), known.of(amount.low), known.of(amount.high))
        compare = _number_range(prefix, converted, "canonical_low", "canonical_high")
        return lambda s, arg: f"({s}.canonical = {arg(known.canonical[:MAX_CHARACTERS])} AND {compare(s, arg)})"
    compare = _number_range(prefix, amount, "low", "high")
    if not system:
        return lambda s, arg: f"({_either(s, arg(code))} AND {compare(s, arg)})"
    if not code:
        return lambda s, arg: f"({s}.system = {arg(system)} AND {compare(s, arg)})"
    currency = system == CURRENCY
    return lambda s, arg: f"({s}.code = {arg(code.upper() if currency else code)} AND {s}.system = {arg(system)} AND {compare(s, arg)})"


def split(value: str, separator: str) -> list[str]:
    """At separators that no backslash stands before; each part without its escapes (R5 search.html#escaping)."""
    return [unescaped(part) for part in split_escaped(value, separator)]


def split_escaped(value: str, separator: str) -> list[str]:
    parts, current, escaped = [], "", False
    for sign in value:
        if escaped:
            current += sign
            escaped = False
        elif sign == "\\":
            current += sign
            escaped = True
        elif sign == separator:
            parts.append(current)
            current = ""
        else:
            current += sign
    return [*parts, current]


def unescaped(value: str) -> str:
    return re.sub(r"\\([,$|\\])", r"\1", value)


def _amount(name: str, text: str) -> tuple[str, Amount]:
    prefix, digits = _prefixed(text.strip())
    if not _NUMBER.fullmatch(digits):
        raise _bad(name, f"{digits!r} is no number")
    value = Decimal(digits)
    if prefix == "ap":
        open_by = abs(value) / 10
    else:
        exponent = value.as_tuple().exponent
        open_by = Decimal(5).scaleb(int(exponent) - 1)
    return prefix, Amount(float(value), float(value - open_by), float(value + open_by))


def _prefixed(text: str) -> tuple[str, str]:
    return (text[:2], text[2:]) if text[:2] in PREFIXES else ("eq", text)


def _number_range(prefix: str, amount: Amount, low: str, high: str) -> Test:
    ends = {"v": amount.value, "a": amount.low, "b": amount.high}
    return lambda s, arg: _filled(_NUMBER_TESTS[prefix], f"{s}.{low}", f"{s}.{high}", ends, arg)


def _earlier(moment: datetime, by: timedelta) -> datetime:
    return moment - by if moment - EARLIEST.astimezone(UTC) > by else EARLIEST


def _filled(test: str, low: str, high: str, ends: Mapping[str, object], arg: Argument) -> str:
    """PostgreSQL refuses an argument that the statement does not use."""
    used = {name: arg(end) for name, end in ends.items() if f"{{{name}}}" in test}
    return test.format(low=low, high=high, **used)


def _either(alias: str, code: str) -> str:
    return f"({alias}.code = {code} OR {alias}.unit = {code})"


def _begins(column: str, text: str) -> Test:
    """As a range, which an index serves; nothing sorts behind the last of all characters."""
    cut = text[:MAX_CHARACTERS]
    return lambda s, arg: f"({s}.{column} >= {arg(cut)} AND {s}.{column} < {arg(cut + LAST_CHARACTER)})"


def _escaped_like(text: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", text)


def any_of(tests: Sequence[str]) -> str:
    return tests[0] if len(tests) == 1 else f"({' OR '.join(tests)})"


def _bad(name: str, said: str) -> FhirError:
    return FhirError(400, "value", f"{name}: {said}", f"http.{name}")
