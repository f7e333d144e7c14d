"""Required bindings (R5 terminologies.html#required): whether a code is in the value set that its element is bound to.

The expansions ship with the definitions. Of value sets that nobody can list, languages and MIME types are checked by their form
(BCP 47, RFC 6838), and UCUM units not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from projections.fhir import definitions, guide
from projections.fhir.definitions import ValueSetCodes

_FORMS = {
    "http://hl7.org/fhir/ValueSet/all-languages": re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*"),
    "http://hl7.org/fhir/ValueSet/mimetypes": re.compile(
        r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/[A-Za-z0-9!#$&^_.+*-]+(\s*;.*)?|xml|json|ttl|\*"
    ),
}


def is_checked(url: str) -> bool:
    """Whether anything is known of a value set."""
    return url.partition("|")[0] in _FORMS or _listed(url) is not None


def is_bound(url: str, kind: str, value: Any) -> bool:
    """Whether a value meets a required binding; True where nothing is known of the value set, or the value is no code at all."""
    if not is_checked(url):
        return True
    codes = list(_codes(kind, value))
    if not codes:  # text alone, or an extension that says why there is no code
        return kind not in ("CodeableConcept", "Coding") or _has_extension(value)
    return any(_holds(url, code, system) for system, code in codes)


def _holds(url: str, code: str, system: str | None) -> bool:
    form = _FORMS.get(url.partition("|")[0])
    if form is not None:
        return form.fullmatch(code) is not None
    listed = _listed(url)
    return listed is None or listed.holds(code, system)


def _listed(url: str) -> ValueSetCodes | None:
    return definitions.value_set(url) or guide.value_set(url)


def _codes(kind: str, value: Any) -> Iterator[tuple[str | None, str]]:
    """(system, code) of each code in a value; a bare code has no system, and a Coding without one has the empty one."""
    if isinstance(value, str):
        yield None, value
    elif not isinstance(value, dict):
        return
    elif kind in ("Coding", "Quantity"):
        code, system = value.get("code"), value.get("system", "")
        if isinstance(code, str) and isinstance(system, str):
            yield system, code
    elif kind == "CodeableConcept":
        codings = value.get("coding")
        for coding in codings if isinstance(codings, list) else ():
            yield from _codes("Coding", coding)
    elif kind == "CodeableReference":
        yield from _codes("CodeableConcept", value.get("concept"))


def _has_extension(value: Any) -> bool:
    return isinstance(value, dict) and "extension" in value
