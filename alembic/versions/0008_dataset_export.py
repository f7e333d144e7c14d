"""Exports of datasets: what was asked for, how far each has come, and how it ended. Their files are in the data folder."""

from alembic import op

revision = "0008_dataset_export"
down_revision = "0007_fhir_export"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE dataset_export (
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
    op.execute("CREATE INDEX dataset_export_state ON dataset_export (state, ended_at)")
    op.execute("COMMENT ON COLUMN dataset_export.asked IS 'Sealed under a key of this site: fields may name what identifies'")
    op.execute("COMMENT ON COLUMN dataset_export.known_position IS 'The head of the log when it was asked for: a later erasure takes the export'")


def downgrade() -> None:
    raise NotImplementedError("the log is never taken back")
