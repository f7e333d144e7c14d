"""A route that is called directly refuses, when it is made, whatever it would leave out: above all who may ask."""

from __future__ import annotations

from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, Request, Response

from server.auth.principals import Authenticated, requires
from server.direct_route import DirectRoute


async def by_default(request: Request, reader: Authenticated = Depends(requires("fhir:read"))) -> Response:
    return Response()


async def of_more(request: Request, reader: Annotated[Authenticated, Depends(lambda request, other: None)]) -> Response:
    return Response()


async def plain(request: Request) -> Response:
    return Response()


@pytest.mark.parametrize("endpoint", [by_default, of_more])
def test_an_endpoint_whose_dependency_would_not_be_asked_is_refused(endpoint: object) -> None:
    with pytest.raises(TypeError, match="reader"):
        APIRouter(route_class=DirectRoute).add_api_route("/here", endpoint)  # type: ignore[arg-type]


def test_a_dependency_of_the_route_or_router_is_refused() -> None:
    with pytest.raises(TypeError, match="/here"):
        APIRouter(route_class=DirectRoute).add_api_route("/here", plain, dependencies=[Depends(requires("fhir:read"))])
    with pytest.raises(TypeError, match="/here"):
        APIRouter(route_class=DirectRoute, dependencies=[Depends(requires("fhir:read"))]).add_api_route("/here", plain)


def test_a_limit_of_the_body_is_refused() -> None:
    with pytest.raises(TypeError, match="/here"):
        APIRouter(route_class=DirectRoute).add_api_route("/here", plain, max_body_size=1)
