"""What Bulk Data exports are asked for, and how far each has come (server.exports.jobs keeps them)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from eventlog.log import EventLog
from server.auth.principals import Authenticated
from server.exports import jobs

FOLDER = "exports"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is exported, to whom, and as of when.

    ``since``: only what was made beyond this position. ``patients``: only what is in the compartments of these. ``filters``: by type,
    the searches of which one has to find a resource.
    """

    reader: Authenticated
    route: str
    request: str
    level: str
    schema: str
    """Of the read model that it is made from: another one's keys would be other places."""
    position: int
    transaction_time: datetime
    types: tuple[str, ...]
    since: int | None = None
    patients: tuple[str, ...] | None = None
    filters: dict[str, tuple[tuple[tuple[str, str], ...], ...]] = {}
    elements: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


class File(msgspec.Struct, kw_only=True):
    """``kind`` is the manifest's: output, deleted or error. ``size`` in bytes."""

    name: str
    kind: str
    type: str
    count: int = 0
    size: int = 0


class Progress(msgspec.Struct, kw_only=True):
    """What of an export is on the disk: the steps that are done, where in the next one it goes on, and the files."""

    step: int = 0
    after: str = ""
    files: list[File] = []

    @property
    def resources(self) -> int:
        return sum(one.count for one in self.files)


Job = jobs.Job[Asked, Progress]
Jobs = jobs.Jobs[Asked, Progress]

KIND = jobs.Kind(name="fhir", table="fhir_export", folder=FOLDER, sealed_for="fhir exports: what was asked for", asked=Asked, progress=Progress)


def kept(log: EventLog, data_dir: Path) -> Jobs:
    return jobs.Jobs(KIND, log, data_dir)
