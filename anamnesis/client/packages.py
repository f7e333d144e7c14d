"""Packages that only some of the client needs, imported when that is asked for."""

from __future__ import annotations

import importlib
from typing import Any

from anamnesis.client.errors import PackageMissing


def package(name: str, what: str) -> Any:
    """Raises PackageMissing, which says what for and how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PackageMissing(f'{what} needs {name}: pip install "anamnesis[client]"') from error


def pydicom() -> Any:
    return package("pydicom", "reading DICOM")


def simple_itk() -> Any:
    return package("SimpleITK", "an image")
