"""Which route answers a request, as it was declared: the label of a metric and of an access, which tells no id."""

from __future__ import annotations

from starlette.types import Scope


def route_template(scope: Scope) -> str:
    """The matched route's whole template, empty where none matched.

    A router within a router tells its own part alone: the room (``/fhir``, ``/dicomweb``) is put before it.
    """
    route: str = getattr(scope.get("route"), "path_format", "")
    if not route:
        return ""
    room = scope["path"].split("/", 2)[1]
    return route if route.split("/", 2)[1] == room else f"/{room}{route}"
