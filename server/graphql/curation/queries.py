"""What curators ask: their projects, saved cohorts and datasets."""

from __future__ import annotations

import strawberry

from server.graphql.counts import AsOfInput
from server.graphql.curation import datasets, projects, saved
from server.graphql.curation.asking import Info, QuestionInput, question
from server.graphql.curation.datasets import Dataset
from server.graphql.curation.projects import Project
from server.graphql.curation.saved import CohortChanges, SavedCohort


@strawberry.type
class CurationQueries:
    @strawberry.field(description="Projects of which you are a member, by id.")
    async def projects(self, info: Info) -> list[Project]:
        return await projects.projects(info.context)

    @strawberry.field(description="Saved cohorts: your own, and those shared in your projects, as they came.")
    async def cohorts(self, info: Info) -> list[SavedCohort]:
        return await saved.saved_cohorts(info.context)

    @strawberry.field(description="A saved cohort by its id; null where there is none that you may see.")
    async def saved_cohort(self, info: Info, cohort_id: str) -> SavedCohort | None:
        return await saved.saved_cohort(info.context, cohort_id)

    @strawberry.field(description="What entered and left a cohort since, and why: of any question, saved or not.")
    async def cohort_changes(
        self, info: Info, of: QuestionInput, since: AsOfInput, until: AsOfInput | None = None, first: int = 20
    ) -> CohortChanges:
        return await saved.changes_of(info.context, question(info.context, of), since, until, first)

    @strawberry.field(description="Datasets of your projects, as they came.")
    async def datasets(self, info: Info) -> list[Dataset]:
        return await datasets.datasets(info.context)

    @strawberry.field(description="A dataset by its id; null where there is none that you may see.")
    async def dataset(self, info: Info, dataset_id: str) -> Dataset | None:
        return await datasets.dataset(info.context, dataset_id)
