"""Erasure: when a subject's key was destroyed and its last traces were removed, and where the log speaks of erasures."""

from alembic import op

revision = "0004_erasure"
down_revision = "0003_seals"


def upgrade() -> None:
    op.execute("ALTER TABLE subject_key ADD COLUMN destroyed_at timestamptz, ADD COLUMN purged_at timestamptz, ADD COLUMN undone text[]")
    op.execute("COMMENT ON COLUMN subject_key.purged_at IS 'when files, read models and the database''s own files held nothing more'")
    op.execute("COMMENT ON COLUMN subject_key.undone IS 'what of that the database did not let us do, in words'")
    # Every process asks for the count of these once a second.
    op.execute("CREATE INDEX subject_key_destroyed ON subject_key (destroyed_at) WHERE destroyed_at IS NOT NULL")
    op.execute(
        "CREATE INDEX event_of_erasure ON event (position)"
        " WHERE type IN ('ErasureRequested', 'ErasureWithdrawn', 'ErasureConfirmed', 'ErasureStarted', 'SubjectErased')"
    )


def downgrade() -> None:
    raise NotImplementedError("the log is never taken back")
