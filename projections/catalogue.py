"""The read models that there are, apart from what serves them: who keeps them up needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from projections.cohort.projection import CohortProjection
from projections.curation.projection import CurationProjection
from projections.dicom.projection import DicomProjection
from projections.dispatch.projection import DispatchProjection
from projections.fhir.projection import FhirProjection
from projections.ledger.projection import LedgerProjection
from projections.projection import Projection


def projections() -> Sequence[Projection]:
    """The read models that a server keeps."""
    return (FhirProjection(), DicomProjection(), LedgerProjection(), CurationProjection(), CohortProjection())


def all_projections() -> Sequence[Projection]:
    """Every read model that can be rebuilt: the server's, and the one that the workers' dispatcher keeps for itself."""
    return (*projections(), DispatchProjection())
