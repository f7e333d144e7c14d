"""Page links: opaque, sealed, and good after a restart. A link holds the position of the first page, so pages are a snapshot.

The same page has the same link, so that an answer as of a position is the same bytes whenever it is asked for. AES-SIV
(RFC 5297) is made for that: what it tells is that two links are equal, and nothing else of the search.
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from eventlog.vault import Vault
from server.fhir.outcome import FhirError

_PURPOSES = ("fhir page links: authentication", "fhir page links: encryption")
"""AES-256-SIV has two keys of 32 bytes."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A search, or a history (``resource_type`` is then its whole path), and how far it has been read.

    ``total`` is counted once, for the first page; None where it is not told.
    """

    resource_type: str
    parameters: list[tuple[str, str]]
    position: int
    count: int
    total: int | None
    after: str = ""
    access: str = ""
    """Name of what was within reach of who asked (see server.fhir.access)."""


def seal_page(vault: Vault, page: Page) -> str:
    """The link's text: nothing of the search can be read from it."""
    sealed = _cipher(vault).encrypt(msgspec.msgpack.encode(page), None)
    return base64.urlsafe_b64encode(sealed).decode("ascii").rstrip("=")


def open_page(vault: Vault, text: str) -> Page:
    """Raises FhirError (400) when the link is not one of ours."""
    try:
        sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.msgpack.decode(_cipher(vault).decrypt(sealed, None), type=Page)
    except (InvalidTag, ValueError, binascii.Error, msgspec.DecodeError):
        raise FhirError(400, "value", "this page link is not one of ours: search again", "http._page") from None


@lru_cache(maxsize=8)
def _cipher(vault: Vault) -> AESSIV:
    return AESSIV(b"".join(vault.derive(purpose) for purpose in _PURPOSES))
