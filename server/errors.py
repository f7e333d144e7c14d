"""What can go wrong at the server's edge, by name."""

from __future__ import annotations


class ServerError(Exception):
    """The root of the server's errors."""


class SettingRefused(ServerError):
    """Raised when a setting would be unsafe, or makes no sense; the message names it and says what to do."""


class TokenInvalid(ServerError):
    """Raised when a request carries no token, or one that is unknown, expired or revoked."""


class ScopeMissing(ServerError):
    """Raised when a principal may not do what it asks."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"this needs the scope {scope}")
        self.scope = scope
