"""A dramatiq broker inside one process, for workers that need no broker server.

It keeps nothing: the log is the memory. What a crash takes with it is a request that stands in the log, and the dispatcher
sends it again. Unlike dramatiq's StubBroker, which is made for tests, it holds on to no failed message and no exception.
"""

from __future__ import annotations

from collections.abc import Iterable
from queue import Empty, SimpleQueue
from threading import Semaphore

from dramatiq import Broker, Consumer, Message, MessageProxy, Middleware
from dramatiq.common import current_millis, dq_name
from dramatiq.errors import QueueNotFound


class EmbeddedBroker(Broker):
    def __init__(self, middleware: list[Middleware] | None = None) -> None:
        super().__init__(middleware)
        self.queues: dict[str, SimpleQueue[bytes]] = {}

    def declare_queue(self, queue_name: str) -> None:
        """Makes the queue and its delay queue, unless they exist."""
        if queue_name in self.queues:
            return
        self.emit_before("declare_queue", queue_name)
        self.queues[queue_name] = SimpleQueue()
        self.emit_after("declare_queue", queue_name)
        delayed = dq_name(queue_name)
        self.queues[delayed] = SimpleQueue()
        self.delay_queues.add(delayed)
        self.emit_after("declare_delay_queue", delayed)

    def get_declared_queues(self) -> set[str]:
        """Names of the queues, without the delay queues."""
        return set(self.queues) - self.delay_queues

    def enqueue(self, message: Message, *, delay: int | None = None) -> Message:
        """Puts a message into its queue, ``delay`` in milliseconds. Raises QueueNotFound."""
        if delay is not None:
            message = message.copy(queue_name=dq_name(message.queue_name), options={"eta": current_millis() + delay})
        if message.queue_name not in self.queues:
            raise QueueNotFound(message.queue_name)
        self.emit_before("enqueue", message, delay)
        self.queues[message.queue_name].put(message.encode())
        self.emit_after("enqueue", message, delay)
        return message

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 1000) -> Consumer:
        """Raises QueueNotFound. At most ``prefetch`` messages are out of the queue and not acknowledged."""
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)
        return _EmbeddedConsumer(self.queues[queue_name], prefetch, timeout / 1000)

    def flush(self, queue_name: str) -> None:
        """Drops what waits in the queue and in its delay queue."""
        for name in (queue_name, dq_name(queue_name)):
            while True:
                try:
                    self.queues[name].get_nowait()
                except Empty:
                    break

    def flush_all(self) -> None:
        for queue_name in self.get_declared_queues():
            self.flush(queue_name)


class _EmbeddedConsumer(Consumer):
    def __init__(self, queue: SimpleQueue[bytes], prefetch: int, timeout_s: float) -> None:
        self._queue = queue
        self._timeout_s = timeout_s
        self._room = Semaphore(prefetch)

    def ack(self, message: MessageProxy) -> None:
        self._room.release()

    def nack(self, message: MessageProxy) -> None:
        self._room.release()  # a failed message is not kept: its request stands in the log

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        for message in messages:
            self._queue.put(message.encode())
            self._room.release()

    def __next__(self) -> MessageProxy | None:
        """The next message; None when none came, or none may be taken, within the timeout."""
        if not self._room.acquire(timeout=self._timeout_s):
            return None
        try:
            return MessageProxy(Message.decode(self._queue.get(timeout=self._timeout_s)))
        except Empty:
            self._room.release()
            return None
