"""What can go wrong between a program and the server, by name."""

from __future__ import annotations


class AnamnesisError(Exception):
    """The root of the client's errors.

    ``code`` is the server's own word for what is wrong (FIELD_UNKNOWN, …) where it said one; ``status`` the status of HTTP.
    """

    def __init__(self, message: str, *, code: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class ServerUnreachable(AnamnesisError):
    """Raised when nobody answers, or an answer breaks off, after every attempt."""


class ServerFailed(AnamnesisError):
    """Raised when the server says that it failed, or is too busy, after every attempt."""


class TokenRefused(AnamnesisError):
    """Raised when there is no token, or the server knows it not, or no longer."""


class NotPermitted(AnamnesisError):
    """Raised when the token's scopes do not reach as far as what was asked."""


class PlainTextRefused(AnamnesisError):
    """Raised before a token would go over the network in plain text: use https://."""


class NotFound(AnamnesisError):
    """Raised when there is no such thing as of the position asked for, or it was erased."""


class QuestionRefused(AnamnesisError):
    """Raised when the server cannot answer a question as it was asked; ``code`` and the message say why."""


class FieldUnknown(QuestionRefused):
    """Raised when a field is neither one of the server's own nor a DICOM element."""


class FieldRefused(QuestionRefused):
    """Raised when a field cannot be asked so: a range of text, a histogram of codes, a value of the wrong kind."""


class PositionUnknown(QuestionRefused):
    """Raised when a position is asked for that the server has not reached."""


class ConditionUnreadable(AnamnesisError, ValueError):
    """Raised when the text of a condition cannot be read; ``column`` says where, from 1."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(f"{message} (column {column})")
        self.column = column


class BytesDiffer(AnamnesisError):
    """Raised when what arrived is not, byte for byte, what the server says that it sent."""


class ExportFailed(AnamnesisError):
    """Raised when an export could not be made, or is gone since a person was erased; ``code`` says why, the message what to do."""


class GeometryRefused(AnamnesisError):
    """Raised when slices do not make a volume: one is missing, or twice there, or the gantry was tilted; ``code`` names which."""


class PackageMissing(AnamnesisError, ImportError):
    """Raised when something needs a package that is not installed: `pip install "anamnesis[client]"`."""
