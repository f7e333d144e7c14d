"""A statement as it is put together: its arguments, names for the rows that it looks at, and the position that they held at."""

from __future__ import annotations

from typing import Any

from domain.condition import Level
from projections.cohort.projection import SCHEMA


class Statement:
    """``holding``: of a field of the dictionary, a text and whether it may be misspelt, the terms and values that hold it."""

    def __init__(self, position: int | None = None) -> None:
        self.arguments: list[Any] = []
        self.holding: dict[tuple[str, str, bool], list[tuple[int, str]]] = {}
        self._position = "" if position is None else self.argument(position, "bigint")
        self._aliases = 0

    def argument(self, value: Any, kind: str) -> str:
        """Where the value goes."""
        self.arguments.append(value)
        return f"${len(self.arguments)}::{kind}"

    def alias(self) -> str:
        self._aliases += 1
        return f"t{self._aliases}"

    def table(self, level: Level, alias: str) -> str:
        return f"{SCHEMA}.{level} {alias}"

    def held(self, alias: str) -> str:
        """That a version held at the position."""
        return f"{alias}.position_from <= {self._position} AND ({alias}.position_to IS NULL OR {alias}.position_to > {self._position})"
