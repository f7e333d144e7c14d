"""How many tokens a client may have within a minute: who asks for more is not served by each of them anyway."""

from __future__ import annotations

import time
from collections import OrderedDict, deque

MOST_A_MINUTE = 120
"""From one server."""
_CLIENTS = 10_000
_MINUTE_S = 60


class Allowance:
    """How many tokens each client had within the last minute."""

    def __init__(self) -> None:
        self._given: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, client_id: str) -> bool:
        now = time.monotonic()
        given = self._given.setdefault(client_id, deque())
        self._given.move_to_end(client_id)
        if len(self._given) > _CLIENTS:
            self._given.popitem(last=False)
        while given and now - given[0] > _MINUTE_S:
            given.popleft()
        if len(given) >= MOST_A_MINUTE:
            return False
        given.append(now)
        return True
