"""One request: who asks, with what, and what of whom it has been told."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

from domain.condition import Query, Value
from domain.principal import Principal
from projections.cohort.engine import Asked, Engine
from projections.cohort.errors import PositionUnknown
from server.as_of import AsOf
from server.auth.principals import Authenticated
from server.errors import ScopeMissing
from server.graphql import questions, rows
from server.graphql.documents import Asking, Documents
from server.graphql.reading import Reading
from server.services import Services

_CATCHING_UP_S = 2.0
"""How long a question of a position waits for what is being read in: what wrote there waited for itself."""
_PSEUDONYMS = 100_000
Pseudonyms = OrderedDict[int, str]
"""Of entities of level subject: they never change, and each answer's are recorded."""


class Context:
    """What resolvers are given. One position answers all that is asked of the log as it stands."""

    def __init__(self, services: Services, reader: Authenticated, documents: Documents, known: Pseudonyms, *, over_get: bool = False) -> None:
        self.services = services
        self.reader = reader
        self.documents = documents
        self.asking: Asking | None = None
        """Of the document that is being answered."""
        self.may_identify = reader.may(questions.IDENTITIES) and not over_get
        """Never over GET: what is asked would be in URLs, and so in logs."""
        self.still_good: Callable[[], Awaitable[None]] = _once_was_enough
        """Raises TokenInvalid and ScopeMissing, where an answer lasts longer than a token."""
        self.clock: asyncio.Timeout | None = None
        """What ends a query that takes too long; a mutation is carried out, however long it takes."""
        self.subjects: set[int] = set()
        """Entities whose data are in the answer."""
        self.persons: set[str] = set()
        """The same, by pseudonym."""
        self.fields: set[str] = set()
        """Names of the fields that were asked about."""
        self._known = known
        self._latest: asyncio.Future[int] | None = None
        self._readings: dict[int, Reading] = {}

    @property
    def principal(self) -> Principal:
        return self.reader.principal

    @property
    def engine(self) -> Engine:
        return self.services.cohorts

    def begin(self) -> None:
        """The time of a query begins to run."""
        if self.clock is not None:
            self.clock.reschedule(asyncio.get_running_loop().time() + self.services.settings.graphql_deadline_s)

    def require(self, scope: str) -> None:
        """Raises ScopeMissing."""
        if not self.reader.may(scope):
            raise ScopeMissing(scope)

    def require_identities(self) -> None:
        """Raises ScopeMissing."""
        if not self.may_identify:
            raise ScopeMissing(questions.IDENTITIES)

    async def position(self, as_of: AsOf | None = None) -> int:
        """The position that is asked for; the latest one, the same for the whole request. Raises AsOfInvalid and PositionUnknown."""
        if as_of is None:
            if self._latest is None:
                self._latest = asyncio.ensure_future(self.engine.position())
            return await self._latest
        wanted = await as_of.position(self.services.pool)
        return await self.reached(wanted)

    async def reached(self, position: int) -> int:
        """The position, once it can be asked for. Raises PositionUnknown."""
        deadline = asyncio.get_running_loop().time() + _CATCHING_UP_S
        while await self.engine.position() < position:
            if asyncio.get_running_loop().time() > deadline:
                raise PositionUnknown(f"position {position} is not read in yet: ask again")
            await asyncio.sleep(0.01)
        return position

    def at(self, position: int) -> Reading:
        if position not in self._readings:
            self._readings[position] = Reading(self, position)
        return self._readings[position]

    def forget(self, position: int) -> None:
        """What was read as of it: an answer that lasts reads as of many."""
        self._readings.pop(position, None)

    def asked(self, query: Query, position: int, ticked: Mapping[str, Sequence[Value]] | None = None, others: Iterable[tuple[str, str]] = ()) -> Asked:
        """A question that may be asked. Raises ScopeMissing, and At for what is wrong with a field."""
        others = [*others, *((field, "$.ticked") for field in ticked or ())]
        self.fields.update(recordable(questions.check(query, may_identify=self.may_identify, others=others)))
        return questions.asked(query, position, ticked or {})

    async def pseudonyms(self) -> list[str]:
        """Of those whose data are in the answer."""
        missing = [one for one in self.subjects if one not in self._known]
        if missing:
            self._known.update(await rows.subject_ids(self.services.pool, missing))
        found = sorted({*self.persons, *(self._known[one] for one in self.subjects if one in self._known)})
        while len(self._known) > _PSEUDONYMS:
            self._known.popitem(last=False)
        return found


def recordable(names: Iterable[str]) -> Iterator[str]:
    """Names of fields as they may be kept: of a private element its creator is what a client wrote."""
    return ("a private element" if '"' in name else name for name in names)


async def _once_was_enough() -> None:
    pass
