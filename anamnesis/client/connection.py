"""How a server is reached: its address, the token, TLS, time limits and how often something is tried again."""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx

from anamnesis.client.asking import Ask
from anamnesis.client.errors import PlainTextRefused, TokenRefused

SERVER_VARIABLE = "ANAMNESIS_SERVER"
TOKEN_VARIABLE = "ANAMNESIS_TOKEN"  # noqa: S105  (its name)
DEFAULT_SERVER = "http://127.0.0.1:8080"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """``server``: its URL, from ANAMNESIS_SERVER without one. The token: as given, from a file, or from ANAMNESIS_TOKEN.

    ``ca``: file (PEM) with the certificates that the server's has to be signed by; the machine's own without. Times in seconds.
    """

    server: str
    token: str
    ca: Path | None = None
    timeout_s: float = 60.0
    attempts: int = 5

    @classmethod
    def of(
        cls,
        server: str | None = None,
        *,
        token: str | None = None,
        token_file: Path | str | None = None,
        ca: Path | str | None = None,
        timeout_s: float = 60.0,
        attempts: int = 5,
        allow_plain_text: bool = False,
    ) -> Connection:
        """Raises TokenRefused where there is none, and PlainTextRefused where it would go over a network in the clear."""
        url = httpx.URL(server or os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVER)
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"{url} is no address of a server: write it as https://anamnesis.example")
        if url.scheme == "http" and not allow_plain_text and not _is_loopback(url.host):
            raise PlainTextRefused(f"a token would go to {url.host} in plain text: use https://")
        found = token or (Path(token_file).read_text(encoding="utf-8") if token_file else os.environ.get(TOKEN_VARIABLE, ""))
        if not found.strip():
            raise TokenRefused(f"no token: give one, the file of one, or set {TOKEN_VARIABLE}")
        return cls(server=str(url).rstrip("/"), token=found.strip(), ca=Path(ca) if ca else None, timeout_s=timeout_s, attempts=attempts)

    def __repr__(self) -> str:
        return f"<Connection {self.server}>"

    @property
    def tls(self) -> ssl.SSLContext | bool:
        return ssl.create_default_context(cafile=str(self.ca)) if self.ca else True

    @property
    def timeout(self) -> httpx.Timeout:
        return httpx.Timeout(self.timeout_s, connect=min(10.0, self.timeout_s))

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "User-Agent": "anamnesis-client"}

    def request(self, http: httpx.Client | httpx.AsyncClient, ask: Ask) -> httpx.Request:
        params = {name: value for name, value in ask.params.items() if value is not None}
        return http.build_request(ask.method, ask.path, params=params, json=ask.body, headers={"Accept": ask.accept, **ask.headers})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
