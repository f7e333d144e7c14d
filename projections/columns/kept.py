"""What was worked out, for who asks the same a moment later: so many bytes of it, the latest first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class Kept(Generic[T]):
    """``least``: so many of the latest stay whatever they take. What is kept may grow: it is weighed whenever something comes."""

    def __init__(self, most_bytes: Callable[[], int], least: int) -> None:
        self._most_bytes, self._least = most_bytes, least
        self._found: dict[Hashable, T] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> T | None:
        with self._lock:
            found = self._found.pop(key, None)
            if found is not None:
                self._found[key] = found
            return found

    def put(self, key: Hashable, value: T) -> None:
        with self._lock:
            self._found.pop(key, None)
            self._found[key] = value
            left, most = sum(each.nbytes for each in self._found.values()), self._most_bytes()
            while left > most and len(self._found) > self._least:
                left -= self._found.pop(next(iter(self._found))).nbytes

    @property
    def nbytes(self) -> int:
        with self._lock:
            return sum(each.nbytes for each in self._found.values())

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._found

    def __len__(self) -> int:
        return len(self._found)
