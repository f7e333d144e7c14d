"""The statements of a search: one for each level and for each of two forms of answer, completed by the search's conditions.

A page is found by its keys alone, in the order of an index, and only then are its rows read: an answer at offset 1,500 costs
what the first page does. ``found`` counts up to COUNT_AHEAD results beyond the page, for the Warning that there are more.
"""

from __future__ import annotations

from domain.ids import Position
from projections.dicom.projection import SCHEMA
from server.dicomweb.as_of import AS_IT_STANDS, Rows, as_of
from server.dicomweb.keys import Level
from server.dicomweb.search import Search

COUNT_AHEAD = 1000

_KEYS = {
    Level.STUDY: "s.study_date, s.study_uid",
    Level.SERIES: "s.study_date, s.study_uid, e.series_number, e.series_uid",
    Level.INSTANCE: "s.study_date, s.study_uid, e.series_number, e.series_uid, i.instance_number, i.sop_instance_uid",
}
_ORDER = {
    Level.STUDY: "study_date DESC, study_uid",
    Level.SERIES: "study_date DESC, study_uid, series_number, series_uid",
    Level.INSTANCE: "study_date DESC, study_uid, series_number, series_uid, instance_number, sop_instance_uid",
}
_READY_MADE = {
    Level.STUDY: "page.study_uid, s.answer_before, s.answer_beyond",
    Level.SERIES: "page.study_uid, page.series_uid, e.answer_before, e.answer_beyond",
    Level.INSTANCE: "page.study_uid, page.series_uid, page.sop_instance_uid, i.answer_before, i.answer_beyond",
}
_OF_STUDY = "s.attributes AS study_attributes, s.answer_before AS study_before, s.answer_beyond AS study_beyond"
_OF_SERIES = "e.attributes AS series_attributes, e.answer_before AS series_before, e.answer_beyond AS series_beyond"
_WHOLE = {
    Level.STUDY: f"page.study_uid, {_OF_STUDY}",
    Level.SERIES: f"page.study_uid, page.series_uid, {_OF_STUDY}, {_OF_SERIES}",
    Level.INSTANCE: f"page.study_uid, page.series_uid, page.sop_instance_uid, {_OF_STUDY}, {_OF_SERIES},"
    " i.answer_before AS instance_before, i.answer_beyond AS instance_beyond, i.own_pieces, h.pieces",
}


def statement(search: Search, position: Position | None = None) -> tuple[str, list[object]]:
    """The SQL of a search as of a position, or as it stands, and its parameters.

    It gives one row at least: each has the position in ``as_of``, and ``study_uid`` is null where nothing was found.
    """
    level = search.level
    parameters = search.parameters
    offset, limit = parameters.bind(search.offset), parameters.bind(search.limit)
    rows = as_of(parameters.bind(position)) if position is not None else AS_IT_STANDS
    columns, joined = (_READY_MADE[level], _ready_made(level, rows)) if search.is_ready_made else (_WHOLE[level], _whole(level, rows))
    order = _ORDER[level]
    return (
        f"""
        WITH ahead AS MATERIALIZED (
            SELECT {_KEYS[level]} FROM {_matched(level, rows)}
            WHERE {" AND ".join([*search.conditions, rows.held("s")])}
            ORDER BY {order} OFFSET {offset}::bigint LIMIT {limit}::bigint + {COUNT_AHEAD}
        ), page AS (SELECT * FROM ahead ORDER BY {order} LIMIT {limit}::bigint)
        SELECT {rows.position} AS as_of, (SELECT count(*) FROM ahead) AS found, {columns}
        FROM (VALUES (1)) AS always LEFT JOIN (page {joined}) ON true
        ORDER BY {", ".join("page." + part for part in order.split(", "))}
        """,
        parameters,
    )


def _matched(level: Level, rows: Rows) -> str:
    """The levels that a search looks at, joined."""
    found = f"{rows.study} s"
    if level >= Level.SERIES:
        found += f" JOIN {rows.series} e ON e.study_uid = s.study_uid AND {rows.held('e')}"
    if level is Level.INSTANCE:
        found += f" JOIN {SCHEMA}.instance i ON i.series_uid = e.series_uid AND {rows.was_there('i')}"
    return found


def _ready_made(level: Level, rows: Rows) -> str:
    """The rows of a page whose answers are ready-made."""
    match level:
        case Level.STUDY:
            return f"JOIN {rows.study} s ON s.study_uid = page.study_uid AND {rows.held('s')}"
        case Level.SERIES:
            return f"JOIN {rows.series} e ON e.series_uid = page.series_uid AND {rows.held('e')}"
        case Level.INSTANCE:
            return f"JOIN {SCHEMA}.instance i ON i.sop_instance_uid = page.sop_instance_uid AND i.series_uid = page.series_uid"


def _whole(level: Level, rows: Rows) -> str:
    """The rows of a page with all that is known on each level."""
    joined = _ready_made(Level.STUDY, rows)
    if level >= Level.SERIES:
        joined += f" {_ready_made(Level.SERIES, rows)}"
    if level is Level.INSTANCE:
        joined += f" {_ready_made(level, rows)} JOIN {SCHEMA}.shared_header h ON h.position = i.position"
    return joined
