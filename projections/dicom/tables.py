"""The tables of the DICOM read model, each search beside the index that serves it.

Text that is matched has the collation "C": the order of code points, in which a prefix is a range of any btree index.
``answer_before`` and ``answer_beyond`` are the ready-made answer to a search, cut where the Retrieve URL goes.

``study`` and ``series`` hold what is known now, since ``position``. What held before it is in ``study_history`` and
``series_history``, for positions in [position, position_to). Instances and shared headers never change once they are there.
"""

from __future__ import annotations

STATEMENTS = (
    """
    CREATE TABLE study (
        study_uid text COLLATE "C" PRIMARY KEY,
        subject_id text COLLATE "C" NOT NULL,
        position bigint NOT NULL,
        study_date text COLLATE "C" NOT NULL,
        study_time text COLLATE "C" NOT NULL,
        patient_name text COLLATE "C" NOT NULL,
        patient_name_ideographic text COLLATE "C" NOT NULL,
        patient_name_phonetic text COLLATE "C" NOT NULL,
        patient_id text COLLATE "C" NOT NULL,
        issuer_of_patient_id text COLLATE "C" NOT NULL,
        patient_birth_date text COLLATE "C" NOT NULL,
        patient_sex text COLLATE "C" NOT NULL,
        accession_number text COLLATE "C" NOT NULL,
        study_id text COLLATE "C" NOT NULL,
        study_description text COLLATE "C" NOT NULL,
        referring_physician text COLLATE "C" NOT NULL,
        referring_physician_ideographic text COLLATE "C" NOT NULL,
        referring_physician_phonetic text COLLATE "C" NOT NULL,
        modalities text[] COLLATE "C" NOT NULL,
        sop_classes text[] COLLATE "C" NOT NULL,
        grams integer[] NOT NULL,
        series_count integer NOT NULL,
        instance_count integer NOT NULL,
        attributes bytea NOT NULL,
        answer_before bytea NOT NULL,
        answer_beyond bytea NOT NULL
    ) WITH (fillfactor = 80)
    """,  # room in the page, so that a count that changes touches no index
    # The order of every list of studies; a page is found in it without reading a row.
    "CREATE INDEX study_order ON study (study_date DESC, study_uid)",
    "CREATE INDEX study_subject ON study (subject_id)",
    "CREATE INDEX study_patient_name ON study (patient_name)",
    "CREATE INDEX study_patient_name_ideographic ON study (patient_name_ideographic)",
    "CREATE INDEX study_patient_name_phonetic ON study (patient_name_phonetic)",
    "CREATE INDEX study_patient_id ON study (patient_id)",
    "CREATE INDEX study_birth_date ON study (patient_birth_date)",
    "CREATE INDEX study_accession_number ON study (accession_number)",
    "CREATE INDEX study_study_id ON study (study_id)",
    "CREATE INDEX study_description ON study (study_description)",
    "CREATE INDEX study_referring_physician ON study (referring_physician)",
    "CREATE INDEX study_modalities ON study USING gin (modalities)",
    "CREATE INDEX study_sop_classes ON study USING gin (sop_classes)",
    # *fragment*: the embedded database has no pg_trgm; see folding.grams.
    "CREATE INDEX study_grams ON study USING gin (grams)",
    "CREATE TABLE study_history (LIKE study, position_to bigint NOT NULL, PRIMARY KEY (study_uid, position))",
    "CREATE INDEX study_history_order ON study_history (study_date DESC, study_uid, position, position_to)",
    "CREATE INDEX study_history_patient_name ON study_history (patient_name)",
    "CREATE INDEX study_history_patient_name_ideographic ON study_history (patient_name_ideographic)",
    "CREATE INDEX study_history_patient_name_phonetic ON study_history (patient_name_phonetic)",
    "CREATE INDEX study_history_patient_id ON study_history (patient_id)",
    "CREATE INDEX study_history_birth_date ON study_history (patient_birth_date)",
    "CREATE INDEX study_history_accession_number ON study_history (accession_number)",
    "CREATE INDEX study_history_study_id ON study_history (study_id)",
    "CREATE INDEX study_history_description ON study_history (study_description)",
    "CREATE INDEX study_history_referring_physician ON study_history (referring_physician)",
    "CREATE INDEX study_history_modalities ON study_history USING gin (modalities)",
    "CREATE INDEX study_history_sop_classes ON study_history USING gin (sop_classes)",
    "CREATE INDEX study_history_grams ON study_history USING gin (grams)",
    """
    CREATE TABLE series (
        series_uid text COLLATE "C" PRIMARY KEY,
        study_uid text COLLATE "C" NOT NULL,
        position bigint NOT NULL,
        series_number bigint,
        modality text COLLATE "C" NOT NULL,
        series_date text COLLATE "C" NOT NULL,
        series_time text COLLATE "C" NOT NULL,
        series_description text COLLATE "C" NOT NULL,
        body_part text COLLATE "C" NOT NULL,
        procedure_step_date text COLLATE "C" NOT NULL,
        procedure_step_time text COLLATE "C" NOT NULL,
        scheduled_step_ids text[] COLLATE "C" NOT NULL,
        requested_procedure_ids text[] COLLATE "C" NOT NULL,
        instance_count integer NOT NULL,
        attributes bytea NOT NULL,
        answer_before bytea NOT NULL,
        answer_beyond bytea NOT NULL
    ) WITH (fillfactor = 80)
    """,
    "CREATE INDEX series_order ON series (study_uid, series_number, series_uid)",
    "CREATE INDEX series_modality ON series (modality)",
    "CREATE INDEX series_description ON series (series_description)",
    "CREATE INDEX series_scheduled_step_ids ON series USING gin (scheduled_step_ids)",
    "CREATE INDEX series_requested_procedure_ids ON series USING gin (requested_procedure_ids)",
    "CREATE TABLE series_history (LIKE series, position_to bigint NOT NULL, PRIMARY KEY (series_uid, position))",
    "CREATE INDEX series_history_order ON series_history (study_uid, series_number, series_uid, position, position_to)",
    "CREATE INDEX series_history_modality ON series_history (modality)",
    "CREATE INDEX series_history_description ON series_history (series_description)",
    "CREATE INDEX series_history_scheduled_step_ids ON series_history USING gin (scheduled_step_ids)",
    "CREATE INDEX series_history_requested_procedure_ids ON series_history USING gin (requested_procedure_ids)",
    # What the headers of one event share, in pieces; an instance's own pieces go between them (see splicing).
    """
    CREATE TABLE shared_header (
        position bigint PRIMARY KEY,
        series_uid text COLLATE "C" NOT NULL,
        pieces bytea[] NOT NULL
    )
    """,
    "CREATE INDEX shared_header_series ON shared_header (series_uid)",
    """
    CREATE TABLE instance (
        sop_instance_uid text COLLATE "C" NOT NULL,
        series_uid text COLLATE "C" NOT NULL,
        study_uid text COLLATE "C" NOT NULL,
        position bigint NOT NULL,
        instance_number bigint,
        sop_class_uid text COLLATE "C" NOT NULL,
        transfer_syntax_uid text COLLATE "C" NOT NULL,
        sha256 text COLLATE "C" NOT NULL,
        size bigint NOT NULL,
        frames integer NOT NULL,
        has_pixel_data boolean NOT NULL,
        own_pieces bytea[] NOT NULL,
        answer_before bytea NOT NULL,
        answer_beyond bytea NOT NULL,
        PRIMARY KEY (sop_instance_uid, series_uid)
    )
    """,
    "CREATE INDEX instance_order ON instance (series_uid, instance_number, sop_instance_uid)",
    "CREATE INDEX instance_sop_class ON instance (sop_class_uid, series_uid)",
)

INSTANCE_COLUMNS = (
    "sop_instance_uid",
    "series_uid",
    "study_uid",
    "position",
    "instance_number",
    "sop_class_uid",
    "transfer_syntax_uid",
    "sha256",
    "size",
    "frames",
    "has_pixel_data",
    "own_pieces",
    "answer_before",
    "answer_beyond",
)
