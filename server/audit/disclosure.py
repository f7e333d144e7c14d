"""What of an event an auditor is shown: all of it, its envelope without the data, or digests that tell nothing but prove it.

Each form is one line of a bundle's events.ndjson, from which the verifier recomputes the digest in the Merkle tree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import asyncpg

from eventlog import codec
from eventlog.envelope import canonical, envelope_of, scope_salt, tag_digest

COLUMNS = (
    "position, event_id, stream, type, schema_version, occurred_at, recorded_at, principal, correlation_id,"
    " causation_id, origin, data"
)

Line = dict[str, Any]


def scope_of(row: Mapping[str, Any]) -> list[str]:
    """What a stored event is about. Raises UnknownEventType: what it is about is then not known either."""
    event = codec.decode(row["type"], row["schema_version"], row["data"], row["event_id"], {}, row["position"])
    return sorted(event.scope())


def whole(row: asyncpg.Record, about: Iterable[str]) -> Line:
    """The envelope, the data as they are stored (what identifies is sealed in them), and what the event is about."""
    return {
        "position": row["position"],
        "envelope": envelope_of(row),
        "about": list(about),
        "data": bytes(row["data"]).decode("utf-8"),
    }


def without_data(row: asyncpg.Record, about: Iterable[str]) -> Line:
    """The envelope, which holds the data's digest. What it is about is shown as salted digests."""
    return {"position": row["position"], "envelope": envelope_of(row), "scope": _scope(row, about)}


def withheld(row: asyncpg.Record, about: Iterable[str]) -> Line:
    """Digests alone. Whoever knows a tag can try it under the salt; nobody can tell the tag from this."""
    return {
        "position": row["position"],
        "envelope_sha256": hashlib.sha256(canonical(envelope_of(row))).hexdigest(),
        "salt": scope_salt(row["event_id"]).hex(),
        "scope": _scope(row, about),
    }


def _scope(row: asyncpg.Record, about: Iterable[str]) -> list[str]:
    salt = scope_salt(row["event_id"])
    return sorted(tag_digest(salt, tag) for tag in about)
