"""Search parameters that a site adds to R5's and the guide's: SearchParameter resources with the status active (R5 searchparameter.html).

A definition is compiled when it is written, and takes effect at its position of the log: later versions of resources get their rows as
they are made, those before it in the background (see indexing). What cannot be compiled is never indexed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import msgspec

from projections.fhir import guide
from projections.fhir.definitions import (
    ParameterComponent,
    SearchParameter,
    defined_parameters,
    is_resource_type,
    resource_types,
    search_parameters,
    type_definition,
)
from projections.fhir.fhirpath import UnsupportedExpression
from projections.fhir.search.parameters import TABLES, TYPES_FOUND, Parameter, Source, added, parameters, sources
from projections.fhir.search.rows import Plan, of_type_number, plan_of

TYPE = "SearchParameter"
ACTIVE = "active"
MOST = 200
"""Parameters that a site may add: each costs every write of its types."""
MAX_CHARACTERS = 2000
"""Of an expression."""
MAX_NESTING = 60
"""Parentheses, and words between conditions, in an expression: each is a call within another."""
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_NESTING = re.compile(r"\(|\b(?:and|or)\b")
SEALED = "Patient"
"""What identifies stands in no version's body, from which rows are made in the background."""
_EVERY_TYPE = ("Resource", "DomainResource")


class Unusable(Exception):
    """Why a definition cannot be indexed, and the element that says so (``SearchParameter.expression``)."""

    def __init__(self, expression: str, said: str) -> None:
        super().__init__(said)
        self.expression = expression


class Added(msgspec.Struct, frozen=True):
    """A row of the table ``search_parameter``."""

    id: str
    position: int
    """Of the event that said so."""
    definition: str
    """A SearchParameter of projections.fhir.definitions as JSON, with its bases as types and its components with theirs; empty where it
    cannot be used."""
    problem: str
    """Why it cannot be used; empty where it can."""


class Site(msgspec.Struct, frozen=True):
    """What a site has added, compiled."""

    parameters: Mapping[str, Mapping[str, Parameter]]
    """Type → code → parameter."""
    sources: Mapping[str, tuple[Source, ...]]
    """Type → those that no parameter of R5 or the guide looks into."""
    plans: Mapping[str, Plan]

    def of(self, resource_type: str) -> Mapping[str, Parameter]:
        return self.parameters.get(resource_type, {})


NOTHING = Site({}, {}, {})


class Known(msgspec.Struct, frozen=True):
    """What the site has added, as a search may use it."""

    revision: tuple[int, int] = (0, 0)
    """Changes whenever something is added or taken away."""
    site: Site = NOTHING
    indexing: Mapping[tuple[str, str], int] = {}
    """Type and code of what cannot be searched by yet → percent of the log whose resources have their rows."""


_NONE = Known()
CURRENT: ContextVar[Known] = ContextVar("what the site has added, as this request found it", default=_NONE)


def known_parameters(resource_type: str) -> Mapping[str, Parameter]:
    """R5's, the guide's, and those that the site has added, also such as are being indexed."""
    own = CURRENT.get().site.of(resource_type)
    return {**parameters(resource_type), **own} if own else parameters(resource_type)


def numbers_of(parameter: Parameter) -> set[int]:
    """Of all sources that it looks into."""
    looks = [*parameter.looks, *(look for part in parameter.parts for look in part.looks)]
    return {look.source.number for look in looks}


def usable(resource: Mapping[str, Any], others: Iterable[Added]) -> SearchParameter:
    """The definition in an active SearchParameter, beside those that the site has. Raises Unusable."""
    try:
        found = _definition(resource, {one.url: one.type for one in _definitions(others)})
    except (AttributeError, KeyError, TypeError):  # its structure is not R5's: it came in another way than by FHIR
        raise Unusable(TYPE, "this SearchParameter cannot be read") from None
    taken = {(base, one.code) for one in _definitions(others) for base in one.base}
    for base in found.base:
        if (base, found.code) in taken or found.code in parameters(base) or found.code in search_parameters(base):
            raise Unusable(f"{TYPE}.code", f"{base} has a search parameter {found.code} already")
    for base in found.base:
        _compiled(found, base)
    return found


def site_of(rows: Sequence[Added]) -> Site:
    return _site(tuple(sorted(one.definition for one in rows if one.definition)))


@lru_cache(maxsize=8)
def _site(definitions: tuple[str, ...]) -> Site:
    found: dict[str, dict[str, Parameter]] = {}
    own: dict[str, dict[int, Source]] = {}
    for one in (msgspec.json.decode(text, type=SearchParameter) for text in definitions):
        for base in one.base:
            parameter, made = added(base, one)
            if parameter is not None:
                found.setdefault(base, {})[one.code] = parameter
                own.setdefault(base, {}).update((source.number, source) for source in made)
    by_type = {kind: tuple(of_type[number] for number in sorted(of_type)) for kind, of_type in own.items()}
    return Site(found, by_type, {kind: plan_of(made) for kind, made in by_type.items()})


def _definitions(rows: Iterable[Added]) -> list[SearchParameter]:
    return [msgspec.json.decode(one.definition, type=SearchParameter) for one in rows if one.definition]


def _definition(resource: Mapping[str, Any], others: Mapping[str, str]) -> SearchParameter:
    """``others``: type of each parameter of the site by its URL. Raises Unusable."""
    code, kind, expression = resource["code"], resource["type"], resource.get("expression")
    if not _CODE.fullmatch(code):
        raise Unusable(f"{TYPE}.code", "a code has letters, digits, hyphens and underscores, 64 at most, and begins with a letter")
    if kind != "composite" and kind not in TABLES:
        raise Unusable(f"{TYPE}.type", f"a parameter that is added is one of {', '.join(sorted({*TABLES, 'composite'}))}")
    if resource.get("processingMode", "normal") != "normal":
        raise Unusable(f"{TYPE}.processingMode", "the one processing mode is normal")
    _check_expression(expression, f"{TYPE}.expression")
    components = tuple(_component(one, nth, others) for nth, one in enumerate(resource.get("component", ())))
    if (kind == "composite") != bool(components):
        raise Unusable(f"{TYPE}.component", "a composite has components, and no other type has any")
    targets = tuple(sorted(resource.get("target", ())))
    for one in targets:
        if not is_resource_type(one):
            raise Unusable(f"{TYPE}.target", f"R5 has no resource type {one}")
    return SearchParameter(
        code=code,
        type=kind,
        url=resource["url"],
        base=tuple(sorted({kind for base in resource["base"] for kind in _types(base)})),
        expression=expression,
        targets=targets,
        components=components,
    )


def _component(given: Mapping[str, Any], nth: int, others: Mapping[str, str]) -> ParameterComponent:
    url = given["definition"].partition("|")[0]
    known = defined_parameters().get(url) or next((one for one in guide.search_parameters() if one.url == url), None)
    kind = known.type if known is not None else others.get(url)
    if kind not in TABLES:
        raise Unusable(f"{TYPE}.component[{nth}].definition", "this is the URL of no parameter of R5, of the guide, or of an active one here")
    _check_expression(given["expression"], f"{TYPE}.component[{nth}].expression")
    return ParameterComponent(url, kind, given["expression"])


def _check_expression(expression: str | None, at: str) -> None:
    if expression is None:
        raise Unusable(at, "without an expression nothing can be indexed")
    if len(expression) > MAX_CHARACTERS or len(_NESTING.findall(expression)) > MAX_NESTING:
        said = f"an expression has at most {MAX_CHARACTERS} characters, and {MAX_NESTING} parentheses and conditions"
        raise Unusable(at, said)


def _types(base: str) -> Iterable[str]:
    if base in _EVERY_TYPE:
        return [one for one in resource_types() if base in type_definition(one).ancestors and one != SEALED]
    if not is_resource_type(base):
        raise Unusable(f"{TYPE}.base", f"R5 has no resource type {base}")
    return [base]


def _compiled(one: SearchParameter, base: str) -> None:
    """Raises Unusable where its expression is not understood, or leads to nothing that a parameter of its type compares."""
    at = f"{TYPE}.expression"
    try:
        parameter, made = added(base, one)
    except UnsupportedExpression as error:
        raise Unusable(at, f"this expression cannot be compiled for {base}: {error}") from None
    except (RecursionError, LookupError, ValueError, TypeError):
        raise Unusable(at, f"this expression cannot be compiled for {base}") from None
    if parameter is None:
        found = "in each of its components" if one.type == "composite" else f"one of {', '.join(sorted(TYPES_FOUND[one.type]))}"
        raise Unusable(at, f"of a {base} this expression gives no value that a parameter of type {one.type} compares ({found})")
    if base == SEALED and made:
        raise Unusable(f"{TYPE}.base", f"all of a {SEALED} but its pseudonym is sealed: it is indexed by R5's own search parameters alone")
    numbers = {number for source in sources(base) for number in (source.number, of_type_number(source))}
    if any(source.number in numbers for source in made):
        raise Unusable(at, "this expression cannot be told from another one: write it in another way")
