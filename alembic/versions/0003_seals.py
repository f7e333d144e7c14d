"""Seals: the Merkle tree's tiles, the signed checkpoints, and the keys that sign them; and which read models were ever complete.

Digests get their outer layer, which commits to what an event is about. No checkpoint was ever signed over the old ones, so nothing
that anybody holds is contradicted: what was the digest is from now on the envelope's own, inside the new one.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003_seals"
down_revision = "0002_access_token"

TABLES = """
CREATE TABLE tree_tile (
    level  smallint NOT NULL,
    index  bigint   NOT NULL,
    hashes bytea    NOT NULL,
    PRIMARY KEY (level, index)
);
COMMENT ON TABLE tree_tile IS 'C2SP tlog-tiles: up to 256 hashes of 32 bytes; level 0 are leaves. The last of a level may be partial';

CREATE TABLE checkpoint_key (
    key_id     text        NOT NULL PRIMARY KEY,
    name       text        NOT NULL,
    public_key bytea       NOT NULL,
    wrapped    bytea,
    kek_id     text        NOT NULL,
    made_at    timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz
);
COMMENT ON COLUMN checkpoint_key.wrapped IS 'The Ed25519 seed under the key-encryption key; NULL once it was destroyed';

CREATE TABLE checkpoint (
    size    bigint      NOT NULL PRIMARY KEY,
    root    bytea       NOT NULL,
    note    text        NOT NULL,
    made_at timestamptz NOT NULL
);
CREATE INDEX checkpoint_made_at ON checkpoint (made_at);
CREATE TRIGGER checkpoint_is_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE projection_checkpoint ADD COLUMN built boolean NOT NULL DEFAULT false;
UPDATE projection_checkpoint SET built = true WHERE state <> 'building';
COMMENT ON COLUMN projection_checkpoint.built IS 'The read model has held the whole log once: readers may rely on it';
"""


BATCH = 1_000
SCOPE_ENDINGS = {"study_uid": "study", "series_uid": "series", "subject_id": "subject", "dataset_id": "dataset"}


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    op.execute("ALTER TABLE event DISABLE TRIGGER event_is_immutable")
    commit_to_scopes()
    op.execute("ALTER TABLE event ENABLE TRIGGER event_is_immutable")


def commit_to_scopes() -> None:
    """As eventlog.envelope.event_digest was when this was written; the event types of then name all that they are about by fields."""
    connection, position = op.get_bind(), 0
    query = sa.text("SELECT position, event_id, data, digest FROM event WHERE position > :after ORDER BY position LIMIT :limit")
    while rows := connection.execute(query, {"after": position, "limit": BATCH}).mappings().all():
        position = rows[-1]["position"]
        connection.execute(
            sa.text("UPDATE event SET digest = :digest WHERE position = :position"),
            [{"position": row["position"], "digest": digest(row)} for row in rows],
        )


def digest(row: Mapping[str, Any]) -> bytes:
    salt = hashlib.sha256(b"anamnesis scope" + row["event_id"].bytes).digest()[:16]
    scope = sorted(hashlib.sha256(salt + tag.encode()).hexdigest() for tag in tags(json.loads(row["data"])))
    layered = {"envelope_sha256": bytes(row["digest"]).hex(), "salt": salt.hex(), "scope": scope}
    return hashlib.sha256(json.dumps(layered, sort_keys=True, separators=(",", ":")).encode()).digest()


def tags(data: dict[str, Any]) -> Iterator[str]:
    for name, value in data.items():
        for ending, kind in SCOPE_ENDINGS.items():
            if name.endswith(ending) and value:
                yield f"{kind}:{value}"


def downgrade() -> None:
    raise NotImplementedError("the log is never taken back")
