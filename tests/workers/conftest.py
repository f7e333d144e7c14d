"""What the tests of the workers share: settings with queues of their own, the three brokers, and series in log and archive."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pika
import psutil
import pytest
import redis
from dramatiq.common import dq_name, xq_name
from pydantic import SecretStr

from archive.header import read_header
from archive.phantom import PhantomTruth, make_phantom
from archive.spool import Spool
from archive.store import Store
from domain import series
from domain.event import Event
from domain.ids import series_stream
from domain.principal import Principal, PrincipalKind
from domain.series import InstancesStored, Received, Series, StoredInstance, StoreInstances
from eventlog.aggregate import execute
from eventlog.envelope import RecordedEvent
from eventlog.log import EventLog
from eventlog.settings import LogSettings
from workers.broker import Priority, queue_name
from workers.settings import WorkerSettings

AMQP_URL = os.environ.get("ANAMNESIS_TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
REDIS_URL = os.environ.get("ANAMNESIS_TEST_REDIS_URL", "redis://127.0.0.1:6379")
IN_CI = os.environ.get("CI", "") not in ("", "false", "0")
PATIENCE_S = 60.0
SENDER = Principal(id="ae:STORESCU", kind=PrincipalKind.DEVICE)


def _missing(what: str) -> None:
    if IN_CI:
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(params=["embedded", "rabbitmq", "redis"])
def broker_url(request: pytest.FixtureRequest) -> str | None:
    """Each kind of broker; None is the embedded one."""
    if request.param == "rabbitmq":
        try:
            pika.BlockingConnection(pika.URLParameters(AMQP_URL)).close()
        except pika.exceptions.AMQPError as error:
            _missing(f"no RabbitMQ answers at ANAMNESIS_TEST_AMQP_URL ({type(error).__name__})")
        return AMQP_URL
    if request.param == "redis":
        try:
            redis.Redis.from_url(REDIS_URL).ping()
        except redis.RedisError as error:
            _missing(f"no Redis answers at ANAMNESIS_TEST_REDIS_URL ({type(error).__name__})")
        return REDIS_URL
    return None


@pytest.fixture
def namespace() -> str:
    """Queues of this test alone."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def worker_settings(log_settings: LogSettings, namespace: str) -> WorkerSettings:
    """The embedded broker, and nobody waits for quiet or between attempts."""
    return WorkerSettings(
        data_dir=log_settings.data_dir,
        database_url=log_settings.database_url,
        broker_namespace=namespace,
        quiet_seconds=0,
        min_backoff_s=0.01,
        max_backoff_s=0.01,
        stop_grace_s=0,
    )


@pytest.fixture
def broker_settings(worker_settings: WorkerSettings, broker_url: str | None) -> Iterator[WorkerSettings]:
    """The same on each kind of broker; its queues are removed afterwards."""
    settings = worker_settings.model_copy(update={"broker_url": SecretStr(broker_url) if broker_url else None})
    yield settings
    remove_queues(settings)


@pytest.fixture(name="remove_queues")
def _remove_queues() -> Callable[[WorkerSettings], None]:
    return remove_queues


def remove_queues(settings: WorkerSettings) -> None:
    url = settings.broker_url.get_secret_value() if settings.broker_url else ""
    if url.startswith("amqp"):
        connection = pika.BlockingConnection(pika.URLParameters(url))
        channel = connection.channel()
        for priority in Priority:
            for stage in ("index", "test"):
                name = queue_name(settings, stage, priority)
                for queue in (name, dq_name(name), xq_name(name)):
                    channel.queue_delete(queue)
        connection.close()
    elif url.startswith("redis"):
        client = redis.Redis.from_url(url)
        for key in client.scan_iter(f"{settings.broker_namespace}*"):
            client.delete(key)
        client.close()


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> PhantomTruth:
    """A small CT series as files."""
    return make_phantom(tmp_path_factory.mktemp("phantom"), slices=16, size=128, slice_spacing_mm=16.0)


StorePhantom = Callable[..., Awaitable[str]]


@pytest.fixture
def store_phantom(store_files: StorePhantom, phantom: PhantomTruth) -> StorePhantom:
    """Puts the small phantom (or these of its files) into archive and log."""

    async def store(files: Sequence[Path] | None = None, modality: str | None = None) -> str:
        return await store_files(phantom, files, modality)

    return store


@pytest.fixture
def store_files(event_log: EventLog, worker_settings: WorkerSettings) -> StorePhantom:
    """Puts a phantom (or these of its files) into archive and log, as a door would; gives its Series Instance UID."""

    async def store(truth: PhantomTruth, files: Sequence[Path] | None = None, modality: str | None = None) -> str:
        spool, archive = Spool(worker_settings.spool_dir), Store(worker_settings.store_url)
        received = [await asyncio.to_thread(_receive, path, spool, archive, modality) for path in files or truth.files]
        uid = str(truth.series_uid)  # a pydicom UID otherwise
        await _append(event_log, str(truth.study_uid), uid, received)
        return uid

    return store


def _receive(path: Path, spool: Spool, archive: Store, modality: str | None) -> Received:
    header = read_header(path)
    with spool.receive(
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        door="ingest",
    ) as reception:
        reception.write(data_set_of(path))
        spooled = reception.commit()
    archive.put(spooled)
    spooled.path.unlink()
    instance = StoredInstance(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        sha256=spooled.sha256,
        size=spooled.size,
    )
    elements = dict(header.elements)
    if modality is not None:
        elements["00080060"] = {"vr": "CS", "Value": [modality]}
    return Received(instance=instance, header=elements)


def data_set_of(path: Path) -> bytes:
    from archive.part10 import read_part10

    with path.open("rb") as file:
        offset = read_part10(file).dataset_offset
        file.seek(offset)
        return file.read()


async def _append(log: EventLog, study_uid: str, series_uid: str, received: list[Received]) -> None:
    command = StoreInstances(
        study_uid=study_uid, series_uid=series_uid, subject_id="subject-1", modality="CT", door="ingest", received=received
    )
    await execute(
        log,
        series_stream(series_uid),
        Series(),
        series.evolve,
        lambda state: series.store_instances(state, command),
        principal=SENDER,
    )


@pytest.fixture(name="store_headers")
def _store_headers() -> Callable[..., Awaitable[None]]:
    return store_headers


@pytest.fixture(name="events_of")
def _events_of() -> Callable[..., Awaitable[list[RecordedEvent]]]:
    return events_of


@pytest.fixture(name="wait_for_events")
def _wait_for_events() -> Callable[..., Awaitable[list[RecordedEvent]]]:
    return wait_for_events


async def store_headers(log: EventLog, series_uid: str, *instances: int, study_date: str = "20200101") -> None:
    """Instances that are in the log alone: enough for whoever only dispatches."""
    received = [
        Received(
            instance=StoredInstance(
                sop_instance_uid=f"{series_uid}.{n}",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                sha256=f"{n:064x}",
                size=1,
            ),
            header={"00080020": {"vr": "DA", "Value": [study_date]}, "00080018": {"vr": "UI", "Value": [f"{series_uid}.{n}"]}},
        )
        for n in instances
    ]
    await _append(log, "1.2.3", series_uid, received)


async def events_of(log: EventLog, series_uid: str, *types: type[Event]) -> list[RecordedEvent]:
    """The events of a series but its instances, of these types (or of all)."""
    recorded = await log.read_stream(series_stream(series_uid))
    return [r for r in recorded if isinstance(r.event, types or Event) and not isinstance(r.event, InstancesStored)]


async def wait_for_events(log: EventLog, series_uid: str, count: int, *types: type[Event]) -> list[RecordedEvent]:
    """Waits until the series has this many events of these types."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        heard = log.news()
        found = await events_of(log, series_uid, *types)
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, f"only {[r.type for r in await events_of(log, series_uid)]} after {PATIENCE_S:.0f} s"
        await log.wait_for_news(heard, timeout_s=0.2)


@pytest.fixture(name="worker_process")
def _worker_process() -> Callable[..., object]:
    return worker_process


@contextmanager
def worker_process(
    settings: WorkerSettings, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`anamnesis worker run` in a process of its own, killed at the end with all that it started."""
    assert settings.database_url is not None
    values = {
        "DATA_DIR": str(settings.data_dir),
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "BROKER_NAMESPACE": settings.broker_namespace,
        "QUIET_SECONDS": "0",
        "STOP_GRACE_S": str(settings.stop_grace_s),
        "SEGMENTER": settings.segmenter,
    }
    if settings.broker_url is not None:
        values["BROKER_URL"] = settings.broker_url.get_secret_value()
    variables = {**os.environ, **{f"ANAMNESIS_{name}": value for name, value in values.items()}, **(environment or {})}
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-m", "workers.cli", "run", *options], env=variables, cwd=root)
    try:
        yield child
    finally:
        for process in _with_descendants(child.pid) if child.poll() is None else []:
            process.kill()
        child.wait()


def _with_descendants(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []
