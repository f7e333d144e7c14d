"""A search as one SQL statement over the versions that held at a position."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from projections.fhir.projection import SCHEMA
from server.fhir.parameters import CHAINS, Condition, moment

_DATE_TESTS = {
    # prefix → test of a stored interval [low, high) against the given one (R5 search.html#prefix)
    "eq": "({low} >= {a} AND {high} <= {b})",
    "ne": "NOT ({low} >= {a} AND {high} <= {b})",
    "gt": "{high} > {b}",
    "lt": "{low} < {a}",
    "ge": "({high} > {b} OR ({low} >= {a} AND {high} <= {b}))",
    "le": "({low} < {a} OR ({low} >= {a} AND {high} <= {b}))",
    "sa": "{low} >= {b}",
    "eb": "{high} <= {a}",
}


class Statement:
    """SQL and its arguments, built together so that no value ever gets into the text."""

    def __init__(self, resource_type: str, conditions: Sequence[Condition], position: int) -> None:
        self.arguments: list[object] = [resource_type, position]
        self._tests = [
            "r.type = $1",
            "r.position_from <= $2",
            "(r.position_to IS NULL OR r.position_to > $2)",
            *(self._test(resource_type, condition) for condition in conditions),
        ]

    async def page(self, pool: asyncpg.Pool, after: str, limit: int) -> list[asyncpg.Record]:
        """At most ``limit`` (id, version, body, position_to) beyond id ``after``, in order of id."""
        tests = " AND ".join([*self._tests, f"r.id > {self._argument(after)}"])
        return list(
            await pool.fetch(
                f"SELECT r.id, r.version, r.body, r.position_to FROM {SCHEMA}.resource r WHERE {tests} ORDER BY r.id LIMIT {self._argument(limit)}",
                *self.arguments,
            )
        )

    async def count(self, pool: asyncpg.Pool) -> int:
        """How many match, over all pages."""
        return int(await pool.fetchval(f"SELECT count(*) FROM {SCHEMA}.resource r WHERE {' AND '.join(self._tests)}", *self.arguments))

    def _argument(self, value: object) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    def _test(self, resource_type: str, condition: Condition) -> str:
        match condition.kind:
            case "id":
                return f"r.id = ANY({self._argument([value[0] for value in condition.values])}::text[])"
            case "updated":
                return self._any(self._date_test(value, "r.last_updated", "r.last_updated") for value in condition.values)
            case "token":
                return self._in_rows("token", condition.param, (self._token_test(value) for value in condition.values))
            case "reference":
                targets = self._argument([value[0] for value in condition.values])
                return self._in_rows("reference", condition.param, [f"s.target = ANY({targets}::text[])"])
            case "date":
                return self._in_rows("date", condition.param, (self._date_test(v, "s.low", "s.high") for v in condition.values))
            case _:
                return self._chain_test(resource_type, condition)

    def _in_rows(self, table: str, param: str, tests: object) -> str:
        any_of = self._any(tests)
        return (
            f"EXISTS (SELECT FROM {SCHEMA}.{table} s WHERE s.type = r.type AND s.id = r.id AND s.version = r.version"
            f" AND s.param = {self._argument(param)} AND {any_of})"
        )

    def _chain_test(self, resource_type: str, condition: Condition) -> str:
        link, target_type, target_param = CHAINS[resource_type][condition.param]
        tests = self._any(self._token_test(value) for value in condition.values)
        link_, type_, param = self._argument(link), self._argument(target_type), self._argument(target_param)
        return (
            f"EXISTS (SELECT FROM {SCHEMA}.reference l JOIN {SCHEMA}.resource t ON t.type = {type_} AND l.target = {type_} || '/' || t.id"
            f" AND t.position_from <= $2 AND (t.position_to IS NULL OR t.position_to > $2)"
            f" JOIN {SCHEMA}.token s ON s.type = t.type AND s.id = t.id AND s.version = t.version AND s.param = {param}"
            f" WHERE l.type = r.type AND l.id = r.id AND l.version = r.version AND l.param = {link_} AND {tests})"
        )

    def _token_test(self, value: tuple[str, ...]) -> str:
        if len(value) == 1:
            return f"s.code = {self._argument(value[0])}"
        system, code = value
        system_test = f"s.system = {self._argument(system)}"
        return f"(s.code = {self._argument(code)} AND {system_test})" if code else system_test

    def _date_test(self, value: tuple[str, ...], low: str, high: str) -> str:
        prefix, a, b = value
        test = _DATE_TESTS[prefix]
        # PostgreSQL refuses an argument that the statement does not use.
        ends = {name: self._argument(moment(end)) for name, end in (("a", a), ("b", b)) if f"{{{name}}}" in test}
        return test.format(low=low, high=high, **ends)

    @staticmethod
    def _any(tests: object) -> str:
        return "(" + " OR ".join(tests) + ")"  # type: ignore[arg-type]
