"""multipart/related answers (RFC 2387) whose length is known before the first byte is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import msgspec

CHUNK_BYTES = 1 << 20
"""Small files are sent together up to this size, large ones in pieces of it: each costs a change of thread."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """``content_type`` with its parameters; ``size`` in bytes; ``digest`` names the content, for boundary and ETag."""

    content_type: str
    size: int
    digest: str
    open: Callable[[], BinaryIO]


class Multipart:
    """An answer of these parts. The same parts give the same bytes, boundary and all."""

    def __init__(self, parts: Sequence[Part], media_type: str) -> None:
        names = "".join(f"{part.content_type} {part.digest}\n" for part in parts)
        self.digest = hashlib.sha256(names.encode("utf-8")).hexdigest()
        self.boundary = f"anamnesis-{self.digest[:32]}"
        self.content_type = f'multipart/related; type="{media_type}"; boundary={self.boundary}'
        self._parts = parts
        self._closing = f"\r\n--{self.boundary}--\r\n".encode("ascii")

    @property
    def content_length(self) -> int:
        """Bytes of the whole body."""
        heads = sum(len(self._head(n)) for n in range(len(self._parts)))
        return heads + sum(part.size for part in self._parts) + len(self._closing)

    def stream(self) -> Iterator[bytes]:
        """The body in chunks; blocks on files, so iterate it in a thread."""
        waiting: list[bytes] = []
        size = 0
        for number, part in enumerate(self._parts):
            waiting.append(self._head(number))
            with part.open() as file:
                while chunk := file.read(CHUNK_BYTES):
                    waiting.append(chunk)
                    size += len(chunk)
                    if size >= CHUNK_BYTES:
                        yield b"".join(waiting)
                        waiting.clear()
                        size = 0
        yield b"".join((*waiting, self._closing))

    def _head(self, number: int) -> bytes:
        break_before = "\r\n" if number else ""
        return f"{break_before}--{self.boundary}\r\nContent-Type: {self._parts[number].content_type}\r\n\r\n".encode("ascii")
