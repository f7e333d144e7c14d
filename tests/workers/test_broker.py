"""The contract of a broker, run through each of them: RabbitMQ, Redis, and the one inside the process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from dramatiq import Actor, Broker, Worker
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import QueueNotFound, Retry
from dramatiq.message import Message
from pydantic import SecretStr, ValidationError

from workers.broker import Priority, open_broker, queue_name
from workers.embedded_broker import EmbeddedBroker
from workers.settings import WorkerSettings

PATIENCE_S = 30.0


class Heard:
    """What actors were called with, in order."""

    def __init__(self) -> None:
        self.values: list[int] = []
        self._changed = threading.Condition()

    def add(self, value: int) -> None:
        with self._changed:
            self.values.append(value)
            self._changed.notify_all()

    def wait_for(self, count: int) -> list[int]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.values) >= count, PATIENCE_S), f"heard only {self.values}"
            return list(self.values)


def actor(broker: Broker, settings: WorkerSettings, priority: Priority, work: Callable[[int], None]) -> Actor[[int], None]:
    return Actor(
        work,
        broker=broker,
        actor_name=f"test_{priority.name}",
        queue_name=queue_name(settings, "test", priority),
        priority=int(priority),
        options={"max_retries": None, "min_backoff": 1, "max_backoff": 1},
    )


@pytest.fixture
def broker(broker_settings: WorkerSettings) -> Iterator[Broker]:
    opened = open_broker(broker_settings)
    yield opened
    opened.close()


@contextmanager
def working(broker: Broker, threads: int = 1, prefetch: int = 1) -> Iterator[Worker]:
    worker = Worker(broker, worker_threads=threads, worker_timeout=20)
    worker.queue_prefetch = prefetch
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def test_each_message_is_worked_off_once(broker: Broker, broker_settings: WorkerSettings) -> None:
    heard = Heard()
    numbers = actor(broker, broker_settings, Priority.TODAY, heard.add)
    for n in range(20):
        numbers.send(n)
    with working(broker, threads=2, prefetch=2):
        heard.wait_for(20)
    assert sorted(heard.values) == list(range(20))


def test_a_message_that_failed_comes_again_with_its_options(broker: Broker, broker_settings: WorkerSettings) -> None:
    heard = Heard()

    def fail_twice(value: int) -> None:
        heard.add(value)
        if len(heard.values) < 3:
            raise Retry("again", delay=1)

    numbers = actor(broker, broker_settings, Priority.TODAY, fail_twice)
    numbers.send(7)
    with working(broker):
        assert heard.wait_for(3) == [7, 7, 7]


def test_urgent_messages_overtake_those_that_wait(broker: Broker, broker_settings: WorkerSettings) -> None:
    heard, began, go_on = Heard(), threading.Event(), threading.Event()

    def first(value: int) -> None:
        began.set()
        assert go_on.wait(PATIENCE_S)
        heard.add(value)

    backlog = actor(broker, broker_settings, Priority.BACKLOG, first)
    asked = actor(broker, broker_settings, Priority.ASKED, heard.add)
    for n in range(5):
        backlog.send(n)
    with working(broker) as worker:
        assert began.wait(PATIENCE_S)
        asked.send(100)
        _wait(lambda: worker.work_queue.qsize() >= 1)
        go_on.set()
        values = heard.wait_for(6)
    assert values.index(100) <= 2  # one was in hand, one may have been fetched already


def test_what_a_stopped_worker_had_fetched_goes_to_the_next(broker: Broker, broker_settings: WorkerSettings) -> None:
    heard, began, go_on = Heard(), threading.Event(), threading.Event()

    def work(value: int) -> None:
        began.set()
        assert go_on.wait(PATIENCE_S)
        heard.add(value)

    numbers = actor(broker, broker_settings, Priority.TODAY, work)
    for n in range(6):
        numbers.send(n)
    with working(broker, prefetch=4) as worker:
        assert began.wait(PATIENCE_S)
        _wait(lambda: worker.work_queue.qsize() >= 1)
        for thread in worker.workers:
            thread.stop()
        go_on.set()
    assert len(heard.values) < 6
    again = open_broker(broker_settings) if broker_settings.broker_url else broker
    if again is not broker:
        actor(again, broker_settings, Priority.TODAY, work)
    else:
        again.middleware = [m for m in again.middleware if type(m).__name__ != "_WorkerMiddleware"]
    with working(again):
        heard.wait_for(6)
    assert sorted(heard.values) == list(range(6))
    again.close()


def test_the_url_chooses_the_broker(worker_settings: WorkerSettings) -> None:
    def opened(url: str | None) -> type[Broker]:
        return type(open_broker(worker_settings.model_copy(update={"broker_url": SecretStr(url) if url else None})))

    assert opened(None) is EmbeddedBroker
    assert opened("amqp://nobody.invalid") is RabbitmqBroker
    assert opened("rediss://nobody.invalid/1") is RedisBroker
    with pytest.raises(ValidationError, match="must begin with amqp"):
        WorkerSettings(broker_url=SecretStr("kafka://nobody.invalid"))


def test_the_embedded_broker_knows_its_queues() -> None:
    broker = EmbeddedBroker([])
    broker.declare_queue("one")
    assert broker.get_declared_queues() == {"one"}
    with pytest.raises(QueueNotFound):
        broker.consume("two")
    message: Message[None] = Message(queue_name="two", actor_name="a", args=(), kwargs={}, options={})
    with pytest.raises(QueueNotFound):
        broker.enqueue(message)
    broker.enqueue(message.copy(queue_name="one"))
    broker.flush_all()
    assert next(broker.consume("one", timeout=1)) is None


def _wait(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.005)
