"""Projects in GraphQL."""

from __future__ import annotations

import strawberry

from domain.project import Role
from projections.curation import reading
from server.cohorts.access import acting
from server.graphql.context import Context
from server.graphql.curation.asking import by_owner

strawberry.enum(
    Role,
    name="ProjectRole",
    description="What a member of a project may do: a viewer sees, a curator also tags, saves and freezes, an owner also says who is a member.",
)


@strawberry.type(description="A principal that is a member of a project.")
class ProjectMember:
    principal_id: str = strawberry.field(description="The principal, by its id.")
    role: Role = strawberry.field(description="What it may do.")


@strawberry.type(description="The scope in which tags are said, and cohorts and datasets shared.")
class Project:
    project_id: str = strawberry.field(description="A code that its creator chose.")
    title: str = strawberry.field(description="In words.")
    role: Role = strawberry.field(description="What you may do in it.")
    members: list[ProjectMember] = strawberry.field(description="Who is a member, by principal.")


async def projects(context: Context) -> list[Project]:
    """Those in which the principal is a member, by id."""
    pool = context.services.pool
    roles = await reading.roles_of(pool, acting(context.principal))
    members = by_owner(await reading.members(pool, list(roles)), lambda one: one.project_id)
    return [
        Project(
            project_id=row.project_id,
            title=row.title,
            role=roles[row.project_id],
            members=[ProjectMember(principal_id=one.principal_id, role=one.role) for one in members[row.project_id]],
        )
        for row in await reading.projects(pool, list(roles))
    ]
