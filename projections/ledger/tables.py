"""The tables of the ledger, each question of an auditor beside the index that answers it. They hold no identities."""

from __future__ import annotations

STATEMENTS = (
    """
    CREATE TABLE entry (
        position       bigint      NOT NULL PRIMARY KEY,
        event_id       uuid        NOT NULL UNIQUE,
        stream         text        COLLATE "C" NOT NULL,
        version        integer     NOT NULL,
        type           text        COLLATE "C" NOT NULL,
        occurred_at    timestamptz NOT NULL,
        recorded_at    timestamptz NOT NULL,
        latest_at      timestamptz NOT NULL,
        principal_id   text        COLLATE "C" NOT NULL,
        principal_kind text        COLLATE "C" NOT NULL,
        on_behalf_of   text        COLLATE "C",
        correlation_id uuid        NOT NULL,
        causation_id   uuid
    )
    """,
    "COMMENT ON COLUMN entry.latest_at IS 'The latest recorded_at of all events up to this position'",
    "CREATE INDEX entry_principal ON entry (principal_id, position)",
    "CREATE INDEX entry_on_behalf_of ON entry (on_behalf_of, position) WHERE on_behalf_of IS NOT NULL",
    "CREATE INDEX entry_correlation ON entry (correlation_id, position)",
    "CREATE INDEX entry_causation ON entry (causation_id, position) WHERE causation_id IS NOT NULL",
    "CREATE INDEX entry_type ON entry (type, position)",
    "CREATE INDEX entry_latest ON entry (latest_at, position)",
    """
    CREATE TABLE touched (
        tag      text   COLLATE "C" NOT NULL,
        position bigint NOT NULL,
        PRIMARY KEY (tag, position)
    )
    """,
    "COMMENT ON COLUMN touched.tag IS 'What an event is about: study:UID, series:UID, subject:ID, finding:KEY, …'",
)

ENTRY_COLUMNS = (
    "position",
    "event_id",
    "stream",
    "version",
    "type",
    "occurred_at",
    "recorded_at",
    "latest_at",
    "principal_id",
    "principal_kind",
    "on_behalf_of",
    "correlation_id",
    "causation_id",
)
