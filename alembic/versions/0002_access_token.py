"""Access tokens: what a bearer token may do, known by its hash alone."""

from alembic import op

revision = "0002_access_token"
down_revision = "0001_event_log"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE access_token (
            token_id     text        NOT NULL PRIMARY KEY,
            sha256       bytea       NOT NULL UNIQUE,
            name         text        NOT NULL,
            kind         text        NOT NULL CHECK (kind IN ('person', 'device')),
            on_behalf_of text,
            scopes       text[]      NOT NULL,
            made_at      timestamptz NOT NULL DEFAULT now(),
            expires_at   timestamptz NOT NULL,
            revoked_at   timestamptz
        )
        """
    )


def downgrade() -> None:
    raise NotImplementedError("the log is never taken back")
