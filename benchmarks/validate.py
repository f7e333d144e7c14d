"""Milliseconds of processor time to validate a resource, and how many of R5's official examples are clean. Last line: JSON.

The examples are the npm package hl7.fhir.r5.examples 5.0.0 (CC0), fetched by `npm pack` unless a file is given, and not kept. Left out are
the definitions of R5 itself among them (StructureDefinition, ValueSet and the like, and Bundles of them beyond a megabyte), unless asked
for: they are nobody's data.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from projections.fhir import guide
from projections.fhir.definitions import is_resource_type
from server.fhir.validation.issues import is_fault
from server.fhir.validation.validator import issues_of
from server.fhir.validation.walk import Walk

PACKAGE = "hl7.fhir.r5.examples@5.0.0"
OURS = Path(__file__).parents[1] / "ig" / "input" / "examples"
DEFINITIONS = frozenset(
    {"CodeSystem", "ConceptMap", "OperationDefinition", "SearchParameter", "StructureDefinition", "StructureMap", "ValueSet"}
)
LARGEST = 1024 * 1024
Example = tuple[str, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=Path, help=f"{PACKAGE} as .tgz; fetched by npm pack unless given")
    parser.add_argument("--definitions", action="store_true", help="R5's own definitions too (minutes)")
    parser.add_argument("--rounds", type=int, default=3, help="each resource is validated this often; the fastest counts")
    parser.add_argument("--show", action="store_true", help="each fault that was found")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        examples = list(contents(arguments.examples or fetch(Path(folder)), with_definitions=arguments.definitions))
    faulty = clean(examples, show=arguments.show)
    questionnaires = [one for one in examples if one[0].startswith("Questionnaire-")]
    official = measured("R5's examples but Questionnaires", [one for one in examples if one not in questionnaires], arguments.rounds)
    asking = measured("R5's Questionnaires", questionnaires, arguments.rounds)
    made = [(path.name, msgspec.json.decode(path.read_bytes())) for path in sorted(OURS.glob("*.json"))]
    ours = measured("what curation makes", made, arguments.rounds)
    print(
        msgspec.json.encode(
            {"examples": len(examples), "clean": len(examples) - faulty, "p50_ms": official["p50"], "p99_ms": official["p99"],
             "mean_ms": official["mean"], "structure_p50_ms": official["structure"], "curated_p50_ms": ours["p50"],
             "questionnaire_p50_ms": asking["p50"]}
        ).decode()
    )  # fmt: skip


def fetch(folder: Path) -> Path:
    done = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True, text=True)
    return folder / done.stdout.strip().splitlines()[-1]


def contents(package: Path, *, with_definitions: bool) -> Iterator[Example]:
    with tarfile.open(package) as archive:
        for member in sorted(archive.getmembers(), key=lambda one: one.name):
            name = member.name.rpartition("/")[2]
            kind = name.partition("-")[0]
            if member.name.count("/") != 1 or not is_resource_type(kind):
                continue
            if (kind in DEFINITIONS or member.size > LARGEST) and not with_definitions:
                continue
            file = archive.extractfile(member)
            assert file is not None
            yield name, msgspec.json.decode(file.read())


def clean(examples: Sequence[Example], *, show: bool) -> int:
    """Prints what kinds of faults there are; how many examples have one."""
    kinds: Counter[tuple[str, str, str]] = Counter()
    faulty = undecided = 0
    for name, resource in examples:
        issues = issues_of(resource)
        faults = [one for one in issues if is_fault(one)]
        unevaluated = [one for one in issues if one.code == "not-supported"]
        undecided += bool(unevaluated)
        faulty += bool(faults)
        kinds.update({(resource["resourceType"], one.code, one.text) for one in faults})
        if show:
            for one in (*faults, *unevaluated):
                print(f"{name}: {one.expression}: {one.text}")
    print(f"{len(examples)} examples, {len(examples) - faulty} without an error, {undecided} with an invariant that was not evaluated")
    for (kind, code, text), count in kinds.most_common():
        print(f"  {count:4} {kind} {code}: {text[:100]}")
    return faulty


def measured(what: str, examples: Sequence[Example], rounds: int) -> dict[str, float]:
    whole = sorted(fastest(resource, rounds) for _, resource in examples)
    structure = sorted(fastest(resource, rounds, structure_alone=True) for _, resource in examples)
    found = {
        "p50": statistics.median(whole),
        "p99": whole[int(len(whole) * 0.99)],
        "mean": statistics.fmean(whole),
        "structure": statistics.median(structure),
    }
    rounded = {name: round(value, 3) for name, value in found.items()}
    print(f"{what}, ms a resource: " + ", ".join(f"{name} {value}" for name, value in rounded.items()))
    return rounded


def fastest(resource: dict[str, Any], rounds: int, *, structure_alone: bool = False) -> float:
    """Milliseconds of processor time, with every expression parsed."""
    profile = guide.profile_of(resource) if resource["resourceType"] in guide.PROFILES else None
    profiles = [] if profile is None else [profile]
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        if structure_alone:
            Walk().resource(resource)
        else:
            issues_of(resource, profiles)
        taken.append((time.process_time() - began) * 1000)
    return min(taken)


if __name__ == "__main__":
    main()
