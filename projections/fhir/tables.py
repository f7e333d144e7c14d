"""The tables of the FHIR projection. A version holds for positions in [position_from, position_to).

Text that is matched has the collation "C", and where an index may begin with what differs most it does: sorting half a gigabyte of
search rows is what building the indexes takes.
"""

from __future__ import annotations

STATEMENTS = (
    """
    CREATE TABLE resource (
        type          text        COLLATE "C" NOT NULL,
        id            text        COLLATE "C" NOT NULL,
        version       integer     NOT NULL,
        position_from bigint      NOT NULL,
        position_to   bigint,
        last_updated  timestamptz NOT NULL,
        body          text        NOT NULL,
        PRIMARY KEY (type, id, version)
    )
    """,
    "CREATE INDEX resource_current ON resource (type, id) WHERE position_to IS NULL",
    "CREATE INDEX resource_updated ON resource (type, last_updated, id)",
    "CREATE INDEX resource_history ON resource (type, position_from, id)",
    """
    CREATE TABLE token (
        type    text    COLLATE "C" NOT NULL,
        param   text    COLLATE "C" NOT NULL,
        code    text    COLLATE "C" NOT NULL,
        system  text    COLLATE "C" NOT NULL,
        id      text    COLLATE "C" NOT NULL,
        version integer NOT NULL
    )
    """,
    "CREATE INDEX token_value ON token (code, id, version, type, param, system)",
    "CREATE INDEX token_resource ON token (id, version, type, param)",
    """
    CREATE TABLE reference (
        type    text    COLLATE "C" NOT NULL,
        param   text    COLLATE "C" NOT NULL,
        target  text    COLLATE "C" NOT NULL,
        id      text    COLLATE "C" NOT NULL,
        version integer NOT NULL
    )
    """,
    "CREATE INDEX reference_target ON reference (target, param, type, id, version)",
    "CREATE INDEX reference_resource ON reference (id, version, type, param)",
    """
    CREATE TABLE date (
        type    text        COLLATE "C" NOT NULL,
        param   text        COLLATE "C" NOT NULL,
        low     timestamptz NOT NULL,
        high    timestamptz NOT NULL,
        id      text        COLLATE "C" NOT NULL,
        version integer     NOT NULL
    )
    """,
    "CREATE INDEX date_value ON date (type, param, low, high, id, version)",
    "CREATE INDEX date_resource ON date (id, version, type, param)",
    """
    CREATE TABLE patient_identity (
        subject_id    text   COLLATE "C" NOT NULL,
        position      bigint NOT NULL,
        patient_id    text   COLLATE "C" NOT NULL,
        issuer        text   COLLATE "C" NOT NULL,
        patient_name  text   COLLATE "C" NOT NULL,
        birth_date    text   COLLATE "C" NOT NULL,
        PRIMARY KEY (subject_id, position)
    )
    """,
)
