"""The same service on pynetdicom alone: slower, and the reference that the fast lane is tested against."""

from __future__ import annotations

import ipaddress
import logging
import ssl
from typing import Any

from pynetdicom import AE, evt

from archive.errors import SpoolFull
from archive.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from server.dimse.negotiation import MAX_PDU_BYTES, supported_contexts
from server.dimse.reception import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, SUCCESS, Receiver

_logger = logging.getLogger(__name__)


class PynetdicomLane:
    """Listens from `start` to `stop`."""

    def __init__(
        self,
        receiver: Receiver,
        *,
        host: str,
        port: int,
        allowed_ae_titles: frozenset[str] = frozenset(),
        max_associations: int = 32,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._receiver = receiver
        self._address = (host, port)
        self._tls = tls
        self._allowed = allowed_ae_titles
        self._loopback_only = not allowed_ae_titles
        self._ae = AE()
        self._ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self._ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._ae.maximum_pdu_size = MAX_PDU_BYTES
        self._ae.maximum_associations = max_associations
        self._ae.require_calling_aet = sorted(allowed_ae_titles)
        for context in supported_contexts():
            self._ae.add_supported_context(context.abstract_syntax, context.transfer_syntax)
        self._server: Any = None
        self.port = port

    def start(self) -> None:
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_CONN_OPEN, self._opened), (evt.EVT_CONN_CLOSE, self._closed)]
        handlers.append((evt.EVT_REJECTED, self._rejected))
        self._server = self._ae.start_server(self._address, block=False, evt_handlers=handlers, ssl_context=self._tls)
        self.port = self._server.socket.getsockname()[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()

    def _opened(self, event: evt.Event) -> None:
        if self._loopback_only and not ipaddress.ip_address(event.address[0]).is_loopback:
            self._receiver.refused()
            event.assoc.abort()

    def _rejected(self, event: evt.Event) -> None:
        if self._allowed and str(event.assoc.requestor.ae_title).strip() not in self._allowed:  # and not for being one too many
            self._receiver.refused()

    def _closed(self, event: evt.Event) -> None:
        self._receiver.ended()

    def _store(self, event: evt.Event) -> int:
        request = event.request
        try:
            with self._receiver.begin(
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                sender=str(event.assoc.requestor.ae_title).strip(),
            ) as reception:
                reception.write(request.DataSet.getvalue())
                spooled = reception.commit()
        except SpoolFull:
            return OUT_OF_RESOURCES
        except OSError:
            _logger.exception("an instance could not be made durable")
            return CANNOT_UNDERSTAND
        self._receiver.accepted(spooled)
        return SUCCESS
