"""`python -m server.datasets.child FOLDER STORE`: writes the export whose plan is in a folder, in a process of its own.

Converting images takes the processor for minutes, which the server's event loop has no share of. It neither reads nor writes the log.
How far it is goes up as lines of JSON; when its parent is gone, its standard input ends, and so does it.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import warnings
from pathlib import Path

import msgspec

from archive.errors import ArchiveError
from archive.store import Store
from server.datasets.folder import Folder
from server.datasets.plan import decode
from server.datasets.writing import Progress, Written, write_export

NICER = 5
"""Who waits for an answer of the server comes first."""


class Heard(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line up. ``problem`` is the name of an error's class, and ``number`` its errno: texts may hold a person's data."""

    progress: Progress | None = None
    written: Written | None = None
    problem: str = ""
    number: int = 0


def main() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.simplefilter("ignore")
    os.umask(0o077)
    os.nice(NICER)
    root, store = Path(sys.argv[1]), Store(sys.argv[2])
    up = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # libraries print
    plan = Folder(root).plan()
    assert plan is not None, "the plan is kept before anything is made of it"
    try:
        written = write_export(decode(plan), store, root, lambda progress: _say(up.fileno(), Heard(progress=progress)))
    except (OSError, ArchiveError) as error:
        number = error.errno or errno.EIO if isinstance(error, OSError) else 0
        _say(up.fileno(), Heard(problem=type(error).__name__, number=number))
        raise SystemExit(1) from None
    _say(up.fileno(), Heard(written=written))


def _say(descriptor: int, heard: Heard) -> None:
    os.write(descriptor, msgspec.json.encode(heard) + b"\n")


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
