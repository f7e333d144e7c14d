"""Association negotiation, by pynetdicom: what is proposed, what we accept, and the A-ASSOCIATE-AC that says so (PS3.8, 7.1)."""

from __future__ import annotations

from functools import cache

import msgspec
from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts, _config
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_context, negotiate_as_acceptor

from archive.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from server.dimse.errors import AssociationRejected, ProtocolError

MAX_PDU_BYTES = 262_144
"""The longest P-DATA-TF that we ask for (PS3.8, D.1): large ones cost less for each byte."""
VERIFICATION = "1.2.840.10008.1.1"
_TRANSFER_SYNTAXES = [UID(uid) for uid in ALL_TRANSFER_SYNTAXES]


class Association(msgspec.Struct, frozen=True, kw_only=True):
    """What was agreed. ``contexts``: presentation context id → (abstract syntax, transfer syntax)."""

    calling_ae_title: str
    called_ae_title: str
    peer_max_pdu: int
    contexts: dict[int, tuple[str, str]]


@cache
def supported_contexts() -> list[PresentationContext]:
    """Verification and every storage SOP class that pynetdicom knows, each with every transfer syntax."""
    storage = [build_context(cx.abstract_syntax, _TRANSFER_SYNTAXES) for cx in AllStoragePresentationContexts]
    return [build_context(VERIFICATION, _TRANSFER_SYNTAXES), *storage]


def read_request(pdu: bytes) -> A_ASSOCIATE:
    """An A-ASSOCIATE-RQ as a primitive. Raises ProtocolError."""
    request = A_ASSOCIATE_RQ()
    try:
        request.decode(pdu)
        return request.to_primitive()
    except Exception as error:  # pynetdicom raises whatever the bytes lead it to
        raise ProtocolError(f"the A-ASSOCIATE-RQ cannot be read ({type(error).__name__})") from error


def accept(request: A_ASSOCIATE, *, allowed: frozenset[str], peer_is_loopback: bool) -> tuple[Association, bytes]:
    """What we agree to, and the A-ASSOCIATE-AC to send. Raises AssociationRejected."""
    calling, called = str(request.calling_ae_title).strip(), str(request.called_ae_title).strip()
    if (allowed and calling not in allowed) or (not allowed and not peer_is_loopback):
        raise AssociationRejected("the calling AE title is not on the list", 1, 1, 3)
    roles = {
        item.sop_class_uid: (item.scu_role, item.scp_role)
        for item in request.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
    }
    results, role_answers = negotiate_as_acceptor(request.presentation_context_definition_list, supported_contexts(), roles)
    answer = A_ASSOCIATE()
    answer.application_context_name = request.application_context_name or "1.2.840.10008.3.1.1.1"
    answer.calling_ae_title = request.calling_ae_title
    answer.called_ae_title = request.called_ae_title
    answer.result = 0x00
    answer.result_source = 0x01
    answer.presentation_context_definition_results_list = results
    answer.user_information = [*_user_information(), *role_answers]
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(answer)
    agreed = {
        cx.context_id: (str(cx.abstract_syntax), str(cx.transfer_syntax[0]))
        for cx in results
        if cx.result == 0x00 and cx.context_id is not None
    }
    largest = next((i.maximum_length_received for i in request.user_information if isinstance(i, MaximumLengthNotification)), 0)
    association = Association(
        calling_ae_title=calling, called_ae_title=called, peer_max_pdu=largest or MAX_PDU_BYTES, contexts=agreed
    )
    return association, pdu.encode()


def _user_information() -> list[object]:
    length = MaximumLengthNotification()
    length.maximum_length_received = MAX_PDU_BYTES
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [length, implementation, version]


_config.LOG_HANDLER_LEVEL = "none"  # its own log lines hold identifiers of what is sent
