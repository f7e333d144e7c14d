"""What was worked out, for who asks the same a moment later: so many bytes of it, the latest first."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """``least``: so many of the latest stay whatever they take."""

    def __init__(self, most_bytes: int, least: int) -> None:
        self._most_bytes, self._least = most_bytes, least
        self._found: dict[Hashable, tuple[T, int]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> T | None:
        found = self._found.get(key)
        return found[0] if found is not None else None

    def put(self, key: Hashable, value: T, cost: int) -> None:
        """``cost`` in bytes, of what the value is or will become."""
        with self._lock:
            self._bytes -= self._found.pop(key, (value, 0))[1]
            self._found[key] = value, cost
            self._bytes += cost
            while self._bytes > self._most_bytes and len(self._found) > self._least:
                self._bytes -= self._found.pop(next(iter(self._found)))[1]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._found

    def __len__(self) -> int:
        return len(self._found)
