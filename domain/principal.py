"""Who acts: a person or a device, and on whose behalf."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class PrincipalKind(StrEnum):
    PERSON = "person"
    DEVICE = "device"


class Principal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A principal as an event's envelope carries it.

    ``id`` is an opaque name (``token:3f…``, ``device:baseline``, ``ae:STORESCU``), never a person's name.
    ``on_behalf_of`` is the principal (by id) that this one acts for: a worker acts for whoever requested the work.
    """

    id: str
    kind: PrincipalKind
    on_behalf_of: str | None = None

    def acting_for(self, other: Principal) -> Principal:
        """The same principal, on behalf of another (or of whom that one already acts for)."""
        return Principal(id=self.id, kind=self.kind, on_behalf_of=other.on_behalf_of or other.id)


def device(name: str) -> Principal:
    return Principal(id=f"device:{name}", kind=PrincipalKind.DEVICE)
