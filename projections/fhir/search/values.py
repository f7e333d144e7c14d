"""The values of elements as what is compared: for each type of search parameter, the columns of its table.

What a client sends is not always of the shape that R5 wants: a value that cannot be compared gives nothing, and never a failure.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import lru_cache
from typing import Any

from projections.fhir.search.dates import interval_of
from projections.fhir.search.units import unit

Columns = tuple[Any, ...]

MAX_CHARACTERS = 400
"""Longer text is cut for matching: an index entry of PostgreSQL holds at most 2.7 kB."""
UCUM = "http://unitsofmeasure.org"
CURRENCY = "urn:iso:std:iso:4217"
INFINITY = float("inf")
NAME_PARTS = ("text", "family", "given", "prefix", "suffix")
ADDRESS_PARTS = ("text", "line", "city", "district", "state", "postalCode", "country")


def folded(text: str) -> str:
    """As strings are compared: without case, accents and runs of spaces (R5 search.html#string)."""
    if text.isascii():
        return " ".join(text.lower().split())
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return " ".join("".join(one for one in plain if not unicodedata.combining(one)).split())


def kept(text: str) -> str:
    """As it is stored: PostgreSQL takes no NUL, and an index no long text."""
    if len(text) <= MAX_CHARACTERS and "\0" not in text:
        return text
    return text.replace("\0", "")[:MAX_CHARACTERS]


def tokens(value: Any, value_type: str) -> Iterator[Columns]:
    """code, system, text (folded, or None)."""
    match value_type:
        case "CodeableConcept":
            yield from _concept(value)
        case "CodeableReference":
            if isinstance(value, dict):
                yield from _concept(value.get("concept"))
        case "Coding":
            yield from _coding(value)
        case "Identifier":
            if isinstance(value, dict) and (isinstance(value.get("value"), str) or isinstance(value.get("system"), str)):
                of_type = value.get("type")
                text = of_type.get("text") if isinstance(of_type, dict) else None
                yield _text(value.get("value")), _text(value.get("system")), kept(folded(text)) if isinstance(text, str) else None
        case "ContactPoint":
            if isinstance(value, dict) and isinstance(value.get("value"), str):
                yield kept(value["value"]), "", None
        case "boolean":
            if isinstance(value, bool):
                yield "true" if value else "false", "", None
        case _:
            if isinstance(value, str):
                yield kept(value), "", None


def references(value: Any, value_type: str) -> Iterator[Columns]:
    """target. Of a reference by identifier alone, its type and a bar, or nothing: it can be missing, and not be found by an id."""
    if value_type == "CodeableReference":
        value = value.get("reference") if isinstance(value, dict) else None
    if isinstance(value, str):  # a canonical, with and without its version
        yield (kept(value),)
        if "|" in value:
            yield (kept(value.partition("|")[0]),)
    elif isinstance(value, dict) and isinstance(value.get("resourceType"), str):
        if isinstance(value.get("id"), str):
            yield (kept(f"{value['resourceType']}/{value['id']}"),)
    elif isinstance(value, dict):
        target = value.get("reference")
        if isinstance(target, str) and not target.startswith("#"):
            yield (kept(target).partition("/_history/")[0],)
        elif isinstance(value.get("identifier"), dict):
            stated = value.get("type")
            yield (f"{kept(stated)}/|" if isinstance(stated, str) else "|",)


def identifiers_of_references(value: Any, value_type: str) -> Iterator[Columns]:
    """code, system, text of what `:identifier` finds."""
    if value_type == "CodeableReference":
        value = value.get("reference") if isinstance(value, dict) else None
    if isinstance(value, dict) and isinstance(value.get("identifier"), dict):
        yield from tokens(value["identifier"], "Identifier")


def identifiers_of_type(value: Any, value_type: str) -> Iterator[Columns]:
    """code, system, text of what `:of-type` finds: the identifier's value, and the coding of its type as system|code."""
    of_type = value.get("type") if isinstance(value, dict) else None
    codings = of_type.get("coding") if isinstance(of_type, dict) else None
    if isinstance(codings, list) and isinstance(value.get("value"), str):
        for coding in codings:
            if isinstance(coding, dict):
                yield kept(value["value"]), kept(f"{_text(coding.get('system'))}|{_text(coding.get('code'))}"), None


def dates(value: Any, value_type: str) -> Iterator[Columns]:
    """low, high."""
    found = interval_of(value, value_type)
    if found is not None:
        yield found


def strings(value: Any, value_type: str) -> Iterator[Columns]:
    """folded, exact."""
    if isinstance(value, str):
        yield kept(folded(value)), kept(value)
    elif isinstance(value, dict):
        for name in NAME_PARTS if value_type == "HumanName" else ADDRESS_PARTS:
            part = value.get(name)
            for one in part if isinstance(part, list) else (part,):
                if isinstance(one, str):
                    yield kept(folded(one)), kept(one)


def uris(value: Any, value_type: str) -> Iterator[Columns]:
    """value."""
    if isinstance(value, str):
        yield (kept(value),)
        if value_type == "canonical" and "|" in value:
            yield (kept(value.partition("|")[0]),)


def quantities(value: Any, value_type: str) -> Iterator[Columns]:
    """low, high, code, system, unit, canonical unit, low and high in it."""
    number = _number(value)
    if number is not None:
        yield number, number, "", "", "", "", number, number
    elif isinstance(value, dict):
        match value_type:
            case "Money":
                amount = _number(value.get("value"))
                if amount is not None:
                    yield _in_unit(amount, amount, {"code": value.get("currency"), "system": CURRENCY})
            case "Range":
                low, high = value.get("low"), value.get("high")
                of = low if isinstance(low, dict) else high if isinstance(high, dict) else {}
                yield from _range(_value(low), _value(high), of)
            case "SampledData":
                origin = value.get("origin")
                limits = _number(value.get("lowerLimit")), _number(value.get("upperLimit"))
                yield from _range(*limits, origin if isinstance(origin, dict) else {})
            case _:
                yield from _quantity(value)


Converter = Callable[[Any, str], Iterator[Columns]]
CONVERTERS: dict[str, Converter] = {
    "token": tokens,
    "reference": references,
    "date": dates,
    "string": strings,
    "uri": uris,
    "number": quantities,
    "quantity": quantities,
}
"""Type of a search parameter → how a value is compared."""


def _concept(value: Any) -> Iterator[Columns]:
    if not isinstance(value, dict):
        return
    codings = value.get("coding")
    if isinstance(codings, list):
        for coding in codings:
            yield from _coding(coding)
    text = value.get("text")
    if isinstance(text, str):
        yield "", "", kept(folded(text))


def _coding(value: Any) -> Iterator[Columns]:
    if isinstance(value, dict) and (isinstance(value.get("code"), str) or isinstance(value.get("display"), str)):
        display = value.get("display")
        yield _text(value.get("code")), _text(value.get("system")), _display(display) if isinstance(display, str) else None


@lru_cache(maxsize=1024)
def _display(text: str) -> str:
    """Of a code, as there are few: no text of a person is remembered."""
    return kept(folded(text))


def _text(value: Any) -> str:
    return kept(value) if isinstance(value, str) else ""


def _value(quantity: Any) -> float | None:
    return _number(quantity.get("value")) if isinstance(quantity, dict) else None


def _number(value: Any) -> float | None:
    """As a float that PostgreSQL and Python compare alike."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) < INFINITY else None


def _quantity(value: dict[str, Any]) -> Iterator[Columns]:
    """With a comparator, all values that it stands for (R5 Quantity.comparator)."""
    amount = _number(value.get("value"))
    if amount is None:
        return
    match value.get("comparator"):
        case "<" | "<=":
            yield _in_unit(-INFINITY, amount, value)
        case ">" | ">=":
            yield _in_unit(amount, INFINITY, value)
        case _:
            yield _in_unit(amount, amount, value)


def _range(low: float | None, high: float | None, of: dict[str, Any]) -> Iterator[Columns]:
    if low is not None or high is not None:
        yield _in_unit(-INFINITY if low is None else low, INFINITY if high is None else high, of)


def _in_unit(low: float, high: float, of: dict[str, Any]) -> Columns:
    code, system = _text(of.get("code")), _text(of.get("system"))
    canonical = unit(code) if system == UCUM else None
    if canonical is None:
        return low, high, code, system, _text(of.get("unit")), "", low, high
    return low, high, code, system, _text(of.get("unit")), canonical.canonical[:MAX_CHARACTERS], canonical.of(low), canonical.of(high)
