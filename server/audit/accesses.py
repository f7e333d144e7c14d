"""Who looked at what is in an auditor's scope: an extract of records of reads, which name other subjects too."""

from __future__ import annotations

from typing import Any

import msgspec

from domain.access import AccessesRecorded
from server.audit.scope import Scope


def accesses_to(event: AccessesRecorded, position: int, scope: Scope) -> list[dict[str, Any]]:
    """The accesses to the scope's subjects, other subjects left out; what was named, only where it can be of nobody else."""
    wanted = {tag.removeprefix("subject:") for tag in scope.tags if tag.startswith("subject:")}
    extract = []
    for access in event.accesses:
        subjects = wanted & set(access.subjects)
        if subjects:
            things = access.things if subjects == set(access.subjects) else ()
            shown = msgspec.structs.replace(access, subjects=tuple(sorted(subjects)), things=things)
            extract.append({"position": position, **msgspec.to_builtins(shown)})
    return extract
