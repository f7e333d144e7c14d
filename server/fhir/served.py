"""What the FHIR routes do, in R5's words: the one table from which the CapabilityStatement is made.

What is claimed is what is both here and among the application's routes: a row without its route is not claimed, and a route without a row
fails a test.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import msgspec
from fastapi import FastAPI

from projections.fhir.projection import TYPES
from projections.fhir.vocabulary import GUIDE
from server.as_of import PARAMETER

CORE = "http://hl7.org/fhir/OperationDefinition"
BULK = "http://hl7.org/fhir/uv/bulkdata"
INSTANTIATES = (f"{BULK}/CapabilityStatement/bulk-data",)
"""Statements of guides that are met while exports are served."""
READ = ("GET", "HEAD")
EXPORTS = "/fhir/$export"
ANY, ONE, VERSION = "/fhir/{resource_type}", "/fhir/{resource_type}/{resource_id}", "/fhir/{resource_type}/{resource_id}/_history/{version}"
WITHIN = f"{ONE}/{{searched_type}}"


class Interaction(msgspec.Struct, frozen=True, kw_only=True):
    """``code`` is of R5's restful-interaction, and ``level`` type (also what is done to one resource) or system."""

    code: str
    level: str
    methods: Sequence[str]
    path: str
    says: str


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """An element of CapabilityStatement.rest.resource that is set where a route is there."""

    element: str
    value: bool | str
    methods: Sequence[str]
    path: str


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """``types`` is empty where it is of the system."""

    name: str
    definition: str
    types: Sequence[str]
    methods: Sequence[str]
    path: str


_AS_OF = f"takes {PARAMETER}"
INTERACTIONS = (
    Interaction(code="read", level="type", methods=READ, path=ONE, says=_AS_OF),
    Interaction(code="vread", level="type", methods=READ, path=VERSION, says=f"{_AS_OF}: as of an earlier position, later versions are not there"),
    Interaction(code="history-instance", level="type", methods=READ, path=f"{ONE}/_history", says="takes _at, _since, _sort, _count and _asof"),
    Interaction(code="history-type", level="type", methods=READ, path=f"{ANY}/_history", says="takes _at, _since, _sort, _count and _asof"),
    Interaction(code="search-type", level="type", methods=READ, path=ANY, says=f"{_AS_OF}; pages are as of one position"),
    Interaction(code="search-type", level="type", methods=("POST",), path=f"{ANY}/_search", says=f"{_AS_OF}; pages are as of one position"),
    Interaction(code="search-type", level="type", methods=READ, path=WITHIN, says="in the compartment of a resource"),
    Interaction(code="search-type", level="type", methods=("POST",), path=f"{WITHIN}/_search", says="in the compartment of a resource"),
    Interaction(code="create", level="type", methods=("POST",), path=ANY, says="needs the scope fhir:write"),
    Interaction(code="update", level="type", methods=("PUT",), path=ONE, says="needs the scope fhir:write"),
    Interaction(code="patch", level="type", methods=("PATCH",), path=ONE, says="needs the scope fhir:write"),
    Interaction(code="delete", level="type", methods=("DELETE",), path=ONE, says="needs the scope fhir:write"),
    Interaction(code="search-system", level="system", methods=READ, path="/fhir", says="needs _type; takes _asof"),
    Interaction(code="search-system", level="system", methods=("POST",), path="/fhir/_search", says="needs _type; takes _asof"),
    Interaction(code="history-system", level="system", methods=READ, path="/fhir/_history", says="takes _at, _since, _sort, _count and _asof"),
    Interaction(code="transaction", level="system", methods=("POST",), path="/fhir", says="needs the scope fhir:write"),
    Interaction(code="batch", level="system", methods=("POST",), path="/fhir", says="needs the scope of each entry"),
    Interaction(code="capabilities", level="", methods=READ, path="/fhir/metadata", says=""),
)
CONDITIONS = (
    Condition(element="conditionalRead", value="full-support", methods=READ, path=ONE),
    Condition(element="updateCreate", value=True, methods=("PUT",), path=ONE),
    Condition(element="conditionalCreate", value=True, methods=("POST",), path=ANY),
    Condition(element="conditionalUpdate", value=True, methods=("PUT",), path=ANY),
    Condition(element="conditionalPatch", value=True, methods=("PATCH",), path=ANY),
    Condition(element="conditionalDelete", value="single", methods=("DELETE",), path=ANY),
)
OPERATIONS = (
    Operation(name="meta", definition=f"{CORE}/Resource-meta", types=(), methods=READ, path="/fhir/$meta"),
    Operation(name="meta", definition=f"{CORE}/Resource-meta", types=TYPES, methods=READ, path=f"{ANY}/$meta"),
    Operation(name="meta", definition=f"{CORE}/Resource-meta", types=TYPES, methods=READ, path=f"{ONE}/$meta"),
    Operation(name="meta", definition=f"{CORE}/Resource-meta", types=TYPES, methods=READ, path=f"{VERSION}/$meta"),
    Operation(name="validate", definition=f"{CORE}/Resource-validate", types=TYPES, methods=("POST",), path=f"{ANY}/$validate"),
    Operation(name="validate", definition=f"{CORE}/Resource-validate", types=TYPES, methods=(*READ, "POST"), path=f"{ONE}/$validate"),
    Operation(name="everything", definition=f"{CORE}/Patient-everything", types=("Patient",), methods=READ, path=f"{ONE}/$everything"),
    Operation(
        name="everything",
        definition=f"{GUIDE}:OperationDefinition:ImagingStudy-everything",
        types=("ImagingStudy",),
        methods=READ,
        path=f"{ONE}/$everything",
    ),
    *(
        Operation(name="export", definition=f"{BULK}/OperationDefinition/export", types=(), methods=methods, path=path)
        for methods, path in (
            (("GET", "POST"), EXPORTS),
            (("GET", "DELETE"), f"{EXPORTS}/{{export_id}}"),
            (READ, f"{EXPORTS}/{{export_id}}/{{file_name}}"),
        )
    ),
    Operation(
        name="export",
        definition=f"{BULK}/OperationDefinition/patient-export",
        types=("Patient",),
        methods=("GET", "POST"),
        path=f"{ANY}/$export",
    ),
    Operation(
        name="export",
        definition=f"{BULK}/OperationDefinition/group-export",
        types=("Group",),
        methods=("GET", "POST"),
        path=f"{ONE}/$export",
    ),
)

Routes = frozenset[tuple[str, str]]
"""Method and path."""


def rows() -> Sequence[Interaction | Condition | Operation]:
    return (*INTERACTIONS, *CONDITIONS, *OPERATIONS)


def routes_of(app: FastAPI) -> Routes:
    """Those below /fhir."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GET and HEAD of one route have one operation id
        paths = app.openapi()["paths"]
    return frozenset((method.upper(), path) for path, methods in paths.items() if f"{path}/".startswith("/fhir/") for method in methods)


def is_served(row: Interaction | Condition | Operation, routes: Routes) -> bool:
    return all((method, row.path) in routes for method in row.methods)
