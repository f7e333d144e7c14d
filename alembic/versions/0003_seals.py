"""Seals: the Merkle tree's tiles, the signed checkpoints, and the keys that sign them; and which read models were ever complete."""

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


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("the log is never taken back")
