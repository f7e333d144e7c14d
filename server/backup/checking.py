"""Whether the events of backups are those that were logged: each has its digest, none is missing, and the tree over them has the
root that the newest checkpoint states, under a good signature of the site."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from eventlog.merkle import Accumulator, leaf_hash
from eventlog.notes import NoteKey
from server.backup import objects, sealed_log, segments, tables
from server.backup.destination import Destination
from server.backup.errors import BackupDamaged
from server.backup.manifest import Manifest
from server.backup.segments import Row, Segment

_EVERY = 500


class Expected:
    """What manifests say of the events, compared while they pass by. ``keys``: name of a backup → the verification keys in it."""

    def __init__(self, manifests: Iterable[Manifest], keys: Mapping[str, Sequence[NoteKey]]) -> None:
        self._keys = keys
        self._digests: dict[int, list[Manifest]] = {}
        self._roots: dict[int, list[Manifest]] = {}
        self._tree = Accumulator()
        for manifest in manifests:
            if manifest.position:
                self._digests.setdefault(manifest.position, []).append(manifest)
            if manifest.checkpoint_size is not None:
                self._roots.setdefault(manifest.checkpoint_size, []).append(manifest)

    def compare(self, row: Row) -> Iterator[str]:
        """What does not agree once this event, the next one, has passed."""
        self._tree.add(leaf_hash(row.digest))
        for manifest in self._digests.get(row.position, ()):
            if manifest.last_digest != row.digest.hex():
                yield f"the event at position {row.position} is not the last one of backup {manifest.name}"
        for manifest in self._roots.get(row.position, ()):
            note, keys = manifest.checkpoint_note or "", self._keys.get(manifest.name, ())
            problem = sealed_log.disagreement(note, keys, row.position, self._tree.root())
            if problem is not None:
                yield f"backup {manifest.name}: {problem}"


def check_events(
    destination: Destination, key: bytes, manifest: Manifest, progress: Callable[[int, int], None]
) -> objects.Wanted:
    """Checks all events of one backup; gives the objects that they need. Raises BackupDamaged."""
    expected = Expected([manifest], {manifest.name: sealed_log.keys_in(destination, key, manifest)})
    wanted = objects.Wanted()
    erased = tables.destroyed_subjects(destination, key, manifest)
    for segment in segments.needed(destination, manifest.position):
        for row in segments.rows(destination, key, segment, manifest.position):
            for problem in expected.compare(row):
                raise BackupDamaged(problem)
            wanted.add(row.named, erased)
            if row.position % _EVERY == 0:
                progress(row.position, manifest.position)
    wanted.settle_unclear(lambda sha256: destination.size(objects.path(sha256)) is not None)
    wanted.without(manifest.missing)
    progress(manifest.position, manifest.position)
    return wanted


def check_list(destination: Destination, key: bytes, segment: Segment, rows: Iterable[Row]) -> None:
    """Whether the list of a segment's objects is what its events say. Raises BackupDamaged."""
    if segments.named_objects(destination, key, segment) != [one for row in rows for one in row.named]:
        raise BackupDamaged(f"{segment.named_path} in the backup is damaged: its events name other objects")
