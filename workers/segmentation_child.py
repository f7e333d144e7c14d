"""`python -m workers.segmentation_child FD PARENT`: reads volumes and segments them, one at a time, until its parent is gone.

A process of its own, because a segmenter may run out of memory, crash in native code, or never end: none of these takes
the worker with it, and what it changes process-wide (standard output, torch's threads) stays here. It neither reads nor
writes the log; what it is told and what it answers goes over a socket pair.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import warnings
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from domain.findings import Finding
from domain.series import DicomJson, SegmenterRun
from workers.errors import NotIndexable, SegmenterNotReady, SegmenterUnknown
from workers.segmenters.protocol import Segmenter, index, load

WATCH_PARENT_S = 1.0


class Describe(msgspec.Struct, frozen=True, tag=True):
    """Which version of this segmenter is here, and can it run?"""

    segmenter: str


class IndexSeries(msgspec.Struct, frozen=True, tag=True):
    """Segment these files; ``headers[i]`` is the header of ``files[i]``."""

    segmenter: str
    files: list[str]
    headers: list[DicomJson]


class Description(msgspec.Struct, frozen=True, tag=True):
    """``problem`` says why it cannot run here."""

    version: str
    problem: str | None


class Indexed(msgspec.Struct, frozen=True, tag=True):
    findings: list[Finding]
    run: SegmenterRun


class NotIndexed(msgspec.Struct, frozen=True, tag=True):
    """The series cannot be indexed: ``reason`` is a code."""

    reason: str
    detail: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """``error`` is the name of a class: the text of an error may hold a person's data."""

    error: str


Order = Describe | IndexSeries
Answer = Description | Indexed | NotIndexed | Failed


def main() -> None:
    # Told, and not asked for: the parent may be gone by the time this runs.
    threading.Thread(target=_end_with_parent, args=(int(sys.argv[2]),), daemon=True).start()
    warnings.simplefilter("ignore")
    connection = Connection(int(sys.argv[1]))
    # Libraries print; nothing of it may reach a log.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        while True:
            try:
                order = msgspec.msgpack.decode(connection.recv_bytes(), type=Order)
            except EOFError:
                return
            connection.send_bytes(msgspec.msgpack.encode(_answer(order)))


def _answer(order: Order) -> Answer:
    try:
        segmenter = _loaded(order.segmenter)
        if isinstance(order, Describe):
            return Description(segmenter.version, segmenter.problem())
        return _index(segmenter, order)
    except (SegmenterUnknown, SegmenterNotReady) as error:
        return Description("", str(error))
    except NotIndexable as error:
        return NotIndexed(error.reason, error.detail)
    except (Exception, SystemExit) as error:  # TotalSegmentator raises SystemExit for a missing path
        return Failed(type(error).__name__)


def _index(segmenter: Segmenter, order: IndexSeries) -> Answer:
    from workers.volume import read_volume

    findings, run = index(read_volume([Path(f) for f in order.files], order.headers), segmenter)
    return Indexed(findings, run)


@cache
def _loaded(name: str) -> Segmenter:
    return load(name)


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_PARENT_S)
    os._exit(1)


if __name__ == "__main__":
    main()
