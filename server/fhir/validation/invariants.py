"""FHIRPath invariants of the elements that the walk met.

Those that nearly every resource has are decided here in Python, at a hundredth of the engine's time; a test compares each with the engine
over many values, where the engine can. The rest goes to fhirpathpy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

from projections.fhir.definitions import Constraint
from server.fhir.validation.expressions import Context, NotEvaluated, holds
from server.fhir.validation.issues import Issue, expression_of
from server.fhir.validation.moments import earliest, latest
from server.fhir.validation.narrative import is_plain, says_something
from server.fhir.validation.walk import Held, Met

WITHOUT_NARRATIVE = "dom-6"
"""Best practice alone (R5 marks it so): a resource without text is said nothing of, since none of a machine's has one."""


def broken(met: Iterable[Met], until: float) -> Iterator[Issue]:
    """An issue for each invariant that does not hold. Those that could not be evaluated are said too, as information.

    ``until`` is when to stop, on the monotonic clock: some invariants of R5 take time that grows with the square of a resource's size.
    """
    for one in met:
        if time.monotonic() > until:
            text = "the resource is too large to evaluate all of its invariants: from here on they are not checked"
            yield Issue("information", "too-costly", text, expression_of(one.held.location))
            return
        yield from unmet(one.constraints, one.held)


def unmet(constraints: Iterable[Constraint], held: Held) -> Iterator[Issue]:
    """Of one element."""
    context = Context(held.scope.resource, held.scope.root.resource)
    for constraint in constraints:
        if constraint.key != WITHOUT_NARRATIVE and constraint.expression:
            issue = _issue(constraint, held, context)
            if issue is not None:
                yield issue


def _issue(constraint: Constraint, held: Held, context: Context) -> Issue | None:
    native = _NATIVE.get(constraint.expression) or _BY_KEY.get((constraint.key, constraint.expression))
    try:
        is_met = native(held.value) if native is not None else holds(constraint.expression, held.value, held.shape_name, context)
    except NotEvaluated:
        text = f"{constraint.key} could not be evaluated: {constraint.human}"
        return Issue("information", "not-supported", text, expression_of(held.location))
    if is_met is not False:
        return None
    return Issue(constraint.severity, "invariant", f"{constraint.key}: {constraint.human}", expression_of(held.location))


def _has(value: Any, *names: str) -> bool:
    return any(name in value or f"_{name}" in value for name in names)


def _is_ordered(value: Any, low: str, high: str) -> bool | None:
    """Whether the earliest moment of one date is not after the latest of another."""
    first, last = value.get(low), value.get(high)
    if not isinstance(first, str) or not isinstance(last, str):
        return True
    try:
        return earliest(first) <= latest(last)
    except (ValueError, OverflowError):
        return None  # the form of the dates is another issue


def _is_range(value: Any) -> bool | None:
    low, high = value.get("low"), value.get("high")
    if not isinstance(low, dict) or not isinstance(high, dict):
        return True
    least, most = low.get("value"), high.get("value")
    if not isinstance(least, int | float | Decimal) or not isinstance(most, int | float | Decimal):
        return True
    if any(low.get(name) != high.get(name) for name in ("system", "code")):
        return True  # not comparable without knowledge of units
    return least <= most


def _has_no_path_below(value: Any, code: str, last: str) -> bool:
    """sdf-24 and sdf-25: a CodeableReference is constrained itself, and not its reference or concept.

    The engine looks at every element for every element: five seconds for one definition.
    """
    given = value.get("element")
    elements = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []

    def types(element: Any) -> list[Any]:
        found = element.get("type")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    both = {str(one.get("path")) for one in elements if any(part.get("code") == "CodeableReference" for part in types(one))}
    for one in elements:
        head, _, tail = str(one.get("path")).rpartition(".")
        if tail != last or head not in both or not any(part.get("code") == code for part in types(one)):
            continue
        if "binding" in one if last == "concept" else any("targetProfile" in part for part in types(one)):
            return False
    return True


_NATIVE: dict[str, Callable[[Any], bool | None]] = {
    "code.exists().not() implies display.exists().not()": lambda v: _has(v, "code") or not _has(v, "display"),
    "reference.exists() or identifier.exists() or display.exists() or extension.exists()": lambda v: _has(
        v, "reference", "identifier", "display", "extension"
    ),
    "code.empty() or system.exists()": lambda v: not _has(v, "code") or _has(v, "system"),
    "value.exists()": lambda v: _has(v, "value"),
    "value.empty() or system.exists()": lambda v: not _has(v, "value") or _has(v, "system"),
    "data.empty() or contentType.exists()": lambda v: not _has(v, "data") or _has(v, "contentType"),
    "start.hasValue().not() or end.hasValue().not() or (start.lowBoundary() <= end.highBoundary())": lambda v: _is_ordered(
        v, "start", "end"
    ),
    "low.value.empty() or high.value.empty() or low.lowBoundary().comparable(high.highBoundary()).not()"
    " or (low.lowBoundary() <= high.highBoundary())": _is_range,
    "lowNumerator.hasValue().not() or highNumerator.hasValue().not()  or (lowNumerator.lowBoundary() <= highNumerator.highBoundary())":
        lambda v: _is_range({"low": v.get("lowNumerator"), "high": v.get("highNumerator")}),
    "element.where(type.where(code='Reference').exists() and path.endsWith('.reference') and type.targetProfile.exists()"
    " and (path.substring(0,$this.path.length()-10) in %context.element.where(type.where(code='CodeableReference').exists()).path))"
    ".exists().not()": lambda v: _has_no_path_below(v, "Reference", "reference"),
    "element.where(type.where(code='CodeableConcept').exists() and path.endsWith('.concept') and binding.exists()"
    " and (path.substring(0,$this.path.length()-8) in %context.element.where(type.where(code='CodeableReference').exists()).path))"
    ".exists().not()": lambda v: _has_no_path_below(v, "CodeableConcept", "concept"),
}
"""By expression, so that a profile's invariant of the same key is never taken for another."""
_BY_KEY: dict[tuple[str, str], Callable[[Any], bool | None]] = {
    ("txt-1", "htmlChecks()"): is_plain,
    ("txt-2", "htmlChecks()"): says_something,
}
"""Where R5 has one expression for several."""
