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


class ScopeUnusable(ScopeMissing):
    """Raised when a scope of SMART says what cannot be held to: nothing is answered, rather than more than was meant."""

    def __init__(self, scope: str, why: str) -> None:
        super().__init__(scope)
        self.args = (f"the scope {scope} cannot be used: {why}",)


class ErasureWaits(ServerError):
    """Raised when an erasure cannot be carried out to its end now. It goes on when what it waits for is mended."""


class PassphraseTooShort(ServerError):
    """Raised when a signing passphrase would be too easy to guess."""


class PassphraseWrong(ServerError):
    """Raised when a signer did not authenticate again: nothing was signed."""


class SignerLocked(ServerError):
    """Raised after too many wrong passphrases, until some minutes have passed."""


class NothingToExport(ServerError):
    """Raised when no event of the log is about what an auditor asks for."""


class NothingKnown(ServerError):
    """Raised when an auditor asks for something of which the log says nothing."""


class DestinationTaken(ServerError):
    """Raised when something is to be written where something is already."""


class ProofImpossible(ServerError):
    """Raised when a proof is asked of a position, or between sizes, for which there can be none."""


class EventMissing(ServerError):
    """Raised when an event that was sealed is not in the database any more: run `anamnesis audit check`."""
