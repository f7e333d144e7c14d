"""Who sits at the command line: the person behind an access token, which is never an argument (those are seen by everybody)."""

from __future__ import annotations

import os

import typer

from domain.principal import PrincipalKind
from eventlog.log import EventLog
from server.auth.principals import Authenticated
from server.auth.tokens import TokenVerifier
from server.errors import ScopeMissing, TokenInvalid

TOKEN_VARIABLE = "ANAMNESIS_TOKEN"  # noqa: S105  (its name)


def ask_for_token() -> str:
    """From the environment, or typed without an echo. Ask before any event loop runs."""
    return os.environ.get(TOKEN_VARIABLE) or str(typer.prompt("Access token", hide_input=True))


async def person(log: EventLog, token: str, scope: str) -> Authenticated:
    """Raises TokenInvalid (also for a device's token) and ScopeMissing."""
    grant = await TokenVerifier(log.pool).verify(token.strip())
    authenticated = Authenticated(principal=grant.principal, scopes=grant.scopes)
    if grant.principal.kind is not PrincipalKind.PERSON:
        raise TokenInvalid("this takes the token of a person, and it is a device's")
    if not authenticated.may(scope):
        raise ScopeMissing(scope)
    return authenticated
