"""Writes an auditor's bundle: what is about the scope whole, everything else as digests, and all that proves it.

One pass over the log in one snapshot, from position 1 to the size of a checkpoint made just before; nothing is held in memory but
what the report shows. Positions outside a range of time are not read at all: the hashes of their subtrees stand for them.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from domain.access import AccessesRecorded
from eventlog.checkpoint_keys import public_keys
from eventlog.envelope import instant
from eventlog.log import EventLog
from eventlog.merkle import perfect_subtrees
from eventlog.sealer import seal
from eventlog.tree import Tree
from projections.checkpoint import wait_for
from projections.ledger.projection import LedgerProjection
from server.audit import verifier
from server.audit.accesses import accesses_to
from server.audit.disclosure import COLUMNS, Line, scope_of, whole, withheld, without_data
from server.audit.report import Event, report, shown_event
from server.audit.scope import Range, Scope, positions_about, range_of
from server.errors import DestinationTaken

PREFETCH = 1000
MAX_REPORTED = 20_000
"""Events that the report lists; the bundle holds all of them."""
MAX_PROOFS = 100_000
"""Inclusion proofs of single events: a convenience, since the whole tree is proved by the events themselves."""
CHECKPOINTS = 200
_ENCODE = msgspec.json.Encoder().encode


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle holds."""

    path: str
    size: int
    whole: int
    without_data: int
    withheld: int


async def export(
    log: EventLog, scope: Scope, destination: Path, *, progress: Callable[[int, int], None] | None = None
) -> Exported:
    """Writes the bundle to a new folder, or to a zip where the destination's name ends so. ``progress`` hears (position, size).

    Raises NothingToExport, DestinationTaken, and what sealing raises.
    """
    if destination.exists():
        raise DestinationTaken(f"{destination} is there already: name another place")
    checkpoint = await seal(log)
    await wait_for(log.pool, LedgerProjection(), checkpoint.size)
    with tempfile.TemporaryDirectory(prefix=".anamnesis-audit-", dir=destination.absolute().parent) as work:
        folder = Path(work) / "bundle"
        folder.mkdir()
        bundle = _Bundle(log, scope, checkpoint.size, folder, progress)
        exported = await bundle.write(str(destination))
        if destination.suffix == ".zip":
            _zip(folder, Path(work) / "bundle.zip")
            (Path(work) / "bundle.zip").rename(destination)
        else:
            folder.rename(destination)
    return exported


class _Bundle:
    def __init__(self, log: EventLog, scope: Scope, size: int, folder: Path, progress: Callable[[int, int], None] | None) -> None:
        self._log = log
        self._scope = scope
        self._size = size
        self._folder = folder
        self._progress = progress
        self._tree = Tree(log.pool)
        self._counts = {"whole": 0, "without_data": 0, "withheld": 0}
        self._shown: list[Event] = []
        self._proved: list[int] = []
        self._accesses: list[Line] = []

    async def write(self, path: str) -> Exported:
        async with self._log.pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            chosen = await self._chosen(connection)
            with (self._folder / "events.ndjson").open("wb") as file:
                async for line in self._lines(connection, chosen):
                    file.write(_ENCODE(line) + b"\n")
            checkpoints = await self._checkpoints(connection, chosen)
            keys = await public_keys(connection)
        await self._proofs([one["size"] for one in checkpoints])
        self._write_rest(chosen, checkpoints, keys)
        return Exported(path=path, size=self._size, **self._counts)

    async def _chosen(self, connection: asyncpg.Connection) -> Range | frozenset[int]:
        if not self._scope.tags:
            return await range_of(connection, self._scope, self._size)
        about = await positions_about(connection, self._scope, self._size)
        return frozenset(about) | await _enrolments(connection, about)

    async def _lines(self, connection: asyncpg.Connection, chosen: Range | frozenset[int]) -> AsyncIterator[Line]:
        if isinstance(chosen, frozenset):
            async for row in self._rows(connection, 1, self._size):
                yield self._line(row, row["position"] in chosen)
            return
        enrolled = await _enrolments(connection, range(chosen.first, chosen.last + 1))
        first, last = max(1, chosen.first - 1), min(self._size, chosen.last + 1)  # the neighbours show that the range is right
        for line in await self._subtrees(1, first - 1, enrolled, connection):
            yield line
        async for row in self._rows(connection, first, last):
            yield self._line(row, chosen.first <= row["position"] <= chosen.last, neighbour=True)
        for line in await self._subtrees(last + 1, self._size, enrolled, connection):
            yield line

    async def _rows(self, connection: asyncpg.Connection, first: int, last: int) -> AsyncIterator[asyncpg.Record]:
        query = f"SELECT {COLUMNS} FROM event WHERE position BETWEEN $1 AND $2 ORDER BY position"
        async for row in connection.cursor(query, first, last, prefetch=PREFETCH):
            if self._progress is not None and row["position"] % PREFETCH == 0:
                self._progress(row["position"], self._size)
            yield row

    def _line(self, row: asyncpg.Record, is_chosen: bool, *, neighbour: bool = False) -> Line:
        about = scope_of(row)
        if not is_chosen and not neighbour:
            self._counts["withheld"] += 1
            return withheld(row, about)
        names_others = bool(self._scope.tags) and row["type"] == "AccessesRecorded" and not _only(about, self._scope)
        if not is_chosen or names_others:
            self._counts["without_data"] += 1
            line = without_data(row, about)
        else:
            self._counts["whole"] += 1
            line = whole(row, about)
        if names_others:
            self._accesses += accesses_to(msgspec.json.decode(row["data"], type=AccessesRecorded), row["position"], self._scope)
        if is_chosen:
            self._proved.append(row["position"])
            if len(self._shown) < MAX_REPORTED:
                self._shown.append(shown_event(line))
        return line

    async def _subtrees(self, first: int, last: int, apart: frozenset[int], connection: asyncpg.Connection) -> list[Line]:
        """Lines for positions that are left out: whole subtrees where nothing of them has to be shown apart."""
        lines: list[Line] = []
        for start, end in _between(first, last, sorted(p for p in apart if first <= p <= last)):
            if start == end and start in apart:
                row = await connection.fetchrow(f"SELECT {COLUMNS} FROM event WHERE position = $1", start)
                lines.append(self._line(row, True))
                continue
            for height, index in perfect_subtrees(start - 1, end):
                begin = (index << height) + 1
                lines.append(
                    {
                        "subtree": (await self._tree.node(height, index)).hex(),
                        "height": height,
                        "first": begin,
                        "last": begin + (1 << height) - 1,
                    }
                )
            self._counts["withheld"] += end - start + 1
        return lines

    async def _checkpoints(self, connection: asyncpg.Connection, chosen: Range | frozenset[int]) -> Sequence[asyncpg.Record]:
        """The newest, those that first covered an event that is shown, and those at which the key changed; evenly fewer of too many."""
        if isinstance(chosen, frozenset):
            rows = await connection.fetch(
                "SELECT DISTINCT (SELECT min(size) FROM checkpoint c WHERE c.size >= p.position) AS size"
                " FROM unnest($1::bigint[]) AS p (position)",
                sorted(chosen),
            )
        else:
            rows = await connection.fetch(
                "SELECT size FROM checkpoint WHERE size >= $1 AND size <= coalesce((SELECT min(size) FROM checkpoint WHERE size >= $2), $3)",
                chosen.first,
                chosen.last,
                self._size,
            )
        sizes = sorted(row["size"] for row in rows if row["size"] is not None and row["size"] <= self._size)
        sizes = sizes[:: max(1, len(sizes) // CHECKPOINTS)]
        return await connection.fetch(
            "SELECT size, note FROM checkpoint WHERE size <= $1 AND (size = ANY($2) OR size = $1 OR made_at IN ("
            "  SELECT (SELECT min(made_at) FROM checkpoint WHERE made_at >= k.made_at) FROM checkpoint_key k)) ORDER BY size",
            self._size,
            sizes,
        )

    async def _proofs(self, sizes: Sequence[int]) -> None:
        with (self._folder / "proofs.ndjson").open("wb") as file:
            for position in self._proved[:MAX_PROOFS]:
                path = await self._tree.inclusion_proof(position - 1, self._size)
                line = {"kind": "inclusion", "position": position, "size": self._size, "path": [step.hex() for step in path]}
                file.write(_ENCODE(line) + b"\n")
            for first, second in pairwise(sizes):
                path = await self._tree.consistency_proof(first, second)
                line = {"kind": "consistency", "first": first, "second": second, "path": [step.hex() for step in path]}
                file.write(_ENCODE(line) + b"\n")

    def _write_rest(self, chosen: Range | frozenset[int], checkpoints: Sequence[asyncpg.Record], keys: Sequence[str]) -> None:
        scope: dict[str, Any] = {"asked": self._scope.asked, "tags": list(self._scope.tags)}
        if isinstance(chosen, Range):
            times = {name: instant(at) for name, at in (("since", self._scope.since), ("until", self._scope.until)) if at}
            scope["range"] = {"first": chosen.first, "last": chosen.last, **times}
        manifest = {
            "format": verifier.FORMAT,
            "site": self._log.settings.site,
            "made_at": instant(datetime.now(UTC)),
            "size": self._size,
            "scope": scope,
            "counts": self._counts,
        }
        newest = str(checkpoints[-1]["note"])
        self._put("checkpoints.ndjson", b"".join(_ENCODE({"size": c["size"], "note": c["note"]}) + b"\n" for c in checkpoints))
        self._put("checkpoint.txt", newest.encode("utf-8"))
        self._put("keys.json", _ENCODE({"keys": list(keys)}) + b"\n")
        self._put("accesses.ndjson", b"".join(_ENCODE(access) + b"\n" for access in self._accesses))
        self._put("report.html", "".join(report(manifest, newest, self._shown, self._accesses)).encode("utf-8"))
        self._put("verify.py", Path(verifier.__file__).read_bytes())
        self._put("README.txt", _README.encode("utf-8"))
        files = {path.name: _sha256(path) for path in sorted(self._folder.iterdir())}
        self._put("manifest.json", msgspec.json.format(_ENCODE({**manifest, "files": files})) + b"\n")

    def _put(self, name: str, content: bytes) -> None:
        (self._folder / name).write_bytes(content)


async def _enrolments(connection: asyncpg.Connection, positions: Sequence[int]) -> frozenset[int]:
    """Where the keys were enrolled with which events at these positions are signed: a signature is nothing without its key."""
    if isinstance(positions, range):
        signed = await connection.fetch(
            "SELECT data FROM event WHERE position BETWEEN $1 AND $2 AND type = 'EventSigned'", positions.start, positions.stop - 1
        )
    else:
        signed = await connection.fetch("SELECT data FROM event WHERE position = ANY($1) AND type = 'EventSigned'", list(positions))
    signers = sorted({f"signer-{msgspec.json.decode(row['data'])['principal_id']}" for row in signed})
    rows = await connection.fetch("SELECT position FROM event WHERE stream = ANY($1) AND type = 'SignerEnrolled'", signers)
    return frozenset(row["position"] for row in rows)


def _only(about: Sequence[str], scope: Scope) -> bool:
    return set(about) <= set(scope.tags)


def _between(first: int, last: int, apart: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The stretches of [first, last], each position of ``apart`` one of its own."""
    for position in apart:
        if first < position:
            yield first, position - 1
        yield position, position
        first = position + 1
    if first <= last:
        yield first, last


def _zip(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for path in sorted(folder.iterdir()):
            with path.open("rb") as source, archive.open(path.name, "w", force_zip64=True) as entry:
                shutil.copyfileobj(source, entry, io.DEFAULT_BUFFER_SIZE)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_README = """An auditor's bundle of Anamnesis.

report.html         what happened, for people (open it in a browser; it loads nothing)
events.ndjson       a line for each position of the log: the event whole, or as its envelope, or as digests
accesses.ndjson     who looked at what is in scope, out of records of reads that name others too: those records are in
                    events.ndjson without their data, so this extract is the site's word
checkpoints.ndjson  checkpoints of the log's Merkle tree, signed by the site (C2SP tlog-checkpoint)
proofs.ndjson       inclusion and consistency proofs (RFC 9162)
keys.json           the site's verification keys: compare them with what the site publishes elsewhere
verify.py           checks all of this offline: python3 verify.py   (needs the package `cryptography`)
manifest.json       what was asked for, and the SHA-256 of each file
"""
