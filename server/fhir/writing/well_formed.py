"""Is a resource certainly of R5's structure? Told in C, for what clients mostly send: the rest is for fhir.resources to judge.

From R5's definitions a struct of msgspec is made for each type, which takes less than R5 allows: no `contained`, no extensions of
primitives, no 29th of February, and strings of some types in plain ASCII alone. So what it takes is well-formed, and of what it
does not take nothing is known yet. A test holds it to that: whatever is taken here, fhir.resources takes too.
"""

from __future__ import annotations

import sys
import types
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, ForwardRef, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from projections.fhir.definitions import Element, type_definition, type_names
from projections.fhir.vocabulary import Json

_DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_DATE = f"[12][0-9]{{3}}(?:-(?:0[1-9]|1[0-2])|-{_DAY})?"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_MOMENT = rf"[12][0-9]{{3}}-{_DAY}T{_TIME}(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9])"
_ID, _PLAIN = r"[A-Za-z0-9\-.]{1,64}", "[!-~]+"


def _matching(pattern: str) -> Any:
    return Annotated[str, Meta(pattern=rf"\A(?:{pattern})\Z")]


_TEXT = Annotated[str, Meta(pattern=r"\S")]
_PRIMITIVES: dict[str, Any] = {
    "boolean": bool,
    "integer": Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)],
    "unsignedInt": Annotated[int, Meta(ge=0, le=2**31 - 1)],
    "positiveInt": Annotated[int, Meta(ge=1, le=2**31 - 1)],
    "decimal": Annotated[int, Meta(ge=-(2**53), le=2**53)] | Decimal,
    "string": _TEXT,
    "markdown": _TEXT,
    "xhtml": _TEXT,
    "code": _matching(_PLAIN),
    "uri": _matching(_PLAIN),
    "canonical": _matching(_PLAIN),
    "id": _matching(_ID),
    "date": _matching(_DATE),
    "dateTime": _matching(f"{_DATE}|{_MOMENT}"),
    "instant": _matching(_MOMENT),
    "time": _matching(_TIME),
}
"""Those of the others (url, base64Binary, integer64, …) are left to fhir.resources."""
_LEFT_OUT = frozenset({"contained"})
_MODULE = types.ModuleType(f"{__name__}.structs")
"""Where structs find each other by name: an Extension holds Extensions."""
sys.modules[_MODULE.__name__] = _MODULE


def is_well_formed(resource: Json) -> bool:
    """Whether it certainly is, and nothing in it is empty. Of a type that R5 has."""
    try:
        msgspec.convert(resource, _struct_of(resource["resourceType"]), builtin_types=(Decimal,))
        return b"{}" not in _ENCODER.encode(resource)
    except (msgspec.MsgspecError, RecursionError, TypeError, ValueError):
        return False


_ENCODER = msgspec.json.Encoder(decimal_format="number")


@cache
def _struct_of(type_name: str) -> Any:
    """Of a resource, with everything that it may hold."""
    todo = [type_name]
    while todo:
        name = todo.pop()
        if not hasattr(_MODULE, name):
            todo += _make(name, is_resource=name == type_name)
    return getattr(_MODULE, type_name)


def _make(type_name: str, *, is_resource: bool) -> list[str]:
    """The struct of a type and those of its inner elements; gives the names of the types that they need."""
    by_parent: dict[str, list[Element]] = {}
    root, *elements = type_definition(type_name).elements
    for element in elements:
        by_parent.setdefault(element.path.rpartition(".")[0], []).append(element)
    needed: list[str] = []
    for parent, children in by_parent.items():
        fields: list[tuple[str, Any, Any]] = []
        choices: list[tuple[tuple[str, ...], bool]] = []
        if is_resource and parent == root.path:
            fields.append(("resourceType", Literal[type_name], msgspec.NODEFAULT))
        for element in children:
            if element.max == "0" or element.name in _LEFT_OUT:
                continue
            names = element.json_names
            if element.is_choice:
                choices.append((names, element.min > 0))
            for name, kind in zip(names, _kinds(element, by_parent, needed), strict=True):
                if kind is None:
                    if element.min > 0 and not element.is_choice:
                        kind = _NOTHING
                    else:
                        continue
                if element.is_repeated:
                    kind = Annotated[list[kind], Meta(min_length=1)]  # type: ignore[valid-type]
                is_required = element.min > 0 and not element.is_choice
                fields.append((name, kind, msgspec.NODEFAULT) if is_required else (name, kind | UnsetType, UNSET))
        _define(_name(parent), fields, choices)
    return needed


_NOTHING = Literal["nothing is of this type here"]
"""Of a required element that is left to fhir.resources."""


def _kinds(element: Element, by_parent: dict[str, list[Element]], needed: list[str]) -> list[Any]:
    """For each of its types what is taken; None where none is."""
    if element.content_reference is not None:
        return [ForwardRef(_name(element.content_reference.rpartition("#")[2]))]
    if element.path in by_parent:
        return [ForwardRef(_name(element.path))]
    kinds: list[Any] = []
    for one in element.types:
        if element.name == "id":
            kinds.append(_PRIMITIVES["id"])
        elif one.code in _PRIMITIVES:
            kinds.append(_PRIMITIVES[one.code])
        elif one.code in type_names() and type_definition(one.code).kind == "complex-type" and not type_definition(one.code).is_abstract:
            needed.append(one.code)
            kinds.append(ForwardRef(one.code))
        else:
            kinds.append(None)
    return kinds


def _name(path: str) -> str:
    return path.replace(".", "__")


def _define(name: str, fields: list[tuple[str, Any, Any]], choices: list[tuple[tuple[str, ...], bool]]) -> None:
    required_first = sorted(fields, key=lambda field: field[2] is UNSET)
    written = [(f"{one}_", kind, default) for one, kind, default in required_first]  # some are words of Python
    there = {one for one, _, _ in fields}
    groups = [(tuple(f"{one}_" for one in names if one in there), is_required) for names, is_required in choices]

    def check(made: Any) -> None:
        for names, is_required in groups:
            found = sum(getattr(made, one) is not UNSET for one in names)
            if found > 1 or (is_required and not found):
                raise ValueError("one of these, and no more")

    namespace = {"__post_init__": check} if any(len(names) > 1 or is_required for names, is_required in groups) else {}
    made = msgspec.defstruct(
        name,
        written,
        module=_MODULE.__name__,
        namespace=namespace,
        rename={f"{one}_": one for one in there},
        forbid_unknown_fields=True,
        gc=False,
    )
    setattr(_MODULE, name, made)
