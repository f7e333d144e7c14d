"""The files that hold a subject's bytes: objects of the store, what was rejected, what waits in the spool, copies of workers."""

from __future__ import annotations

import mmap
import re
import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from archive.rejects import Rejects
from archive.spool import Spool
from archive.store import Store
from domain.ids import SubjectId
from eventlog.vault import Vault
from server.refusal import subject_of_file


def remove_objects(store: Store, digests: Iterable[str], fetched: Path) -> None:
    """From the archive, and from what workers and servers of this machine have copied out of it (and left, if they were killed)."""
    temporary = Path(tempfile.gettempdir())
    for sha256 in digests:
        store.delete(sha256)
        for copy in (*fetched.glob(f"*/*/{sha256}.dcm"), *temporary.glob(f"anamnesis-*/{sha256}.dcm")):
            copy.unlink(missing_ok=True)


def remove_rejects(rejects: Rejects, store: Store, vault: Vault, subjects: Collection[SubjectId], names: Sequence[bytes]) -> int:
    """What names the subject (by any of its ids); where it names nobody, what holds one of ``names``. Gives how many there were."""
    search = re.compile(b"|".join(re.escape(name) for name in names)) if names else None
    removed = 0
    for note in list(rejects.listing()):
        if _is_of(rejects.path(note.reject_id), vault, subjects, search):
            store.delete(note.sha256)  # it was put there before it was refused
            rejects.remove(note.reject_id)
            removed += 1
    for partial in rejects.folder.glob("*.part"):  # of a copy that was interrupted
        if _is_of(partial, vault, subjects, search):
            partial.unlink(missing_ok=True)
    return removed


def sweep_spool(spool: Spool, store: Store, vault: Vault, subjects: Collection[SubjectId]) -> int:
    """Removes what processes that are gone have left of the subject. Gives how many files a living one is about to refuse."""
    for _ in spool.pending():  # removes what was never received whole
        pass
    waiting = 0
    for path, alive in spool.files():
        try:
            if subject_of_file(vault, path) not in subjects:
                continue
        except FileNotFoundError:
            continue
        if alive:
            waiting += 1
            continue
        store.delete(spool.sha256(path))
        path.unlink(missing_ok=True)
    return waiting


def _is_of(path: Path, vault: Vault, subjects: Collection[SubjectId], search: re.Pattern[bytes] | None) -> bool:
    try:
        of = subject_of_file(vault, path)
        if of is not None or search is None or path.stat().st_size == 0:
            return of in subjects
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            return search.search(whole) is not None
    except FileNotFoundError:
        return False
