"""Croissant 1.0 (http://mlcommons.org/croissant/1.0): what the dataset is, which files it has, and what is in its tables' columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from server.datasets.folder import File, Step
from server.datasets.layouts import bids, dicom, nnunet, tables
from server.datasets.layouts.json_text import json_text
from server.datasets.plan import Layout, Plan

PATH = "croissant.json"

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""As the specification gives it (Croissant 1.0, appendix 1)."""

_MEDIA_TYPES = {
    ".csv": "text/csv",
    ".jsonl": "application/jsonlines",
    ".parquet": "application/x-parquet",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".md": "text/markdown",
    ".html": "text/html",
}
_SETS = {
    dicom.FOLDER: ("dicom-files", "**/*.dcm", "application/dicom", "DICOM instances, as they are stored"),
    nnunet.FOLDER: ("nnunet-files", "**/*.nii.gz", "application/gzip", "NIfTI images and masks in the layout of nnU-Net v2"),
    bids.FOLDER: ("bids-files", "**/*.nii.gz", "application/gzip", "NIfTI images and masks in the layout of BIDS"),
}
_READ_FROM = (Layout.CSV, Layout.PARQUET, Layout.JSONL)
"""The tables that record sets are read from: the first of them that there is."""
_TYPES = {str: "sc:Text", float: "sc:Float", int: "sc:Integer", bool: "sc:Boolean"}


def write_croissant(step: Step, plan: Plan, files: Sequence[File]) -> None:
    """``files``: all that the export holds by now."""
    about = plan.about
    described = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": re.sub(r"[^A-Za-z0-9_-]+", "-", about.title).strip("-") or "dataset",
        "alternateName": about.title,
        "identifier": f"urn:uuid:{about.dataset_id}",
        "description": about.description or about.title,
        "license": about.license or about.license_text,
        "url": f"urn:uuid:{about.dataset_id}",
        "version": f"{about.version}.0.0",
        "datePublished": about.frozen_on,
        "creator": {"@type": "sc:Organization", "name": about.site or "Anamnesis"},
        "citeAs": f"{about.title}, version {about.version}. Dataset {about.dataset_id}, SHA-256 {about.digest}.",
        "isLiveDataset": False,
        "distribution": [*_objects(files), *_file_sets(files)],
        "recordSet": _record_sets(plan, files),
    }
    step.text(PATH, json_text(described), f"dataset:{about.dataset_id}", about.positions)


def _objects(files: Sequence[File]) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": one.path,
            "name": one.path,
            "contentUrl": one.path,
            "contentSize": f"{one.bytes} B",
            "encodingFormat": media_type(one.path),
            "sha256": one.sha256,
        }
        for one in files
        if one.path.startswith(f"{tables.FOLDER}/") or "/" not in one.path
    ]


def _file_sets(files: Sequence[File]) -> list[dict[str, Any]]:
    there = {one.path.split("/")[0] for one in files}
    return [
        {"@type": "cr:FileSet", "@id": name, "name": name, "description": said, "encodingFormat": kind, "includes": f"{folder}/{pattern}"}
        for folder, (name, pattern, kind, said) in sorted(_SETS.items())
        if folder in there
    ]


def _record_sets(plan: Plan, files: Sequence[File]) -> list[dict[str, Any]]:
    there = {one.path for one in files}
    found = []
    for name, columns, rows in (
        ("series", plan.series_columns, [one.row for one in plan.series]),
        ("findings", plan.finding_columns, plan.findings),
    ):
        path = next((path for layout in _READ_FROM if (path := f"{tables.FOLDER}/{name}.{layout}") in there), None)
        if path is not None:
            fields = [_field(name, column, path, tables.kind_of(column, rows)) for column in columns]
            found.append({"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields})
    return found


def _field(table: str, column: str, path: str, kind: type) -> dict[str, Any]:
    extract = {"jsonPath": f"$.{column}"} if path.endswith(f".{Layout.JSONL}") else {"column": column}
    return {
        "@type": "cr:Field",
        "@id": f"{table}/{column}",
        "name": f"{table}/{column}",
        "dataType": _TYPES[kind],
        "source": {"fileObject": {"@id": path}, "extract": extract},
    }


def media_type(path: str) -> str:
    """Of a file of an export, by how its name ends."""
    if path.endswith(".nii.gz"):
        return "application/gzip"
    if path.endswith(".dcm"):
        return "application/dicom"
    if path.endswith(".svg"):
        return "image/svg+xml"
    if path.endswith((".tsv", "/README", "SHA256SUMS")):
        return "text/plain; charset=utf-8"
    if path.endswith(".json"):
        return "application/json"
    return next((kind for ending, kind in _MEDIA_TYPES.items() if path.endswith(ending)), "application/octet-stream")
