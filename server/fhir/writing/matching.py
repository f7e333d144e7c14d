"""What a condition finds: a search of what is known up to the end of the log, within the reach of who asks."""

from __future__ import annotations

import hashlib
import hmac
from uuid import UUID

import msgspec

from domain.access import Action
from eventlog.vault import Vault
from projections.fhir.projection import FhirProjection
from server.audit.recorder import AccessRecorder
from server.auth.principals import Authenticated
from server.fhir.access import access_of
from server.fhir.as_of import Given
from server.fhir.deadline import in_time
from server.fhir.identities import check_search
from server.fhir.outcome import FhirError
from server.fhir.parameters import RESULT_PARAMETERS, parse
from server.fhir.query import Statement
from server.fhir.search import conditions_within
from server.fhir.state import reached_position
from server.services import Services


async def caught_up(services: Services) -> int:
    """The end of the log, once the FHIR read model has it. Raises ProjectionBehind."""
    head = await services.log.head()
    await services.runner.wait_for(FhirProjection(), head)
    return head


async def matches(
    services: Services, asker: Authenticated, resource_type: str, condition: Given, position: int, expression: str
) -> list[tuple[str, int]]:
    """The ids and versions of at most two resources that the condition finds at a position. Raises FhirError (400), ScopeMissing.

    It tells something of what is stored, so it takes the scope of a search and is recorded as one.
    """
    access = access_of(asker)
    access.require("s", resource_type)
    if not condition or any(name in RESULT_PARAMETERS for name, _ in condition):
        raise FhirError(400, "value", "a condition has search parameters, and no others", expression)
    await reached_position(services)  # what the site has added counts here, too
    try:
        conditions, _ = parse(resource_type, condition, lenient=False)
    except FhirError as error:
        refused = FhirError(error.status, error.code, error.detail, expression)
        refused.headers = error.headers
        raise refused from None
    check_search(asker, resource_type, condition)
    statement = Statement(resource_type, conditions_within(access, resource_type, conditions), position)
    async with in_time(services):
        rows = await statement.page(services.plans.pool(conditions), "", 2)
    recorder: AccessRecorder | None = services.recorder
    if recorder is not None:
        names = tuple(sorted({name for name, _ in condition}))
        recorder.record(asker.principal, Action.SEARCH, route="/fhir", resource_type=resource_type, parameters=names)
    return [(row["id"], row["version"]) for row in rows]


def conditional_id(vault: Vault, resource_type: str, condition: Given, nth: int) -> str:
    """The id of the nth resource that a condition makes: the same for everybody who asks for it at once, so that the log itself, where
    a stream has one first event, lets only one of them make it. A keyed hash, since a condition may name a person."""
    text = msgspec.json.encode([resource_type, sorted(condition), nth])
    mac = bytearray(hmac.digest(vault.derive("fhir conditional create"), text, hashlib.sha256)[:16])
    mac[6], mac[8] = mac[6] & 0x0F | 0x80, mac[8] & 0x3F | 0x80  # a UUIDv8 (RFC 9562, 5.8)
    return str(UUID(bytes=bytes(mac)))
