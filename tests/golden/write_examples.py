"""Writes the guide's examples, which are what the projection makes of the golden log: `python tests/golden/write_examples.py`.

Run by `make ig`, before SUSHI. A test compares them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from golden_log import golden_log, put_into
from write_read_models import of_a_fresh_database

from eventlog.embedded import EmbeddedPostgres
from eventlog.log import EventLog
from projections.fhir.guide import profile_of
from projections.fhir.projection import FhirProjection
from projections.fhir.vocabulary import Json
from projections.projection import schema_name
from projections.runner import Runner

FOLDER = Path(__file__).parents[2] / "ig" / "input" / "examples"
LOG = "unreleased"


def _of(profile: str, is_it: Callable[[Json], bool] = lambda _: True) -> Callable[[Json], bool]:
    return lambda resource: str(profile_of(resource)).endswith(f":{profile}") and is_it(resource)


EXAMPLES: dict[str, Callable[[Json], bool]] = {
    "pseudonymous-patient": _of("pseudonymous-patient"),
    "curated-study": _of("curated-study"),
    "series-selection": _of("series-selection"),
    "finding-structure": _of("finding-structure", lambda one: one["description"] == "liver"),
    "finding-structure-rejected": _of("finding-structure", lambda one: not one["active"]),
    "finding-structure-morphology": _of("finding-structure", lambda one: "morphology" in one),
    "series-index": _of("series-index"),
    "finding-measurement": _of("finding-measurement", lambda one: one["status"] == "preliminary"),
    "finding-measurement-rejected": _of("finding-measurement", lambda one: one["status"] == "entered-in-error"),
    "segmenter": _of("segmenter"),
    "log-provenance": _of("log-provenance", lambda one: one["activity"]["text"] == "SeriesIndexed"),
    "log-provenance-refused": _of("log-provenance", lambda one: one["activity"]["coding"][-1]["code"] == "missing-slices"),
    "log-provenance-signed": _of("log-provenance", lambda one: "signature" in one),
    "access-audit-event": _of("access-audit-event", lambda one: one["code"]["text"] == "search"),
    "access-audit-event-refused": _of("access-audit-event", lambda one: one["outcome"]["code"]["code"] == "error"),
}
"""Name of the file → which of the current resources it holds: the first by type and id."""


async def examples(log: EventLog, name: str = LOG) -> dict[str, str]:
    """Name → JSON, once the empty log holds the golden one."""
    await put_into(log, golden_log(name))
    projection = FhirProjection()
    await Runner(log, [projection]).catch_up()
    rows = await log.pool.fetch(f"SELECT body FROM {schema_name(projection)}.resource WHERE position_to IS NULL AND body <> '' ORDER BY type, id")
    resources = [msgspec.json.decode(row["body"]) for row in rows]
    chosen = {name: next(one for one in resources if is_it(one)) for name, is_it in EXAMPLES.items()}
    return {name: json.dumps(one, indent=2, ensure_ascii=False) + "\n" for name, one in chosen.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder) / "postgresql")
        made = asyncio.run(of_a_fresh_database(server.url("postgres"), folder, LOG, examples))
        server.leave()
    for path in FOLDER.glob("*.json"):
        path.unlink()
    for name, text in made.items():
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
