"""The tables of the curation read model. Rows with ``position_from`` and ``position_to`` held for the positions in between (to: excluded).

Titles, texts and queries are in the clear here, as every read model has what it shows: these tables hold no subject's data, but a text
may name somebody.
"""

from __future__ import annotations

from collections.abc import Sequence

_VERSIONED = """
        position_from bigint NOT NULL,
        position_to   bigint
"""

STATEMENTS: Sequence[str] = (
    f"""
    CREATE TABLE project (
        project_id text COLLATE "C" NOT NULL,
        title      text NOT NULL,
        {_VERSIONED},
        PRIMARY KEY (project_id, position_from)
    )
    """,
    f"""
    CREATE TABLE member (
        project_id   text COLLATE "C" NOT NULL,
        principal_id text COLLATE "C" NOT NULL,
        role         text COLLATE "C" NOT NULL,
        {_VERSIONED},
        PRIMARY KEY (project_id, principal_id, position_from)
    )
    """,
    f"""
    CREATE TABLE cohort (
        cohort_id    text COLLATE "C" NOT NULL,
        owner        text COLLATE "C" NOT NULL,
        version      integer NOT NULL,
        saved_at     bigint NOT NULL,
        level        text COLLATE "C" NOT NULL,
        query_sha256 text COLLATE "C" NOT NULL,
        query        text NOT NULL,
        title        text NOT NULL,
        description  text NOT NULL,
        {_VERSIONED},
        PRIMARY KEY (cohort_id, position_from)
    )
    """,
    "COMMENT ON COLUMN cohort.saved_at IS 'The position at which this version of the query was saved'",
    f"""
    CREATE TABLE cohort_share (
        cohort_id  text COLLATE "C" NOT NULL,
        project_id text COLLATE "C" NOT NULL,
        {_VERSIONED},
        PRIMARY KEY (cohort_id, project_id, position_from)
    )
    """,
    f"""
    CREATE TABLE dataset (
        dataset_id    text COLLATE "C" NOT NULL,
        project_id    text COLLATE "C" NOT NULL,
        title         text NOT NULL,
        description   text NOT NULL,
        license       text NOT NULL,
        license_text  text NOT NULL,
        intended_uses text[] NOT NULL,
        use_note      text NOT NULL,
        consent       text NOT NULL,
        {_VERSIONED},
        PRIMARY KEY (dataset_id, position_from)
    )
    """,
    """
    CREATE TABLE dataset_version (
        dataset_id      text COLLATE "C" NOT NULL,
        version         integer NOT NULL,
        position        bigint NOT NULL,
        frozen_at       timestamptz NOT NULL,
        frozen_by       text COLLATE "C" NOT NULL,
        at_position     bigint NOT NULL,
        level           text COLLATE "C" NOT NULL,
        query_sha256    text COLLATE "C" NOT NULL,
        query           text NOT NULL,
        cohort_id       text COLLATE "C" NOT NULL,
        cohort_version  integer NOT NULL,
        members_sha256  text COLLATE "C" NOT NULL,
        members_bytes   bigint NOT NULL,
        subjects_count  bigint NOT NULL,
        studies_count   bigint NOT NULL,
        series_count    bigint NOT NULL,
        instances_count bigint NOT NULL,
        bytes           bigint NOT NULL,
        PRIMARY KEY (dataset_id, version)
    )
    """,
    "COMMENT ON COLUMN dataset_version.position IS 'That of the event; at_position is what the version is as of'",
    """
    CREATE TABLE dataset_split (
        dataset_id        text COLLATE "C" NOT NULL,
        version           integer NOT NULL,
        position          bigint NOT NULL,
        split_at          timestamptz NOT NULL,
        split_by          text COLLATE "C" NOT NULL,
        seed              text COLLATE "C" NOT NULL,
        stratified_by     text[] NOT NULL,
        by_hand           boolean NOT NULL,
        kept_count        bigint NOT NULL,
        left_out_count    bigint NOT NULL,
        parts             jsonb NOT NULL,
        assignment_sha256 text COLLATE "C" NOT NULL,
        assignment_bytes  bigint NOT NULL,
        PRIMARY KEY (dataset_id, position)
    )
    """,
    """
    CREATE TABLE same_person (
        subject_id      text COLLATE "C" NOT NULL,
        into_subject_id text COLLATE "C" NOT NULL,
        position        bigint NOT NULL,
        PRIMARY KEY (subject_id, into_subject_id)
    )
    """,
    "COMMENT ON TABLE same_person IS 'Numbers that were once those of one person, also where that was taken back: nobody is to be in two parts'",
    "CREATE INDEX member_by_principal ON member (principal_id) WHERE position_to IS NULL",
    "CREATE INDEX cohort_by_owner ON cohort (owner) WHERE position_to IS NULL",
    "CREATE INDEX cohort_share_by_project ON cohort_share (project_id) WHERE position_to IS NULL",
    "CREATE INDEX dataset_by_project ON dataset (project_id) WHERE position_to IS NULL",
)
