"""C-STORE straight to the spool: one thread an association, one buffer, no object for each PDU.

pynetdicom's own receive path polls with 1 ms sleeps in two threads an association and builds objects for every PDU; this one
takes a third of its CPU for the same files (docs/benchmarks.md). Negotiation is pynetdicom's; `pynetdicom_lane` is
the same service on pynetdicom alone, and the same tests run against both.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import ssl
import struct
import threading

from archive.errors import SpoolFull
from archive.spool import Reception
from server.dimse.errors import AssociationRejected, DimseError, PeerGone, ProtocolError
from server.dimse.negotiation import VERIFICATION, Association, accept, read_request
from server.dimse.reception import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, SUCCESS, Receiver
from server.dimse.wire import (
    ABORT,
    ASSOCIATE_RQ,
    C_ECHO_RQ,
    C_ECHO_RSP,
    C_STORE_RQ,
    C_STORE_RSP,
    MAX_COMMAND_BYTES,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    Command,
    Wire,
    abort,
    read_command,
    response,
)

ARTIM_TIMEOUT_S = 30.0
NETWORK_TIMEOUT_S = 120.0
MAX_PDU_ACCEPTED = 64 * 1024 * 1024
_logger = logging.getLogger(__name__)


class FastLane:
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
        self._allowed = allowed_ae_titles
        self._slots = threading.BoundedSemaphore(max_associations)
        self._tls = tls
        self._listener = socket.create_server((host, port), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._listen, name="dimse-listen", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Closes the listener and every association; what was acknowledged is in the spool."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(5)

    def _listen(self) -> None:
        while True:
            try:
                connection, address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection, address[0]), name="dimse-association", daemon=True).start()

    def _serve(self, connection: socket.socket, peer: str) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(ARTIM_TIMEOUT_S)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with self._lock:
                self._open.add(connection)
            self._associate(connection, peer)
        except (OSError, DimseError) as error:
            _logger.info("an association from %s ended: %s", peer, error if isinstance(error, DimseError) else type(error).__name__)
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _associate(self, connection: socket.socket, peer: str) -> None:
        wire = Wire(connection)
        try:
            kind, length = _pdu_head(wire)
            if kind != ASSOCIATE_RQ:
                raise ProtocolError(f"PDU type {kind:#04x} where an A-ASSOCIATE-RQ must be")
            request = read_request(struct.pack(">BBI", kind, 0, length) + bytes(wire.exactly(length)))
            if not self._slots.acquire(blocking=False):
                raise AssociationRejected("too many associations", 2, 3, 2)
            try:
                loopback = ipaddress.ip_address(peer).is_loopback
                association, answer = accept(request, allowed=self._allowed, peer_is_loopback=loopback)
                wire.send(answer)
                connection.settimeout(NETWORK_TIMEOUT_S)
                _Messages(wire, association, self._receiver).run()
            finally:
                self._slots.release()
                self._receiver.ended()
        except AssociationRejected as rejected:
            if rejected.is_permanent:  # and not for being one too many
                self._receiver.refused()
            wire.send(rejected.pdu)
            raise
        except ProtocolError:
            with contextlib.suppress(PeerGone):
                wire.send(abort(2))
            raise


class _Messages:
    """The messages of one association, one after the other."""

    def __init__(self, wire: Wire, association: Association, receiver: Receiver) -> None:
        self._wire = wire
        self._association = association
        self._receiver = receiver
        self._command_bytes = bytearray()
        self._command: Command | None = None
        self._context_id = 0
        self._reception: Reception | None = None
        self._status = SUCCESS

    def run(self) -> None:
        """Until the peer releases the association. Raises PeerGone, ProtocolError."""
        try:
            while True:
                kind, length = _pdu_head(self._wire)
                if kind == P_DATA:
                    self._p_data(length)
                elif kind == RELEASE_RQ:
                    self._wire.exactly(length)
                    self._wire.send(RELEASE_RP)
                    return
                elif kind == ABORT:
                    raise PeerGone("the peer aborted the association")
                else:
                    raise ProtocolError(f"PDU type {kind:#04x} has no place in an association")
        finally:
            if self._reception is not None:
                self._reception.abort()

    def _p_data(self, length: int) -> None:
        while length > 0:
            if length < 6:
                raise ProtocolError("a P-DATA-TF ends in the head of a value item")
            item_length, context_id, control = struct.unpack(">IBB", self._wire.exactly(6))
            if item_length < 2 or item_length + 4 > length:
                raise ProtocolError(f"a value item claims {item_length} bytes of the {length} that are left")
            length -= item_length + 4
            if context_id not in self._association.contexts:
                raise ProtocolError(f"presentation context {context_id} was not accepted")
            if control & 0x01:
                self._command_fragment(context_id, item_length - 2, last=bool(control & 0x02))
            else:
                self._data_fragment(context_id, item_length - 2, last=bool(control & 0x02))

    def _command_fragment(self, context_id: int, length: int, *, last: bool) -> None:
        if self._command is not None:
            raise ProtocolError("a command where the data set of the last one must be")
        if len(self._command_bytes) + length > MAX_COMMAND_BYTES:
            raise ProtocolError("the command set is too large")
        self._command_bytes += self._wire.exactly(length)
        if not last:
            return
        command = read_command(bytes(self._command_bytes))
        self._command_bytes.clear()
        abstract_syntax, transfer_syntax = self._association.contexts[context_id]
        if command.field == C_ECHO_RQ and abstract_syntax == VERIFICATION:
            self._wire.send(response(context_id, command, C_ECHO_RSP, SUCCESS))
        elif command.field == C_STORE_RQ and command.has_data_set and abstract_syntax != VERIFICATION:
            self._command, self._context_id, self._status = command, context_id, SUCCESS
            try:
                self._reception = self._receiver.begin(
                    sop_class_uid=command.sop_class_uid,
                    sop_instance_uid=command.sop_instance_uid,
                    transfer_syntax_uid=transfer_syntax,
                    sender=self._association.calling_ae_title,
                )
            except SpoolFull:
                self._status = OUT_OF_RESOURCES
        else:
            raise ProtocolError(f"command {command.field:#06x} is not served in this presentation context")

    def _data_fragment(self, context_id: int, length: int, *, last: bool) -> None:
        if self._command is None or context_id != self._context_id:
            raise ProtocolError("a data set without its command")
        while length > 0:
            chunk = self._wire.some(length)
            length -= len(chunk)
            if self._reception is not None:
                try:
                    self._reception.write(chunk)
                except SpoolFull:
                    self._drop(OUT_OF_RESOURCES)
        if last:
            self._finish(self._command)

    def _finish(self, command: Command) -> None:
        spooled = None
        if self._reception is not None:
            try:
                spooled = self._reception.commit()
            except SpoolFull:
                self._drop(OUT_OF_RESOURCES)
            except OSError:
                _logger.exception("an instance could not be made durable")
                self._drop(CANNOT_UNDERSTAND)
        self._reception, self._command = None, None
        try:
            self._wire.send(response(self._context_id, command, C_STORE_RSP, self._status))
        finally:
            if spooled is not None:  # it is safe, whether its sender hears of it or not
                self._receiver.accepted(spooled)

    def _drop(self, status: int) -> None:
        assert self._reception is not None
        self._reception.abort()
        self._reception = None
        self._status = status


def _pdu_head(wire: Wire) -> tuple[int, int]:
    kind, _, length = struct.unpack(">BBI", wire.exactly(6))
    if length > MAX_PDU_ACCEPTED:
        raise ProtocolError(f"a PDU claims {length} bytes")
    return kind, length
