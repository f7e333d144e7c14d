"""Electronic signatures: who may sign with which key, and what was signed with which meaning (21 CFR 11.50, 11.70)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

import msgspec

from domain.errors import AlreadySigned, NotSignable, SignerUnknown
from domain.event import Event, Identifying, event
from domain.principal import Principal, PrincipalKind

SIGNABLE = frozenset({"FindingReviewed"})
"""Types of events that are acts of judgement; a release will be one."""


class Meaning(StrEnum):
    """What a signer states by the signature (21 CFR 11.50 (a)(3))."""

    AUTHORSHIP = "authorship"
    REVIEW = "review"
    APPROVAL = "approval"
    RESPONSIBILITY = "responsibility"


@event
class SignerEnrolled(Event, frozen=True, kw_only=True):
    """A person's own signing key. The printed name is sealed under the signer's pseudonym, as a patient's is."""

    principal_id: str
    key_id: str
    public_key: str
    """Ed25519, 32 bytes in base64."""
    subject_id: str
    printed_name: Identifying[str] = ""


@event
class SignerRevoked(Event, frozen=True, kw_only=True):
    """The key signs no more. What it signed before stays signed."""

    principal_id: str
    key_id: str


@event
class EventSigned(Event, frozen=True, kw_only=True):
    """A signature over an event's digest. Lives in the stream of the event that it signs."""

    signed_event_id: str
    signed_type: str
    signed_digest: str
    """64 hexadecimal digits."""
    meaning: Meaning
    principal_id: str
    key_id: str
    signed_at: datetime
    signature: str
    """JWS in compact form (RFC 7515), alg EdDSA (RFC 8037), over the canonical JSON of what is stated here."""
    about: list[str]
    """Scope of the signed event, and so of this one."""

    def scope(self) -> frozenset[str]:
        return frozenset(self.about)


class Signer(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a signer's stream: the key that signs now, if any."""

    key_id: str | None = None


def evolve_signer(state: Signer, happened: Event) -> Signer:
    match happened:
        case SignerEnrolled():
            return Signer(key_id=happened.key_id)
        case SignerRevoked():
            return Signer()
    return state


def enroll(state: Signer, command: SignerEnrolled, principal: Principal) -> list[Event]:
    """A new key ends the one before. Raises NotSignable for a device, and for whoever acts for another."""
    _refuse_all_but_persons(principal)
    before: list[Event] = [SignerRevoked(principal_id=command.principal_id, key_id=state.key_id)] if state.key_id else []
    return [*before, command]


def revoke(state: Signer, principal_id: str) -> list[Event]:
    """Raises SignerUnknown when there is no key to revoke."""
    if state.key_id is None:
        raise SignerUnknown(f"{principal_id} has no signing key")
    return [SignerRevoked(principal_id=principal_id, key_id=state.key_id)]


_NOTHING: Mapping[str, frozenset[tuple[str, Meaning]]] = MappingProxyType({})


class Signatures(msgspec.Struct, frozen=True, kw_only=True):
    """Which events of a stream are signed: event id → who signed with which meaning."""

    signed: Mapping[str, frozenset[tuple[str, Meaning]]] = _NOTHING


def evolve_signatures(state: Signatures, happened: Event) -> Signatures:
    if not isinstance(happened, EventSigned):
        return state
    before = state.signed.get(happened.signed_event_id, frozenset())
    return Signatures(signed={**state.signed, happened.signed_event_id: before | {(happened.principal_id, happened.meaning)}})


def sign(state: Signatures, signature: EventSigned, principal: Principal) -> list[Event]:
    """Raises NotSignable, and AlreadySigned where this person has signed this event with this meaning."""
    _refuse_all_but_persons(principal)
    if signature.signed_type not in SIGNABLE:
        raise NotSignable(f"{signature.signed_type} is not an act that is signed: {', '.join(sorted(SIGNABLE))} are")
    if (signature.principal_id, signature.meaning) in state.signed.get(signature.signed_event_id, frozenset()):
        raise AlreadySigned(f"{signature.principal_id} has signed event {signature.signed_event_id} for {signature.meaning} before")
    return [signature]


def _refuse_all_but_persons(principal: Principal) -> None:
    if principal.kind is not PrincipalKind.PERSON or principal.on_behalf_of is not None:
        raise NotSignable("only a person signs, and for nobody else (21 CFR 11.100)")
