"""The broker that a URL names: RabbitMQ, Redis, or (without a URL) the one inside this process.

Every broker has the same middleware, so that an actor behaves the same on each. The broker carries messages and no more: what
it loses is a request that stands in the log, and is sent again.
"""

from __future__ import annotations

from enum import IntEnum

from dramatiq import Broker, Middleware
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage, Retries, TimeLimit

from workers.embedded_broker import EmbeddedBroker
from workers.settings import WorkerSettings


class Priority(IntEnum):
    """Lower goes first; each has a queue of its own. The numbers are those of projections.dispatch."""

    ASKED = 0
    """Somebody asked, and waits."""
    TODAY = 1
    """A study of today."""
    BACKLOG = 2
    """The back-catalogue."""


def open_broker(settings: WorkerSettings) -> Broker:
    """The broker of these settings; connections to a server are made when they are first needed."""
    if settings.broker_url is None:
        return EmbeddedBroker(_middleware())
    url = settings.broker_url.get_secret_value()
    if url.startswith("amqp"):
        # Confirmed, so that a message is with the server, or an error says that it is not.
        return RabbitmqBroker(url=url, confirm_delivery=True, middleware=_middleware())
    return RedisBroker(url=url, namespace=settings.broker_namespace, middleware=_middleware())


def queue_name(settings: WorkerSettings, stage: str, priority: Priority) -> str:
    return f"{settings.broker_namespace}.{stage}.{priority.name.lower()}"


def _middleware() -> list[Middleware]:
    # No AgeLimit, Pipelines, Callbacks or ShutdownNotifications: messages carry keys, and the log carries what follows.
    return [TimeLimit(), Retries(max_retries=None), CurrentMessage()]  # type: ignore[arg-type]
