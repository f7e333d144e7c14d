"""Ask a server of Anamnesis from Python: cohorts, datasets and images, sync (`Client`) or async (`AsyncClient`).

    from anamnesis.client import Client, field, has

    with Client("https://anamnesis.example") as client:
        cohort = client.series((field("Modality") == "CT") & has("finding", field("label") == "liver"))
        print(cohort.count(), cohort.facets("ManufacturerModelName"))
"""

from __future__ import annotations

from anamnesis.client.async_client import AsyncClient, AsyncCohort, AsyncImages, AsyncSeries
from anamnesis.client.client import Client, Cohort, Images, Series
from anamnesis.client.conditions import Condition, all_of, any_of, field, followed, has
from anamnesis.client.errors import AnamnesisError

__all__ = [
    "AnamnesisError",
    "AsyncClient",
    "AsyncCohort",
    "AsyncImages",
    "AsyncSeries",
    "Client",
    "Cohort",
    "Condition",
    "Images",
    "Series",
    "all_of",
    "any_of",
    "field",
    "followed",
    "has",
]
