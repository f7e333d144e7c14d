"""Scopes of SMART App Launch 2.2 (scopes-and-launch-context.html): `patient/Observation.rs?category=laboratory` and the like.

Of version 1 `.read` means `.rs`, `.write` means `.cud` and `.*` means `.cruds`, as version 2 says. What a scope comes to in the
database is told by server.fhir.access.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode

import msgspec

from projections.fhir.definitions import is_resource_type

ANY = "*"
PATIENT = "patient"
LEVELS = (PATIENT, "user", "system")
FORM = "patient/, user/ or system/, a resource type or *, a dot, and letters of cruds in this order; then perhaps ?parameter=value"
VERSION_1 = {"read": "rs", "write": "cud", "*": "cruds"}
"""Permission of version 1 → its letters in version 2."""

# The characters are those of a scope (RFC 6749, 3.3), so that it can be named in a header.
_SCOPE = re.compile(r"(\w+)/([A-Za-z]+|\*)\.(?:(read|write|\*)|(c?r?u?d?s?)(?:\?([\x21\x23-\x5b\x5d-\x7e]+))?)")


class SmartScope(msgspec.Struct, frozen=True, kw_only=True):
    """``interactions``: letters of `cruds`. ``constraint``: search parameters, all of which have to hold."""

    level: str
    resource_type: str
    interactions: str
    constraint: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The scope with the names of its constraint's parameters, whose values may identify."""
        names = "&".join(name for name, _ in self.constraint)
        return f"{self.level}/{self.resource_type}.{self.interactions}{f'?{names}' if names else ''}"

    def __str__(self) -> str:
        asked = urlencode(self.constraint, safe=":/|,.$*")
        return f"{self.level}/{self.resource_type}.{self.interactions}{f'?{asked}' if asked else ''}"

    def within(self, other: SmartScope) -> SmartScope | None:
        """What both permit; None where that is nothing."""
        letters = "".join(one for one in self.interactions if one in other.interactions)
        types = {self.resource_type, other.resource_type} - {ANY}
        if self.level != other.level or not letters or len(types) > 1:
            return None
        constraint = tuple(dict.fromkeys([*other.constraint, *self.constraint]))
        return SmartScope(level=self.level, resource_type=next(iter(types), ANY), interactions=letters, constraint=constraint)

    def covers(self, interaction: str, resource_type: str) -> bool:
        return interaction in self.interactions and self.resource_type in (ANY, resource_type)


def is_smart(text: str) -> bool:
    """Whether a scope is meant to be one of SMART."""
    return text.partition("/")[0] in LEVELS


def smart_scope(text: str) -> SmartScope:
    """Raises ValueError, whose words repeat no value."""
    found = _SCOPE.fullmatch(text)
    if found is None or found[1] not in LEVELS or not (found[3] or found[4]):
        raise ValueError(f"a SMART scope is {FORM}")
    if found[2] != ANY and not is_resource_type(found[2]):
        raise ValueError(f"R5 has no resource type {found[2]}")
    constraint = parse_qsl(found[5] or "", keep_blank_values=True)
    if found[5] and (not constraint or any(not name or not value for name, value in constraint)):
        raise ValueError("a constraint is parameter=value, with & between several")
    letters = VERSION_1[found[3]] if found[3] else found[4]
    return SmartScope(level=found[1], resource_type=found[2], interactions=letters, constraint=tuple(constraint))
