"""Builds the implementation guide with SUSHI and packs what it made into the one file that is shipped.

Run by `make ig`, without a FHIR registry: R5 itself comes as the npm package hl7.fhir.r5.core. The same sources give the same content.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from projections.fhir.guide import FILE, SOURCES, profile_of

HERE = Path(__file__).parent
R5 = HERE / "node_modules" / "hl7.fhir.r5.core"
SUSHI = HERE / "node_modules" / "fsh-sushi" / "dist" / "app.js"
EXAMPLES = HERE / "input" / "examples"
NO_REGISTRY = "http://127.0.0.1:9"
"""Where SUSHI asks for the three packages that it loads by itself, and that nothing here needs: refused at once."""
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The time of every entry: the first that a zip file can say."""

Json = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=FILE)
    arguments = parser.parse_args()
    if not SUSHI.exists():
        install()
    with tempfile.TemporaryDirectory() as folder:
        write(made_by_sushi(Path(folder)), arguments.output)


def install() -> None:
    """SUSHI and R5, as package-lock.json pins them."""
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=HERE, check=True)


def made_by_sushi(folder: Path) -> dict[str, bytes]:
    """Type and id of each definition → its JSON. Ends the program with what SUSHI says where it finds an error."""
    cache = folder / ".fhir" / "packages" / "hl7.fhir.r5.core#5.0.0"
    cache.mkdir(parents=True)
    (cache / "package").symlink_to(R5)
    command = ["node", str(SUSHI), "build", str(HERE), "--snapshot", "--out", str(folder)]
    environment = {**os.environ, "HOME": str(folder), "USERPROFILE": str(folder), "FPL_REGISTRY": NO_REGISTRY}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    faults = [line for line in done.stdout.splitlines() if _is_fault(line)]
    if done.returncode or faults:
        sys.exit("\n".join([*faults, done.stderr]) or done.stdout)
    made = [msgspec.json.decode(path.read_bytes()) for path in sorted((folder / "fsh-generated" / "resources").glob("*.json"))]
    (version,) = (one["version"] for one in made if one["resourceType"] == "ImplementationGuide")
    return {f"{one['resourceType']}/{one['id']}": msgspec.json.encode({**_with_profiles(one), "version": version}) for one in made}


def _is_fault(line: str) -> bool:
    return line.startswith("error") or (line.startswith("warn") and "Failed to load automatically-provided" not in line)


def _with_profiles(definition: Json) -> Json:
    """The guide, whose examples say which profile they are of; anything else as it is."""
    if definition["resourceType"] != "ImplementationGuide":
        return definition
    definition["definition"]["page"].pop("page")  # SUSHI writes an empty array, which FHIR has not
    for path in sorted(EXAMPLES.glob("*.json")):
        example: Json = msgspec.json.decode(path.read_bytes())
        target = {"reference": f"{example['resourceType']}/{example['id']}"}
        (entry,) = (one for one in definition["definition"]["resource"] if one["reference"] == target)
        entry.update(name=path.stem, profile=[profile_of(example)])
    return definition


def sources() -> Iterator[Path]:
    """What the guide is made of."""
    yield HERE / "package-lock.json"
    yield HERE / "sushi-config.yaml"
    yield from sorted((HERE / "input").rglob("*.fsh"))
    yield from sorted(EXAMPLES.glob("*.json"))


def sources_sha256() -> str:
    """By which a machine without Node can tell that the shipped file was made of these sources."""
    digest = hashlib.sha256()
    for path in sources():
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(HERE).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def write(definitions: dict[str, bytes], path: Path) -> None:
    parts = {**definitions, SOURCES: sources_sha256().encode()}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name in sorted(parts):
                entry = zipfile.ZipInfo(name, EARLIEST)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, parts[name])
        shutil.copyfile(made, path)


if __name__ == "__main__":
    main()
