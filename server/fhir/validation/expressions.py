"""FHIRPath of invariants, evaluated by fhirpathpy: each expression is parsed once, and what FHIR adds to FHIRPath is put in.

The library knows neither `hasValue`, `resolve`, `memberOf`, `comparable` nor the boundaries of dates; they are here, as far as a
resource alone can tell: `resolve` gives what the resource itself holds, and for anything else a stub that has its type alone.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec
from fhirpathpy.engine import do_eval
from fhirpathpy.engine.nodes import ResourceNode, TypeInfo
from fhirpathpy.models import models
from fhirpathpy.parser import parse

from projections.fhir.definitions import value_set
from server.fhir.validation.references import target_type, types_by_url

_MODEL = models["r5"]
TypeInfo.model = _MODEL  # type: ignore[assignment]  # the library sets it only when an expression says `is`, and then for every later one
_CONSTANTS = {"ucum": "http://unitsofmeasure.org", "sct": "http://snomed.info/sct", "loinc": "http://loinc.org"}
_DOUBLE_QUOTED = re.compile(r'"([^"\\\x27]*)"')
"""As eld-11 has its strings, against FHIRPath."""


class NotEvaluated(Exception):
    """Raised where the engine has no answer: a function it lacks, or an operand of a kind it cannot take."""


class Context(msgspec.Struct, frozen=True):
    resource: dict[str, Any]
    """%resource: the resource that the element is in."""
    root: dict[str, Any]
    """%rootResource: what contains that resource, or the resource itself."""


def holds(expression: str, value: Any, type_name: str, context: Context) -> bool | None:
    """Whether an invariant holds of an element; None where that depends on what the resource only refers to.

    Raises NotEvaluated.
    """
    tree = parsed(_from_here(expression, type_name))
    if tree is None:
        raise NotEvaluated("it is not FHIRPath")
    node = ResourceNode.create_node(value, type_name)
    unresolved: list[str] = []
    environment = {
        "dataRoot": [node],
        "vars": {"context": node, "resource": context.resource, "rootResource": context.root, **_CONSTANTS},
        "model": _MODEL,
        "userInvocationTable": _functions(context, unresolved),
    }
    try:
        result = do_eval(environment, [node], tree["children"][0])
    except Exception as error:  # the library raises bare Exceptions, and TypeErrors for operands that it did not expect
        raise NotEvaluated(type(error).__name__) from error
    is_true = bool(result) and all(_plain(one) is True for one in result)
    if is_true:
        return True
    return None if unresolved else False


def _from_here(expression: str, type_name: str) -> str:
    """Without the type's name where a path begins with it (csd-4, cud-1): the library knows it only of plain JSON, not of a node."""
    start = f"{type_name}."
    return re.sub(rf"(?<![\w.'`%]){start}", "", expression) if start in expression else expression


@lru_cache(maxsize=4096)
def parsed(expression: str) -> dict[str, Any] | None:
    """The tree of an expression; None of what is no FHIRPath. Parsing takes the library some 10 ms."""
    try:
        return parse(_DOUBLE_QUOTED.sub(r"'\1'", expression))  # type: ignore[no-any-return]
    except Exception:  # the parser's own classes, and bare Exceptions
        return None


def _functions(context: Context, unresolved: list[str]) -> dict[str, Any]:
    def resolve(ctx: Any, nodes: list[Any]) -> list[Any]:
        found = []
        for node in nodes:
            data = _plain(node)
            text = data.get("reference") if isinstance(data, dict) else data
            if not isinstance(text, str):
                continue
            one = _held(text, context.root)
            if one is None:
                unresolved.append(text)
                kind = target_type(text, types_by_url(context.root))
                one = {"resourceType": kind} if kind else None
            if one is not None:
                found.append(ResourceNode.create_node(one))
        return found

    return {"resolve": {"fn": resolve}, **_PURE}


def _held(text: str, root: dict[str, Any]) -> Any:
    contained = root.get("contained")
    for one in contained if isinstance(contained, list) else ():
        if isinstance(one, dict) and text == f"#{one.get('id')}":
            return one
    return None


def _has_value(ctx: Any, nodes: list[Any]) -> bool:
    return len(nodes) == 1 and not isinstance(_plain(nodes[0]), dict | None)


def _member_of(ctx: Any, nodes: list[Any], url: str) -> Any:
    known = value_set(url)
    if known is None or len(nodes) != 1:
        return []
    data = _plain(nodes[0])
    if isinstance(data, dict):
        code, system = data.get("code"), data.get("system", "")
        return isinstance(code, str) and isinstance(system, str) and known.holds(code, system)
    return isinstance(data, str) and known.holds(data)


def _matches(ctx: Any, nodes: list[Any], pattern: str) -> Any:
    """As R5 reads it: anywhere in the text, and `.` matches a line's end too."""
    if len(nodes) != 1:
        return []
    return re.search(pattern, str(_plain(nodes[0])), re.DOTALL) is not None


def _trace(ctx: Any, nodes: list[Any], name: str, projection: Any = None) -> list[Any]:
    """The library's own prints what it is given: data of persons."""
    return nodes


_PURE: dict[str, Any] = {
    "hasValue": {"fn": _has_value},
    "memberOf": {"fn": _member_of, "arity": {1: ["String"]}},
    "matches": {"fn": _matches, "arity": {1: ["String"]}},
    "trace": {"fn": _trace, "arity": {1: ["String"], 2: ["String", "Expr"]}},
}


def _plain(node: Any) -> Any:
    return node.data if isinstance(node, ResourceNode) else node
