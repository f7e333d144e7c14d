"""The event log: events, the head that gives positions, keys, projection checkpoints, and the append function."""

from alembic import op

revision = "0001_event_log"
down_revision = None

TABLES = """
CREATE TABLE event (
    position        bigint      NOT NULL PRIMARY KEY,
    event_id        uuid        NOT NULL UNIQUE,
    stream          text        COLLATE "C" NOT NULL,
    version         integer     NOT NULL,
    type            text        NOT NULL,
    schema_version  smallint    NOT NULL,
    occurred_at     timestamptz NOT NULL,
    recorded_at     timestamptz NOT NULL,
    principal       text        NOT NULL,
    correlation_id  uuid        NOT NULL,
    causation_id    uuid,
    origin          text        NOT NULL,
    data            bytea       NOT NULL,
    digest          bytea       NOT NULL,
    UNIQUE (stream, version)
);
COMMENT ON TABLE event IS 'Append-only. Written by append_events alone, and update, delete and truncate are refused.';

CREATE TABLE log_head (
    only_row boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (only_row),
    position bigint  NOT NULL
) WITH (fillfactor = 10);
INSERT INTO log_head (position) VALUES (0);

CREATE TABLE subject_key (
    subject_id text        NOT NULL PRIMARY KEY,
    wrapped    bytea,
    kek_id     text        NOT NULL,
    made_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN subject_key.wrapped IS 'NULL once the subject was erased';

CREATE TABLE site_secret (
    name    text  NOT NULL PRIMARY KEY,
    wrapped bytea NOT NULL,
    kek_id  text  NOT NULL
);

CREATE TABLE projection_checkpoint (
    name          text        NOT NULL,
    version       integer     NOT NULL,
    position      bigint      NOT NULL,
    state         text        NOT NULL CHECK (state IN ('building', 'live', 'paused')),
    problem       text,
    PRIMARY KEY (name, version)
);
"""

REFUSALS = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are immutable: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;
-- next
CREATE TRIGGER event_is_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- next
CREATE TRIGGER head_is_not_removed BEFORE DELETE OR TRUNCATE ON log_head
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

# One call carries many requests (group commit); each request is appended whole or not at all, with its own verdict.
# The row lock on the head orders commits, so that positions are dense and in commit order.
APPEND = """
CREATE FUNCTION append_events(
    e_request int[], e_stream text[], e_ordinal int[], e_id uuid[], e_type text[], e_schema smallint[],
    e_occurred timestamptz[], e_recorded timestamptz[], e_principal text[], e_correlation uuid[], e_causation uuid[],
    e_origin text[], e_data bytea[], e_digest bytea[],
    s_request int[], s_stream text[], s_expected int[]
) RETURNS TABLE (request int, verdict text, first_position bigint, last_position bigint, at_stream text, actual_version int)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    head     bigint;
    refused  int[] := '{}';
    versions int[];
    appended bigint;
    one      record;
BEGIN
    SELECT h.position INTO head FROM log_head h FOR UPDATE;

    IF EXISTS (SELECT FROM event e WHERE e.event_id = ANY (e_id)) THEN
        FOR one IN
            SELECT n.request,
                   bool_and(e.event_id IS NOT NULL AND e.stream = n.stream AND e.type = n.type AND e.data = n.data) AS same,
                   min(e.position) AS first_position, max(e.position) AS last_position, min(n.stream) AS stream
            FROM unnest(e_request, e_id, e_stream, e_type, e_data) AS n (request, id, stream, type, data)
            LEFT JOIN event e ON e.event_id = n.id
            GROUP BY n.request HAVING bool_or(e.event_id IS NOT NULL)
        LOOP
            refused := refused || one.request;
            RETURN QUERY SELECT one.request, CASE WHEN one.same THEN 'duplicate' ELSE 'reused' END,
                                one.first_position, one.last_position, one.stream, NULL::int;
        END LOOP;
    END IF;

    SELECT array_agg(coalesce(v.version, 0) ORDER BY s.nth) INTO versions
    FROM unnest(s_stream) WITH ORDINALITY AS s (stream, nth)
    LEFT JOIN LATERAL (SELECT e.version FROM event e WHERE e.stream = s.stream ORDER BY e.version DESC LIMIT 1) v ON true;

    FOR i IN 1 .. array_length(s_request, 1) LOOP
        IF s_expected[i] IS NOT NULL AND s_expected[i] <> versions[i] AND NOT s_request[i] = ANY (refused) THEN
            refused := refused || s_request[i];
            RETURN QUERY SELECT s_request[i], 'conflict'::text, NULL::bigint, NULL::bigint, s_stream[i], versions[i];
        END IF;
    END LOOP;

    RETURN QUERY
    WITH written AS (
        INSERT INTO event
        SELECT head + row_number() OVER (ORDER BY n.nth), n.id, n.stream, versions[n.stream_index] + n.ordinal, n.type, n.schema,
               n.occurred, n.recorded, n.principal, n.correlation, n.causation, n.origin, n.data, n.digest
        FROM unnest(e_request, e_stream, e_ordinal, e_id, e_type, e_schema, e_occurred, e_recorded, e_principal,
                    e_correlation, e_causation, e_origin, e_data, e_digest, STREAM_INDEX)
             WITH ORDINALITY AS n (request, stream, ordinal, id, type, schema, occurred, recorded, principal,
                                   correlation, causation, origin, data, digest, stream_index, nth)
        WHERE NOT n.request = ANY (refused)
        RETURNING event_id, position
    )
    SELECT n.request, 'appended'::text, min(w.position), max(w.position), NULL::text, NULL::int
    FROM written w JOIN unnest(e_request, e_id) AS n (request, id) ON n.id = w.event_id
    GROUP BY n.request;

    SELECT count(*) INTO appended FROM unnest(e_request) AS r WHERE NOT r = ANY (refused);
    IF appended > 0 THEN
        UPDATE log_head SET position = head + appended;
    END IF;
END $$;
""".replace("STREAM_INDEX", "e_stream_index").replace(
    "e_data bytea[], e_digest bytea[],\n", "e_data bytea[], e_digest bytea[], e_stream_index int[],\n", 1
)

# The server's role may read and append, and keep its own projections; it may not alter events, whatever it is told to do.
ROLE = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'anamnesis_server') THEN
        BEGIN
            CREATE ROLE anamnesis_server NOLOGIN;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE WARNING 'role anamnesis_server could not be created: the triggers alone protect the events';
        END;
    END IF;
END $$;
"""


def upgrade() -> None:
    # asyncpg takes one statement at a time.
    for statement in (*TABLES.split(";\n"), *REFUSALS.split("-- next\n"), APPEND, ROLE):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("the log is never taken back")
