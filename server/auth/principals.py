"""Every request has a principal: the dependency that each router declares, with the scope that it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request

from domain.principal import Principal, PrincipalKind
from server.auth.oidc import OidcVerifier
from server.auth.scopes import grants
from server.auth.smart_scopes import SmartScope
from server.auth.tokens import PREFIX, TokenVerifier
from server.errors import ScopeMissing, TokenInvalid

PROBE = Principal(id="probe:health", kind=PrincipalKind.DEVICE)
"""Who asks for health: orchestrators carry no token, and the answer is one word that says nothing of the data."""


class Authenticated(msgspec.Struct, frozen=True, kw_only=True):
    """What of FHIR is within the reach of ``scopes``, ``smart`` and ``patient`` tells server.fhir.access."""

    principal: Principal
    scopes: frozenset[str]
    smart: tuple[SmartScope, ...] = ()
    patient: str | None = None

    def may(self, scope: str) -> bool:
        """Whether it has a scope of our own. No scope of SMART stands for one."""
        return grants(self.scopes, scope)

    def may_some(self, interactions: str) -> bool:
        """Whether a scope of SMART permits one of these interactions (letters of `cruds`) on some resource."""
        return any(letter in one.interactions for one in self.smart for letter in interactions)


class Verifiers(msgspec.Struct, frozen=True, kw_only=True):
    """What tokens are checked against; the issuer only where one is set."""

    tokens: TokenVerifier
    oidc: OidcVerifier | None = None

    async def verify(self, token: str) -> Authenticated:
        """Raises TokenInvalid."""
        verifier = self.tokens if token.startswith(PREFIX) or self.oidc is None else self.oidc
        grant = await verifier.verify(token)
        return Authenticated(principal=grant.principal, scopes=grant.scopes, smart=grant.smart, patient=grant.patient)


def requires(scope: str, or_some: str = "") -> Callable[[Request], Awaitable[Authenticated]]:
    """A FastAPI dependency: the request's principal. Raises TokenInvalid (401), ScopeMissing (403).

    ``or_some``: letters of `cruds`. A scope of SMART that permits one of them on some resource serves too: the route then asks
    server.fhir.access what it may do to which.
    """

    async def authenticate(request: Request) -> Authenticated:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise TokenInvalid("the request carries no bearer token: make one with `anamnesis token create`")
        verifiers: Verifiers = request.app.state.services.verifiers
        authenticated = await verifiers.verify(token.strip())
        request.state.authenticated = authenticated
        if not authenticated.may(scope) and not authenticated.may_some(or_some):
            raise ScopeMissing(scope)
        return authenticated

    return authenticate


def probe(request: Request) -> None:
    """The dependency of the health routes: anybody, as the probe principal."""
    request.state.authenticated = Authenticated(principal=PROBE, scopes=frozenset())
