"""Page links: opaque, sealed, and good after a restart. A link holds the position of the first page, so pages are a snapshot."""

from __future__ import annotations

import base64
import binascii
import secrets

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from eventlog.vault import Vault
from server.fhir.outcome import FhirError

_PURPOSE = "fhir page links"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A search and how far it has been read."""

    resource_type: str
    parameters: list[tuple[str, str]]
    position: int
    count: int
    total: int
    after: str = ""


def seal_page(vault: Vault, page: Page) -> str:
    """The link's text: nothing of the search can be read from it."""
    nonce = secrets.token_bytes(12)
    sealed = AESGCM(vault.derive(_PURPOSE)).encrypt(nonce, msgspec.msgpack.encode(page), None)
    return base64.urlsafe_b64encode(nonce + sealed).decode("ascii").rstrip("=")


def open_page(vault: Vault, text: str) -> Page:
    """Raises FhirError (400) when the link is not one of ours."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.msgpack.decode(AESGCM(vault.derive(_PURPOSE)).decrypt(raw[:12], raw[12:], None), type=Page)
    except (InvalidTag, ValueError, binascii.Error, msgspec.DecodeError):
        raise FhirError(400, "value", "this page link is not one of ours: search again", "http._page") from None
