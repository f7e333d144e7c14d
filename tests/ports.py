"""Ports that nothing is given by chance before a server of a test listens on them, though other tests run beside it."""

from __future__ import annotations

import random
import socket

FIRST, LAST = 10_000, 32_000
"""Below those that Linux gives to clients, and to whoever asks for any port (net.ipv4.ip_local_port_range)."""
ATTEMPTS = 200


def free_port() -> int:
    """A TCP port of 127.0.0.1, for a server that is started later, or killed and started again."""
    chance = random.SystemRandom()  # tests and their frameworks seed the other one, alike in each process of a run
    for _ in range(ATTEMPTS):
        port = chance.randint(FIRST, LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:  # taken
                continue
            return port
    raise OSError(f"no port between {FIRST} and {LAST} is free")
