"""A served site behind a socket, for clients that are not ours and for tests that are no coroutines."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from served_site import Site, served_site

from server.app import create_app

T = TypeVar("T")
KEEP_ALIVE_S = 600
"""Longer than a test may think: a connection that is closed as a request comes would fail it."""


@asynccontextmanager
async def behind_a_socket(site: Site) -> AsyncIterator[str]:
    """Gives the URL of the server."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(site.services), lifespan="off", log_level="critical", access_log=False, timeout_keep_alive=KEEP_ALIVE_S)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve([listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running
        listening.close()


@dataclass
class ListeningSite:
    site: Site
    url: str
    loop: asyncio.AbstractEventLoop

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """On the site's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


@contextmanager
def listening_site(server_url: str, folder: Path, **more: Any) -> Iterator[ListeningSite]:
    """In a thread of its own, so that a test may wait for an answer."""
    ready: Future[ListeningSite] = Future()
    stop = asyncio.Event()

    async def live() -> None:
        try:
            async with served_site(server_url, folder, **more) as site, behind_a_socket(site) as url:
                ready.set_result(ListeningSite(site, url, asyncio.get_running_loop()))
                await stop.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    thread = threading.Thread(target=asyncio.run, args=(live(),), daemon=True)
    thread.start()
    found = ready.result()
    try:
        yield found
    finally:
        found.loop.call_soon_threadsafe(stop.set)
        thread.join()
