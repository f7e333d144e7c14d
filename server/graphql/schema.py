"""The schema, of its parts; schema.graphql beside it is what it prints, and what clients may rely on.

`python -m server.graphql.schema` writes that file.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import lru_cache
from pathlib import Path
from typing import Any

import strawberry
from graphql import GraphQLError
from strawberry.printer import print_schema
from strawberry.schema.config import StrawberryConfig
from strawberry.tools import merge_types
from strawberry.types import ExecutionContext

from server.graphql import parts
from server.graphql.documents import Checking
from server.graphql.errors import tell
from server.graphql.leaves import LeafExecution
from server.graphql.scalars import SCALARS

SDL = Path(__file__).with_name("schema.graphql")


class CohortSchema(strawberry.Schema):
    """Errors get their codes here, on every way out; strawberry would log what they say, and that may be a person's data."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        tell(errors)

    async def stream(self, query: str | None, variable_values: dict[str, Any] | None = None, context_value: Any = None, *positional: Any, **more: Any) -> Any:
        """Over WebSocket: each operation is a request of its own, with accesses of its own."""
        from server.graphql.sockets import Caller

        assert isinstance(context_value, Caller)
        context = context_value.context()
        results = await super().stream(query, variable_values, context, *positional, **more)

        async def recorded() -> AsyncGenerator[Any, None]:
            try:
                async for result in results:
                    await context_value.record(context)
                    yield result
            finally:
                await results.aclose()

        return recorded()


@lru_cache(maxsize=1)
def build() -> CohortSchema:
    """The schema of all parts."""
    return CohortSchema(
        query=merge_types("Query", parts.QUERIES),
        mutation=merge_types("Mutation", parts.MUTATIONS) if parts.MUTATIONS else None,
        subscription=merge_types("Subscription", parts.SUBSCRIPTIONS),
        types=parts.TYPES,
        extensions=[Checking],
        execution_context_class=LeafExecution,
        config=StrawberryConfig(scalar_map=SCALARS),
    )


def sdl(schema: strawberry.Schema) -> str:
    return print_schema(schema) + "\n"


if __name__ == "__main__":
    SDL.write_text(sdl(build()), encoding="utf-8")
