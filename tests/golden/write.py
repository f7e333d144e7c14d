"""Writes a golden log: `python tests/golden/write.py NAME` makes tests/golden/NAME.ndjson with the code on the import path.

A release's file is written once and never again; `unreleased` is what the code writes now, until a release takes its name:

    python tests/golden/write.py unreleased

That of an earlier release is written by that release's code, in a checkout of its own:

    git worktree add ../released 4068ff9
    PYTHONPATH=../released python tests/golden/write.py 0.1.0

The first line holds the keys of the subjects (but not of the erased one) and the schema of every event type, from which a test tells
that a shape changed. Each further line is an event as the log stores it. The same code writes the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from shapes import schema_of
from story import ERASED, STORY, event_id

from domain.event import EVENT_TYPES
from eventlog import codec
from eventlog.sealing import SubjectKey

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def lines() -> list[dict[str, Any]]:
    """Of the golden log as this code writes it."""
    secrets: dict[str, bytes] = {}
    events = []
    for number, (stream, type_name, principal, fields) in enumerate(STORY, start=1):
        event_type = EVENT_TYPES.get(type_name)
        if event_type is None:
            continue
        event = msgspec.convert(fields, event_type)
        subject = codec.subject_of(event)
        if subject is not None:
            secrets[subject] = hashlib.sha256(f"golden {subject}".encode()).digest()
        key = SubjectKey.of(secrets[subject]) if subject is not None else None
        at = (BEGAN + timedelta(seconds=number)).isoformat().replace("+00:00", "Z")
        events.append(
            {
                "event_id": event_id(number),
                "stream": stream,
                "type": type_name,
                "schema_version": event_type.SCHEMA_VERSION,
                "at": at,
                "principal": principal,
                "data": codec.encode(event, UUID(event_id(number)), key).decode("utf-8"),
            }
        )
    keys = {subject: base64.b64encode(secret).decode("ascii") for subject, secret in secrets.items() if subject != ERASED}
    return [{"keys": keys, "schemas": {name: schema_of(cls) for name, cls in sorted(EVENT_TYPES.items())}}, *events]


def main() -> None:
    path = Path(__file__).with_name(f"{sys.argv[1]}.ndjson")
    if path.exists() and path.stem != "unreleased":
        sys.exit(f"{path.name} is the log of a release, and is never written again")
    path.write_text("".join(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in lines()), encoding="utf-8")
    missing = set(EVENT_TYPES) - {line["type"] for line in lines()[1:]}
    if missing:
        sys.exit(f"the story has no {', '.join(sorted(missing))}: add them to story.py")


if __name__ == "__main__":
    main()
