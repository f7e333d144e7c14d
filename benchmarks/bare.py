"""The bare route beside ours: the same framework and server, that fetches the same row with asyncpg and does nothing else.

    python benchmarks/bare.py DATABASE_URL PORT
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import uvicorn
from fastapi import FastAPI, Request, Response

from projections.fhir.projection import SCHEMA

ROW = f"SELECT body FROM {SCHEMA}.resource WHERE type = $1 AND id = $2 ORDER BY version DESC LIMIT 1"


def bare_app(url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(url, min_size=10, max_size=10) as pool:
            app.state.pool = pool
            yield

    app = FastAPI(lifespan=lifespan, openapi_url=None)

    @app.get("/fhir/{resource_type}/{resource_id}")
    async def read(request: Request, resource_type: str, resource_id: str) -> Response:
        body = await request.app.state.pool.fetchval(ROW, resource_type, resource_id)
        return Response(body, media_type="application/fhir+json")

    @app.get("/health")
    async def health() -> Response:
        return Response()

    return app


if __name__ == "__main__":
    uvicorn.run(bare_app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
