"""Everything that is wrong with a resource: structure, bindings, references, invariants, and the profiles that it is to meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from server.fhir.validation.conformance import unmet_rules
from server.fhir.validation.invariants import broken
from server.fhir.validation.issues import MOST, Issue, Location, expression_of, is_fault, sorted_issues
from server.fhir.validation.profiles import R5, profile
from server.fhir.validation.walk import Held, Walk

_TOO_DEEP = "too-costly"


def issues_of(resource: Any, profiles: Sequence[str] = ()) -> list[Issue]:
    """What is wrong, faults first. ``profiles`` are canonicals of known ones; those that the resource claims are checked too.

    It takes processor time, a millisecond for most resources, and belongs into a thread.
    """
    walk = Walk()
    walk.resource(resource)
    issues = list(walk.issues)
    if not any(one.code == _TOO_DEEP for one in issues):
        issues.extend(broken(walk.met))
        for nth, held in enumerate(walk.resources):
            issues.extend(_of_profiles(held, profiles if nth == 0 else ()))
        for held in walk.extensions:
            issues.extend(_of_extension(held))
    said = sorted_issues(issues)
    if len(said) > MOST:
        text = f"there are {len(said) - MOST + 1} more issues"
        said = [*said[: MOST - 1], Issue("information", "informational", text, said[MOST - 1].expression)]
    return said


def faults_of(resource: Any, profiles: Sequence[str] = ()) -> list[Issue]:
    """Errors alone."""
    return [one for one in issues_of(resource, profiles) if is_fault(one)]


def is_known_profile(canonical: str) -> bool:
    return profile(canonical) is not None or _is_type(canonical)


def _is_type(canonical: str) -> bool:
    """Whether a canonical is that of a type itself, which every resource of it meets as far as the walk says."""
    return canonical.partition("|")[0].startswith(R5)


def _of_profiles(held: Held, asked: Sequence[str]) -> Iterator[Issue]:
    claimed = _claimed(held.value)
    for url in dict.fromkeys((*asked, *(one for one, _ in claimed))):
        known = profile(url)
        if known is not None:
            yield from unmet_rules(known, held)
    for url, index in claimed:
        if not is_known_profile(url):
            meta: Location = (held.location, "meta", None)
            text = "this profile is not known here, so it is not checked"
            yield Issue("warning", "not-found", text, expression_of((meta, "profile", index)))


def _claimed(resource: Any) -> list[tuple[str, int]]:
    meta = resource.get("meta")
    urls = meta.get("profile") if isinstance(meta, dict) else None
    return [(url, index) for index, url in enumerate(urls) if isinstance(url, str)] if isinstance(urls, list) else []


def _of_extension(held: Held) -> Iterator[Issue]:
    url = held.value.get("url")
    known = profile(url) if isinstance(url, str) else None
    if known is not None and known.type_name == "Extension":
        yield from unmet_rules(known, held)
