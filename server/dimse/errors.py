"""What can go wrong on an association, by name."""

from __future__ import annotations


class DimseError(Exception):
    """The root of the errors of an association."""


class PeerGone(DimseError):
    """Raised when the peer closed or broke the connection, or fell silent."""


class ProtocolError(DimseError):
    """Raised when the peer sends what PS3.8 does not allow; the association is aborted."""


class AssociationRejected(DimseError):
    """Raised when an association is not accepted: result, source and reason as in PS3.8, table 9-21."""

    def __init__(self, why: str, result: int, source: int, reason: int) -> None:
        super().__init__(why)
        self.is_permanent = result == 1
        self.pdu = bytes([3, 0, 0, 0, 0, 4, 0, result, source, reason])


class DimseProcessFailed(DimseError):
    """Raised when the process that serves DIMSE does not start."""
