"""What can be wrong with a request, as GraphQL errors: each has a code in its extensions, by which clients tell them apart.

What is not foreseen is INTERNAL and says nothing: the log gets its class and the place alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import asyncpg
from graphql import GraphQLError, GraphQLSyntaxError

from domain.errors import DomainError
from eventlog.errors import LogUnavailable, VersionConflict
from projections.cohort.errors import CohortError, FieldRefused, FieldUnknown, PositionUnknown
from projections.columns.errors import ColumnsNotReady
from projections.errors import ProjectionBehind, ProjectionIncomplete
from server.as_of import AsOfInvalid
from server.errors import ScopeMissing, ServerError, TokenInvalid

_logger = logging.getLogger(__name__)


class Code(StrEnum):
    """``extensions.code``. docs/cohorts.md says what to do about each."""

    SYNTAX = "GRAPHQL_PARSE_FAILED"
    INVALID = "GRAPHQL_VALIDATION_FAILED"
    BAD_INPUT = "BAD_USER_INPUT"
    TOO_DEEP = "TOO_DEEP"
    TOO_COSTLY = "TOO_COSTLY"
    TOO_SLOW = "TOO_SLOW"
    FIELD_UNKNOWN = "FIELD_UNKNOWN"
    FIELD_REFUSED = "FIELD_REFUSED"
    POSITION_UNKNOWN = "POSITION_UNKNOWN"
    CURSOR_INVALID = "CURSOR_INVALID"
    SCOPE_MISSING = "SCOPE_MISSING"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    REFUSED = "REFUSED"
    PERSISTED_QUERY_NOT_FOUND = "PERSISTED_QUERY_NOT_FOUND"
    PERSISTED_QUERY_ONLY = "PERSISTED_QUERY_ONLY"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


class GraphqlError(ServerError):
    """Raised for what is wrong with a request. ``more`` goes into the extensions beside the code."""

    def __init__(self, code: Code, message: str, **more: Any) -> None:
        super().__init__(message)
        self.code = code
        self.more = more


class At(CohortError):
    """Raised in place of a CohortError, where it is known which part of the condition it is about."""

    def __init__(self, error: CohortError, where: str) -> None:
        super().__init__(str(error))
        self.error = error
        self.where = where


_CODES: tuple[tuple[type[Exception], Code], ...] = (
    (FieldUnknown, Code.FIELD_UNKNOWN),
    (FieldRefused, Code.FIELD_REFUSED),
    (PositionUnknown, Code.POSITION_UNKNOWN),
    (CohortError, Code.BAD_INPUT),
    (AsOfInvalid, Code.POSITION_UNKNOWN),
    (ScopeMissing, Code.SCOPE_MISSING),
    (TokenInvalid, Code.UNAUTHENTICATED),
    (ProjectionIncomplete, Code.UNAVAILABLE),
    (asyncpg.DataError, Code.BAD_INPUT),
    (UnicodeEncodeError, Code.BAD_INPUT),
    (DomainError, Code.REFUSED),
)
_UNAVAILABLE = (LogUnavailable, ProjectionBehind, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError, VersionConflict, TimeoutError, ColumnsNotReady)


def tell(errors: Iterable[GraphQLError]) -> None:
    """Gives each error its code, and takes from it what it should not say; logs what was not foreseen."""
    for error in errors:
        if "code" in (error.extensions or {}):
            continue
        message, extensions = _told(error)
        error.message = message
        error.extensions = {**(error.extensions or {}), **extensions}


def _told(error: GraphQLError) -> tuple[str, dict[str, Any]]:
    cause = error.original_error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    match cause:
        case None if isinstance(error, GraphQLSyntaxError):
            return error.message, {"code": Code.SYNTAX}
        case None:
            # Beneath a path, an argument's value was refused; else the document or its variables do not fit the schema.
            return error.message, {"code": Code.BAD_INPUT if error.path else Code.INVALID}
        case GraphqlError():
            return str(cause), {"code": cause.code, **cause.more}
        case At():
            return str(cause), {"code": _code(cause.error), "at": cause.where}
        case ScopeMissing():
            return str(cause), {"code": Code.SCOPE_MISSING, "scope": cause.scope}
        case RecursionError():
            return "this is nested too deeply", {"code": Code.TOO_DEEP}
    code = _code(cause)
    if code is Code.INTERNAL:
        _logger.error("graphql: %s failed", ".".join(str(one) for one in error.path or ()), exc_info=cause)
        return "the server failed; its log says where", {"code": code}
    if code is Code.UNAVAILABLE and not isinstance(cause, ProjectionIncomplete):
        return "the database does not answer, or is behind: try again", {"code": code}
    if isinstance(cause, asyncpg.DataError | UnicodeEncodeError):
        return "a value holds characters, or is so large, that nothing can have it", {"code": code}
    return str(cause), {"code": code}


def _code(cause: Exception) -> Code:
    if isinstance(cause, _UNAVAILABLE):
        return Code.UNAVAILABLE
    return next((code for kind, code in _CODES if isinstance(cause, kind)), Code.INTERNAL)
