"""Search parameters with their modifiers, chains and prefixes, parsed into conditions. What is not known is an error, never ignored
in silence (R5 search.html).

Modifiers that need a terminology server are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar

import msgspec

from projections.fhir.definitions import is_resource_type
from projections.fhir.search.parameters import TABLES, Look, Parameter, is_single
from projections.fhir.search.rows import of_type_number
from projections.fhir.search.site import CURRENT, known_parameters
from projections.fhir.search.values import MAX_CHARACTERS
from server.fhir import comparisons
from server.fhir.comparisons import DateTest, Test
from server.fhir.conditions import (
    Chained,
    Condition,
    HasId,
    HasParts,
    HasRow,
    IsMissing,
    Never,
    ReferredBy,
    WasUpdated,
    looks_of,
)
from server.fhir.outcome import FhirError

HOW = ("_asof", "_count", "_format", "_pretty")
RESULT_PARAMETERS = (*HOW, "_sort", "_include", "_include:iterate", "_revinclude", "_revinclude:iterate")
"""What says how to answer, and not what to look for."""
MAX_DEPTH = 6
"""Links in a chain."""
MAX_ALTERNATIVES = 1000
"""Values between commas."""
MAX_VALUES = 2000
"""Of all parameters of a search together: a statement of PostgreSQL takes 32,767 arguments."""
ANY_TYPE = 100
"""A parameter that may lead to so many types may lead to any."""
RETRY_AFTER_S = 5
"""What a client is told to wait while a parameter is being indexed."""
MAX_TYPES = 12
"""Types that a link of a chain may lead to without one being named."""

NOT_SERVED = {
    "_content": "it takes an index of words",
    "_text": "it takes an index of words",
    "section-text": "it takes an index of words",
    "section-code-text": "it takes an index of words",
    "near": "it takes an index of places",
    "contains": "it takes an index of places",
    "_in": "it takes an index of lists and groups",
    "_list": "it takes an index of lists",
    "_filter": "there is no search by an expression: use parameters, chains and _has",
    "_query": "there is no named query",
    "_graph": "there is no search by a graph: use _include and _revinclude",
    "_contained": "contained resources are found by the resource that holds them",
    "_containedType": "contained resources are found by the resource that holds them",
    "_score": "matches have no score: order them by _sort",
    "_maxresults": "a search has no end but its last page: use _count",
}
"""What R5 has (search.html#special, #return) and is refused by name → why."""
OWN_BASE: ContextVar[str] = ContextVar("this server's base URL, as of this request", default="")
"""References below it are to resources here (R5 search.html#reference)."""

Comparison = Callable[[str, str], Test]
_COMPARISONS: dict[tuple[str, str], Comparison] = {
    ("token", ""): comparisons.token_test,
    ("token", "not"): comparisons.token_test,
    ("token", "text"): comparisons.text_test,
    ("token", "code-text"): comparisons.code_text_test,
    ("token", "of-type"): comparisons.of_type_test,
    ("string", ""): comparisons.string_test,
    ("string", "exact"): comparisons.exact_test,
    ("string", "contains"): comparisons.contains_test,
    ("uri", ""): comparisons.uri_test,
    ("uri", "contains"): comparisons.uri_contains_test,
    ("uri", "below"): comparisons.uri_below_test,
    ("uri", "above"): comparisons.uri_above_test,
    ("date", ""): comparisons.date_test,
    ("number", ""): comparisons.number_test,
    ("quantity", ""): comparisons.quantity_test,
}
"""Type of a parameter and modifier → how a value is compared; references and composites have their own ways."""
MODIFIERS: dict[str, tuple[str, ...]] = {
    kind: ("missing", *sorted(modifier for of, modifier in _COMPARISONS if of == kind and modifier))
    for kind in ("token", "string", "uri", "date", "number", "quantity")
} | {"reference": ("missing", "identifier"), "composite": ("missing",)}
"""Of each type of parameter; a reference takes the name of a type too."""
_WHY_NOT = {
    ("", "in"): "it takes a terminology server",
    ("", "not-in"): "it takes a terminology server",
    ("", "text-advanced"): "it takes an index of words",
    ("token", "above"): "it takes a terminology server",
    ("token", "below"): "it takes a terminology server",
    ("reference", "above"): "hierarchies of resources are not followed",
    ("reference", "below"): "hierarchies of resources are not followed",
    ("reference", "text"): "what a reference displays is not indexed",
    ("reference", "code-text"): "what a reference displays is not indexed",
    ("string", "text"): "it takes an index of words",
}
"""Type of a parameter (any, where it is empty) and modifier of R5 that is refused by name → why."""
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


def supported(resource_type: str) -> dict[str, str]:
    """Parameter → its type in a CapabilityStatement; of what is no type of resource there are none. Not yet what is being indexed."""
    if not is_resource_type(resource_type):
        return {}
    indexing = CURRENT.get().indexing
    return {code: one.type for code, one in known_parameters(resource_type).items() if (resource_type, code) not in indexing}


def parse(resource_type: str, given: Sequence[tuple[str, str]], *, lenient: bool) -> tuple[list[Condition], list[str]]:
    """Conditions, and the names that were left out because ``lenient`` handling was preferred. Raises FhirError (400)."""
    conditions: list[Condition] = []
    ignored: list[str] = []
    if sum(1 + value.count(",") for _, value in given) > MAX_VALUES:
        raise FhirError(400, "too-costly", f"a search has at most {MAX_VALUES} values", "http")
    dates: dict[str, int] = {}
    for name, value in given:
        if name in RESULT_PARAMETERS:
            continue
        try:
            made = condition(resource_type, name, value)
        except FhirError as error:
            if error.code != "not-supported" or not lenient:
                raise
            ignored.append(name)
            continue
        if name in dates and _asks_for_one_date(resource_type, name, made):
            conditions[dates[name]] = _both(conditions[dates[name]], made)
            continue
        dates.setdefault(name, len(conditions))
        conditions.append(made)
    return conditions, ignored


def _asks_for_one_date(resource_type: str, name: str, made: Condition) -> bool:
    """Then from and until, written as two parameters, are of the same value and are looked up together."""
    return isinstance(made, HasRow) and made.table == "date" and is_single(resource_type, _known(resource_type, name))


def _both(one: Condition, other: Condition) -> Condition:
    """Each alternative of one with each of the other."""
    assert isinstance(one, HasRow) and isinstance(other, HasRow)
    tests = [a.also(b) for a in one.tests for b in other.tests if isinstance(a, DateTest) and isinstance(b, DateTest)]
    return msgspec.structs.replace(one, tests=tuple(tests))


def condition(resource_type: str, name: str, value: str, depth: int = 0) -> Condition:
    """What one parameter asks for. Raises FhirError (400): not-supported where there is no such parameter or modifier."""
    if "\0" in value or "\0" in name:
        raise FhirError(400, "value", "a parameter holds a NUL character", "http")
    if not value:
        raise FhirError(400, "value", f"parameter {name} has no value", f"http.{name}")
    if depth > MAX_DEPTH:
        raise FhirError(400, "too-costly", f"a chain has at most {MAX_DEPTH} links", f"http.{name}")
    if name.startswith("_has:"):
        return _has(resource_type, name, value, depth)
    head, is_chain, rest = name.partition(".")
    code, _, modifier = head.partition(":")
    parameter = _known(resource_type, code)
    if is_chain:
        return _chain(parameter, modifier, name, rest, value, depth)
    return _plain(resource_type, parameter, modifier, name, value)


def alternatives(value: str) -> list[str]:
    """Between commas that no backslash stands before; their escapes are still in them."""
    found = comparisons.split_escaped(value, ",")
    if len(found) > MAX_ALTERNATIVES:
        raise FhirError(400, "too-costly", f"a parameter has at most {MAX_ALTERNATIVES} alternatives", "http")
    return found


def reference_numbers(parameter: Parameter) -> tuple[int, ...]:
    """Of the sources of a reference parameter."""
    return tuple(sorted({look.source.number for look in parameter.looks}))


def target_types(parameter: Parameter) -> tuple[str, ...]:
    """Types that a reference parameter may lead to; none is any."""
    narrowed = {look.target for look in parameter.looks}
    if None not in narrowed:
        return tuple(sorted(one for one in narrowed if one))
    targets = tuple(one for one in parameter.targets if is_resource_type(one))
    return targets if len(targets) < ANY_TYPE else ()


def known_parameter(resource_type: str, code: str) -> Parameter | None:
    """The parameter of this code; None where there is none. Raises FhirError (503) while it is being indexed: half would look like all."""
    percent = CURRENT.get().indexing.get((resource_type, code))
    if percent is not None:
        said = f"{resource_type} is being indexed by {code}, which was added as a search parameter; {percent} % are done: try again later"
        refused = FhirError(503, "transient", said, f"http.{code}")
        refused.headers = {"Retry-After": str(RETRY_AFTER_S)}
        raise refused
    return known_parameters(resource_type).get(code)


def _known(resource_type: str, code: str) -> Parameter:
    known = known_parameters(resource_type)
    if code not in known and code in NOT_SERVED:
        raise FhirError(400, "not-supported", f"{code} is not served: {NOT_SERVED[code]}", f"http.{code}")
    if code not in known:
        names = ", ".join(sorted({*known, *RESULT_PARAMETERS}))
        raise FhirError(400, "not-supported", f"{resource_type} has no search parameter {code}; there are {names}", f"http.{code}")
    found = known_parameter(resource_type, code)
    assert found is not None
    return found


def _plain(resource_type: str, parameter: Parameter, modifier: str, name: str, value: str) -> Condition:
    if modifier == "missing":
        return _missing(parameter, name, value)
    if parameter.code == "_id" and modifier in ("", "not"):
        return HasId(tuple(comparisons.unescaped(one) for one in alternatives(value)), modifier == "not")
    if parameter.code == "_lastUpdated" and not modifier:
        return WasUpdated(tuple(comparisons.updated_test(name, one) for one in alternatives(value)))
    if parameter.type == "reference":
        return _reference(parameter, modifier, name, value)
    if parameter.type == "composite" and not modifier:
        return _composite(parameter, name, value)
    compare = _COMPARISONS.get((parameter.type, modifier))
    if compare is None or not parameter.looks:
        raise _no_modifier(parameter, modifier, name)
    numbers = _numbers(parameter.looks)
    if modifier == "of-type":
        numbers = tuple(sorted(of_type_number(look.source) for look in parameter.looks if look.source.branch.type == "Identifier"))
        if not numbers:
            raise _no_modifier(parameter, modifier, name)
    tests = tuple(compare(name, one) for one in alternatives(value))
    return HasRow(TABLES[parameter.type], numbers, tests, modifier == "not")


def _missing(parameter: Parameter, name: str, value: str) -> Condition:
    if value not in ("true", "false"):
        raise FhirError(400, "value", f"{name} is true or false", f"http.{name}")
    looks = looks_of(parameter)
    if not looks:  # every resource has an id, and was updated
        return HasId((), is_negated=value == "false")
    return IsMissing(looks, value == "true")


def _reference(parameter: Parameter, modifier: str, name: str, value: str) -> Condition:
    """`Type/id`, `id`, a URL; `:Type=id`; `:identifier=system|value` (R5 search.html#reference)."""
    if modifier == "identifier":
        tests = tuple(comparisons.token_test(name, one) for one in alternatives(value))
        return HasRow("token", _numbers(parameter.looks), tests)
    if modifier and not is_resource_type(modifier):
        raise _no_modifier(parameter, modifier, name)
    may_be = target_types(parameter)
    if modifier and may_be and modifier not in may_be:
        return Never()
    targets = [target for one in alternatives(value) for target in _targets(comparisons.unescaped(one), modifier, may_be, name)]
    return HasRow("reference", _numbers(parameter.looks), (comparisons.TargetTest(tuple(targets)),)) if targets else Never()


def _targets(value: str, modifier: str, may_be: tuple[str, ...], name: str) -> list[str]:
    """As they stand in the rows: without versions. What is below this server's own base is here, however it is written."""
    base = OWN_BASE.get()
    text = value.partition("/_history/")[0].rstrip("/").removeprefix(f"{base}/" if base else "")
    parts = text.split("/")
    if len(parts) > 1 and is_resource_type(parts[-2]) and _ID.fullmatch(parts[-1]):
        kind = parts[-2]
        if (modifier and kind != modifier) or (may_be and kind not in may_be):
            return []
        if len(parts) == 2:
            return here(text)
        return [text] if base else [text, *here("/".join(parts[-2:]))]  # where nobody asks by HTTP, any base may be our own
    if not _ID.fullmatch(text):
        return [text[:MAX_CHARACTERS]]
    kinds = (modifier,) if modifier else may_be
    if not kinds:
        raise FhirError(400, "value", f"parameter {name} needs a type: write {name}=Type/{text}", f"http.{name}")
    return [one for kind in kinds for one in here(f"{kind}/{text}")]


def here(reference: str) -> list[str]:
    """How `Type/id` may be written of a resource here."""
    return [reference, f"{OWN_BASE.get()}/{reference}"] if OWN_BASE.get() else [reference]


def _composite(parameter: Parameter, name: str, value: str) -> Condition:
    """`a$b`: what each part asks for, of the same container (R5 search.html#composite)."""
    tests = []
    for one in alternatives(value):
        given = comparisons.split_escaped(one, "$")
        if len(given) != len(parameter.parts):
            raise FhirError(400, "value", f"{name} takes {len(parameter.parts)} values joined by $", f"http.{name}")
        tests.append(tuple(_part_test(part.kind, name, text) for part, text in zip(parameter.parts, given, strict=True)))
    return HasParts(tuple((TABLES[part.kind], part.looks) for part in parameter.parts), tuple(tests))


def _part_test(kind: str, name: str, text: str) -> Test:
    if not text:
        raise FhirError(400, "value", f"{name}: a part has no value", f"http.{name}")
    if kind != "reference":
        return _COMPARISONS[kind, ""](name, text)
    return comparisons.TargetTest(tuple(_targets(comparisons.unescaped(text), "", (), name)))


def _chain(parameter: Parameter, modifier: str, name: str, rest: str, value: str, depth: int) -> Condition:
    if parameter.type != "reference":
        raise FhirError(400, "not-supported", f"{name}: {parameter.code} is no reference, so no chain goes on from it", f"http.{name}")
    if modifier and not is_resource_type(modifier):
        raise FhirError(400, "not-supported", f"{name}: {modifier} is no type of resource", f"http.{name}")
    may_be = target_types(parameter)
    kinds = (modifier,) if modifier else may_be
    if modifier and may_be and modifier not in may_be:
        return Never()
    if not kinds or len(kinds) > MAX_TYPES:
        raise FhirError(
            400, "value", f"{name}: {parameter.code} leads to many types: write {parameter.code}:Type.{rest}", f"http.{name}"
        )
    found, refused = [], None
    for kind in kinds:
        try:
            found.append((kind, condition(kind, rest, value, depth + 1)))
        except FhirError as error:
            refused = error if refused is None or error.code != "not-supported" else refused
    if not found:
        assert refused is not None
        raise refused
    return Chained(reference_numbers(parameter), tuple(found))


def _has(resource_type: str, name: str, value: str, depth: int) -> Condition:
    """`_has:Type:reference:parameter` (R5 search.html#has)."""
    given = name.split(":", 3)
    if len(given) != 4 or not all(given[1:]):
        raise FhirError(400, "value", f"{name}: write _has:Type:reference:parameter", f"http.{name}")
    _, other_type, code, rest = given
    if not is_resource_type(other_type):
        raise FhirError(400, "value", f"{name}: {other_type} is no type of resource", f"http.{name}")
    parameter = _known(other_type, code)
    if parameter.type != "reference":
        raise FhirError(400, "value", f"{name}: {code} is no reference", f"http.{name}")
    inner = condition(other_type, rest, value, depth + 1)
    may_be = target_types(parameter)
    if may_be and resource_type not in may_be:
        return Never()
    return ReferredBy(resource_type, other_type, reference_numbers(parameter), inner)


def _numbers(looks: Sequence[Look]) -> tuple[int, ...]:
    return tuple(sorted({look.source.number for look in looks}))


def _no_modifier(parameter: Parameter, modifier: str, name: str) -> FhirError:
    why = _WHY_NOT.get((parameter.type, modifier)) or _WHY_NOT.get(("", modifier))
    said = f"{name}: a parameter of type {parameter.type} has no modifier :{modifier}"
    if why is not None:
        said = f"{name}: the modifier :{modifier} is not served: {why}"
    return FhirError(400, "not-supported", said, f"http.{name}")
