"""References within a Bundle: to what it makes, by the entry's fullUrl, and conditional ones (R5 bundle.html#references, http.html#trules)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from projections.fhir.definitions import is_resource_type
from projections.fhir.vocabulary import Json
from server.fhir.as_of import Given
from server.fhir.writing.interaction import condition_of

Key = tuple[str, str]
_LINKING = frozenset({"reference", "valueUri", "valueUrl", "valueUuid", "valueOid"})
"""Elements whose text is replaced where it is a fullUrl of the Bundle."""
_RESTFUL = re.compile(r"(?:https?://.*/)?([A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})")
_IN_NARRATIVE = re.compile(r'(<[^<>]*\s(?:href|src)=")([^"]*)(")')


class Links:
    """What each fullUrl, and each conditional reference, stands for."""

    def __init__(self) -> None:
        self._targets: dict[str, str] = {}

    def add(self, full_url: str | None, key: Key) -> None:
        if not full_url:
            return
        target = "/".join(key)
        self._targets[full_url] = target
        restful = _RESTFUL.fullmatch(full_url)
        if restful is not None:  # a relative reference to it means the same (R5 bundle.html#references)
            self._targets.setdefault(restful[1], target)

    def add_condition(self, written: str, key: Key) -> None:
        self._targets[written] = "/".join(key)

    def resolved(self, tree: Any, name: str = "") -> Any:
        """The tree, with what is meant in place of what stood for it."""
        if isinstance(tree, dict):
            return {inner: self.resolved(value, inner) for inner, value in tree.items()}
        if isinstance(tree, list):
            return [self.resolved(one, name) for one in tree]
        if not isinstance(tree, str) or not self._targets:
            return tree
        if name in _LINKING:
            return self._target(tree)
        if name == "div":
            return _IN_NARRATIVE.sub(lambda found: f"{found[1]}{self._target(found[2])}{found[3]}", tree)
        return tree

    def _target(self, written: str) -> str:
        """A fragment stays (``urn:uuid:…#part``)."""
        url, mark, fragment = written.partition("#")
        found = self._targets.get(url)
        return written if found is None else f"{found}{mark}{fragment}"


def conditional_references(resource: Json | None, at: str) -> Iterator[tuple[str, str, str, Given]]:
    """Where each is, as it is written, the type that it names, and its parameters. Raises FhirError (400)."""
    for where, written in _references(resource, at):
        kind, mark, _ = written.partition("?")
        if mark and is_resource_type(kind):
            yield where, written, kind, condition_of(written, where)


def _references(tree: Any, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == "reference" and isinstance(value, str):
                yield f"{at}.reference", value
            else:
                yield from _references(value, f"{at}.{name}")
    elif isinstance(tree, list):
        for nth, one in enumerate(tree):
            yield from _references(one, f"{at}[{nth}]")
