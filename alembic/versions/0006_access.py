"""Access: the patient whom a token is about; clients that authenticate by keys of their own, and the assertions that they have used."""

from alembic import op

revision = "0006_access"
down_revision = "0005_signer"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE client (
            client_id  text        NOT NULL PRIMARY KEY,
            name       text        NOT NULL,
            scopes     text[]      NOT NULL,
            jwks       text,
            jwks_uri   text,
            made_at    timestamptz NOT NULL DEFAULT now(),
            revoked_at timestamptz,
            CHECK ((jwks IS NULL) <> (jwks_uri IS NULL))
        )
        """
    )
    op.execute(
        """
        CREATE TABLE client_assertion (
            client_id  text        NOT NULL,
            jti_sha256 bytea       NOT NULL,
            expires_at timestamptz NOT NULL,
            PRIMARY KEY (client_id, jti_sha256)
        )
        """
    )
    op.execute("CREATE INDEX client_assertion_expires ON client_assertion (expires_at)")
    op.execute("COMMENT ON TABLE client_assertion IS 'Assertions (RFC 7523) that were used, until they would have expired: none is taken twice'")
    op.execute("ALTER TABLE access_token ADD COLUMN patient text, ADD COLUMN client_id text")
    op.execute("COMMENT ON COLUMN access_token.patient IS 'Id of the Patient whom scopes that begin with patient/ are about'")
    op.execute("CREATE INDEX access_token_of_client ON access_token (expires_at) WHERE client_id IS NOT NULL")


def downgrade() -> None:
    raise NotImplementedError("the log is never taken back")
