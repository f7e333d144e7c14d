"""What is in an export: type by type the versions that held at its position, and what was deleted since another.

Each step is read in pages along an index, by the place where the page before it ended, so that it can go on anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import msgspec

from projections.fhir.definitions import compartments
from projections.fhir.projection import SCHEMA
from projections.fhir.versions import VERSION_BITS
from server.fhir.access import Access, access_of
from server.fhir.conditions import Condition, of
from server.fhir.conditions import Statement as Writer
from server.fhir.export.jobs import Asked
from server.fhir.query import Statement, Text
from server.fhir.search import Search
from server.fhir.within import ITSELF, All, Any, compartment_sources

OUTPUT, DELETED, IGNORED = "output", "deleted", "error"
SYSTEM, PATIENT, GROUP = "system", "patient", "group"
FEW = 200
"""Of so many patients the resources are looked up from the patients; of more, each resource is asked whose it is."""
BEGINNING = "[0]"

# A deletion holds nowhere, and has no content. What was erased has no version any more.
_DELETIONS = """
    SELECT r.key, r.type, r.id FROM {schema}.resource r
    WHERE r.type = $1 AND r.key > {after} AND r.body = '' AND r.position_from <= $2 AND {wanted}
        AND NOT EXISTS (SELECT FROM {schema}.resource n WHERE n.type = r.type AND n.id = r.id
                        AND n.position_from <= $2 AND (n.position_to IS NULL OR n.position_to > $2))
        AND NOT EXISTS (SELECT FROM {schema}.resource n WHERE n.type = r.type AND n.id = r.id AND n.position_from <= $2
                        AND n.body = '' AND n.version > r.version)
    ORDER BY r.key LIMIT {limit}
"""
_ERASED = f"""
    SELECT id, type FROM {SCHEMA}.gone
    WHERE type = $1 AND id > $2 AND position > $3 AND position <= $4 AND ($5::text[] IS NULL OR id = ANY($5)) ORDER BY id LIMIT $6
"""


class Step(msgspec.Struct, frozen=True):
    kind: str
    type: str


class MadeBeyond(msgspec.Struct, frozen=True):
    """The version was made beyond a position: its key tells."""

    position: int

    def sql(self, version: str, statement: Writer) -> str:
        return f"{version}.key >= {statement.argument((self.position + 1) << VERSION_BITS)}"


class OfPatients(msgspec.Struct, frozen=True):
    """It is in the compartment of one of these patients, or of any."""

    resource_type: str
    patients: tuple[str, ...] | None

    def sql(self, version: str, statement: Writer) -> str:
        if self.resource_type == "Patient":
            return (
                "TRUE"
                if self.patients is None
                else f"{version}.id = ANY({statement.argument(list(self.patients))}::text[])"
            )
        numbers = of(sorted(compartment_sources("Patient", self.resource_type)), "s")
        if self.patients is None:
            return f"EXISTS (SELECT FROM {SCHEMA}.reference s WHERE s.key = {version}.key AND {numbers} AND s.target LIKE 'Patient/%')"
        targets = statement.argument([f"Patient/{one}" for one in self.patients])
        test = f"s.target = ANY({targets}::text[]) AND {numbers}"
        if len(self.patients) <= FEW:
            return f"{version}.key = ANY(ARRAY(SELECT s.key FROM {SCHEMA}.reference s WHERE {test}))"
        # OFFSET 0: looked up for each resource, and never all of them for each page.
        return f"EXISTS (SELECT FROM {SCHEMA}.reference s WHERE s.key = {version}.key AND {test} OFFSET 0)"


def types_of_patients() -> tuple[str, ...]:
    """The types that may be in a Patient's compartment."""
    found = compartments()["Patient"].parameters
    return tuple(sorted(one for one, by in found.items() if ITSELF in by or compartment_sources("Patient", one)))


def types_allowed(access: Access, level: str) -> tuple[str, ...]:
    """The types of which this asker may export something."""
    of_patients, searched = {*types_of_patients()}, {*access.types("s")}
    return tuple(one for one in access.types("r") if one in searched and (level == SYSTEM or one in of_patients))


def conditions_of_access(access: Access, resource_type: str) -> list[Condition]:
    """What a resource of a type has to be for this asker, who both reads and searches here."""
    found = [access.condition(interaction, resource_type) for interaction in "rs"]
    return list(dict.fromkeys(one for one in found if one is not None))


def steps_of(asked: Asked) -> list[Step]:
    """In the order in which they are taken."""
    steps = [Step(OUTPUT, one) for one in asked.types]
    if asked.since is not None:
        steps += [Step(DELETED, one) for one in asked.types]
    return [*steps, Step(IGNORED, "OperationOutcome")] if asked.ignored else steps


def statement_of(asked: Asked, resource_type: str) -> Statement:
    """The versions of a type that are exported."""
    conditions: list[Condition] = [*_of_whom(asked, resource_type)]
    if asked.since is not None:
        conditions.insert(0, MadeBeyond(asked.since))
    if resource_type in asked.filters:
        seen_by = access_of(asked.reader).seen_by
        searches = [Search.parsed(resource_type, one, lenient=False)[0] for one in asked.filters[resource_type]]
        ways = [tuple(map(seen_by, one.conditions)) for one in searches]
        conditions += ways[0] if len(ways) == 1 else [Any(tuple(map(All, ways)))]
    return Statement(resource_type, conditions, asked.position)


class Deletions:
    """The ids of a type's resources that were deleted, or erased, beyond a position, and are not there at another.

    Of a deletion, the version before it tells whose the resource was. Of what was erased nothing tells that any more: it is named where
    everything of the type is exported, and Patients where they are named themselves.
    """

    def __init__(self, asked: Asked, resource_type: str) -> None:
        self._asked = asked
        self._type = resource_type

    async def page(self, pool: asyncpg.Pool, after: str, limit: int) -> list[asyncpg.Record]:
        """At most ``limit`` beyond the one that ``after`` is of (see :meth:`mark`)."""
        assert self._asked.since is not None
        source, _, mark = (after or "deleted|").partition("|")
        found: list[asyncpg.Record] = []
        if source == "deleted":
            writer = Text(self._type, self._asked.position)
            wanted = " AND ".join([MadeBeyond(self._asked.since).sql("r", writer), self._was_of_whom(writer)])
            text = _DELETIONS.format(
                schema=SCHEMA, after=writer.argument(int(mark or 0)), wanted=wanted, limit=writer.argument(limit)
            )
            written = writer.of(text)
            found, mark = list(await pool.fetch(written.sql, *written.arguments)), ""
        if len(found) < limit and self._tells_erased:
            patients = None if self._asked.patients is None else list(self._asked.patients)
            arguments = (self._type, mark, self._asked.since, self._asked.position, patients, limit - len(found))
            found += await pool.fetch(_ERASED, *arguments)
        return found

    @staticmethod
    def mark(row: asyncpg.Record) -> str:
        return f"deleted|{row['key']}" if "key" in row else f"erased|{row['id']}"

    def _was_of_whom(self, writer: Text) -> str:
        conditions = [one.sql("b", writer) for one in _of_whom(self._asked, self._type)]
        if not conditions:
            return "TRUE"
        before = f"SELECT FROM {SCHEMA}.resource b WHERE b.type = r.type AND b.id = r.id AND b.version = r.version - 1"
        return f"EXISTS ({before} AND {' AND '.join(conditions)})"

    @property
    def _tells_erased(self) -> bool:
        if conditions_of_access(access_of(self._asked.reader), self._type):
            return False
        return self._asked.patients is None or self._type == "Patient"


def _of_whom(asked: Asked, resource_type: str) -> Sequence[Condition]:
    allowed = conditions_of_access(access_of(asked.reader), resource_type)
    return allowed if asked.level == SYSTEM else [OfPatients(resource_type, asked.patients), *allowed]
