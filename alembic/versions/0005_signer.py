"""Signers: the personal signing keys, each under its owner's passphrase, which is nowhere."""

from alembic import op

revision = "0005_signer"
down_revision = "0004_erasure"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE signer (
            key_id       text        NOT NULL PRIMARY KEY,
            principal_id text        NOT NULL,
            public_key   bytea       NOT NULL,
            encrypted    bytea       NOT NULL,
            failures     integer     NOT NULL DEFAULT 0,
            locked_until timestamptz,
            made_at      timestamptz NOT NULL DEFAULT now(),
            revoked_at   timestamptz
        )
        """
    )
    op.execute("CREATE UNIQUE INDEX signer_current ON signer (principal_id) WHERE revoked_at IS NULL")
    op.execute("COMMENT ON COLUMN signer.encrypted IS 'Salt, nonce and the Ed25519 seed under AES-256-GCM, the key by scrypt from the passphrase of its owner'")


def downgrade() -> None:
    raise NotImplementedError("the log is never taken back")
