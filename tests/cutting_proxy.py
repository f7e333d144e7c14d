"""A network between client and server that breaks: it cuts answers off, changes bytes, or answers in the server's place."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

BUFFER = 16 * 1024


class CuttingProxy:
    """``cuts``: after how many bytes of an answer the next connections break, one each. ``changed``: what becomes of an answer's bytes.

    ``answers``: whole answers that the next connections get instead of the server's. ``tls``: it talks TLS to clients.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self._target = urlsplit(url).hostname, urlsplit(url).port
        self.cuts: list[int] = []
        self.answers: list[bytes] = []
        self.changed: Callable[[bytes], bytes] = lambda data: data
        self.requests = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'https' if tls else 'http'}://localhost:{self._listening.getsockname()[1]}"
        self._tls = tls

    def run(self) -> None:
        with suppress(OSError):  # closed: the end
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), self._tls.wrap_socket(client, server_side=True) if self._tls else client as client:
            request = _request(client)
            if not request:
                return
            self.requests += 1
            if self.answers:
                client.sendall(self.answers.pop(0))
                return
            cut = self.cuts.pop(0) if self.cuts else None
            with socket.create_connection(self._target) as server, suppress(OSError):
                server.sendall(request.replace(b"Connection: keep-alive", b"Connection: close").replace(b"connection: keep-alive", b"connection: close"))
                passed = 0
                while data := server.recv(BUFFER):
                    passed += len(data)
                    if cut is not None and passed > cut:
                        client.sendall(data[: len(data) - (passed - cut)])
                        return
                    client.sendall(self.changed(data))


def _request(client: socket.socket) -> bytes:
    """Head and body; nothing where nobody asked."""
    request = b""
    while (end := request.find(b"\r\n\r\n")) < 0:
        data = client.recv(BUFFER)
        if not data:
            return b""
        request += data
    length = re.search(rb"content-length: *(\d+)", request[:end], re.IGNORECASE)
    missing = end + 4 + (int(length[1]) if length else 0) - len(request)
    while missing > 0 and (data := client.recv(BUFFER)):
        request += data
        missing -= len(data)
    return request


@contextmanager
def cutting_proxy(url: str, tls: ssl.SSLContext | None = None) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(url, tls)
    thread = threading.Thread(target=proxy.run, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
