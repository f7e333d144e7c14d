"""Envelope, sealing and upcasting, without a database."""

from __future__ import annotations

import uuid

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from domain.event import EVENT_TYPES
from domain.subject import Demographics, SubjectRegistered
from eventlog import codec
from eventlog.envelope import canonical
from eventlog.errors import SealBroken, UnknownEventType
from eventlog.sealing import SubjectKey, open_sealed, seal
from eventlog.upcasters import Upcasters

KEY = SubjectKey.of(b"k" * 32)
ID = uuid.UUID("01234567-89ab-7def-8123-456789abcdef")
leaves = st.one_of(st.none(), st.text(), st.integers(-(2**53) + 1, 2**53 - 1))
names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1)


@given(st.dictionaries(names, st.one_of(leaves, st.dictionaries(names, leaves))))
def test_the_canonical_form_is_that_of_rfc_8785(envelope: dict[str, object]) -> None:
    assert canonical(envelope) == rfc8785.dumps(envelope)  # type: ignore[arg-type]


@given(st.binary(max_size=500), st.binary(max_size=50))
def test_what_was_sealed_opens_and_nothing_else_does(plaintext: bytes, binding: bytes) -> None:
    sealed = seal(plaintext, KEY, binding)
    assert open_sealed(sealed, KEY, binding) == plaintext
    assert seal(plaintext, KEY, binding) == sealed, "the same event twice has the same bytes"
    for wrong in (sealed[:-1] + bytes([sealed[-1] ^ 1]), sealed[:-1], b""):
        with pytest.raises(SealBroken):
            open_sealed(wrong, KEY, binding)
    with pytest.raises(SealBroken):
        open_sealed(sealed, KEY, binding + b"x")
    with pytest.raises(SealBroken):
        open_sealed(sealed, SubjectKey.of(b"o" * 32), binding)


@given(st.text(), st.text(), st.sampled_from(["", "M", "F", "O"]))
def test_events_survive_the_codec(name: str, number: str, sex: str) -> None:
    event = SubjectRegistered(
        subject_id="s", sex=sex, demographics=Demographics(patient_name=name, patient_id=number)
    )
    data = codec.encode(event, ID, KEY)
    assert codec.decode("SubjectRegistered", 1, data, ID, {"s": KEY}) == event
    assert codec.decode("SubjectRegistered", 1, data, ID, {}) == SubjectRegistered(subject_id="s", sex=sex)


def test_a_sealed_part_moved_to_another_event_does_not_open() -> None:
    data = codec.encode(SubjectRegistered(subject_id="s"), ID, KEY)
    with pytest.raises(SealBroken):
        codec.decode("SubjectRegistered", 1, data, uuid.uuid4(), {"s": KEY})


def test_unknown_types_and_newer_schemas_are_named() -> None:
    with pytest.raises(UnknownEventType, match=r"Nonsense.*position 7"):
        codec.decode("Nonsense", 1, b"{}", ID, {}, position=7)
    with pytest.raises(UnknownEventType, match="schema version 99"):
        codec.decode("StudyRegistered", 99, b'{"study_uid":"1","subject_id":"s"}', ID, {})


def test_upcasters_go_step_by_step() -> None:
    upcasters = Upcasters()

    @upcasters.register("Thing", 1)
    def _named(data: dict[str, object]) -> dict[str, object]:
        return {**data, "name": "?"}

    @upcasters.register("Thing", 2)
    def _renamed(data: dict[str, object]) -> dict[str, object]:
        return {"title": data["name"]}

    assert upcasters.upcast("Thing", 1, 3, {}) == {"title": "?"}
    assert upcasters.upcast("Thing", 3, 3, {"title": "x"}) == {"title": "x"}
    assert upcasters.upcast("Thing", 4, 3, {}) is None
    assert upcasters.upcast("Other", 1, 3, {}) is None


def test_every_event_type_has_a_schema_that_encodes() -> None:
    for cls in EVENT_TYPES.values():
        assert issubclass(cls, msgspec.Struct) and cls.SCHEMA_VERSION >= 1
