"""AuditEvents are many: as they are stored they are made of parts, and have to be what they would be as a whole."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from domain.access import Access, AccessesRecorded, Action, Outcome, access_stream
from domain.ids import Position
from domain.principal import Principal, PrincipalKind
from eventlog.envelope import RecordedEvent
from projections.fhir.audit_event import audit_events, ready_audit_events
from projections.fhir.search.rows import Rows, add_rows, no_rows
from projections.fhir.versions import _text

_MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
_IDS = st.text("abé\"\\0/-", min_size=1, max_size=5)
_ACCESSES = st.builds(
    Access,
    first_at=_MOMENTS,
    last_at=_MOMENTS,
    count=st.integers(1, 1000),
    principal=st.builds(Principal, id=_IDS, kind=st.sampled_from(PrincipalKind), on_behalf_of=st.none() | _IDS),
    action=st.sampled_from(Action),
    outcome=st.sampled_from(Outcome),
    route=st.sampled_from(["/fhir/{resource_type}", "dimse"]),
    resource_type=st.sampled_from(["", "Observation"]),
    things=st.lists(st.sampled_from(["Patient/p1", "Observation/o1", "study:1.2.3", "series:1.2.3.4", "what\"ever"]), unique=True).map(tuple),
    parameters=st.lists(st.sampled_from(["code", "_id"]), unique=True).map(tuple),
    subjects=st.lists(st.sampled_from(["p1", "p2", "p3"]), unique=True).map(tuple),
)


@given(st.lists(_ACCESSES, max_size=4).map(tuple), _MOMENTS)
def test_of_parts_they_are_what_they_are_as_a_whole(accesses: tuple[Access, ...], moment: datetime) -> None:
    event = AccessesRecorded(accesses=accesses)
    recorded = RecordedEvent(
        position=Position(7), event_id=UUID(int=7), stream=access_stream("here"), version=1, type="AccessesRecorded", schema_version=1,
        occurred_at=moment, recorded_at=moment, principal=Principal(id="r", kind=PrincipalKind.DEVICE), correlation_id=UUID(int=8),
        causation_id=None, origin="here", event=event, digest=b"",
    )  # fmt: skip
    whole, ready = audit_events(event, recorded), list(ready_audit_events(event, recorded))
    assert [_text(one.body) for one in ready] == [_text(one) for one in whole]
    expected, found = no_rows(), no_rows()
    for key, one in enumerate(whole):
        add_rows(one, key, expected)
    for key, one in enumerate(ready):
        for table, columns in one.rows:
            found[table].append((*columns, key))
        add_rows(one.found_by, key, found)
    assert _in_any_order(found) == _in_any_order(expected)
    assert not accesses or expected["token"]


def _in_any_order(rows: Rows) -> dict[str, list[str]]:
    return {table: sorted(map(repr, of_table)) for table, of_table in rows.items()}
