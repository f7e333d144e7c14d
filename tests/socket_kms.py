"""A small key management service in a process of its own, and the plug-in that asks it: an example of both.

``python socket_kms.py SOCKET`` serves; its key is made when it starts and never leaves it. A request and its answer are one line of
base64 each, the request behind ``wrap`` or ``unwrap``; what the service will not do is answered by an empty line.
"""

from __future__ import annotations

import base64
import os
import socket
import socketserver
import sys
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SOCKET_VARIABLE = "TEST_KMS_SOCKET"
ENTRY_POINTS = "[anamnesis.kms]\ntest = socket_kms:SocketKms\n"


class SocketKms:
    """What the entry point names: called without arguments, it finds the service by its own means."""

    def __init__(self) -> None:
        self._path = os.environ[SOCKET_VARIABLE]

    def wrap(self, key: bytes) -> bytes:
        return self._ask("wrap", key)

    def unwrap(self, wrapped: bytes) -> bytes:
        return self._ask("unwrap", wrapped)

    def _ask(self, what: str, given: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(self._path)
            with connection.makefile("rwb") as stream:
                stream.write(f"{what} {base64.b64encode(given).decode('ascii')}\n".encode("ascii"))
                stream.flush()
                answer = stream.readline().strip()
        if not answer:
            raise PermissionError("the service refuses")
        return base64.b64decode(answer)


def install(folder: Path) -> None:
    """What pip would leave of a package with this plug-in, in a folder that is to be on the path."""
    metadata = folder / "socket_kms-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: socket-kms\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)


def main() -> None:
    cipher = AESGCM(AESGCM.generate_key(256))

    class Answers(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            what, _, encoded = self.rfile.readline().decode("ascii").strip().partition(" ")
            given = base64.b64decode(encoded)
            try:
                if what == "wrap":
                    nonce = os.urandom(12)
                    answer = nonce + cipher.encrypt(nonce, given, None)
                else:
                    answer = cipher.decrypt(given[:12], given[12:], None)
            except InvalidTag:
                answer = b""
            self.wfile.write(base64.b64encode(answer) + b"\n")

    with socketserver.UnixStreamServer(sys.argv[1], Answers) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
