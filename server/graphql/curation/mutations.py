"""What curators do. Each mutation needs the scope `cohorts:write`, and answers when whoever reads next sees it."""

from __future__ import annotations

from collections.abc import Sequence

import strawberry

from domain.condition import Condition
from domain.dataset import Purpose, Terms
from domain.ids import Position
from domain.project import Role
from domain.splits import USUAL, Part
from domain.tag import TagLevel
from server.cohorts import freezing, keeping, splitting, tagging
from server.cohorts.splitting import SplitWanted, stratum_named
from server.cohorts.tagging import Tagged
from server.cohorts.terms import CONSENTS, consent_text
from server.graphql.conditions import ConditionInput, compiled
from server.graphql.context import Context
from server.graphql.counts import AsOfInput
from server.graphql.curation import datasets, projects, saved
from server.graphql.curation.asking import (
    Info,
    QuestionInput,
    curating,
    not_empty,
    position_of,
    question,
    readable,
    require_write,
    told,
    within,
)
from server.graphql.curation.datasets import Dataset, DatasetVersion
from server.graphql.curation.projects import Project
from server.graphql.curation.saved import SavedCohort
from server.graphql.errors import Code, GraphqlError
from server.graphql.levels import Level
from server.graphql.scalars import Long

MOST_KEYS = 10_000

strawberry.enum(TagLevel, name="TagLevel", description="What a tag is on.")


@strawberry.type(description="What was tagged.")
class TagPayload:
    found: int = strawberry.field(description="Things that were meant.")
    changed: int = strawberry.field(description="Those of which something new was said.")
    position: Long | None = strawberry.field(description="Of the last event; null where nothing was new.")
    correlation_id: str = strawberry.field(description="What the events have in common.")


@strawberry.type(description="A project, as it is now.")
class ProjectPayload:
    project: Project | None = strawberry.field(description="Null for who has just left it.")
    position: Long | None = strawberry.field(description="Of the event; null where nothing was new.")


@strawberry.type(description="A saved cohort, as it is now.")
class SavedCohortPayload:
    cohort: SavedCohort | None = strawberry.field(description="Null when it is deleted.")
    position: Long | None = strawberry.field(description="Of the event; null where nothing was new.")


@strawberry.type(description="A dataset, as it is now.")
class DatasetPayload:
    dataset: Dataset = strawberry.field(description="The dataset.")
    position: Long | None = strawberry.field(description="Of the last event; null where nothing was new.")


@strawberry.type(description="A version of a dataset, as it is now.")
class DatasetVersionPayload:
    version: DatasetVersion = strawberry.field(description="The version.")
    position: Long | None = strawberry.field(description="Of the event; null where nothing was new: the version that was there holds just this.")


@strawberry.input(description="On which terms a dataset may leave.")
class TermsInput:
    license: str = strawberry.field(default="", description="An SPDX license expression: CC-BY-4.0, LicenseRef-….")
    license_text: str = strawberry.field(default="", description="A license in words.")
    intended_uses: list[Purpose] = strawberry.field(default_factory=list, description="What it may be exported for; nothing else will do.")
    use_note: str = strawberry.field(default="", description="What it is meant for, in words.")
    consent: ConditionInput | None = strawberry.field(
        default=None, description="What each subject has to meet whenever it is exported: a condition on subjects, mostly on their facts."
    )
    consents: bool = strawberry.field(
        default=False, description="In place of `consent`: each subject has to have an active FHIR Consent that permits."
    )


@strawberry.input(description="A part of a split.")
class PartInput:
    name: str = strawberry.field(description="train, validation, test, …")
    share: float = strawberry.field(description="Of 1; all shares add up to it.")


@strawberry.input(description="A subject put into a part by hand.")
class AssignedInput:
    subject_id: str = strawberry.field(description="By pseudonym.")
    part: str = strawberry.field(description="One of the parts.")


@strawberry.type
class CurationMutations:
    @strawberry.mutation(description="Makes a project, which you then own. Its id stays readable for ever: choose a code, and put words into the title.")
    async def create_project(self, info: Info, project_id: str, title: str = "") -> ProjectPayload:
        require_write(info.context)
        async with told():
            kept = await keeping.create_project(info.context.services.log, project_id, title, info.context.principal)
        return await _project(info.context, project_id, kept.position)

    @strawberry.mutation(description="Makes a principal a member of a project, or gives it another role. For owners.")
    async def admit_member(self, info: Info, project_id: str, principal_id: str, role: Role) -> ProjectPayload:
        require_write(info.context)
        async with told():
            kept = await keeping.admit_member(info.context.services.log, project_id, principal_id, role, info.context.principal)
        return await _project(info.context, project_id, kept.position)

    @strawberry.mutation(description="Ends a membership: for owners, and for whoever leaves.")
    async def remove_member(self, info: Info, project_id: str, principal_id: str) -> ProjectPayload:
        require_write(info.context)
        async with told():
            kept = await keeping.remove_member(info.context.services.log, project_id, principal_id, info.context.principal)
        return await _project(info.context, project_id, kept.position)

    @strawberry.mutation(
        description="Tags things of a level, by the ids that people know: pseudonyms, UIDs (a project's tag needs none). The value is free text, and is"
        " erased with the person; the name is not: choose a code."
    )
    async def set_tag(self, info: Info, project_id: str, level: TagLevel, name: str, value: str = "", keys: list[str] | None = None) -> TagPayload:
        require_write(info.context)
        async with told():
            tagged = await tagging.set_tag(curating(info.context), project_id, level, _keys(level, keys), name, value, info.context.principal)
        return await _tagged(info.context, tagged)

    @strawberry.mutation(description="Takes a tag off things of a level.")
    async def remove_tag(self, info: Info, project_id: str, level: TagLevel, name: str, keys: list[str] | None = None) -> TagPayload:
        require_write(info.context)
        async with told():
            tagged = await tagging.remove_tag(curating(info.context), project_id, level, _keys(level, keys), name, info.context.principal)
        return await _tagged(info.context, tagged)

    @strawberry.mutation(description="Tags everything that meets a question now (at most 100000 things).")
    async def set_tag_of_all(self, info: Info, project_id: str, of: QuestionInput, name: str, value: str = "") -> TagPayload:
        require_write(info.context)
        query = question(info.context, of)
        async with told():
            tagged = await tagging.set_tag_of_all(curating(info.context), project_id, query, name, value, info.context.principal)
        return await _tagged(info.context, tagged)

    @strawberry.mutation(description="Takes a tag off everything that meets a question now and has it.")
    async def remove_tag_of_all(self, info: Info, project_id: str, of: QuestionInput, name: str) -> TagPayload:
        require_write(info.context)
        query = question(info.context, of)
        async with told():
            tagged = await tagging.remove_tag_of_all(curating(info.context), project_id, query, name, info.context.principal)
        return await _tagged(info.context, tagged)

    @strawberry.mutation(description="Saves a cohort; with the id of one, its next version. Without a title or description, a version keeps those that stand.")
    async def save_cohort(
        self, info: Info, of: QuestionInput, title: str | None = None, description: str | None = None, cohort_id: str | None = None
    ) -> SavedCohortPayload:
        require_write(info.context)
        query = question(info.context, of)
        log = info.context.services.log
        async with told():
            kept = await keeping.save_cohort(log, query, info.context.principal, cohort_id=cohort_id, title=title, description=description)
        return await _cohort(info.context, kept.id, kept.position)

    @strawberry.mutation(description="Gives a saved cohort another title or description.")
    async def rename_cohort(self, info: Info, cohort_id: str, title: str, description: str | None = None) -> SavedCohortPayload:
        require_write(info.context)
        async with told():
            kept = await keeping.rename_cohort(info.context.services.log, cohort_id, title, description, info.context.principal)
        return await _cohort(info.context, cohort_id, kept.position)

    @strawberry.mutation(description="Shows a saved cohort of yours to the members of a project; its curators may change it.")
    async def share_cohort(self, info: Info, cohort_id: str, project_id: str) -> SavedCohortPayload:
        require_write(info.context)
        async with told():
            kept = await keeping.share_cohort(info.context.services.log, cohort_id, project_id, info.context.principal)
        return await _cohort(info.context, cohort_id, kept.position)

    @strawberry.mutation(description="Shows a saved cohort of yours to the members of a project no more.")
    async def unshare_cohort(self, info: Info, cohort_id: str, project_id: str) -> SavedCohortPayload:
        require_write(info.context)
        async with told():
            kept = await keeping.unshare_cohort(info.context.services.log, cohort_id, project_id, info.context.principal)
        return await _cohort(info.context, cohort_id, kept.position)

    @strawberry.mutation(description="Deletes a saved cohort of yours. Datasets that were frozen of it stay.")
    async def delete_cohort(self, info: Info, cohort_id: str) -> SavedCohortPayload:
        require_write(info.context)
        async with told():
            kept = await keeping.delete_cohort(info.context.services.log, cohort_id, info.context.principal)
        return await _cohort(info.context, cohort_id, kept.position)

    @strawberry.mutation(description="Makes a dataset in a project that you curate. It holds nothing until it is frozen.")
    async def create_dataset(self, info: Info, project_id: str, title: str, description: str = "", terms: TermsInput | None = None) -> DatasetPayload:
        require_write(info.context)
        async with told():
            given = _terms(terms)
            kept = await keeping.create_dataset(info.context.services.log, project_id, title, description, info.context.principal, given)
        return await _dataset(info.context, kept.id, kept.position)

    @strawberry.mutation(description="Sets the terms on which a dataset may leave, in place of those that stand.")
    async def set_dataset_terms(self, info: Info, dataset_id: str, terms: TermsInput) -> DatasetPayload:
        require_write(info.context)
        async with told():
            kept = await keeping.set_terms(info.context.services.log, dataset_id, _terms(terms), info.context.principal)
        return await _dataset(info.context, dataset_id, kept.position)

    @strawberry.mutation(
        description="Freezes what a question (or a saved cohort, by its id) finds, as of now or of an earlier place in the log, as the next version."
    )
    async def freeze_dataset(
        self, info: Info, dataset_id: str, of: QuestionInput | None = None, cohort_id: str | None = None, as_of: AsOfInput | None = None
    ) -> DatasetVersionPayload:
        require_write(info.context)
        context = info.context
        at_position = None if as_of is None else await position_of(context, as_of)
        async with told():
            frozen = await _frozen(context, dataset_id, of, cohort_id, at_position)
        await readable(context, frozen.position)
        return await _version(context, dataset_id, frozen.version.version, frozen.position)

    @strawberry.mutation(
        description="Puts each subject of a version into a part, by lot (a seed) or by hand. Those of earlier versions stay where they are, numbers of one"
        " person are one, and what would leak is refused. `stratifyBy` names fields in which the parts are to be alike: `sex`, or `age_years:40,60` for a"
        " number with its edges."
    )
    async def split_dataset(
        self,
        info: Info,
        dataset_id: str,
        version: int | None = None,
        parts: list[PartInput] | None = None,
        seed: str = "0",
        stratify_by: list[str] | None = None,
        by_hand: list[AssignedInput] | None = None,
        leave_out: list[str] | None = None,
    ) -> DatasetVersionPayload:
        require_write(info.context)
        async with told():
            wanted = SplitWanted(
                parts=USUAL if parts is None else [Part(one.name, one.share) for one in parts],
                seed=seed,
                strata=[stratum_named(one) for one in stratify_by or ()],
                assigned=None if by_hand is None else {one.subject_id: one.part for one in by_hand},
                left_out=frozenset(leave_out or ()),
            )
            done = await splitting.split_dataset(curating(info.context), dataset_id, version, wanted, info.context.principal)
        await readable(info.context, done.position)
        return await _version(info.context, dataset_id, done.split.version, done.position)

    @strawberry.mutation(
        description="Makes the list of a version's members again from the log, where the archive has lost it or holds it damaged: the same bytes, or"
        " an error."
    )
    async def recover_dataset_list(self, info: Info, dataset_id: str, version: int) -> DatasetVersionPayload:
        require_write(info.context)
        async with told():
            await freezing.recover_list(curating(info.context), dataset_id, version, info.context.principal)
        return await _version(info.context, dataset_id, version, None)


def _keys(level: TagLevel, keys: list[str] | None) -> Sequence[str]:
    if level is TagLevel.PROJECT:
        return ()
    within(len(keys or ()), MOST_KEYS)
    return not_empty(keys or ())


def _terms(given: TermsInput | None) -> Terms:
    if given is None:
        return Terms()
    condition: Condition | None = CONSENTS.where if given.consents else compiled(given.consent, Level.SUBJECT)
    return Terms(
        license=given.license,
        license_text=given.license_text,
        intended_uses=tuple(given.intended_uses),
        use_note=given.use_note,
        consent=consent_text(condition),
    )


async def _frozen(
    context: Context, dataset_id: str, given: QuestionInput | None, cohort_id: str | None, at_position: int | None
) -> freezing.Frozen:
    if (given is None) == (cohort_id is None):
        raise GraphqlError(Code.BAD_INPUT, "a dataset is frozen of a question or of a saved cohort: give one of them")
    if cohort_id is None:
        assert given is not None
        query, version = question(context, given), 0
    else:
        state = await keeping.cohort_state(context.services.log, cohort_id, context.principal)
        query, version = question(context, QuestionInput(query=state.query)), state.version
    return await freezing.freeze_dataset(
        curating(context), dataset_id, query, context.principal, at_position=at_position, cohort_id=cohort_id or "", cohort_version=version
    )


async def _tagged(context: Context, tagged: Tagged) -> TagPayload:
    await readable(context, tagged.position)
    return TagPayload(
        found=tagged.found, changed=tagged.changed, position=_long(tagged.position), correlation_id=str(tagged.correlation_id)
    )


async def _project(context: Context, project_id: str, position: Position | None) -> ProjectPayload:
    await readable(context, position)
    found = [one for one in await projects.projects(context) if one.project_id == project_id]
    return ProjectPayload(project=found[0] if found else None, position=_long(position))


async def _cohort(context: Context, cohort_id: str, position: Position | None) -> SavedCohortPayload:
    await readable(context, position)
    return SavedCohortPayload(cohort=await saved.saved_cohort(context, cohort_id), position=_long(position))


async def _dataset(context: Context, dataset_id: str, position: Position | None) -> DatasetPayload:
    await readable(context, position)
    found = await datasets.dataset(context, dataset_id)
    assert found is not None, "who made or changed it is a member"
    return DatasetPayload(dataset=found, position=_long(position))


async def _version(context: Context, dataset_id: str, version: int, position: Position | None) -> DatasetVersionPayload:
    found = await datasets.version_of(context, dataset_id, version)
    assert found is not None, "the read model has it"
    return DatasetVersionPayload(version=found, position=_long(position))


def _long(position: Position | None) -> Long | None:
    return None if position is None else Long(position)
