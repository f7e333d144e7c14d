"""A search of a type as it was asked for: conditions, order, and what is to come beside the matches."""

from __future__ import annotations

import msgspec

from server.auth.principals import Authenticated
from server.errors import ScopeMissing
from server.fhir.as_of import Given
from server.fhir.conditions import Condition
from server.fhir.includes import Include, includes
from server.fhir.parameters import parse, touched_types
from server.fhir.query import Statement
from server.fhir.sorting import SortKey, sort_keys

AUDIT_SCOPE = "audit:read"


class Search(msgspec.Struct, frozen=True, kw_only=True):
    resource_type: str
    conditions: list[Condition]
    sort: list[SortKey]
    includes: list[Include]

    @classmethod
    def parsed(cls, resource_type: str, given: Given, *, lenient: bool) -> tuple[Search, list[str]]:
        """And the names that were left out because ``lenient`` handling was preferred. Raises FhirError (400)."""
        conditions, ignored = parse(resource_type, given, lenient=lenient)
        sort, unsorted = sort_keys(resource_type, given, lenient=lenient)
        beside, left_out = includes(resource_type, given, lenient=lenient)
        made = cls(resource_type=resource_type, conditions=conditions, sort=sort, includes=beside)
        return made, [*ignored, *unsorted, *left_out]

    def check(self, reader: Authenticated) -> None:
        """Who may not read AuditEvents learns nothing of them by a chain or an include either. Raises ScopeMissing."""
        types = touched_types(self.conditions) | {one.source_type for one in self.includes if one.is_reverse}
        types |= {one.target_type for one in self.includes if one.target_type}
        if "AuditEvent" in types and not reader.may(AUDIT_SCOPE):
            raise ScopeMissing(AUDIT_SCOPE)

    def statement(self, position: int) -> Statement:
        return Statement(self.resource_type, self.conditions, position, self.sort)
