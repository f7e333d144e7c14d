"""What can go wrong in the workers, by name. Messages hold UIDs, names of segmenters and numbers, never a person's data."""

from __future__ import annotations


class WorkerError(Exception):
    """The root of the workers' errors."""


class BrokerNeeded(WorkerError):
    """Raised when several worker processes are asked for, or one without dispatcher, and messages could not travel between them."""


class SegmenterUnknown(WorkerError):
    """Raised when a segmenter is named that is not installed."""


class SegmenterNotReady(WorkerError):
    """Raised when a segmenter lacks something that it needs (weights, a package): the request stands until it is there."""


class SegmentationTimedOut(WorkerError):
    """Raised when segmenting a series took longer than the time limit; its process was ended."""


class SegmentationCrashed(WorkerError):
    """Raised when the process that segments died under a series."""


class SegmentationInterrupted(WorkerError):
    """Raised when the worker stops before a series was done: the request stands."""


class SegmentationFailed(WorkerError):
    """Raised when a segmenter raised an error; ``error`` is the name of its class."""

    def __init__(self, error: str) -> None:
        super().__init__(f"the segmenter raised {error}")
        self.error = error


class HeadersMissing(WorkerError):
    """Raised when the headers of a series cannot be opened any more, because its subject was erased."""


class NotIndexable(WorkerError):
    """Raised when a series cannot be indexed for a reason that lies in the series; ``reason`` as in IndexingRefused."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
