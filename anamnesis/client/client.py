"""The client that waits: each call returns when the server has answered. `AsyncClient` has the same calls, to be awaited."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from anamnesis.client import columns, images, kept, question, tables
from anamnesis.client.columns import Columns
from anamnesis.client.connection import Connection
from anamnesis.client.datasets import Dataset, DatasetVersion, SavedCohort
from anamnesis.client.kept import CohortChanges, ProjectRecord
from anamnesis.client.narrowing import AsOf, Narrowing, Where, condition
from anamnesis.client.question import PAGE_SIZE, Page, Question
from anamnesis.client.records import (
    Counts,
    Explanation,
    Facet,
    FieldInfo,
    FindingRecord,
    Histogram,
    Record,
    SeriesRecord,
    StudyRecord,
    SubjectRecord,
)
from anamnesis.client.retrieval import SeriesPath, Told, retrieve
from anamnesis.client.transport import SyncTransport

R = TypeVar("R")
"""The records of a cohort: SubjectRecord, StudyRecord, Series or FindingRecord."""


class Client:
    """A server of Anamnesis.

    ``server``: its URL; from ANAMNESIS_SERVER without one, and http://127.0.0.1:8080 without that. The token: as given, from
    ``token_file``, or from ANAMNESIS_TOKEN. ``ca``: file (PEM) with the certificates that the server's has to be signed by. What breaks
    off or is refused for being busy is tried again, up to ``attempts`` times. Close it, or use it in ``with``.

    Raises TokenRefused where there is no token, PlainTextRefused where it would go over a network in the clear.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        token: str | None = None,
        token_file: Path | str | None = None,
        ca: Path | str | None = None,
        timeout_s: float = 60.0,
        attempts: int = 5,
        allow_plain_text: bool = False,
    ) -> None:
        self._transport = SyncTransport(
            Connection.of(
                server, token=token, token_file=token_file, ca=ca, timeout_s=timeout_s, attempts=attempts, allow_plain_text=allow_plain_text
            )
        )

    def subjects(self, where: Where = None, *, as_of: AsOf = None) -> Cohort[SubjectRecord]:
        """Persons that meet a condition; all of them without one."""
        return Cohort(Question(level="subject", where=condition(where), as_of=as_of), self._transport)

    def studies(self, where: Where = None, *, as_of: AsOf = None) -> Cohort[StudyRecord]:
        """Studies that meet a condition."""
        return Cohort(Question(level="study", where=condition(where), as_of=as_of), self._transport)

    def series(self, where: Where = None, *, as_of: AsOf = None) -> Cohort[Series]:
        """Series that meet a condition; ``as_of``: a position of the log, or an instant or date (its end)."""
        return Cohort(Question(level="series", where=condition(where), as_of=as_of), self._transport)

    def findings(self, where: Where = None, *, as_of: AsOf = None) -> Cohort[FindingRecord]:
        """Findings that meet a condition."""
        return Cohort(Question(level="finding", where=condition(where), as_of=as_of), self._transport)

    def images(self, study_uid: str, series_uid: str, *, as_of: AsOf = None) -> Images:
        """The images of a series whose UIDs are known."""
        return Images(study_uid=study_uid, series_uid=series_uid, _as_of=as_of, _transport=self._transport)

    def fields(self, like: str = "", *, level: str = "series", first: int = 200) -> list[FieldInfo]:
        """Fields that can be asked of things of a level, by a part of their names: our own first, then DICOM elements."""
        return self._transport.run(question.fields(level, like, first))

    def position(self) -> int:
        """The latest position of the log that can be asked for."""
        return self._transport.run(question.position())

    def columns(self) -> Columns:
        """The columns in memory by which the server counts, and the elements that were added to them."""
        return self._transport.run(columns.columns())

    def add_facet(self, element: str) -> str:
        """Lets a DICOM element be counted in memory, and gives its canonical name. It is built in the background: `columns` says how far it is.

        Raises FieldUnknown and NotPermitted.
        """
        return self._transport.run(columns.add_facet(element))

    def remove_facet(self, element: str) -> str:
        """Gives an added element's column up; what it says can be asked for as before, slower."""
        return self._transport.run(columns.remove_facet(element))

    def projects(self) -> list[ProjectRecord]:
        """Projects of which you are a member: who may see and change what is kept."""
        return self._transport.run(kept.projects())

    def create_project(self, project_id: str, title: str = "") -> ProjectRecord:
        """A project, which you then own. Its id stays readable for ever: choose a code, and put words into the title."""
        return self._transport.run(kept.create_project(project_id, title))

    def cohorts(self) -> list[SavedCohort]:
        """Saved cohorts: your own, and those shared in your projects."""
        return [SavedCohort(**vars(one), _transport=self._transport) for one in self._transport.run(kept.saved_cohorts())]

    def cohort(self, name: str) -> SavedCohort:
        """A saved cohort by its id, or by its title. Raises NotFound."""
        return SavedCohort(**vars(self._transport.run(kept.saved_cohort(name))), _transport=self._transport)

    def datasets(self) -> list[Dataset]:
        """Datasets of your projects."""
        return [Dataset(**vars(one), _transport=self._transport) for one in self._transport.run(kept.datasets())]

    def dataset(self, name: str) -> Dataset:
        """A dataset by its id, or by its title. Raises NotFound."""
        return Dataset(**vars(self._transport.run(kept.dataset(name))), _transport=self._transport)

    def create_dataset(
        self,
        title: str,
        *,
        project: str,
        description: str = "",
        license: str = "",
        intended_uses: Sequence[str] = (),
        license_text: str = "",
        use_note: str = "",
        consents: bool = False,
    ) -> Dataset:
        """A dataset in a project that you curate, on terms: ``license`` is an SPDX expression; uses are research, education, ….

        ``consents``: each subject has to have an active FHIR Consent that permits, whenever it leaves.
        """
        terms = kept.terms_input(license, intended_uses, license_text=license_text, use_note=use_note, consents=consents)
        made = self._transport.run(kept.create_dataset(project, title, description, terms))
        return Dataset(**vars(made), _transport=self._transport)

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._transport.connection.server}>"


class Cohort(Narrowing[SyncTransport], Generic[R]):
    """A question, to be asked in several ways; immutable. Without ``as_of`` each call is answered as it stands then.

    ``pinned()`` gives the cohort as of now, of which all calls agree. Each call raises FieldUnknown, FieldRefused, PositionUnknown
    and QuestionRefused for what cannot be asked, NotPermitted, TokenRefused, ServerFailed and ServerUnreachable.
    """

    def pinned(self) -> Self:
        """As of the position that it would be answered at now."""
        return self._with(self._transport.run(self.question.pinned()))

    def position(self) -> int:
        """The position that it is answered at."""
        return self._transport.run(self.question.position())

    def count(self) -> int:
        """How many there are."""
        return self._transport.run(self.question.count())

    def counts(self) -> Counts:
        """How many subjects, studies, series, findings, instances and bytes."""
        return self._transport.run(self.question.counts())

    def facets(self, *names: str, size: int = 20, subjects: bool = False) -> dict[str, Facet]:
        """The most frequent values of fields; ``subjects``: also of how many persons."""
        return self._transport.run(self.question.facets(names, size=size, subjects=subjects))

    def histogram(self, name: str, bins: int = 20) -> Histogram:
        """How a field's numbers or dates are spread."""
        return self._transport.run(self.question.histogram(name, bins))

    def explain(self) -> Explanation:
        """What was used to answer, how many met each condition, and how long it took in ms."""
        return self._transport.run(self.question.explain())

    def query(self) -> str:
        """The question as canonical JSON: what cohorts are saved as."""
        return self._transport.run(self.question.query())

    def save(self, title: str, *, description: str | None = None, cohort_id: str | None = None) -> SavedCohort:
        """Saves the question under a title; with the id of a saved cohort, as its next version."""
        saved = self._transport.run(kept.save_cohort(self.question, title, description, cohort_id))
        return SavedCohort(**vars(saved), _transport=self._transport)

    def changes(self, since: int | str, until: AsOf = None, *, first: int = 20) -> CohortChanges:
        """What entered and left since a position, an instant or a date, and why: the first so many of each."""
        return self._transport.run(kept.changes(self.question, since, until, first))

    def freeze(self, dataset: Dataset) -> DatasetVersion:
        """As the next version of a dataset, as of its position or now."""
        return dataset.freeze(self)

    def page(self, size: int = PAGE_SIZE, after: str | None = None) -> Page:
        """The first page, or the one after a page's cursor."""
        return self._transport.run(self.question.page(size, after))

    def __iter__(self) -> Iterator[R]:
        """All of them in order, page by page, as of the position of the first page. A series comes with its images."""
        page = self.page()
        while True:
            for record in page.records:
                yield _with_images(record, page.position, self._transport)
            if not page.has_more:
                return
            page = self.page(after=page.cursor)

    def records(self, limit: int | None = None) -> list[R]:
        """All of them, or the first so many, in order, as of one position."""
        found = self._transport.run(self.question.records(limit))
        return [_with_images(record, found.position, self._transport) for record in found.records]

    def first(self) -> R | None:
        """The first one; None where there is none."""
        found = self.records(1)
        return found[0] if found else None

    def to_pandas(self, limit: int | None = None) -> Any:
        """A pandas.DataFrame, of one position. Raises PackageMissing."""
        found = self._transport.run(self.question.records(limit))
        return tables.to_pandas(found.records, self.question.level, self.question.elements)

    def to_polars(self, limit: int | None = None) -> Any:
        """A polars.DataFrame, of one position. Raises PackageMissing."""
        found = self._transport.run(self.question.records(limit))
        return tables.to_polars(found.records, self.question.level, self.question.elements)


@dataclass(frozen=True, kw_only=True)
class Images:
    """The images of a series. Each call raises NotFound, BytesDiffer and ServerUnreachable; what makes no volume GeometryRefused.

    ``told`` is called with how many instances are there, of how many.
    """

    study_uid: str
    series_uid: str
    _as_of: AsOf = field(default=None, repr=False, compare=False)
    _transport: SyncTransport = field(repr=False, compare=False)

    def download(self, folder: Path | str, *, told: Told | None = None) -> list[Path]:
        """Every instance as ``<SOP Instance UID>.dcm``, compared by digest. What is there already is kept: call it again to go on."""
        return self._transport.run(retrieve(SeriesPath(self.study_uid, self.series_uid), Path(folder), self._as_of, told))

    def datasets(self, *, told: Told | None = None) -> list[Any]:
        """Every instance as a pydicom.Dataset, by number."""
        return self._transport.run(images.datasets(SeriesPath(self.study_uid, self.series_uid), self._as_of, told))

    def to_sitk(self, *, rescale: bool = True, told: Told | None = None) -> Any:
        """A SimpleITK.Image (LPS, mm), in the units that the headers say (HU) unless ``rescale`` is False."""
        return self._transport.run(images.image(SeriesPath(self.study_uid, self.series_uid), self._as_of, told, rescale=rescale))

    def to_nifti(self, path: Path | str, *, rescale: bool = True, told: Told | None = None) -> Path:
        """A NIfTI file (``.nii`` or ``.nii.gz``), with the affine of the image."""
        return self._transport.run(images.nifti(SeriesPath(self.study_uid, self.series_uid), Path(path), self._as_of, told, rescale=rescale))


@dataclass(frozen=True, kw_only=True)
class Series(SeriesRecord, Images):
    """A series of a cohort, with its images as of the cohort's position."""


def _with_images(record: Record, position: int, transport: SyncTransport) -> Any:
    return Series(**vars(record), _as_of=position, _transport=transport) if isinstance(record, SeriesRecord) else record
