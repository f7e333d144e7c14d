"""Is a read model fit to be read? One that was never complete would show half of the archive as if it were all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request

from projections.checkpoint import status_of
from projections.errors import ProjectionIncomplete
from projections.projection import named
from server.auth.principals import Authenticated, requires
from server.services import Services

RETRY_AFTER_S = 10
"""What a client is told to wait while a read model is being built."""


async def require_complete(request: Request, name: str) -> None:
    """See `require_held`."""
    services: Services = request.app.state.services
    await require_held(services, name)


async def require_held(services: Services, name: str) -> None:
    """Raises ProjectionIncomplete (503) until the read model has held the whole log once; afterwards it costs nothing."""
    if name in services.complete:
        return
    status = await status_of(services.pool, named(services.runner.projections, name))
    if status is None or not status.built:
        percent = status.percent if status is not None else 0
        raise ProjectionIncomplete(name, percent, paused=status is not None and status.state == "paused")
    services.complete.add(name)


def reads(scope: str, name: str, or_some: str = "") -> Callable[[Request], Awaitable[Authenticated]]:
    """A FastAPI dependency: the request's principal, who may read, of a read model that can be read. ``or_some``: see `requires`."""
    authenticate = requires(scope, or_some)

    async def check(request: Request) -> Authenticated:
        reader = await authenticate(request)
        await require_complete(request, name)
        return reader

    return check
