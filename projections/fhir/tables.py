"""The tables of the FHIR projection. A version holds for positions in [position_from, position_to)."""

from __future__ import annotations

STATEMENTS = (
    """
    CREATE TABLE resource (
        type          text        NOT NULL,
        id            text        NOT NULL,
        version       integer     NOT NULL,
        position_from bigint      NOT NULL,
        position_to   bigint,
        last_updated  timestamptz NOT NULL,
        body          text        NOT NULL,
        PRIMARY KEY (type, id, version)
    )
    """,
    "CREATE UNIQUE INDEX resource_current ON resource (type, id) WHERE position_to IS NULL",
    "CREATE INDEX resource_updated ON resource (type, last_updated, id)",
    """
    CREATE TABLE token (
        type    text    NOT NULL,
        param   text    NOT NULL,
        code    text    NOT NULL,
        system  text    NOT NULL,
        id      text    NOT NULL,
        version integer NOT NULL
    )
    """,
    "CREATE INDEX token_value ON token (type, param, code, system, id, version)",
    "CREATE INDEX token_resource ON token (type, id, version, param)",
    """
    CREATE TABLE reference (
        type    text    NOT NULL,
        param   text    NOT NULL,
        target  text    NOT NULL,
        id      text    NOT NULL,
        version integer NOT NULL
    )
    """,
    "CREATE INDEX reference_target ON reference (type, param, target, id, version)",
    "CREATE INDEX reference_resource ON reference (type, id, version, param)",
    """
    CREATE TABLE date (
        type    text        NOT NULL,
        param   text        NOT NULL,
        low     timestamptz NOT NULL,
        high    timestamptz NOT NULL,
        id      text        NOT NULL,
        version integer     NOT NULL
    )
    """,
    "CREATE INDEX date_value ON date (type, param, low, high, id, version)",
    "CREATE INDEX date_resource ON date (type, id, version, param)",
    """
    CREATE TABLE patient_identity (
        subject_id    text   NOT NULL,
        position      bigint NOT NULL,
        patient_id    text   NOT NULL,
        issuer        text   NOT NULL,
        patient_name  text   NOT NULL,
        birth_date    text   NOT NULL,
        PRIMARY KEY (subject_id, position)
    )
    """,
)
