"""Who may have a subject erased, and when not: given events, when somebody asks, then events or a named refusal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import (
    DomainError,
    ErasureNotRequested,
    ErasureUnderway,
    LegalHoldUnknown,
    PersonNeeded,
    SamePerson,
    SubjectIsErased,
    SubjectOnHold,
    SubjectUnknown,
)
from domain.event import Event
from domain.principal import Principal, PrincipalKind, device
from domain.subject import (
    Demographics,
    Erasure,
    ErasureConfirmed,
    ErasureRequested,
    ErasureStarted,
    ErasureWithdrawn,
    LegalBasis,
    LegalHoldLifted,
    LegalHoldPlaced,
    Subject,
    SubjectErased,
    SubjectRegistered,
    confirm_erasure,
    evolve,
    finish_erasure,
    lift_hold,
    observe_subject,
    place_hold,
    request_erasure,
    start_erasure,
    withdraw_erasure,
)

ID = "8a1f9a52-0000-8000-8000-000000000001"
BASIS = LegalBasis.CONSENT_WITHDRAWN
ANNA = Principal(id="token:anna", kind=PrincipalKind.PERSON)
BERT = Principal(id="token:bert", kind=PrincipalKind.PERSON)
FOR_ANNA = Principal(id="token:bert", kind=PrincipalKind.PERSON, on_behalf_of="token:anna")
REGISTERED = SubjectRegistered(subject_id=ID)
REQUESTED = ErasureRequested(subject_id=ID, legal_basis=BASIS, requested_by=ANNA.id)
CONFIRMED = ErasureConfirmed(subject_id=ID, legal_basis=BASIS, requested_by=ANNA.id)
STARTED = ErasureStarted(subject_id=ID)
ERASED = SubjectErased(subject_id=ID, study_uids=["1.2"], series_uids=["1.2.3"], files=2, bytes=20)
HELD = LegalHoldPlaced(subject_id=ID, hold_id="h1", reason="court")
LIFTED = LegalHoldLifted(subject_id=ID, hold_id="h1")
ASKED_FOR_ANNA = ErasureRequested(subject_id=ID, legal_basis=BASIS, requested_by="token:x", on_behalf_of="token:anna")

Decision = Callable[[Subject], list[Event]]


def request(by: Principal = ANNA) -> Decision:
    return lambda state: request_erasure(state, ID, BASIS, by)


def confirm(by: Principal = BERT) -> Decision:
    return lambda state: confirm_erasure(state, ID, by)


def withdraw(state: Subject) -> list[Event]:
    return withdraw_erasure(state, ID)


def start(state: Subject) -> list[Event]:
    return start_erasure(state, ID)


def finish(state: Subject) -> list[Event]:
    return finish_erasure(state, ERASED)


def hold(state: Subject) -> list[Event]:
    return place_hold(state, ID, "h1", "court")


def lift(state: Subject) -> list[Event]:
    return lift_hold(state, ID, "h1")


def observe(state: Subject) -> list[Event]:
    return observe_subject(state, ID, "F", Demographics(patient_id="P1"))


def after(*events: Event) -> Subject:
    state = Subject()
    for event in events:
        state = evolve(state, event)
    return state


@pytest.mark.parametrize(
    ("given_events", "when", "then"),
    [
        ([REGISTERED], request(), [REQUESTED]),
        ([REGISTERED, REQUESTED], request(BERT), []),
        ([REGISTERED, REQUESTED], confirm(), [CONFIRMED]),
        ([REGISTERED, REQUESTED, CONFIRMED], confirm(), []),
        ([REGISTERED, REQUESTED], withdraw, [ErasureWithdrawn(subject_id=ID)]),
        ([REGISTERED, REQUESTED, CONFIRMED], withdraw, [ErasureWithdrawn(subject_id=ID)]),
        ([REGISTERED, REQUESTED, ErasureWithdrawn(subject_id=ID)], request(), [REQUESTED]),
        ([REGISTERED, REQUESTED, CONFIRMED], start, [STARTED]),
        ([REGISTERED, REQUESTED, CONFIRMED, STARTED], start, []),
        ([REGISTERED, REQUESTED, CONFIRMED, STARTED], finish, [ERASED]),
        ([REGISTERED, REQUESTED, CONFIRMED, STARTED, ERASED], finish, []),
        ([REGISTERED], hold, [HELD]),
        ([REGISTERED, HELD], hold, []),
        ([REGISTERED, HELD], lift, [LIFTED]),
        ([REGISTERED, HELD, LIFTED], request(), [REQUESTED]),
        ([REGISTERED, REQUESTED, HELD, LIFTED], confirm(), [CONFIRMED]),
        ([REGISTERED, REQUESTED, CONFIRMED], hold, [HELD]),
    ],
)
def test_what_may_happen(given_events: list[Event], when: Decision, then: list[Event]) -> None:
    assert when(after(*given_events)) == then


@pytest.mark.parametrize(
    ("given_events", "when", "refusal"),
    [
        ([], request(), SubjectUnknown),
        ([], confirm(), SubjectUnknown),
        ([], withdraw, SubjectUnknown),
        ([], start, SubjectUnknown),
        ([], hold, SubjectUnknown),
        ([], lift, SubjectUnknown),
        ([REGISTERED], confirm(), ErasureNotRequested),
        ([REGISTERED], withdraw, ErasureNotRequested),
        ([REGISTERED, REQUESTED], start, ErasureNotRequested),
        ([REGISTERED, REQUESTED, CONFIRMED], finish, ErasureNotRequested),
        ([REGISTERED, REQUESTED, ErasureWithdrawn(subject_id=ID)], confirm(), ErasureNotRequested),
        ([REGISTERED, REQUESTED], confirm(ANNA), SamePerson),
        ([REGISTERED, REQUESTED], confirm(FOR_ANNA), SamePerson),
        ([REGISTERED, ASKED_FOR_ANNA], confirm(ANNA), SamePerson),
        ([REGISTERED, ASKED_FOR_ANNA], confirm(FOR_ANNA), SamePerson),
        ([REGISTERED, REQUESTED], confirm(device("x")), PersonNeeded),
        ([REGISTERED], request(device("x")), PersonNeeded),
        ([REGISTERED, HELD], request(), SubjectOnHold),
        ([REGISTERED, REQUESTED, HELD], confirm(), SubjectOnHold),
        ([REGISTERED, REQUESTED, CONFIRMED, HELD], start, SubjectOnHold),
        ([REGISTERED, LIFTED], lift, LegalHoldUnknown),
        ([REGISTERED, REQUESTED, CONFIRMED, STARTED], hold, ErasureUnderway),
        ([REGISTERED, REQUESTED, CONFIRMED, STARTED], withdraw, ErasureUnderway),
        ([REGISTERED, REQUESTED, CONFIRMED, STARTED], observe, SubjectIsErased),
        ([REGISTERED, REQUESTED, CONFIRMED, STARTED, ERASED], observe, SubjectIsErased),
        ([REGISTERED, REQUESTED, CONFIRMED, STARTED, ERASED], request(), SubjectIsErased),
        ([REGISTERED, REQUESTED, CONFIRMED, STARTED, ERASED], confirm(), SubjectIsErased),
        ([REGISTERED, REQUESTED, CONFIRMED, STARTED, ERASED], hold, SubjectIsErased),
    ],
)
def test_what_may_not(given_events: list[Event], when: Decision, refusal: type[DomainError]) -> None:
    with pytest.raises(refusal):
        when(after(*given_events))


principals = st.builds(
    Principal,
    id=st.sampled_from(["a", "b", "c"]),
    kind=st.sampled_from(PrincipalKind),
    on_behalf_of=st.sampled_from([None, "a", "b"]),
)
acts: st.SearchStrategy[tuple[str, Principal]] = st.tuples(
    st.sampled_from(["request", "confirm", "withdraw", "start", "finish", "hold", "lift", "observe"]), principals
)
PLAIN: dict[str, Decision] = {
    "withdraw": withdraw, "start": start, "finish": finish, "hold": hold, "lift": lift, "observe": observe
}  # fmt: skip


@given(st.lists(acts, max_size=30))
def test_nothing_is_erased_but_by_two_persons_and_without_a_hold(tried: list[tuple[str, Principal]]) -> None:
    state, happened, who = after(REGISTERED), list[Event](), dict[str, Principal]()
    for act, by in tried:
        decision = {"request": request(by), "confirm": confirm(by)}.get(act) or PLAIN[act]
        try:
            events = decision(state)
        except DomainError:
            continue
        for event in events:
            if isinstance(event, ErasureStarted):
                assert not state.holds
                asking, agreeing = who["ErasureRequested"], who["ErasureConfirmed"]
                assert asking.kind is agreeing.kind is PrincipalKind.PERSON
                assert not {asking.id, asking.on_behalf_of} & {agreeing.id, agreeing.on_behalf_of} - {None}
            who[type(event).__name__] = by
            state = evolve(state, event)
            happened.append(event)
    if state.erasure is Erasure.ERASED:
        order = [type(e).__name__ for e in happened if isinstance(e, ErasureConfirmed | ErasureStarted | SubjectErased)]
        assert order[-3:] == ["ErasureConfirmed", "ErasureStarted", "SubjectErased"] and order.count("SubjectErased") == 1
