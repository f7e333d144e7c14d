"""Documents as they come in: parsed and checked against the schema once, then remembered; what each costs is reckoned every time.

An extension of strawberry, so that what comes over WebSocket goes the same way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from graphql import DocumentNode, FieldNode, GraphQLError, OperationDefinitionNode, Visitor, visit
from strawberry.extensions import SchemaExtension
from strawberry.schema.schema import validate_document
from strawberry.types.execution import ExecutionContext
from strawberry.types.graphql import OperationType

from server.graphql.cost import Cost, refuse_costly
from server.graphql.errors import Code, GraphqlError

MOST_TOKENS = 5000
"""Words and signs of a document."""
MOST_NESTED = 64
"""Lists and objects within each other, in variables."""
_REMEMBERED = 500
_LONGEST_REMEMBERED = 50_000
"""Characters."""


class Asking(msgspec.Struct, frozen=True):
    """Names of the fields that a document asks for, wherever: what no field needs, no row is asked for."""

    names: frozenset[str]


class Known(msgspec.Struct, frozen=True):
    """A document that was parsed, and what is wrong with it."""

    document: DocumentNode
    errors: list[GraphQLError]
    asking: Asking


class Documents:
    """Those that came in last. ``most``: what one may cost."""

    def __init__(self, most: Cost) -> None:
        self.most = most
        self._known: OrderedDict[str, Known] = OrderedDict()

    def find(self, text: str) -> Known | None:
        found = self._known.get(text)
        if found is not None:
            self._known.move_to_end(text)
        return found

    def remember(self, text: str, document: DocumentNode, errors: list[GraphQLError]) -> Known:
        known = Known(document, errors, Asking(_names(document)))
        if len(text) <= _LONGEST_REMEMBERED:
            self._known[text] = known
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known


class Checking(SchemaExtension):
    """Puts what is remembered in the place of parsing and validating, and refuses what costs too much."""

    execution_context: ExecutionContext

    def __init__(self) -> None:
        self._known: Known | None = None

    @property
    def _documents(self) -> Documents:
        documents: Documents = self.execution_context.context.documents
        return documents

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context
        context.parse_options["max_tokens"] = MOST_TOKENS
        self._known = self._documents.find(context.query or "")
        if self._known is not None:
            context.graphql_document = self._known.document
        yield

    def on_validate(self) -> Iterator[None]:
        """Before strawberry would: what is found here is not looked for again."""
        context = self.execution_context
        assert context.graphql_document is not None
        if self._known is None:
            errors = validate_document(context.schema._schema, context.graphql_document, context.validation_rules)
            self._known = self._documents.remember(context.query or "", context.graphql_document, errors)
        context.context.asking = self._known.asking
        context.pre_execution_errors = list(self._known.errors) or self._refusals()
        if not context.pre_execution_errors and context.operation_type is OperationType.QUERY:
            context.context.begin()
        yield

    def _refusals(self) -> list[GraphQLError]:
        context = self.execution_context
        assert context.graphql_document is not None
        try:
            _refuse_nameless(context)
            _refuse_nested(context.variables or {})
            refuse_costly(context.schema._schema, context.graphql_document, context.operation_name, context.variables or {}, self._documents.most)
        except GraphqlError as error:
            return [GraphQLError(str(error), original_error=error)]
        return []


def _refuse_nameless(context: ExecutionContext) -> None:
    """Raises GraphqlError. Strawberry would take the first of several operations."""
    assert context.graphql_document is not None
    operations = [one for one in context.graphql_document.definitions if isinstance(one, OperationDefinitionNode)]
    if len(operations) > 1 and context._provided_operation_name is None:
        raise GraphqlError(Code.BAD_INPUT, "name one operation of the document (operationName)")


def _refuse_nested(variables: Mapping[str, Any]) -> None:
    """Raises GraphqlError (TOO_DEEP). What coerces variables calls itself for each level."""
    level: list[Any] = [variables]
    for _ in range(MOST_NESTED):
        level = [inner for one in level for inner in (one.values() if isinstance(one, Mapping) else one) if isinstance(inner, Mapping | list)]
        if not level:
            return
    raise GraphqlError(Code.TOO_DEEP, f"variables are nested more than {MOST_NESTED} deep", most=MOST_NESTED)


class _Names(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        self.found.add(node.name.value)


def _names(document: DocumentNode) -> frozenset[str]:
    names = _Names()
    visit(document, names)
    return frozenset(names.found)
