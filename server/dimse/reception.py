"""What both lanes do with an instance: into the spool, durable, then to the intake. Statuses as in PS3.4, table B.2-1."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from archive.spool import Reception, Spool, SpooledInstance

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
MAX_UNDECIDED = 4_000
"""Instances that may wait for the intake before senders have to."""


class Taker(Protocol):
    """Whoever takes instances in: the intake, or the way to it out of another process."""

    def submit(self, spooled: SpooledInstance, *, awaited: bool) -> Future[Any]: ...

    def hurry(self) -> None: ...


class Receiver:
    def __init__(self, spool: Spool, intake: Taker, refused: Callable[[], object] = lambda: None) -> None:
        """``refused`` is called when somebody may not associate with us: that is audited."""
        self.refused = refused
        self._spool = spool
        self._intake = intake
        self._room = threading.BoundedSemaphore(MAX_UNDECIDED)

    def begin(self, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, sender: str) -> Reception:
        """Raises SpoolFull."""
        return self._spool.receive(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            door="dimse",
            sender=sender,
        )

    def accepted(self, spooled: SpooledInstance) -> None:
        """Hands over what is durable. Waits while too many are undecided."""
        self._room.acquire()
        self._intake.submit(spooled, awaited=False).add_done_callback(self._decided)

    def ended(self) -> None:
        """An association has ended: its instances need not wait for more."""
        self._intake.hurry()

    def _decided(self, _: Future[Any]) -> None:
        self._room.release()
