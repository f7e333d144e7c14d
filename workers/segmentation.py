"""Segments series in a child process, one at a time; the child is ended when it takes too long or the worker stops."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from domain.series import DicomJson
from workers.errors import (
    NotIndexable,
    SegmentationCrashed,
    SegmentationFailed,
    SegmentationInterrupted,
    SegmentationTimedOut,
    SegmenterNotReady,
)
from workers.segmentation_child import Answer, Describe, Description, Failed, Indexed, IndexSeries, NotIndexed, Order

DESCRIBE_LIMIT_S = 120.0
"""The first description imports the segmenter's libraries."""


class Segmentation:
    """Safe from several threads: their orders wait for one another. Synchronous: call it from a thread."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._closed = False
        self._versions: dict[str, str] = {}

    def version(self, segmenter: str) -> str:
        """The segmenter's version. Raises SegmenterNotReady, and what a crash raises; a segmenter that was ready is not asked again."""
        if segmenter not in self._versions:
            described = self._ask(Describe(segmenter), DESCRIBE_LIMIT_S)
            if not isinstance(described, Description):
                raise _error(described)
            if described.problem is not None:
                raise SegmenterNotReady(f"{segmenter} cannot run: {described.problem}")
            self._versions[segmenter] = described.version
        return self._versions[segmenter]

    def index(self, segmenter: str, files: Sequence[Path], headers: Sequence[DicomJson], *, time_limit_s: float) -> Indexed:
        """Findings and run. The time that other series take before it does not count.

        Raises NotIndexable, SegmenterNotReady, SegmentationFailed, SegmentationTimedOut, SegmentationCrashed,
        SegmentationInterrupted.
        """
        answer = self._ask(IndexSeries(segmenter, [str(f) for f in files], list(headers)), time_limit_s)
        if not isinstance(answer, Indexed):
            raise _error(answer)
        return answer

    def close(self) -> None:
        """Ends the child, whatever it does."""
        self._closed = True
        child = self._child
        if child is not None:
            child.kill()
            child.wait()

    def _ask(self, order: Order, time_limit_s: float) -> Answer:
        with self._turn:
            connection = self._started()
            try:
                connection.send_bytes(msgspec.msgpack.encode(order))
                if not connection.poll(time_limit_s):
                    self._end_child()
                    raise SegmentationTimedOut(f"{order.segmenter} took longer than {time_limit_s:.0f} s")
                return msgspec.msgpack.decode(connection.recv_bytes(), type=Answer)
            except (EOFError, OSError) as error:
                self._end_child()
                if self._closed:
                    raise SegmentationInterrupted("the worker stops") from None
                raise SegmentationCrashed(f"the process of {order.segmenter} died ({type(error).__name__})") from None

    def _started(self) -> Connection:
        if self._closed:
            raise SegmentationInterrupted("the worker stops")
        if self._child is not None and self._child.poll() is not None:
            self._end_child()
        if self._connection is None:
            ours, theirs = socket.socketpair()
            with theirs:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", "workers.segmentation_child", str(theirs.fileno()), str(os.getpid())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONUNBUFFERED": "1"},
                    start_new_session=True,  # Ctrl-C is for the worker, which then ends this child in its own time
                )
            self._connection = Connection(ours.detach())
            if self._closed:  # meanwhile: `close` saw no child yet
                self._end_child()
                raise SegmentationInterrupted("the worker stops")
        return self._connection

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        if self._connection is not None:
            self._connection.close()
        self._child = self._connection = None
        self._versions.clear()


def _error(answer: Answer) -> Exception:
    match answer:
        case NotIndexed(reason, detail):
            return NotIndexable(reason, detail)
        case Description(_, problem):
            return SegmenterNotReady(problem or "it does not say why")
        case Failed(error):
            return SegmentationFailed(error)
    return SegmentationFailed(f"unexpected {type(answer).__name__}")
