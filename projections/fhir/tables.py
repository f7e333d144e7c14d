"""The tables of the FHIR projection. A version holds for positions in [position_from, position_to).

Its ``key`` says where in the log it was made: the position, and which of its event's versions it is. The rows that it is found by hold
the key, and of the elements that they come from a number (``source``, see search.parameters): a quarter of what names would take. Text
that is matched has the collation "C".
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache

from projections.fhir.search.rows import LABEL

SPANS = (timedelta(hours=1), timedelta(days=1), timedelta(days=31), timedelta(days=366))
"""Lengths of intervals, as classes: those that overlap another interval begin at most so long before it. The last class is longer ones."""


@cache
def span_of(row: str) -> str:
    """The class of an interval's length, as SQL on an alias of a row of ``date``."""
    arms = " ".join(f"WHEN {row}.high - {row}.low <= interval '{one.total_seconds():.0f} s' THEN {nth}" for nth, one in enumerate(SPANS))
    return f"(CASE {arms} ELSE {len(SPANS)} END)"


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
        key           bigint      NOT NULL,
        PRIMARY KEY (type, id, version)
    ) WITH (fillfactor = 90)
    """,
    # position_to is in none of them: a version that ends is then changed where it stands, and no index hears of it (PostgreSQL's
    # heap-only tuples). The free tenth of a page is what that takes.
    "CREATE INDEX resource_updated ON resource (type, last_updated, id)",
    "CREATE INDEX resource_history ON resource (type, position_from, id)",
    "CREATE INDEX resource_deleted ON resource (type, position_from, id) WHERE body = ''",
    "CREATE INDEX resource_key ON resource (key)",
    "CREATE INDEX resource_listed ON resource (type, key)",
    """
    CREATE TABLE token (
        source integer NOT NULL,
        code   text    COLLATE "C" NOT NULL,
        system text    COLLATE "C" NOT NULL,
        text   text    COLLATE "C",
        nth    integer NOT NULL,
        key    bigint  NOT NULL
    )
    """,
    "CREATE INDEX token_value ON token (source, code, key)",
    "CREATE INDEX token_key ON token (key, source, code)",
    f"CREATE INDEX token_label ON token (source, code, system, key) WHERE nth = {LABEL}",
    # A code and its system go together: taken for independent, a common code looks rare.
    "CREATE STATISTICS token_values (mcv) ON source, code, system FROM token",
    "ALTER STATISTICS token_values SET STATISTICS 400",
    """
    CREATE TABLE reference (
        source integer NOT NULL,
        target text    COLLATE "C" NOT NULL,
        nth    integer NOT NULL,
        key    bigint  NOT NULL
    )
    """,
    "CREATE INDEX reference_target ON reference (target, source, key)",
    "CREATE INDEX reference_key ON reference (key, source)",
    f"CREATE INDEX reference_label ON reference (source, target, key) WHERE nth = {LABEL}",
    """
    CREATE TABLE date (
        source integer     NOT NULL,
        low    timestamptz NOT NULL,
        high   timestamptz NOT NULL,
        nth    integer     NOT NULL,
        key    bigint      NOT NULL
    )
    """,
    "CREATE INDEX date_value ON date (source, low, high, key)",
    f"CREATE INDEX date_span ON date (source, {span_of('date')}, low, high, key)",
    "CREATE INDEX date_key ON date (key, source)",
    """
    CREATE TABLE string (
        source integer NOT NULL,
        folded text    COLLATE "C" NOT NULL,
        exact  text    COLLATE "C" NOT NULL,
        nth    integer NOT NULL,
        key    bigint  NOT NULL
    )
    """,
    "CREATE INDEX string_value ON string (source, folded, key)",
    "CREATE INDEX string_key ON string (key, source)",
    """
    CREATE TABLE uri (
        source integer NOT NULL,
        value  text    COLLATE "C" NOT NULL,
        nth    integer NOT NULL,
        key    bigint  NOT NULL
    )
    """,
    "CREATE INDEX uri_value ON uri (source, value, key)",
    "CREATE INDEX uri_key ON uri (key, source)",
    """
    CREATE TABLE quantity (
        source         integer NOT NULL,
        low            float8  NOT NULL,
        high           float8  NOT NULL,
        code           text    COLLATE "C" NOT NULL,
        system         text    COLLATE "C" NOT NULL,
        unit           text    COLLATE "C" NOT NULL,
        canonical      text    COLLATE "C" NOT NULL,
        canonical_low  float8  NOT NULL,
        canonical_high float8  NOT NULL,
        nth            integer NOT NULL,
        key            bigint  NOT NULL
    )
    """,
    "CREATE INDEX quantity_value ON quantity (source, low, key)",
    "CREATE INDEX quantity_canonical ON quantity (source, canonical, canonical_low, key)",
    "CREATE INDEX quantity_key ON quantity (key, source)",
    """
    CREATE TABLE patient_identity (
        subject_id text    COLLATE "C" NOT NULL,
        position   bigint  NOT NULL,
        version    integer NOT NULL,
        imaged     text    COLLATE "C" NOT NULL,
        written    text    COLLATE "C" NOT NULL,
        PRIMARY KEY (subject_id, position)
    )
    """,
)
