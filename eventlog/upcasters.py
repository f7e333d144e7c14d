"""Upcasters: how data stored under an earlier schema version of an event type read today.

A changed event type raises its SCHEMA_VERSION and registers one function for each step, from the data as stored at
version n (a tree of JSON values, sealed fields opened) to the data at version n + 1. Stored bytes never change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Data = dict[str, Any]
Upcaster = Callable[[Data], Data]


class Upcasters:
    def __init__(self) -> None:
        self._steps: dict[tuple[str, int], Upcaster] = {}

    def register(self, event_type: str, from_version: int) -> Callable[[Upcaster], Upcaster]:
        """Decorator: the function turns data of ``from_version`` into data of ``from_version + 1``."""

        def decorate(function: Upcaster) -> Upcaster:
            self._steps[event_type, from_version] = function
            return function

        return decorate

    def upcast(self, event_type: str, version: int, to_version: int, data: Data) -> Data | None:
        """The data at ``to_version``, or None where a step is missing (or the data are from a newer version)."""
        while version < to_version:
            step = self._steps.get((event_type, version))
            if step is None:
                return None
            data = step(data)
            version += 1
        return data if version == to_version else None


UPCASTERS = Upcasters()


@UPCASTERS.register("InstanceConflicted", from_version=1)
def _(data: Data) -> Data:
    """Version 2 names the subject, which version 1 left to the series."""
    return {**data, "subject_id": ""}


@UPCASTERS.register("IndexingRefused", from_version=1)
def _(data: Data) -> Data:
    """Version 2 seals ``detail``, which version 1 has in the clear."""
    return data


@UPCASTERS.register("ClinicalRecordDeleted", from_version=1)
def _(data: Data) -> Data:
    """Version 2 names the subject, which version 1 left to what was written before."""
    return {**data, "subject_id": ""}


@UPCASTERS.register("SubjectRegistered", from_version=1)
@UPCASTERS.register("SubjectDemographicsChanged", from_version=1)
def _(data: Data) -> Data:
    """Version 2 has the FHIR system of the Patient ID in the demographics; at version 1 no site had named one."""
    return data
