"""The FHIRPath that R5's search parameters are written in (FHIRPath 2.0.0, R5 fhirpath.html), compiled to Python once.

What an expression gives is told by R5's definitions beforehand: an expression becomes branches, each with the type of its values
and the JSON names that lead there, so that nothing is parsed and no type is looked for in a resource. There are paths, unions,
``where``, ``exists``, ``first``, ``extension``, ``ofType``, ``as``, ``resolve() is``, indexers, ``=``, ``!=``, ``and`` and ``or``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from projections.fhir.definitions import elements_by_path, resource_types, type_definition, type_names

Values = list[Any]
Step = Callable[[Values], Values]
Predicate = Callable[[Any], bool | None]
MAX_BRANCHES = 1000
"""Ways that one expression may have: each extension has a value of fifty types, any of which has extensions again."""


class UnsupportedExpression(ValueError):
    """Raised for what is no FHIRPath, or more of it than search parameters need."""


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """One way through a resource to values of one type."""

    type: str
    """FHIR type of the values: Quantity, dateTime, …"""
    path: str
    """The same for whatever expressions lead there: JSON names, and conditions on the way."""
    steps: tuple[Step, ...] = ()
    first: str | None = None
    """The JSON name without which a resource has no value here; None when that cannot be told."""
    second: str | None = None
    """The JSON name within that one, likewise."""
    target: str | None = None
    """Values are references, of which those to this type count (``resolve() is``)."""
    definition: str
    """The type whose snapshot describes the values, and their path in it."""
    element: str

    def values(self, node: Any) -> Values:
        """What is there, whether or not ``target`` holds."""
        values = [node]
        for step in self.steps:
            values = step(values)
            if not values:
                break
        return values


@cache
def compiled(expression: str, resource_type: str) -> tuple[Branch, ...]:
    """The branches for a type; none where the expression is about others. Raises UnsupportedExpression."""
    root = Branch(type=resource_type, path="", definition=resource_type, element=resource_type)
    return _distinct(_compile(_Parser(expression).whole(), [root]))


def compiled_from(expression: str, branch: Branch) -> tuple[Branch, ...]:
    """The same for a part of a composite: from the values of a branch, and so without the steps that lead to it."""
    start = Branch(type=branch.type, path="", definition=branch.definition, element=branch.element)
    return _distinct(_compile(_Parser(expression).whole(), [start]))


def evaluate(expression: str, resource: dict[str, Any]) -> Values:
    """What an expression gives for a resource."""
    return [
        value
        for branch in compiled(expression, resource["resourceType"])
        for value in branch.values(resource)
        if branch.target is None or reference_type(value) == branch.target
    ]


def reference_type(value: Any) -> str | None:
    """The type that a Reference points to, as its text or its ``type`` says."""
    if not isinstance(value, dict):
        return None
    segments = str(value.get("reference", "")).partition("/_history/")[0].split("/")
    if len(segments) > 1 and segments[-2] in _resource_types():
        return segments[-2]
    stated = value.get("type")
    return stated if isinstance(stated, str) else None


@cache
def _resource_types() -> frozenset[str]:
    return frozenset(resource_types())


def _distinct(branches: list[Branch]) -> tuple[Branch, ...]:
    return tuple({(branch.path, branch.type, branch.target): branch for branch in branches}.values())


def syntax(expression: str) -> Node:
    """The tree of an expression. Raises UnsupportedExpression."""
    return _Parser(expression).whole()


# Compiling


class Node(msgspec.Struct, frozen=True):
    """Of the syntax tree. ``parts`` are nodes, or what the kind says."""

    kind: str
    text: str = ""
    parts: tuple[Any, ...] = ()


def _compile(node: Node, roots: list[Branch]) -> list[Branch]:
    """The branches of a node, from where ``roots`` are."""
    match node.kind:
        case "this":
            return roots
        case "name" if node.text in type_names() and any(root.path == "" and _is_a(root.type, node.text) for root in roots):
            return roots
        case "name" if node.text in type_names() and node.text[0].isupper():
            return []
        case "name":
            return [inner for root in roots for inner in children(root, node.text)]
        case "dot":
            inner = _compile(node.parts[0], roots)
            if len(inner) > MAX_BRANCHES:
                raise UnsupportedExpression(f"{node.parts[0].kind} {node.parts[0].text} leads to more than {MAX_BRANCHES} types of values")
            return _compile(node.parts[1], inner)
        case "union":
            return [branch for part in node.parts for branch in _compile(part, roots)]
        case "index":
            nth = int(node.text)
            return [_then(b, f"[{nth}]", lambda values: values[nth : nth + 1]) for b in _compile(node.parts[0], roots)]
        case "as":
            return [of for branch in _compile(node.parts[0], roots) for of in of_type(branch, node.text)]
        case "call":
            return _call(node, roots)
        case "compare" | "logic":
            return [_truth(node, root) for root in roots]
    raise UnsupportedExpression(f"{node.kind} {node.text}")


def _call(node: Node, roots: list[Branch]) -> list[Branch]:
    match node.text, node.parts:
        case "ofType" | "as", (Node(kind="name", text=name),):
            return [of for root in roots for of in of_type(root, name)]
        case "where", (Node(kind="is", text=name, parts=(Node(kind="call", text="resolve"),)),):
            return [msgspec.structs.replace(root, target=name) for root in roots if root.type in ("Reference", "canonical")]
        case "where", (criterion,):
            return [_where(root, criterion) for root in roots]
        case "extension", (Node(kind="text", text=url),):
            of_url = Node("compare", "=", (Node("name", "url"), Node("text", url)))
            return [_where(inner, of_url) for root in roots for inner in children(root, "extension")]
        case "exists", ():
            return [_truth(Node("call", "exists", ()), root) for root in roots]
        case "first", ():
            return _first(roots)
    raise UnsupportedExpression(f"{node.text}() with {len(node.parts)} arguments")


def children(parent: Branch, name: str) -> list[Branch]:
    """The element of this name; of a choice of types, each."""
    elements = elements_by_path(parent.definition)
    path = f"{parent.element}.{name}"
    element = elements.get(path) or elements.get(f"{path}[x]")
    if element is None:
        return []
    if element.content_reference is not None:
        return [_child(parent, name, "BackboneElement", parent.definition, element.content_reference)]
    found = []
    for one in element.types:
        inline = one.code in ("BackboneElement", "Element")
        definition, inner = (parent.definition, path) if inline else (one.code, one.code)
        key = f"{name}{one.code[0].upper()}{one.code[1:]}" if element.is_choice else name
        found.append(_child(parent, key, one.code, definition, inner))
    return found


def _child(parent: Branch, key: str, type_name: str, definition: str, element: str) -> Branch:
    return Branch(
        type=type_name,
        path=f"{parent.path}.{key}" if parent.path else key,
        steps=(*parent.steps, _getter(key)),
        first=key if not parent.steps else parent.first,
        second=key if len(parent.steps) == 1 and parent.first is not None else parent.second,
        definition=definition,
        element=element,
    )


def _getter(key: str) -> Step:
    def get(values: Values) -> Values:
        found: Values = []
        for value in values:
            if type(value) is dict:
                inner = value.get(key)
                if type(inner) is list:
                    found += [one for one in inner if one is not None]
                elif inner is not None:
                    found.append(inner)
        return found

    return get


def of_type(branch: Branch, name: str) -> list[Branch]:
    """Only what is of this type: an Age is a Quantity, but a canonical is meant to be no uri (R5's search parameters tell them apart).

    Of a resource inside another one, only its ``resourceType`` tells.
    """
    if branch.type == name or (_is_a(branch.type, name) and type_definition(name).kind != "primitive-type"):
        return [branch]
    if branch.type != "Resource" or name not in _resource_types():
        return []

    def only_those(values: Values) -> Values:
        return [one for one in values if type(one) is dict and one.get("resourceType") == name]

    only = _then(branch, f".ofType({name})", only_those)
    return [msgspec.structs.replace(only, type=name, definition=name, element=name)]


def _is_a(type_name: str, ancestor: str) -> bool:
    return type_name == ancestor or ancestor in type_definition(type_name).ancestors


def _where(branch: Branch, criterion: Node) -> Branch:
    holds = predicate(criterion, branch)
    return _then(branch, f".where({_written(criterion)})", lambda values: [value for value in values if holds(value)])


def _truth(node: Node, branch: Branch) -> Branch:
    """A condition as a value: true, false, or nothing."""
    holds = predicate(node, branch)

    def decide(values: Values) -> Values:
        answers = [holds(value) for value in values]
        return [answer for answer in answers if answer is not None]

    made = _then(branch, f".({_written(node)})", decide)
    return msgspec.structs.replace(made, type="boolean", definition="boolean", element="boolean")


def _first(branches: list[Branch]) -> list[Branch]:
    if len(branches) < 2:
        return [_then(branch, ".first()", lambda values: values[:1]) for branch in branches]

    def first(values: Values) -> Values:
        return [found for branch in branches for value in values for found in branch.values(value)][:1]

    path = f"({' | '.join(branch.path for branch in branches)}).first()"
    return [msgspec.structs.replace(branches[0], path=path, steps=(first,), first=None, second=None)]


def _then(branch: Branch, said: str, step: Step) -> Branch:
    return msgspec.structs.replace(branch, path=f"{branch.path}{said}", steps=(*branch.steps, step))


def predicate(node: Node, at: Branch) -> Predicate:
    """The node as a condition on a value of ``at``; None is FHIRPath's empty collection."""
    start = Branch(type=at.type, path="", definition=at.definition, element=at.element)
    match node:
        case Node(kind="logic", text=operator, parts=(left, right)):
            return _logic(operator, predicate(left, start), predicate(right, start))
        case Node(kind="compare", text=operator, parts=(left, right)):
            return _comparison(operator, _compile(left, [start]), _literal(right))
        case Node(kind="dot", parts=(inner, Node(kind="call", text="exists", parts=()))):
            branches = _compile(inner, [start])
            return lambda value: any(branch.values(value) for branch in branches)
        case Node(kind="call", text="exists", parts=()):
            return lambda value: True
    raise UnsupportedExpression(f"{node.kind} {node.text} as a condition")


def _comparison(operator: str, branches: list[Branch], literal: object) -> Predicate:
    def compare(value: Any) -> bool | None:
        found = [one for branch in branches for one in branch.values(value)]
        if not found:
            return None
        is_equal = len(found) == 1 and type(found[0]) is type(literal) and found[0] == literal
        return is_equal if operator == "=" else not is_equal

    return compare


def _logic(operator: str, left: Predicate, right: Predicate) -> Predicate:
    decisive = operator == "or"

    def decide(value: Any) -> bool | None:
        answers = (left(value), right(value))
        if decisive in answers:
            return decisive
        return None if None in answers else not decisive

    return decide


def _literal(node: Node) -> object:
    match node:
        case Node(kind="text", text=text):
            return text
        case Node(kind="boolean", text=text):
            return text == "true"
    raise UnsupportedExpression(f"comparison with {node.kind} {node.text}")


def _written(node: Node) -> str:
    """One text for one meaning: a path tells its source from any other."""
    match node:
        case Node(kind="logic", text=operator, parts=parts):
            left, right = (f"({_written(one)})" if one.kind == "logic" and one.text != operator else _written(one) for one in parts)
            return f"{left} {operator} {right}"
        case Node(kind="as" | "is", text=text, parts=(left,)):
            return f"{_written(left)} {node.kind} {text}"
        case Node(kind="compare", text=operator, parts=(left, right)):
            return f"{_written(left)} {operator} {_written(right)}"
        case Node(kind="dot", parts=(left, right)):
            return f"{_written(left)}.{_written(right)}"
        case Node(kind="index", text=nth, parts=(of,)):
            return f"{_written(of)}[{nth}]"
        case Node(kind="union", parts=parts):
            return f"({' | '.join(map(_written, parts))})"
        case Node(kind="call", text=name, parts=parts):
            return f"{name}({', '.join(_written(part) for part in parts)})"
        case Node(kind="text", text=text):
            quoted = text.replace("'", "\\'")
            return f"'{quoted}'"
    return node.text


# Parsing

_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^'\\]|\\.)*')|(?P<number>\d+)|(?P<name>[A-Za-z_]\w*|`[^`]+`)|(?P<sign>!=|[.|()\[\],=$]))")


class _Parser:
    """By recursive descent; precedence as in FHIRPath's grammar."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._tokens: list[tuple[str, str]] = []
        position = 0
        text = expression.rstrip()
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise UnsupportedExpression(f"{expression!r} at character {position}")
            kind = str(found.lastgroup)
            self._tokens.append((kind, found[kind]))
            position = found.end()
        self._at = 0

    def whole(self) -> Node:
        node = self._or()
        if self._at != len(self._tokens):
            raise UnsupportedExpression(f"{self._expression!r} goes on after what is understood")
        return node

    def _or(self) -> Node:
        node = self._and()
        while self._take("name", "or"):
            node = Node("logic", "or", (node, self._and()))
        return node

    def _and(self) -> Node:
        node = self._equality()
        while self._take("name", "and"):
            node = Node("logic", "and", (node, self._equality()))
        return node

    def _equality(self) -> Node:
        node = self._type()
        for operator in ("=", "!="):
            if self._take("sign", operator):
                node = Node("compare", operator, (node, self._type()))
        return node

    def _type(self) -> Node:
        """Union binds closer than `is` and `as` (FHIRPath 2.0.0, operator precedence)."""
        node = self._union()
        for operator in ("is", "as"):
            if self._take("name", operator):
                node = Node(operator, self._name(), (node,))
        return node

    def _union(self) -> Node:
        parts = [self._path()]
        while self._take("sign", "|"):
            parts.append(self._path())
        return parts[0] if len(parts) == 1 else Node("union", parts=tuple(parts))

    def _path(self) -> Node:
        node = self._term()
        while True:
            if self._take("sign", "."):
                node = Node("dot", parts=(node, self._invocation()))
            elif self._take("sign", "["):
                node = Node("index", self._of_kind("number"), (node,))
                self._expect("]")
            else:
                return node

    def _term(self) -> Node:
        if self._take("sign", "("):
            node = self._or()
            self._expect(")")
            return node
        kind, text = self._peek()
        if kind == "text":
            self._at += 1
            return Node("text", text[1:-1].replace("\\'", "'"))
        if kind == "name" and text in ("true", "false"):
            self._at += 1
            return Node("boolean", text)
        if self._take("sign", "$"):
            self._name()
            return Node("this")
        return self._invocation()

    def _invocation(self) -> Node:
        name = self._name()
        if not self._take("sign", "("):
            return Node("name", name)
        arguments = []
        while not self._take("sign", ")"):
            arguments.append(self._or())
            self._take("sign", ",")
        return Node("call", name, tuple(arguments))

    def _name(self) -> str:
        return self._of_kind("name").strip("`")

    def _of_kind(self, kind: str) -> str:
        found, text = self._peek()
        if found != kind:
            raise UnsupportedExpression(f"{self._expression!r}: a {kind} was expected in place of {text!r}")
        self._at += 1
        return text

    def _take(self, kind: str, text: str) -> bool:
        if self._peek() == (kind, text):
            self._at += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._take("sign", sign):
            raise UnsupportedExpression(f"{self._expression!r}: {sign!r} was expected")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")
