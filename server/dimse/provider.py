"""The service class provider by its settings: which lane, where, for whom, with TLS or without."""

from __future__ import annotations

import ssl

from server.dimse.fast_lane import FastLane
from server.dimse.pynetdicom_lane import PynetdicomLane
from server.dimse.reception import Receiver
from server.settings import ServerSettings

Lane = FastLane | PynetdicomLane


def lane(settings: ServerSettings, receiver: Receiver) -> Lane:
    """Not started yet. Raises OSError when the port is taken."""
    kind = FastLane if settings.dimse_lane == "fast" else PynetdicomLane
    return kind(
        receiver,
        host=settings.dimse_host,
        port=settings.dimse_port,
        allowed_ae_titles=frozenset(settings.allowed_ae_titles),
        max_associations=settings.max_associations,
        tls=_tls(settings),
    )


def _tls(settings: ServerSettings) -> ssl.SSLContext | None:
    """BCP 195 as Python's defaults have it (PS3.15, B.9); with a CA, senders must show a certificate."""
    if settings.dimse_tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.dimse_tls_certificate, settings.dimse_tls_key)
    if settings.dimse_tls_ca is not None:
        context.load_verify_locations(settings.dimse_tls_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
