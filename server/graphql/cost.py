"""What a document would cost at most, counted before it is run: how many values its answer could hold, if every page were full.

A field is one value, for each of the things that it is asked of. What engines do besides weighs more: a page, a facet, a histogram and a
count cost ENGINE_WORK values each. Depth counts fields within fields. Introspection is free: it is the same for everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
)

from server.graphql.errors import Code, GraphqlError

ENGINE_WORK = 50
PAGE = 20
"""What a page holds where nobody says how much."""
LIST = 10
"""What a list that is no page is taken to hold."""
_WORK = {
    ("CohortView", "counts"), ("CohortView", "facets"), ("CohortView", "histogram"), ("CohortView", "explain"),
}  # fmt: skip


class Cost(NamedTuple):
    values: int
    depth: int


def refuse_costly(schema: GraphQLSchema, document: DocumentNode, operation_name: str | None, variables: Mapping[str, Any], most: Cost) -> Cost:
    """What it costs. Raises GraphqlError (TOO_COSTLY, TOO_DEEP). The document is valid, so fragments are no circle."""
    cost = _Reckoning(schema, document, variables).of(operation_name)
    if cost.depth > most.depth:
        raise GraphqlError(Code.TOO_DEEP, f"fields are nested {cost.depth} deep, and {most.depth} may be: ask in two requests", depth=cost.depth, most=most.depth)
    if cost.values > most.values:
        asked = f"the answer could hold {cost.values} values, and {most.values} may be asked for at once"
        raise GraphqlError(Code.TOO_COSTLY, f"{asked}: ask for smaller pages (`first`), or for less of each", cost=cost.values, most=most.values)
    return cost


class _Reckoning:
    def __init__(self, schema: GraphQLSchema, document: DocumentNode, variables: Mapping[str, Any]) -> None:
        self._schema = schema
        self._variables = dict(variables)
        self._operations = [one for one in document.definitions if isinstance(one, OperationDefinitionNode)]
        self._fragments = {one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)}
        self._known: dict[tuple[str, int], Cost] = {}

    def of(self, name: str | None) -> Cost:
        operation = next((one for one in self._operations if name is None or (one.name is not None and one.name.value == name)), None)
        if operation is None:
            return Cost(0, 0)
        for defined in operation.variable_definitions or ():
            if defined.default_value is not None and self._variables.get(defined.variable.name.value) is None:
                self._variables[defined.variable.name.value] = getattr(defined.default_value, "value", None)
        root = self._schema.get_root_type(operation.operation)
        assert root is not None
        return self._selections(operation.selection_set, root, 1)

    def _selections(self, selected: SelectionSetNode, parent: GraphQLNamedType, page: int) -> Cost:
        """Of one thing of this type. ``page``: of a connection, how many it can hold."""
        values = depth = 0
        for one in selected.selections:
            if isinstance(one, FieldNode):
                cost = self._field(one, parent, page)
            elif isinstance(one, InlineFragmentNode):
                cost = self._selections(one.selection_set, self._type(one.type_condition, parent), page)
            else:
                assert isinstance(one, FragmentSpreadNode)
                cost = self._fragment(self._fragments[one.name.value], page)
            values, depth = values + cost.values, max(depth, cost.depth)
        return Cost(values, depth)

    def _fragment(self, fragment: FragmentDefinitionNode, page: int) -> Cost:
        key = (fragment.name.value, page)
        if key not in self._known:
            self._known[key] = self._selections(fragment.selection_set, self._type(fragment.type_condition, None), page)
        return self._known[key]

    def _field(self, node: FieldNode, parent: GraphQLNamedType, page: int) -> Cost:
        name = node.name.value
        if name.startswith("__"):
            return Cost(0, 0)
        assert isinstance(parent, GraphQLObjectType | GraphQLInterfaceType)
        field = parent.fields[name]
        inner = get_named_type(field.type)
        work = self._work(node, parent.name, name)
        if node.selection_set is None:
            return Cost(1 + work, 1)
        is_page = inner.name.endswith("Connection")
        size = self._size(node, field) if is_page else page
        within = self._selections(node.selection_set, inner, size)
        if is_page:
            return Cost(1 + (ENGINE_WORK if parent.name == "Query" else 0) + within.values, within.depth + 1)
        times = (page if parent.name.endswith("Connection") else LIST) if _is_list(field) else 1
        return Cost(work + times * (1 + within.values), within.depth + 1)

    def _work(self, node: FieldNode, parent: str, name: str) -> int:
        if (parent, name) == ("CohortView", "facets"):
            fields = next((one.value for one in node.arguments or () if one.name.value == "fields"), None)
            if isinstance(fields, VariableNode):
                given = self._variables.get(fields.name.value)
                return ENGINE_WORK * (len(given) if isinstance(given, list) else 1)
            return ENGINE_WORK * (len(fields.values) if isinstance(fields, ListValueNode) else 1)
        if (parent, name) in _WORK or (parent.endswith("Connection") and name in ("totalCount", "counts")):
            return ENGINE_WORK
        return 0

    def _size(self, node: FieldNode, field: GraphQLField) -> int:
        """What the page can hold, by ``first`` or ``last``; a wrong value is refused where it is used."""
        default = field.args["first"].default_value if "first" in field.args else None
        size = default if isinstance(default, int) else PAGE
        for argument in node.arguments or ():
            if argument.name.value in ("first", "last"):
                if isinstance(argument.value, IntValueNode):
                    size = int(argument.value.value)
                elif isinstance(argument.value, VariableNode):
                    given = self._variables.get(argument.value.name.value)
                    size = int(given) if isinstance(given, int | str) and str(given).isdigit() else size
        return max(size, 1)

    def _type(self, condition: Any, parent: GraphQLNamedType | None) -> GraphQLNamedType:
        if condition is None:
            assert parent is not None
            return parent
        return self._schema.type_map[condition.name.value]


def _is_list(field: GraphQLField) -> bool:
    return "[" in str(field.type)
