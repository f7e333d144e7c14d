"""What is kept of cohorts, as objects that ask: saved cohorts, datasets and their versions. Projects say who sees and changes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anamnesis.client import exports, kept, tables
from anamnesis.client.exports import ExportRecord
from anamnesis.client.kept import AsOf, CohortChanges, DatasetRecord, MemberRecord, SavedCohortRecord, VersionRecord
from anamnesis.client.narrowing import Narrowing
from anamnesis.client.transport import SyncTransport

if TYPE_CHECKING:
    from anamnesis.client.client import Cohort

Told = Callable[[int, int], None]
"""How many are there, of how many."""


@dataclass(frozen=True, kw_only=True)
class SavedCohort(SavedCohortRecord):
    """A question that is kept under a title, in versions."""

    _transport: SyncTransport = field(repr=False, compare=False)

    def cohort(self, *, as_of: AsOf = None) -> Cohort[Any]:
        """What is in it, as it stands or as of a position, an instant or a date."""
        from anamnesis.client.client import Cohort

        return Cohort(kept.question_of(self.query, as_of), self._transport)

    def changes(self, since: int | str, until: AsOf = None, *, first: int = 20) -> CohortChanges:
        """What entered and left since a position, an instant or a date, and why: the first so many of each."""
        return self._transport.run(kept.changes(kept.question_of(self.query, None), since, until, first))

    def share(self, project_id: str) -> SavedCohort:
        """Shows it to the members of a project; its curators may change it."""
        return SavedCohort(**vars(self._transport.run(kept.share_cohort(self.cohort_id, project_id))), _transport=self._transport)


@dataclass(frozen=True, kw_only=True)
class Dataset(DatasetRecord):
    """A cohort that is frozen, version by version, and leaves on its terms alone."""

    _transport: SyncTransport = field(repr=False, compare=False)

    def freeze(self, cohort: Narrowing[Any]) -> DatasetVersion:
        """What a cohort holds, as of its position or now, as the next version; the latest one where it holds just this."""
        return self._version(self._transport.run(kept.freeze(self.dataset_id, cohort.question)))

    def versions(self) -> list[DatasetVersion]:
        """The first one first."""
        return [self._version(one) for one in self._transport.run(kept.versions(self.dataset_id))]

    def version(self, number: int | None = None) -> DatasetVersion:
        """By its number; without one the latest. Raises NotFound."""
        return self._version(kept.version_of(self._transport.run(kept.versions(self.dataset_id)), number))

    def _version(self, record: VersionRecord) -> DatasetVersion:
        return DatasetVersion(**vars(record), dataset_id=self.dataset_id, _transport=self._transport)


@dataclass(frozen=True, kw_only=True)
class DatasetVersion(VersionRecord):
    """What was frozen: it never changes, but for persons who are erased or whose consent ended, and they leave no trace in it."""

    dataset_id: str
    _transport: SyncTransport = field(repr=False, compare=False)

    def members(self) -> list[MemberRecord]:
        """Its series, with their instances and the parts that they are in."""
        return self._transport.run(kept.members(self.dataset_id, self.version))

    def to_pandas(self) -> Any:
        """Its series as a pandas.DataFrame. Raises PackageMissing."""
        return tables.members_to_pandas(self.members())

    def divide(self, parts: Mapping[str, float], *, seed: str = "0", stratify_by: Sequence[str] = ()) -> DatasetVersion:
        """Puts each subject into a part by lot: {"train": 0.8, "test": 0.2}. Nobody is in two, and nobody changes parts in a later version.

        ``stratify_by``: fields in which the parts are alike (``sex``, or ``age_years:40,60`` with its edges).
        """
        divided = self._transport.run(kept.split(self.dataset_id, self.version, parts, seed, stratify_by))
        return DatasetVersion(**vars(divided), dataset_id=self.dataset_id, _transport=self._transport)

    def fetch(self, folder: Path | str, *, told: Told | None = None) -> Path:
        """Its files as ``part/subject/study/series/instance.dcm`` with a ``manifest.jsonl``. What is there already is kept: call again to go on.

        Raises BytesDiffer where a file is not the one that was frozen, and what retrieving raises.
        """
        return self._transport.run(kept.fetch(self.dataset_id, self, Path(folder), told))

    def export(
        self,
        *layouts: str,
        purpose: str,
        fields: Sequence[str] = (),
        nnunet_id: int | None = None,
        without_withdrawn: bool = False,
    ) -> Export:
        """Begins an export as dicom, nnunet, bids, csv, xlsx, parquet or jsonl, for a purpose that the terms intend.

        ``fields`` are columns of the table of series in place of the usual ones; ``without_withdrawn`` leaves out who does not consent any more. Raises
        NotPermitted and QuestionRefused.
        """
        more = {"fields": list(fields) or None, "nnunet_id": nnunet_id, "without_withdrawn": without_withdrawn or None}
        given = {name: value for name, value in more.items() if value is not None}
        begun = self._transport.run(exports.begin(self.dataset_id, self.version, layouts, purpose, given))
        return Export(export_id=begun.export_id, _transport=self._transport)


@dataclass(frozen=True, kw_only=True)
class Export:
    """An export that the server makes in the background."""

    export_id: str
    _transport: SyncTransport = field(repr=False, compare=False)

    def status(self) -> ExportRecord:
        """How far it is."""
        return self._transport.run(exports.status(self.export_id))

    def wait(self, *, told: Told | None = None) -> ExportRecord:
        """Until it is done; ``told`` is called with the percents, of 100. Raises ExportFailed."""
        return self._transport.run(exports.finished(self.export_id, told))

    def fetch(self, folder: Path | str, *, told: Told | None = None) -> Path:
        """Waits until it is done, and fetches its files; called again, it goes on. Raises ExportFailed and BytesDiffer."""
        return self._transport.run(exports.fetch(self.export_id, Path(folder), told))
