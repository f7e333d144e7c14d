"""What exports of datasets are asked for, and how far each has come (server.exports.jobs keeps them)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from domain.dataset import Purpose
from eventlog.log import EventLog
from server.auth.principals import Authenticated
from server.datasets.planning import Wanted
from server.datasets.writing import Progress
from server.exports import jobs

FOLDER = "dataset-exports"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked for what, and why. ``withdrawn``: subjects that did not consent any more, and are left out."""

    reader: Authenticated
    wanted: Wanted
    purpose: Purpose
    withdrawn: tuple[str, ...] = ()


Job = jobs.Job[Asked, Progress]
Jobs = jobs.Jobs[Asked, Progress]

KIND = jobs.Kind(
    name="dataset",
    table="dataset_export",
    folder=FOLDER,
    sealed_for="dataset exports: what was asked for",
    asked=Asked,
    progress=Progress,
    goes_on=True,
)


def kept(log: EventLog, data_dir: Path) -> Jobs:
    return jobs.Jobs(KIND, log, data_dir)
