"""How long a question may take (ANAMNESIS_FHIR_DEADLINE_S): what takes longer is ended, in the database too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.fhir.outcome import FhirError
from server.read_models import RETRY_AFTER_S
from server.services import Services


@asynccontextmanager
async def in_time(services: Services) -> AsyncIterator[None]:
    """Raises FhirError (503). asyncpg cancels the statement that is under way."""
    allowed_s = services.settings.fhir_deadline_s
    try:
        async with asyncio.timeout(allowed_s) as deadline:
            yield
    except TimeoutError:
        if not deadline.expired():
            raise
        said = f"this took longer than {allowed_s:g} seconds, and was ended: ask for less (more conditions, a smaller _count, _total=none)"
        error = FhirError(503, "timeout", said)
        error.headers = {"Retry-After": str(RETRY_AFTER_S)}
        raise error from None
