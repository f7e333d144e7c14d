"""What is wrong with a resource, and where (R5 operationoutcome.html). No text here holds a value of the resource."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

MOST = 500
"""Issues that one answer holds; the last one then says that there are more."""

_KEYWORDS = frozenset({"and", "div", "false", "implies", "mod", "or", "true", "xor"})
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Location = tuple[Any, str, int | None]
"""Where an element is: the location of its parent (None of a resource that stands alone), its name and, where it repeats, its index."""


class Issue(msgspec.Struct, frozen=True):
    """One fault, by severity and code (R5 valueset-issue-severity, valueset-issue-type)."""

    severity: str
    code: str
    text: str
    expression: str
    """FHIRPath of the element, with indexes; of one that is missing, where it would be."""

    def as_fhir(self) -> dict[str, Any]:
        return {"severity": self.severity, "code": self.code, "details": {"text": self.text}, "expression": [self.expression]}


def is_fault(issue: Issue) -> bool:
    return issue.severity in ("error", "fatal")


def operation_outcome(issues: Sequence[Issue]) -> dict[str, Any]:
    """The outcome that a validation ends with: at least one issue, as R5 wants it."""
    said: list[dict[str, Any]] = [one.as_fhir() for one in issues]
    if not said:
        said = [{"severity": "information", "code": "informational", "details": {"text": "no issues found"}}]
    return {"resourceType": "OperationOutcome", "issue": said}


def expression_of(location: Location) -> str:
    """``Observation.component[0].value.ofType(Quantity)``."""
    steps: list[str] = []
    one: Location | None = location
    while one is not None:
        parent, name, index = one
        steps.append(name if index is None else f"{name}[{index}]")
        one = parent
    return ".".join(reversed(steps))


def identifier(name: str) -> str:
    """A property's name as FHIRPath writes it: what is no identifier stands between backticks, and is cut where it is long."""
    name = name[:64]
    if _IDENTIFIER.fullmatch(name) and name not in _KEYWORDS:
        return name
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def sorted_issues(issues: Iterable[Issue]) -> list[Issue]:
    """Faults first; each issue once, in the order in which it was found."""
    return sorted(dict.fromkeys(issues), key=lambda one: not is_fault(one))
