"""The implementation guide that ships: made of its sources, whole, and true of what the projection makes."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from conftest import with_node_modules
from fhir.resources import get_fhir_model_class
from golden.write_examples import EXAMPLES, FOLDER, examples

from domain.review import Verdict
from domain.signature import Meaning
from eventlog.log import EventLog
from projections.fhir import definitions as r5
from projections.fhir import guide
from projections.fhir.vocabulary import GUIDE, INDEXING_SYSTEM, Json
from server.fhir.validation.validator import faults_of

ROOT = Path(__file__).parents[2]
ROOMS = ("domain", "eventlog", "archive", "projections", "workers", "server")
HOW = "run `make ig`, and commit what it changes"
REASON = re.compile(r"NotIndexable\(\s*\"([a-z-]+)\"|reason=\"([a-z-]+)\"")


def test_the_shipped_guide_was_made_of_these_sources() -> None:
    with zipfile.ZipFile(guide.FILE) as archive:
        assert archive.read(guide.SOURCES).decode() == _build_guide().sources_sha256(), HOW


def test_sushi_makes_of_them_what_is_shipped(tmp_path: Path) -> None:
    with_node_modules(ROOT / "ig")
    made = tmp_path / "guide.zip"
    subprocess.run([sys.executable, "ig/build_guide.py", "--output", str(made)], cwd=ROOT, check=True)
    assert _contents(made) == _contents(guide.FILE), HOW


async def test_each_example_is_what_the_projection_makes(event_log: EventLog) -> None:
    made = await examples(event_log)
    assert {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")} == made, HOW


def test_there_is_an_example_of_each_profile_and_the_guide_says_of_which() -> None:
    said = {
        entry["name"]: entry["profile"]
        for entry in _definition("ImplementationGuide", "anamnesis")["definition"]["resource"]
        if entry["isExample"]
    }
    assert said == {name: [guide.profile_of(_example(name))] for name in EXAMPLES}
    profiles = {profile_id for ids in guide.PROFILES.values() for profile_id in ids}
    assert {url for (url,) in said.values()} == {guide.profile_url(one) for one in profiles}


def test_a_profile_constrains_the_type_that_it_is_for() -> None:
    for resource_type, ids in guide.PROFILES.items():
        for profile_id in ids:
            profile = _definition("StructureDefinition", profile_id)
            assert (profile["type"], profile["derivation"]) == (resource_type, "constraint")


def test_the_page_lists_just_the_profiles_that_there_are() -> None:
    page = (ROOT / "docs" / "fhir.md").read_text(encoding="utf-8").partition("## Implementation guide")[2].partition("\n## ")[0]
    rows = {(found[1], found[0]) for found in re.findall(r"^\| `([a-z-]+)` \| ([A-Za-z]+) \|", page, re.MULTILINE)}
    assert rows == {(kind, profile_id) for kind, ids in guide.PROFILES.items() for profile_id in ids}


@pytest.mark.parametrize("resource_type", guide.TYPES)
def test_definitions_are_r5(resource_type: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    for one in guide.ids(resource_type):
        made = _definition(resource_type, one)
        get_fhir_model_class(resource_type).model_validate(made)
        # Its invariants take seconds on a snapshot, which SUSHI makes of R5's.
        assert [str(one) for one in faults_of({name: value for name, value in made.items() if name != "snapshot"})] == []
        assert (made["id"], made["version"], made["status"]) == (one, version, "active") and made.get("description")
        assert version == guide.version()
        named = one if resource_type == "ImplementationGuide" else made["url"].rpartition(":")[2]
        assert (made["url"], named) == (f"{GUIDE}:{resource_type}:{one}", one)
        assert guide.by_url(made["url"]) == made == guide.by_url(f"{made['url']}|{version}")


def test_what_is_not_of_the_guide_is_not_there() -> None:
    assert guide.definition("StructureDefinition", "nothing") is None
    assert guide.definition("", guide.SOURCES) is None
    assert guide.by_url("http://hl7.org/fhir/StructureDefinition/Patient") is None
    assert guide.by_url(f"{guide.profile_url('segmenter')}|0.0.1") is None
    assert guide.value_set(f"{GUIDE}:CodeSystem:finding-component") is None


def test_every_urn_in_the_code_is_defined() -> None:
    defined = {one["url"] for kind in guide.TYPES for one in (_definition(kind, name) for name in guide.ids(kind))}
    defined |= {_definition("NamingSystem", one)["uniqueId"][0]["value"] for one in guide.ids("NamingSystem")}
    used = set()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            text = path.read_text(encoding="utf-8").replace("{GUIDE}", GUIDE)
            used |= set(re.findall(r"\"(urn:anamnesis:[A-Za-z0-9:._-]+)\"", text))
    assert used - {GUIDE} <= defined


def test_every_canonical_in_a_definition_is_of_r5_or_defined() -> None:
    for kind in guide.TYPES:
        for one in guide.ids(kind):
            for url in set(re.findall(rf"\"({GUIDE}[:/][^\"|]+)\"", _text(kind, one))):
                assert guide.by_url(url) is not None, f"{kind}/{one}: {url}"


def test_every_reason_verdict_and_meaning_has_a_code() -> None:
    reasons = {"failed", *Verdict, *Meaning}
    for room in ("domain", "workers", "archive"):
        for path in (ROOT / room).rglob("*.py"):
            reasons |= {first or second for first, second in REASON.findall(path.read_text(encoding="utf-8"))}
    assert {"not-ct", "too-few-slices", "quiet"} <= reasons
    codes = guide.value_set(f"{GUIDE}:ValueSet:indexing-outcomes")
    assert codes is not None
    assert {str(one) for one in reasons} <= codes.codes[INDEXING_SYSTEM]


def test_search_parameters_are_new_ones_on_types_that_there_are() -> None:
    found = guide.search_parameters()
    urls = {one.url for one in found} | set(r5.defined_parameters())
    for one in found:
        for base in one.base:
            assert base == "Resource" or (r5.is_resource_type(base) and one.code not in r5.search_parameters(base))
        assert one.expression is None or one.expression.startswith(one.base)
        assert {part.definition for part in one.components} <= urls
    assert {"body-structure", "body-site", "volume", "structure-volume"} <= {one.code for one in found if one.base == ("Observation",)}


def test_what_a_client_wrote_is_of_no_profile_of_ours() -> None:
    for name in EXAMPLES:
        example = _example(name)
        kind = example["resourceType"]
        if kind in ("Provenance", "AuditEvent"):
            assert guide.profile_of({**example, "extension": []}) is None
        elif kind != "Device":
            assert guide.profile_of({**example, "id": "c1"}) is None
        assert guide.profile_of({**example, "identifier": [{"value": "c1"}], "extension": []}) is None
        assert guide.profile_of({"resourceType": kind, "id": example["id"]}) is None


def _build_guide() -> ModuleType:
    """ig/ is no package: its script is loaded from its path."""
    spec = importlib.util.spec_from_file_location("build_guide", ROOT / "ig" / "build_guide.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _example(name: str) -> Json:
    return msgspec.json.decode((FOLDER / f"{name}.json").read_bytes())


def _text(resource_type: str, definition_id: str) -> str:
    found = guide.definition(resource_type, definition_id)
    assert found is not None
    return found.decode("utf-8")


def _definition(resource_type: str, definition_id: str) -> Json:
    return msgspec.json.decode(_text(resource_type, definition_id))
