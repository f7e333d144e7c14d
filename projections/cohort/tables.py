"""The tables of the cohort read model: one row for each version of each entity, which held for positions in [position_from, position_to).

``position_to`` is null while a version stands. An entity's ``id`` is the position of the first event that it appeared in, times 4096,
plus its number in that event: the same after every rebuild, and what orders entities as they came. A version made and ended by the
same event is not kept. Columns in memory follow these rows (projections.columns), by ``position_from`` and ``position_to``.

``elements`` is what headers say, tag → distinct values in the order in which they came: {"00080060": ["CT"]}, as projections.cohort.elements
reads them (numbers as numbers, dates as YYYY-MM-DD). Of a study, the elements that describe study and patient; of a series, all others.
Own text is empty where there is no value.

``entity_erased`` lists which subjects, studies and series an erasure took, with all of their versions and all that belongs to them: whoever
follows the rows learns there what to forget.
``text_value`` is the dictionary of all text in elements, and of ours that can be searched: a search looks its text up there, and then for rows
with these values, which ``terms`` (hashes of element and value, see projections.cohort.terms) finds by index. The embedded database has no
pg_trgm; ``grams`` are hashes of three characters each.

Columns that are nobody's field hold what the next event needs: ``seen_…`` and ``said_…`` of a subject (what images and what clients say of the
person), ``orientation`` of a series (Image Orientation (Patient) of its first instance that has one) and ``slice_mm`` of an instance
(where it lies along that orientation's normal; null where it lies in no such plane).
"""

from __future__ import annotations

ORDINALS = 4096
"""Entities that one event can bring."""

FOLLOWED = ("subject", "study", "series", "finding", "fact", "tag")
"""What columns in memory follow. Instances are too many for that."""

_VERSIONED = """
        id            bigint NOT NULL,
        position_from bigint NOT NULL,
        position_to   bigint,
"""

STATEMENTS = (
    f"""
    CREATE TABLE subject (
        {_VERSIONED}
        subject_id text COLLATE "C" NOT NULL,
        sex        text COLLATE "C" NOT NULL,
        born       date,
        seen_sex   text COLLATE "C",
        seen_born  text COLLATE "C",
        said_sex   text COLLATE "C",
        said_born  text COLLATE "C",
        PRIMARY KEY (id, position_from)
    )
    """,
    "CREATE UNIQUE INDEX subject_by_subject_id ON subject (subject_id, position_from)",
    f"""
    CREATE TABLE study (
        {_VERSIONED}
        study_uid  text COLLATE "C" NOT NULL,
        subject    bigint NOT NULL,
        study_date date,
        age_years  double precision,
        elements   jsonb NOT NULL,
        terms      bigint[] NOT NULL,
        PRIMARY KEY (id, position_from)
    )
    """,
    "CREATE UNIQUE INDEX study_by_study_uid ON study (study_uid, position_from)",
    "CREATE UNIQUE INDEX study_of_subject ON study (subject, id, position_from)",
    f"""
    CREATE TABLE series (
        {_VERSIONED}
        series_uid       text COLLATE "C" NOT NULL,
        study            bigint NOT NULL,
        subject          bigint NOT NULL,
        instance_count   integer NOT NULL,
        frame_count      integer NOT NULL,
        bytes            bigint NOT NULL,
        series_digest    text COLLATE "C" NOT NULL,
        slice_spacing_mm double precision,
        indexing         text COLLATE "C" NOT NULL,
        elements         jsonb NOT NULL,
        terms            bigint[] NOT NULL,
        orientation      double precision[] NOT NULL,
        PRIMARY KEY (id, position_from)
    )
    """,
    "CREATE UNIQUE INDEX series_by_series_uid ON series (series_uid, position_from)",
    f"""
    CREATE TABLE instance (
        {_VERSIONED}
        sop_instance_uid    text COLLATE "C" NOT NULL,
        series              bigint NOT NULL,
        sop_class_uid       text COLLATE "C" NOT NULL,
        transfer_syntax_uid text COLLATE "C" NOT NULL,
        sha256              text COLLATE "C" NOT NULL,
        bytes               bigint NOT NULL,
        frame_count         integer NOT NULL,
        slice_mm            double precision,
        PRIMARY KEY (id, position_from)
    )
    """,
    "CREATE UNIQUE INDEX instance_of_series ON instance (series, sop_instance_uid, position_from)",
    f"""
    CREATE TABLE finding (
        {_VERSIONED}
        finding_key       text COLLATE "C" NOT NULL,
        series            bigint NOT NULL,
        study             bigint NOT NULL,
        subject           bigint NOT NULL,
        segmenter         text COLLATE "C" NOT NULL,
        segmenter_version text COLLATE "C" NOT NULL,
        label             text COLLATE "C" NOT NULL,
        structure         text COLLATE "C" NOT NULL,
        laterality        text COLLATE "C" NOT NULL,
        morphology        text COLLATE "C" NOT NULL,
        volume_ml         double precision NOT NULL,
        mean_hu           double precision NOT NULL,
        whole             boolean NOT NULL,
        verdict           text COLLATE "C" NOT NULL,
        PRIMARY KEY (id, position_from)
    )
    """,
    "CREATE UNIQUE INDEX finding_of_series ON finding (series, id, position_from)",
    f"""
    CREATE TABLE fact (
        {_VERSIONED}
        subject       bigint NOT NULL,
        resource_type text COLLATE "C" NOT NULL,
        resource_id   text COLLATE "C" NOT NULL,
        system        text COLLATE "C" NOT NULL,
        code          text COLLATE "C" NOT NULL,
        status        text COLLATE "C" NOT NULL,
        value         double precision,
        unit          text COLLATE "C" NOT NULL,
        value_code    text COLLATE "C" NOT NULL,
        date          date,
        PRIMARY KEY (id, position_from)
    )
    """,
    "CREATE UNIQUE INDEX fact_of_record ON fact (resource_type, resource_id, id, position_from)",
    f"""
    CREATE TABLE tag (
        {_VERSIONED}
        level   text COLLATE "C" NOT NULL,
        target  bigint NOT NULL,
        project text COLLATE "C" NOT NULL,
        name    text COLLATE "C" NOT NULL,
        value   text COLLATE "C" NOT NULL,
        PRIMARY KEY (id, position_from)
    )
    """,
    "CREATE UNIQUE INDEX tag_of_target ON tag (level, target, project, name, id, position_from)",
    """
    CREATE TABLE entity_erased (
        position bigint NOT NULL,
        level    text COLLATE "C" NOT NULL,
        id       bigint NOT NULL,
        PRIMARY KEY (position, level, id)
    )
    """,
    """
    CREATE TABLE subject_erased (
        subject_id text COLLATE "C" PRIMARY KEY,
        position   bigint NOT NULL
    )
    """,
    """
    CREATE TABLE text_value (
        key    text COLLATE "C" NOT NULL,
        value  text COLLATE "C" NOT NULL,
        term   bigint NOT NULL,
        folded text COLLATE "C" NOT NULL,
        grams  integer[] NOT NULL,
        PRIMARY KEY (term)
    )
    """,
    "CREATE INDEX text_value_key ON text_value (key)",
    "CREATE INDEX text_value_grams ON text_value USING gin (grams)",
    # What belongs to an entity.
    "CREATE INDEX series_of_study ON series (study)",
    "CREATE INDEX series_of_subject ON series (subject)",
    "CREATE INDEX finding_of_study ON finding (study)",
    "CREATE INDEX finding_of_subject ON finding (subject)",
    "CREATE INDEX fact_of_subject ON fact (subject)",
    # Exact questions.
    "CREATE INDEX instance_by_uid ON instance (sop_instance_uid)",
    "CREATE INDEX finding_by_key ON finding (finding_key)",
    "CREATE INDEX finding_label ON finding (label)",
    "CREATE INDEX fact_code ON fact (code)",
    "CREATE INDEX tag_name ON tag (name)",
    "CREATE INDEX study_terms ON study USING gin (terms)",
    "CREATE INDEX series_terms ON series USING gin (terms)",
    # What columns in memory have not seen yet: versions that began or ended beyond a position.
    *(f"CREATE INDEX {table}_from ON {table} (position_from)" for table in FOLLOWED),
    *(f"CREATE INDEX {table}_to ON {table} (position_to) WHERE position_to IS NOT NULL" for table in FOLLOWED),
)

SUBJECT_COLUMNS = ("subject_id", "sex", "born", "seen_sex", "seen_born", "said_sex", "said_born")
STUDY_COLUMNS = ("study_uid", "subject", "study_date", "age_years", "elements", "terms")
SERIES_COLUMNS = (
    "series_uid",
    "study",
    "subject",
    "instance_count",
    "frame_count",
    "bytes",
    "series_digest",
    "slice_spacing_mm",
    "indexing",
    "elements",
    "terms",
    "orientation",
)
INSTANCE_COLUMNS = ("sop_instance_uid", "series", "sop_class_uid", "transfer_syntax_uid", "sha256", "bytes", "frame_count", "slice_mm")
FINDING_COLUMNS = (
    "finding_key",
    "series",
    "study",
    "subject",
    "segmenter",
    "segmenter_version",
    "label",
    "structure",
    "laterality",
    "morphology",
    "volume_ml",
    "mean_hu",
    "whole",
    "verdict",
)
FACT_COLUMNS = ("subject", "resource_type", "resource_id", "system", "code", "status", "value", "unit", "value_code", "date")
TAG_COLUMNS = ("level", "target", "project", "name", "value")
