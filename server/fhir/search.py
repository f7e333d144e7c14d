"""A search of a type as it was asked for: conditions, order, and what is to come beside the matches."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from server.auth.principals import Authenticated
from server.fhir.access import Access
from server.fhir.as_of import Given
from server.fhir.conditions import Condition
from server.fhir.identities import check_search
from server.fhir.includes import Include, includes
from server.fhir.parameters import parse
from server.fhir.query import Statement
from server.fhir.sorting import SortKey, sort_keys


def conditions_within(access: Access, resource_type: str, conditions: Sequence[Condition]) -> list[Condition]:
    """What is asked for, and what the asker's rights add. Raises ScopeMissing."""
    own = access.condition("s", resource_type)
    return [*map(access.seen_by, conditions), *([] if own is None else [own])]


class Search(msgspec.Struct, frozen=True, kw_only=True):
    resource_type: str
    conditions: list[Condition]
    sort: list[SortKey]
    includes: list[Include]
    given: Given

    @classmethod
    def parsed(cls, resource_type: str, given: Given, *, lenient: bool) -> tuple[Search, list[str]]:
        """And the names that were left out because ``lenient`` handling was preferred. Raises FhirError (400)."""
        conditions, ignored = parse(resource_type, given, lenient=lenient)
        sort, unsorted = sort_keys(resource_type, given, lenient=lenient)
        beside, left_out = includes(resource_type, given, lenient=lenient)
        made = cls(resource_type=resource_type, conditions=conditions, sort=sort, includes=beside, given=given)
        return made, [*ignored, *unsorted, *left_out]

    def within(self, access: Access) -> Search:
        """The same search of what is within reach: who may not search a type learns nothing of it by a chain or an include either.
        Raises ScopeMissing, which names the type."""
        access.require("s", self.resource_type)
        for one in self.includes:
            if one.is_reverse:
                access.require("s", one.source_type)
            elif one.target_type:
                access.require("r", one.target_type)
        return msgspec.structs.replace(self, conditions=conditions_within(access, self.resource_type, self.conditions))

    def check(self, reader: Authenticated) -> None:
        """Who sees pseudonyms alone learns no name by a search for it. Raises ScopeMissing."""
        check_search(reader, self.resource_type, self.given)

    def statement(self, position: int) -> Statement:
        return Statement(self.resource_type, self.conditions, position, self.sort)
