"""Asks a listening site by GraphQL."""

from __future__ import annotations

from typing import Any

import httpx
from listening_site import ListeningSite

GRAPHQL_JSON = "application/graphql-response+json"
READ = ("cohorts:read",)


def post(served: ListeningSite, query: str, *scopes: str, accept: str = GRAPHQL_JSON, **variables: Any) -> httpx.Response:
    headers = {**served.do(served.site.headers(*(scopes or READ))), "Accept": accept}
    return httpx.post(f"{served.url}/graphql", json={"query": query, "variables": variables}, headers=headers, timeout=60)


def ask(served: ListeningSite, query: str, *scopes: str, **variables: Any) -> dict[str, Any]:
    """The data of an answer without errors."""
    answer = post(served, query, *scopes, **variables)
    assert answer.status_code == 200 and "errors" not in answer.json(), answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def refusal(served: ListeningSite, query: str, *scopes: str, **variables: Any) -> dict[str, Any]:
    """The first error."""
    errors = post(served, query, *scopes, **variables).json()["errors"]
    return {"message": errors[0]["message"], **errors[0]["extensions"]}
