"""Everything that is wrong with a resource: structure, bindings, references, invariants, and the profiles that it is to meet."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from projections.fhir.definitions import FHIR_VERSION, type_definition, type_names
from server.fhir.validation.conformance import unmet_rules
from server.fhir.validation.invariants import broken
from server.fhir.validation.issues import MOST, Issue, Location, expression_of, is_fault, sorted_issues
from server.fhir.validation.profiles import R5, profile
from server.fhir.validation.walk import Held, Walk

MOST_SECONDS = 20.0
"""For the invariants of one resource. The largest of R5's examples that may be sent (7.6 MB) takes half of it."""

_TOO_DEEP = "too-costly"


def issues_of(resource: Any, profiles: Sequence[str] = ()) -> list[Issue]:
    """What is wrong, faults first. ``profiles`` are canonicals of known ones; those that the resource claims are checked too.

    It takes processor time, a millisecond for most resources, and belongs into a thread.
    """
    walk = Walk()
    walk.resource(resource)
    issues = list(walk.issues)
    if not any(one.code == _TOO_DEEP for one in issues):
        issues.extend(broken(walk.met, time.monotonic() + MOST_SECONDS))
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
    return profile(canonical) is not None or _type_named(canonical) is not None


def _type_named(canonical: str) -> str | None:
    """The type whose own canonical this is: what the walk found is all that there is to say of it."""
    url, _, version = canonical.partition("|")
    name = url.removeprefix(R5)
    is_type = url.startswith(R5) and name in type_names() and FHIR_VERSION.startswith(version)
    return name if is_type else None


def _of_profiles(held: Held, asked: Sequence[str]) -> Iterator[Issue]:
    claimed = _claimed(held.value)
    for url in dict.fromkeys((*asked, *(one for one, _ in claimed))):
        known, named = profile(url), _type_named(url)
        if known is not None:
            yield from unmet_rules(known, held)
        elif named is not None and named not in (held.shape_name, *type_definition(held.shape_name).ancestors):
            text = f"the profile {url.partition('|')[0]} is of {named}, not of {held.shape_name}"
            yield Issue("error", "invalid", text, expression_of(held.location))
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
