"""What every release wrote can be read for ever, and no event changes its shape unnoticed."""

from __future__ import annotations

import msgspec
import pytest
from golden.shapes import schema_of
from golden_log import golden_log, names

from domain.event import EVENT_TYPES, identifying_fields
from domain.series import IndexingRefused, InstanceConflicted
from eventlog import codec
from eventlog.upcasters import UPCASTERS

RELEASES = [name for name in names() if name != "unreleased"]
HOW = (
    "a stored event's meaning never changes. Give the type a new SCHEMA_VERSION and an upcaster (eventlog/upcasters.py), add what is"
    " new to tests/golden/story.py, and run `python tests/golden/write.py unreleased`"
)


def shapes(name: str) -> dict[str, object]:
    return dict(golden_log(name).schemas)


def shapes_now() -> dict[str, object]:
    """As the golden logs' first line has them."""
    return {name: schema_of(cls) for name, cls in EVENT_TYPES.items() if cls.__module__.startswith("domain.")}


def test_no_event_changes_its_shape_without_a_new_version() -> None:
    now, written = shapes_now(), shapes("unreleased")
    assert now.keys() == written.keys(), HOW
    for name in now:
        assert now[name] == written[name], f"{name} is not what the golden log of this code holds: {HOW}"


@pytest.mark.parametrize("release", RELEASES)
def test_a_released_version_of_an_event_keeps_its_shape(release: str) -> None:
    now = golden_log("unreleased").schemas
    for name, schema in golden_log(release).schemas.items():
        assert name in now, f"{name} was in release {release} and can no longer be read: {HOW}"
        assert now[name]["version"] >= schema["version"]
        if now[name]["version"] == schema["version"]:
            assert now[name] == schema, f"{name} is another than in release {release}, under the same version: {HOW}"


def test_every_type_and_every_version_is_in_a_golden_log() -> None:
    written = {(event.type, event.schema_version) for name in names() for event in golden_log(name).events}
    for name, cls in EVENT_TYPES.items():
        if not cls.__module__.startswith("domain."):
            continue  # another test's
        for version in range(1, cls.SCHEMA_VERSION + 1):
            assert (name, version) in written, f"no golden log holds {name} at version {version}: {HOW}"


def test_the_golden_log_of_this_code_is_what_this_code_writes() -> None:
    keys = golden_log("unreleased").keys
    for stored in golden_log("unreleased").events:
        event = stored.decode(keys)
        subject = codec.subject_of(event)
        if subject is None or subject in keys:  # else its subject is erased
            assert codec.encode(event, stored.event_id, keys.get(subject or "")).decode("utf-8") == stored.data, stored.type


@pytest.mark.parametrize("name", names())
def test_every_event_can_be_read_with_its_subjects_key_and_without(name: str) -> None:
    golden = golden_log(name)
    for stored in golden.events:
        event = stored.decode(golden.keys)
        assert type(event) is EVENT_TYPES[stored.type]
        withheld = stored.decode({})
        if "sealed" not in msgspec.json.decode(stored.data):
            assert withheld == event
            continue
        defaults = {field.name: field.default for field in msgspec.structs.fields(type(event)) if field.default is not msgspec.NODEFAULT}
        for field in identifying_fields(type(event)):
            if field in defaults:
                assert getattr(withheld, field) == defaults[field]
            if getattr(event, "subject_id", None) in golden.keys:
                assert getattr(withheld, field) != getattr(event, field), f"{stored.type}.{field} should say something in the story"


@pytest.mark.parametrize("name", names())
def test_nothing_that_identifies_stands_in_the_clear(name: str) -> None:
    for stored in golden_log(name).events:
        if (stored.type, stored.schema_version) != ("FileRefused", 1):
            assert "GOLDEN" not in stored.data.upper(), stored.type


def test_what_0_1_0_wrote_is_upcast() -> None:
    golden = golden_log("0.1.0")
    by_type = {stored.type: stored for stored in golden.events}
    conflict, refused = by_type["InstanceConflicted"], by_type["IndexingRefused"]
    assert (conflict.schema_version, refused.schema_version) == (1, 1)
    read = conflict.decode(golden.keys)
    assert isinstance(read, InstanceConflicted) and read.subject_id == "" and read.conflicting_size == 5
    detail = refused.decode(golden.keys)
    assert isinstance(detail, IndexingRefused) and detail.detail == "no slice at 1204 mm"


def test_every_step_between_versions_has_an_upcaster() -> None:
    for name, cls in EVENT_TYPES.items():
        if cls.__module__.startswith("domain."):
            assert all((name, version) in UPCASTERS._steps for version in range(1, cls.SCHEMA_VERSION))
