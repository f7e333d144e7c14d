"""What can go wrong with exports of datasets beyond what the domain refuses (domain.dataset.permit_export)."""

from __future__ import annotations

from server.errors import ServerError


class ExportRefused(ServerError):
    """Raised when an export is asked for that cannot be: no layout, a field that tables cannot have, a number that nnU-Net has not."""


class ExportUnknown(ServerError):
    """Raised when there is no such export, or it is another's."""


class ExportFailed(ServerError):
    """Raised when an export could not be made; the message says why, and whether it can go on."""
