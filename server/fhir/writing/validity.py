"""Validation of what clients write, as far as the site asks for it (``ANAMNESIS_FHIR_VALIDATION``): off, warn or enforce.

Structure is checked of every write by the models of fhir.resources; this is all the rest of what `$validate` finds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from projections.fhir.vocabulary import Json
from server.fhir.outcome import issue
from server.fhir.validation.issues import Issue
from server.fhir.validation.validator import faults_of
from server.fhir.writing.incoming import MOST_ISSUES, Refused
from server.services import Services

UNPROCESSABLE = 422
_logger = logging.getLogger(__name__)

ToWrite = tuple[str, str, Json]
"""Where it stands in what was sent (``Patient``, ``Bundle.entry[3].resource``), the id that it gets, and the resource."""


async def check(services: Services, resources: Sequence[ToWrite]) -> None:
    """Raises Refused (422) with every error, where the site enforces; logs that there are some, where it warns."""
    level = services.settings.fhir_validation
    if level == "off":
        return
    loop = asyncio.get_running_loop()
    found: list[Json] = []
    for at, resource_id, resource in resources:
        kind = resource["resourceType"]
        faults: list[Issue] = await loop.run_in_executor(services.validating, faults_of, {**resource, "id": resource_id})
        if faults and level == "warn":
            _logger.warning("%s/%s is written with %d errors, the first in %s", kind, resource_id, len(faults), faults[0].expression)
        found.extend(issue(one.code, one.text, expression=at + one.expression.removeprefix(kind)) for one in faults)
    if found and level == "enforce":
        raise Refused(UNPROCESSABLE, found[:MOST_ISSUES])
