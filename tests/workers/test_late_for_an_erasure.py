"""Who comes late for an erased person: a worker with a result, a message of a request that went, a sender with one more slice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pydicom
import pytest

from archive.part10 import read_part10
from archive.phantom import PhantomTruth
from archive.rejects import Rejects
from archive.spool import Spool, SpooledInstance
from archive.store import Store
from domain import series
from domain.ids import SubjectId, series_stream
from domain.intake import FileRefused
from domain.principal import Principal, PrincipalKind
from domain.series import DicomJson, InstancesStored, RequestIndexing, Series, SeriesErased
from domain.subject import LegalBasis
from eventlog.aggregate import execute, load
from eventlog.errors import SubjectKeyDestroyed
from eventlog.log import EventLog
from projections.catalogue import projections
from server.erasure.eraser import Eraser
from server.intake import Intake
from server.subjects import confirm_erasure, request_erasure, status_of
from workers.indexing import Indexer, Outcome, Task
from workers.segmentation import Segmentation
from workers.segmentation_child import Indexed
from workers.settings import WorkerSettings

ANNA = Principal(id="token:anna", kind=PrincipalKind.PERSON)
BERT = Principal(id="token:bert", kind=PrincipalKind.PERSON)


class Person:
    """One series of one person, taken in as a door does it, and the parts of the site that will forget it."""

    def __init__(self, log: EventLog, settings: WorkerSettings, truth: PhantomTruth) -> None:
        self.log, self.settings, self.truth = log, settings, truth
        self.spool, self.store = Spool(settings.spool_dir), Store(settings.store_url)
        self.rejects = Rejects(settings.rejects_dir)
        self.intake = Intake(log, self.store, self.spool, self.rejects, linger_s=0.05)

    @property
    def series_uid(self) -> str:
        return str(self.truth.series_uid)

    def spooled(self, file: Path) -> SpooledInstance:
        dataset = pydicom.dcmread(file, stop_before_pixels=True)
        with file.open("rb") as opened:
            opened.seek(read_part10(opened).dataset_offset)
            data = opened.read()
        with self.spool.receive(
            sop_class_uid=str(dataset.SOPClassUID),
            sop_instance_uid=str(dataset.SOPInstanceUID),
            transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
            door="dimse",
            sender="LATE",
        ) as reception:
            reception.write(data)
            return reception.commit()

    async def send(self, *files: Path, intake: Intake | None = None) -> list[tuple[str, str]]:
        futures = [(intake or self.intake).submit(self.spooled(file)) for file in files]
        verdicts = await asyncio.wait_for(asyncio.gather(*map(asyncio.wrap_future, futures)), 60)
        return [(one.outcome, one.reason) for one in verdicts]

    async def requested(self) -> Task:
        command = RequestIndexing(series_uid=self.series_uid, segmenter="baseline", reason="requested")
        stream = series_stream(self.series_uid)
        await execute(self.log, stream, Series(), series.evolve, lambda s: series.request_indexing(s, command), principal=ANNA)
        state, _ = await load(self.log, stream, Series(), series.evolve)
        return Task(series_uid=self.series_uid, series_digest=state.digest, segmenter="baseline")

    async def subject_id(self) -> SubjectId:
        stored = [one.event for one in await self.log.read(0, types=[InstancesStored])]
        return SubjectId(next(event.subject_id for event in stored if isinstance(event, InstancesStored)))

    async def erase(self) -> None:
        """By two persons, to its end."""
        subject_id = await self.subject_id()
        await request_erasure(self.log, subject_id, LegalBasis.CONSENT_WITHDRAWN, ANNA)
        await confirm_erasure(self.log, subject_id, BERT)
        eraser = Eraser(self.log, self.store, self.spool, self.rejects, projections())
        assert await eraser.carry_out(subject_id) is not None
        assert (await status_of(self.log, subject_id)).purged_at is not None

    def files_left(self) -> list[Path]:
        folders = (self.settings.spool_dir, self.settings.rejects_dir, Path(self.settings.store_url), self.settings.data_dir / "fetched")
        return [path for folder in folders for path in folder.rglob("*") if path.is_file()]

    async def types(self) -> list[str]:
        return [one.type for one in await self.log.read_stream(series_stream(self.series_uid))]


class ErasedMeanwhile(Segmentation):
    """The real segmentation, which ends after the person was erased."""

    def __init__(self, erase: Callable[[], None]) -> None:
        super().__init__()
        self._erase = erase

    def index(self, segmenter: str, files: Sequence[Path], headers: Sequence[DicomJson], **options: Any) -> Indexed:
        found = super().index(segmenter, files, headers, **options)
        self._erase()
        return found


@pytest.fixture
async def person(event_log: EventLog, worker_settings: WorkerSettings, phantom: PhantomTruth) -> AsyncIterator[Person]:
    person = Person(event_log, worker_settings, phantom)
    assert {outcome for outcome, _ in await person.send(*phantom.files[:-1])} == {"stored"}
    yield person
    await person.intake.close()


async def test_a_result_that_comes_after_the_erasure_is_recorded_nowhere(person: Person) -> None:
    task, loop = await person.requested(), asyncio.get_running_loop()
    segmentation = ErasedMeanwhile(lambda: asyncio.run_coroutine_threadsafe(person.erase(), loop).result(120))
    try:
        worked = await Indexer(person.log, person.store, segmentation, person.settings).work_off(task, 1)
    finally:
        segmentation.close()
    assert (worked.outcome, worked.retry_after_s) == (Outcome.OBSOLETE, None)
    assert await person.types() == ["InstancesStored", "IndexingRequested", "SeriesErased"]
    assert person.files_left() == []


async def test_a_message_of_a_request_that_went_is_dropped(person: Person) -> None:
    task = await person.requested()
    await person.erase()
    segmentation = Segmentation()
    try:
        worked = await Indexer(person.log, person.store, segmentation, person.settings).work_off(task, 1)
    finally:
        segmentation.close()
    assert worked.outcome is Outcome.OBSOLETE
    assert (await person.log.read_stream(series_stream(person.series_uid)))[-1].event.__class__ is SeriesErased


@pytest.mark.parametrize("knows_the_subject_from_before", [True, False])
async def test_one_more_slice_is_refused_by_name_and_not_kept(person: Person, knows_the_subject_from_before: bool) -> None:
    await person.erase()
    intake = person.intake if knows_the_subject_from_before else Intake(person.log, person.store, person.spool, person.rejects)
    before = await person.types()
    assert await person.send(person.truth.files[-1], person.truth.files[0], intake=intake) == [("refused", "subject-erased")] * 2
    if intake is not person.intake:
        await intake.close()
    assert await person.types() == before and person.files_left() == []
    refused = [one.event for one in await person.log.read(0, types=[FileRefused])]
    assert [(e.reason, e.sop_instance_uid) for e in refused if isinstance(e, FileRefused)] == [("subject-erased", None)] * 2


async def test_what_a_dead_process_left_in_the_spool_goes_with_the_person(person: Person) -> None:
    person.spooled(person.truth.files[-1])
    folder = person.spool.folder
    folder.rename(folder.with_name("1-1"))  # as if the process that received it were gone: this is nobody's name
    assert len(person.files_left()) == len(person.truth.files)
    await person.erase()
    assert person.files_left() == []


async def test_no_key_is_made_again_for_an_erased_person(person: Person) -> None:
    await person.erase()
    subject_id = await person.subject_id()
    async with person.log.pool.acquire() as connection:
        with pytest.raises(SubjectKeyDestroyed):
            await person.log.vault.keys_for_sealing([subject_id], connection)
        row: asyncpg.Record = await connection.fetchrow("SELECT wrapped, destroyed_at FROM subject_key WHERE subject_id = $1", subject_id)
        assert row["wrapped"] is None and row["destroyed_at"] is not None
        assert await person.log.vault.keys_for_opening([subject_id], connection) == {}
