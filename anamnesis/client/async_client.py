"""The client whose calls are awaited: those of `Client`, by the same names. What they ask is written once, as steps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from anamnesis.client import columns, images, kept, question, tables
from anamnesis.client.async_datasets import AsyncDataset, AsyncDatasetVersion, AsyncSavedCohort
from anamnesis.client.columns import Columns
from anamnesis.client.connection import Connection
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
from anamnesis.client.transport import AsyncTransport

R = TypeVar("R")
"""The records of a cohort: SubjectRecord, StudyRecord, Series or FindingRecord."""


class AsyncClient:
    """As Client, with every call to be awaited; used in ``async with``, or closed by ``await client.close()``."""

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
        self._transport = AsyncTransport(
            Connection.of(
                server, token=token, token_file=token_file, ca=ca, timeout_s=timeout_s, attempts=attempts, allow_plain_text=allow_plain_text
            )
        )

    def subjects(self, where: Where = None, *, as_of: AsOf = None) -> AsyncCohort[SubjectRecord]:
        """Persons that meet a condition; all of them without one."""
        return AsyncCohort(Question(level="subject", where=condition(where), as_of=as_of), self._transport)

    def studies(self, where: Where = None, *, as_of: AsOf = None) -> AsyncCohort[StudyRecord]:
        """Studies that meet a condition."""
        return AsyncCohort(Question(level="study", where=condition(where), as_of=as_of), self._transport)

    def series(self, where: Where = None, *, as_of: AsOf = None) -> AsyncCohort[AsyncSeries]:
        """Series that meet a condition; ``as_of``: a position of the log, or an instant or date (its end)."""
        return AsyncCohort(Question(level="series", where=condition(where), as_of=as_of), self._transport)

    def findings(self, where: Where = None, *, as_of: AsOf = None) -> AsyncCohort[FindingRecord]:
        """Findings that meet a condition."""
        return AsyncCohort(Question(level="finding", where=condition(where), as_of=as_of), self._transport)

    def images(self, study_uid: str, series_uid: str, *, as_of: AsOf = None) -> AsyncImages:
        """The images of a series whose UIDs are known."""
        return AsyncImages(study_uid=study_uid, series_uid=series_uid, _as_of=as_of, _transport=self._transport)

    async def fields(self, like: str = "", *, level: str = "series", first: int = 200) -> list[FieldInfo]:
        """Fields that can be asked of things of a level, by a part of their names: our own first, then DICOM elements."""
        return await self._transport.run(question.fields(level, like, first))

    async def position(self) -> int:
        """The latest position of the log that can be asked for."""
        return await self._transport.run(question.position())

    async def columns(self) -> Columns:
        """The columns in memory by which the server counts, and the elements that were added to them."""
        return await self._transport.run(columns.columns())

    async def add_facet(self, element: str) -> str:
        """Lets a DICOM element be counted in memory, and gives its canonical name. It is built in the background: `columns` says how far it is.

        Raises FieldUnknown and NotPermitted.
        """
        return await self._transport.run(columns.add_facet(element))

    async def remove_facet(self, element: str) -> str:
        """Gives an added element's column up; what it says can be asked for as before, slower."""
        return await self._transport.run(columns.remove_facet(element))

    async def projects(self) -> list[ProjectRecord]:
        """Projects of which you are a member: who may see and change what is kept."""
        return await self._transport.run(kept.projects())

    async def create_project(self, project_id: str, title: str = "") -> ProjectRecord:
        """A project, which you then own. Its id stays readable for ever: choose a code, and put words into the title."""
        return await self._transport.run(kept.create_project(project_id, title))

    async def cohorts(self) -> list[AsyncSavedCohort]:
        """Saved cohorts: your own, and those shared in your projects."""
        return [AsyncSavedCohort(**vars(one), _transport=self._transport) for one in await self._transport.run(kept.saved_cohorts())]

    async def cohort(self, name: str) -> AsyncSavedCohort:
        """A saved cohort by its id, or by its title. Raises NotFound."""
        return AsyncSavedCohort(**vars(await self._transport.run(kept.saved_cohort(name))), _transport=self._transport)

    async def datasets(self) -> list[AsyncDataset]:
        """Datasets of your projects."""
        return [AsyncDataset(**vars(one), _transport=self._transport) for one in await self._transport.run(kept.datasets())]

    async def dataset(self, name: str) -> AsyncDataset:
        """A dataset by its id, or by its title. Raises NotFound."""
        return AsyncDataset(**vars(await self._transport.run(kept.dataset(name))), _transport=self._transport)

    async def create_dataset(
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
    ) -> AsyncDataset:
        """A dataset in a project that you curate, on terms: ``license`` is an SPDX expression; uses are research, education, ….

        ``consents``: each subject has to have an active FHIR Consent that permits, whenever it leaves.
        """
        terms = kept.terms_input(license, intended_uses, license_text=license_text, use_note=use_note, consents=consents)
        made = await self._transport.run(kept.create_dataset(project, title, description, terms))
        return AsyncDataset(**vars(made), _transport=self._transport)

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._transport.connection.server}>"


class AsyncCohort(Narrowing[AsyncTransport], Generic[R]):
    """A question, to be asked in several ways; immutable. Without ``as_of`` each call is answered as it stands then.

    ``pinned()`` gives the cohort as of now, of which all calls agree. Each call raises FieldUnknown, FieldRefused, PositionUnknown
    and QuestionRefused for what cannot be asked, NotPermitted, TokenRefused, ServerFailed and ServerUnreachable.
    """

    async def pinned(self) -> Self:
        """As of the position that it would be answered at now."""
        return self._with(await self._transport.run(self.question.pinned()))

    async def position(self) -> int:
        """The position that it is answered at."""
        return await self._transport.run(self.question.position())

    async def count(self) -> int:
        """How many there are."""
        return await self._transport.run(self.question.count())

    async def counts(self) -> Counts:
        """How many subjects, studies, series, findings, instances and bytes."""
        return await self._transport.run(self.question.counts())

    async def facets(self, *names: str, size: int = 20, subjects: bool = False) -> dict[str, Facet]:
        """The most frequent values of fields; ``subjects``: also of how many persons."""
        return await self._transport.run(self.question.facets(names, size=size, subjects=subjects))

    async def histogram(self, name: str, bins: int = 20) -> Histogram:
        """How a field's numbers or dates are spread."""
        return await self._transport.run(self.question.histogram(name, bins))

    async def explain(self) -> Explanation:
        """What was used to answer, how many met each condition, and how long it took in ms."""
        return await self._transport.run(self.question.explain())

    async def query(self) -> str:
        """The question as canonical JSON: what cohorts are saved as."""
        return await self._transport.run(self.question.query())

    async def save(self, title: str, *, description: str | None = None, cohort_id: str | None = None) -> AsyncSavedCohort:
        """Saves the question under a title; with the id of a saved cohort, as its next version."""
        saved = await self._transport.run(kept.save_cohort(self.question, title, description, cohort_id))
        return AsyncSavedCohort(**vars(saved), _transport=self._transport)

    async def changes(self, since: int | str, until: AsOf = None, *, first: int = 20) -> CohortChanges:
        """What entered and left since a position, an instant or a date, and why: the first so many of each."""
        return await self._transport.run(kept.changes(self.question, since, until, first))

    async def freeze(self, dataset: AsyncDataset) -> AsyncDatasetVersion:
        """As the next version of a dataset, as of its position or now."""
        return await dataset.freeze(self)

    async def page(self, size: int = PAGE_SIZE, after: str | None = None) -> Page:
        """The first page, or the one after a page's cursor."""
        return await self._transport.run(self.question.page(size, after))

    async def __aiter__(self) -> AsyncIterator[R]:
        """All of them in order, page by page, as of the position of the first page. A series comes with its images."""
        page = await self.page()
        while True:
            for record in page.records:
                yield _with_images(record, page.position, self._transport)
            if not page.has_more:
                return
            page = await self.page(after=page.cursor)

    async def records(self, limit: int | None = None) -> list[R]:
        """All of them, or the first so many, in order, as of one position."""
        found = await self._transport.run(self.question.records(limit))
        return [_with_images(record, found.position, self._transport) for record in found.records]

    async def first(self) -> R | None:
        """The first one; None where there is none."""
        found = await self.records(1)
        return found[0] if found else None

    async def to_pandas(self, limit: int | None = None) -> Any:
        """A pandas.DataFrame, of one position. Raises PackageMissing."""
        found = await self._transport.run(self.question.records(limit))
        return tables.to_pandas(found.records, self.question.level, self.question.elements)

    async def to_polars(self, limit: int | None = None) -> Any:
        """A polars.DataFrame, of one position. Raises PackageMissing."""
        found = await self._transport.run(self.question.records(limit))
        return tables.to_polars(found.records, self.question.level, self.question.elements)


@dataclass(frozen=True, kw_only=True)
class AsyncImages:
    """The images of a series. Each call raises NotFound, BytesDiffer and ServerUnreachable; what makes no volume GeometryRefused.

    ``told`` is called with how many instances are there, of how many.
    """

    study_uid: str
    series_uid: str
    _as_of: AsOf = field(default=None, repr=False, compare=False)
    _transport: AsyncTransport = field(repr=False, compare=False)

    async def download(self, folder: Path | str, *, told: Told | None = None) -> list[Path]:
        """Every instance as ``<SOP Instance UID>.dcm``, compared by digest. What is there already is kept: call it again to go on."""
        return await self._transport.run(retrieve(SeriesPath(self.study_uid, self.series_uid), Path(folder), self._as_of, told))

    async def datasets(self, *, told: Told | None = None) -> list[Any]:
        """Every instance as a pydicom.Dataset, by number."""
        return await self._transport.run(images.datasets(SeriesPath(self.study_uid, self.series_uid), self._as_of, told))

    async def to_sitk(self, *, rescale: bool = True, told: Told | None = None) -> Any:
        """A SimpleITK.Image (LPS, mm), in the units that the headers say (HU) unless ``rescale`` is False."""
        return await self._transport.run(images.image(SeriesPath(self.study_uid, self.series_uid), self._as_of, told, rescale=rescale))

    async def to_nifti(self, path: Path | str, *, rescale: bool = True, told: Told | None = None) -> Path:
        """A NIfTI file (``.nii`` or ``.nii.gz``), with the affine of the image."""
        return await self._transport.run(images.nifti(SeriesPath(self.study_uid, self.series_uid), Path(path), self._as_of, told, rescale=rescale))


@dataclass(frozen=True, kw_only=True)
class AsyncSeries(SeriesRecord, AsyncImages):
    """A series of a cohort, with its images as of the cohort's position."""


def _with_images(record: Record, position: int, transport: AsyncTransport) -> Any:
    return AsyncSeries(**vars(record), _as_of=position, _transport=transport) if isinstance(record, SeriesRecord) else record
