"""The tables of the dispatch projection. They hold UIDs and instants, and nothing of a person."""

from __future__ import annotations

from collections.abc import Sequence

STATEMENTS: Sequence[str] = (
    """
    CREATE TABLE series (
        series_uid           text        NOT NULL PRIMARY KEY,
        last_stored_at       timestamptz NOT NULL,
        last_stored_position bigint      NOT NULL,
        of_today             boolean     NOT NULL
    )
    """,
    "COMMENT ON COLUMN series.of_today IS 'The study is at most a day older than its arrival'",
    "CREATE INDEX series_by_last_stored ON series (last_stored_position)",
    """
    CREATE TABLE request (
        series_uid    text        NOT NULL,
        segmenter     text        NOT NULL,
        series_digest text        NOT NULL,
        position      bigint      NOT NULL,
        requested_at  timestamptz NOT NULL,
        priority      smallint    NOT NULL,
        outcome       text        NOT NULL,
        PRIMARY KEY (series_uid, segmenter)
    )
    """,
    "COMMENT ON COLUMN request.priority IS '0 somebody asked, 1 a study of today, 2 the back-catalogue'",
    "COMMENT ON COLUMN request.outcome IS 'requested (it stands), indexed, refused or failed'",
    "CREATE INDEX request_standing ON request (segmenter, priority, position) WHERE outcome = 'requested'",
)
