"""A route that is called without FastAPI's solving of dependencies: of a read of one resource, that took longer than the read.

Its endpoint takes the request, the words of its path, and what dependencies make of the request alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, get_args

from fastapi import Request, Response
from fastapi.params import Depends
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

Dependency = Callable[[Request], Awaitable[object]]


class DirectRoute(APIRoute):
    """Raises TypeError where something was declared that would not be done: a check left out must not look like one that passed.

    Of routes of the application's own router (server.fhir.router): FastAPI makes those of an included one without asking here.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **said: Any) -> None:
        super().__init__(path, endpoint, **said)
        if self.max_body_size is not None:
            raise TypeError(f"{path}: a limit of the body is the application's here, and none of a route")
        self.app = _answered(self.get_route_handler())

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        if self.dependencies:
            raise TypeError(f"{self.path}: dependencies are arguments of the endpoint here, and none of a route or router")
        endpoint, dependencies = self.endpoint, _dependencies(self.endpoint)

        async def handle(request: Request) -> Response:
            made = {name: await dependency(request) for name, dependency in dependencies.items()}
            answer: Response = await endpoint(request=request, **request.path_params, **made)
            return answer

        return handle


def _answered(handle: Callable[[Request], Coroutine[Any, Any, Response]]) -> ASGIApp:
    """Without the stacks in which FastAPI would close dependencies; errors go to the application's handlers, as they do from there."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        answer = await handle(Request(scope, receive, send))
        await answer(scope, receive, send)

    return app


def _dependencies(endpoint: Callable[..., Any]) -> dict[str, Dependency]:
    """By the name of the argument. Raises TypeError for what needs more than the request."""
    found: dict[str, Dependency] = {}
    for name, argument in inspect.signature(endpoint, eval_str=True).parameters.items():
        if argument.default is not argument.empty:
            raise TypeError(f"{endpoint.__name__}: {name} has a default, which would stand in its place")
        for said in get_args(argument.annotation)[1:]:
            if not isinstance(said, Depends) or said.dependency is None or len(inspect.signature(said.dependency).parameters) != 1:
                raise TypeError(f"{endpoint.__name__}: {name} is not made of the request alone")
            found[name] = said.dependency
    return found
