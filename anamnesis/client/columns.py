"""The columns in memory by which a server counts, and the DICOM elements that were added to them. Values, and what asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anamnesis.client.asking import Steps
from anamnesis.client.graphql import ask
from anamnesis.client.shapes import read, selection


@dataclass(frozen=True, kw_only=True)
class AddedFacet:
    """``in_memory``: it is counted there; until then PostgreSQL answers, slower. ``rows``: read for it so far, while it is being built."""

    element: str
    in_memory: bool
    rows: int | None


@dataclass(frozen=True, kw_only=True)
class Columns:
    """``state``: waiting, reading, following, stopped or off. ``rows``: versions of entities; ``bytes``: of memory."""

    state: str
    position: int
    rows: int
    bytes: int
    facets: Sequence[AddedFacet]

    def facet(self, element: str) -> AddedFacet | None:
        """By its canonical name; None where it was not added."""
        return next((one for one in self.facets if one.element == element), None)


def columns() -> Steps[Columns]:
    data = yield from ask(f"query Columns {{ columns {{ {selection(Columns)} }} }}", {})
    return read(Columns, data["columns"])


def add_facet(element: str) -> Steps[str]:
    """Its canonical name."""
    return _facet("addFacet", element)


def remove_facet(element: str) -> Steps[str]:
    """Its canonical name."""
    return _facet("removeFacet", element)


def _facet(mutation: str, element: str) -> Steps[str]:
    """Done twice, each does no more than once."""
    data = yield from ask(f"mutation Facet($element: String!) {{ {mutation}(element: $element) {{ element }} }}", {"element": element})
    return str(data[mutation]["element"])
