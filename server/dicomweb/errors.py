"""What can go wrong in a DICOMweb request, by name, each with the status that the standard gives it (PS3.18, 8.5).

Messages name attributes, parameters, UIDs of the path and media types; never a value that was searched for.
"""

from __future__ import annotations


class DicomWebError(Exception):
    """The root. ``status`` is the HTTP status, ``title`` what the kind of problem is called."""

    status = 500
    title = "The server failed"


class QueryInvalid(DicomWebError):
    """Raised when a query parameter is unknown or its value is not of the form that the attribute has."""

    status = 400
    title = "The query is not valid"


class RequestInvalid(DicomWebError):
    """Raised when the path or the body names something that cannot be, such as frame 0."""

    status = 400
    title = "The request is not valid"


class TargetNotFound(DicomWebError):
    """Raised when the study, series, instance or frame does not exist."""

    status = 404
    title = "Not found"


class NotAcceptable(DicomWebError):
    """Raised when no media type or transfer syntax that the client accepts can be given."""

    status = 406
    title = "No acceptable representation"


class NotRenderable(DicomWebError):
    """Raised when an instance has no pixels that could become a picture, or they cannot be decoded."""

    status = 406
    title = "Cannot be rendered"


class BytesMissing(DicomWebError):
    """Raised when the log knows an instance whose bytes the archive does not have."""

    status = 500
    title = "The archive lacks a file"
