"""The statements of a search: one for each level and for each of two forms of answer, completed by the search's conditions.

A page is found by its keys alone, in the order of an index, and only then are its rows read: an answer at offset 1,500 costs
what the first page does. ``found`` counts up to COUNT_AHEAD results beyond the page, for the Warning that there are more.
"""

from __future__ import annotations

from server.dicomweb.keys import Level
from server.dicomweb.search import Search

COUNT_AHEAD = 1000

_STUDY = "dicom_v1.study s"
_SERIES = f"{_STUDY} JOIN dicom_v1.series e ON e.study_uid = s.study_uid"
_INSTANCE = f"{_SERIES} JOIN dicom_v1.instance i ON i.series_uid = e.series_uid"

_FROM = {Level.STUDY: _STUDY, Level.SERIES: _SERIES, Level.INSTANCE: _INSTANCE}
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
_ROWS = {
    Level.STUDY: "JOIN dicom_v1.study s USING (study_uid)",
    Level.SERIES: "JOIN dicom_v1.series e USING (series_uid)",
    Level.INSTANCE: "JOIN dicom_v1.instance i USING (sop_instance_uid, series_uid)",
}
_READY_MADE = {
    Level.STUDY: "page.study_uid, s.answer_before, s.answer_beyond",
    Level.SERIES: "page.study_uid, page.series_uid, e.answer_before, e.answer_beyond",
    Level.INSTANCE: "page.study_uid, page.series_uid, page.sop_instance_uid, i.answer_before, i.answer_beyond",
}
_WHOLE_ROWS = {
    Level.STUDY: "JOIN dicom_v1.study s USING (study_uid)",
    Level.SERIES: "JOIN dicom_v1.study s USING (study_uid) JOIN dicom_v1.series e USING (series_uid)",
    Level.INSTANCE: "JOIN dicom_v1.study s USING (study_uid) JOIN dicom_v1.series e USING (series_uid)"
    " JOIN dicom_v1.instance i USING (sop_instance_uid, series_uid) JOIN dicom_v1.shared_header h ON h.position = i.position",
}
_OF_STUDY = "s.attributes AS study_attributes, s.answer_before AS study_before, s.answer_beyond AS study_beyond"
_OF_SERIES = "e.attributes AS series_attributes, e.answer_before AS series_before, e.answer_beyond AS series_beyond"
_WHOLE = {
    Level.STUDY: f"page.study_uid, {_OF_STUDY}",
    Level.SERIES: f"page.study_uid, page.series_uid, {_OF_STUDY}, {_OF_SERIES}",
    Level.INSTANCE: f"page.study_uid, page.series_uid, page.sop_instance_uid, {_OF_STUDY}, {_OF_SERIES},"
    " i.answer_before AS instance_before, i.answer_beyond AS instance_beyond, i.own_pieces, h.pieces",
}


def statement(search: Search) -> tuple[str, list[object]]:
    """The SQL of a search, and its parameters."""
    level = search.level
    parameters = search.parameters
    offset, limit = parameters.bind(search.offset), parameters.bind(search.limit)
    columns, rows = (_READY_MADE, _ROWS) if search.is_ready_made else (_WHOLE, _WHOLE_ROWS)
    order = _ORDER[level]
    return (
        f"""
        WITH ahead AS MATERIALIZED (
            SELECT {_KEYS[level]} FROM {_FROM[level]}
            WHERE {" AND ".join(search.conditions) or "true"}
            ORDER BY {order} OFFSET {offset}::bigint LIMIT {limit}::bigint + {COUNT_AHEAD}
        ), page AS (SELECT * FROM ahead ORDER BY {order} LIMIT {limit}::bigint)
        SELECT (SELECT count(*) FROM ahead) AS found, {columns[level]}
        FROM page {rows[level]}
        ORDER BY {", ".join("page." + part for part in order.split(", "))}
        """,
        parameters,
    )
