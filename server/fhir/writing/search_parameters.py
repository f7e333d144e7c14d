"""What a client writes as an active SearchParameter becomes one of the site: what could never be indexed is refused when it is written."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from projections.fhir.search.site import ACTIVE, MOST, TYPE, Added, Unusable, usable
from server.fhir.outcome import issue
from server.fhir.state import added
from server.fhir.writing.incoming import Refused
from server.fhir.writing.validity import UNPROCESSABLE, ToWrite
from server.services import Services


async def check(services: Services, resources: Sequence[ToWrite]) -> None:
    """Raises Refused (422) with what each of them lacks. Of two at once that take the same code, the log decides: the first has it."""
    asked = [(at, resource_id, one) for at, resource_id, one in resources if one["resourceType"] == TYPE]
    if not asked:
        return
    rows = {one.id: one for one in await added(services.pool)}
    found = []
    for at, resource_id, resource in asked:
        rows.pop(resource_id, None)
        if resource.get("status") != ACTIVE:
            continue
        try:
            if len(rows) >= MOST:
                raise Unusable(f"{TYPE}.status", f"a site has at most {MOST} active search parameters: retire one that nobody needs")
            definition = msgspec.json.encode(usable(resource, rows.values())).decode("utf-8")
        except Unusable as refused:
            found.append(issue("business-rule", str(refused), expression=at + refused.expression.removeprefix(TYPE)))
        else:
            rows[resource_id] = Added(resource_id, 0, definition, "")
    if found:
        raise Refused(UNPROCESSABLE, found)
