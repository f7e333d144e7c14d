"""Asking for an export of a dataset: what it takes, on whose behalf and for what, whoever carries the question (HTTP, GraphQL)."""

from __future__ import annotations

import msgspec

from domain.dataset import Purpose
from server.auth.principals import Authenticated
from server.cohorts.questions import Curating
from server.cohorts.terms import may_export
from server.datasets.errors import ExportUnknown
from server.datasets.jobs import Asked, Job, Jobs, kept
from server.datasets.plan import Layout
from server.datasets.planning import Wanted
from server.errors import ScopeMissing
from server.services import Services

SCOPE = "datasets:export"


class ExportWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``purpose``: what for; the dataset's terms have to intend it. ``fields``: columns of the table of series; none: the usual ones.

    ``without_withdrawn``: leave out who does not consent any more, rather than be refused. ``nnunet_id``: the number of the nnU-Net dataset.
    """

    layouts: tuple[Layout, ...]
    purpose: Purpose
    fields: tuple[str, ...] = ()
    without_withdrawn: bool = False
    nnunet_id: int = 1


async def asked_of(services: Curating, reader: Authenticated, dataset_id: str, version: int | None, wanted: ExportWanted) -> Asked:
    """What may be exported. ``version``: None is the latest.

    Raises ScopeMissing, ExportRefused, and what server.cohorts.terms.may_export raises: DatasetUnknown, NotAMember, LicenseMissing,
    UseNotIntended, ConsentWithdrawn, NothingLeft, ListLost.
    """
    asked = Wanted(dataset_id=dataset_id, version=version or 0, layouts=wanted.layouts, fields=wanted.fields, nnunet_id=wanted.nnunet_id)
    identify = asked.check()
    needed = [SCOPE, *(["dicom:read"] if Layout.DICOM in wanted.layouts else []), *(["identities:read"] if identify else [])]
    for scope in needed:
        if not reader.may(scope):
            raise ScopeMissing(scope)
    permit = await may_export(
        services, dataset_id, version, wanted.purpose, reader.principal, without_withdrawn=wanted.without_withdrawn
    )
    return Asked(
        reader=reader,
        wanted=msgspec.structs.replace(asked, version=permit.version.version),
        purpose=wanted.purpose,
        withdrawn=tuple(sorted(permit.withdrawn)),
    )


async def start_export(services: Services, reader: Authenticated, dataset_id: str, version: int | None, wanted: ExportWanted) -> str:
    """The id of an export that is being made from now on. Raises TooMany, and what asked_of raises."""
    known = await services.log.head()
    asked = await asked_of(services, reader, dataset_id, version, wanted)
    export_id = await jobs_of(services).start(asked, reader.principal.id, known, services.settings.dataset_exports)
    services.dataset_export_asked.set()
    return export_id


async def own_export(services: Services, asker: Authenticated, export_id: str) -> Job:
    """An export of who asks. Raises ExportUnknown."""
    job = await jobs_of(services).find(export_id)
    if job is None or not (job.principal_id == asker.principal.id or asker.may("admin")):
        raise ExportUnknown("there is no such export of yours: it may have expired, or was cancelled")
    return job


def jobs_of(services: Services) -> Jobs:
    return kept(services.log, services.settings.data_dir)
