"""Bulk Data exports: what was asked for, how far each has come, and how it ended. Their files are in the data folder."""

from alembic import op

revision = "0007_fhir_export"
down_revision = "0006_access"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE fhir_export (
            export_id      text        NOT NULL PRIMARY KEY,
            principal_id   text        NOT NULL,
            state          text        NOT NULL CHECK (state IN ('running', 'done', 'failed', 'erased')),
            asked          bytea       NOT NULL,
            progress       bytea       NOT NULL,
            known_position bigint      NOT NULL,
            problem        text,
            made_at        timestamptz NOT NULL DEFAULT now(),
            ended_at       timestamptz
        )
        """
    )
    op.execute("CREATE INDEX fhir_export_state ON fhir_export (state, ended_at)")
    op.execute("COMMENT ON COLUMN fhir_export.asked IS 'Sealed under a key of this site: filters may name a person'")
    op.execute("COMMENT ON COLUMN fhir_export.known_position IS 'How far the read model had come: a later erasure takes the export'")


def downgrade() -> None:
    raise NotImplementedError("the log is never taken back")
