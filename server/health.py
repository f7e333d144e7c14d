"""Is the process alive, and can it do its work? For orchestrators; the answers say nothing of the data."""

from __future__ import annotations

import asyncio
import os
import shutil

import asyncpg
from fastapi import APIRouter, Depends, Request, Response

from projections.checkpoint import statuses, without_old_versions
from server.auth.principals import probe
from server.services import Services

DATABASE_TIMEOUT_S = 2.0
LEAST_FREE_BYTES = 256 * 1024 * 1024

router = APIRouter(prefix="/health", dependencies=[Depends(probe)], tags=["health"])


@router.get("/live")
async def live() -> dict[str, str]:
    """200 while the process answers."""
    return {"status": "live"}


@router.get("/ready")
async def ready(request: Request, response: Response) -> dict[str, object]:
    """200 when database, projections and spool can do their work; 503 with the names of those that cannot."""
    services: Services = request.app.state.services
    problems = await _problems(services)
    response.status_code = 503 if problems else 200
    return {"status": "unready" if problems else "ready", "problems": problems}


async def _problems(services: Services) -> list[str]:
    problems: list[str] = []
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_S):
            found = without_old_versions(await statuses(services.pool), services.runner.projections)
        ours = {projection.name for projection in services.runner.projections}
        problems += [f"projection {s.name} is paused" for s in found if s.state == "paused"]
        problems += [f"projection {s.name} is being built: {s.percent} %" for s in found if s.state == "building" and s.name in ours]
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        problems.append("the database does not answer")
    folder = services.settings.spool_dir
    if not os.access(folder, os.W_OK):
        problems.append("the spool cannot be written")
    elif shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
        problems.append("the spool's disk is nearly full")
    return problems
