"""What of cohorts is counted in memory, and making any DICOM element a facet that is."""

from __future__ import annotations

import strawberry

from projections.cohort.fields import field_named
from server.cohorts import facets
from server.graphql.context import Context
from server.graphql.levels import Level
from server.graphql.scalars import Long

WRITE = "cohorts:write"
Info = strawberry.Info[Context, None]


@strawberry.type(description="A DICOM element that this site counts by, beyond the usual ones.")
class AddedFacet:
    element: str = strawberry.field(description="Its keyword; of a private one its group, creator and number.")
    in_memory: bool = strawberry.field(description="It is counted in memory. Until it is, PostgreSQL answers, slower.")
    rows: Long | None = strawberry.field(description="How many rows have been read for it; null while it is not being built.")


@strawberry.type(description="The columns in memory by which cohorts are counted, at the server that answers.")
class Columns:
    state: str = strawberry.field(description="waiting (for the rows to be complete), reading, following, stopped, or off.")
    position: Long = strawberry.field(description="The position in the log that they have reached; 0 while they are being read.")
    rows: Long = strawberry.field(description="Versions of entities that they hold.")
    bytes: Long = strawberry.field(description="Memory of their arrays.")
    facets: list[AddedFacet] = strawberry.field(description="Elements that were added, as they came.")


@strawberry.type(description="What an added or removed facet led to.")
class FacetPayload:
    element: str = strawberry.field(description="Its canonical name.")
    position: Long | None = strawberry.field(description="Of the event; null where nothing was new.")


@strawberry.type
class ColumnsQueries:
    @strawberry.field(description="What is counted in memory here, and what is being added to it.")
    async def columns(self, info: Info) -> Columns:
        services = info.context.services
        follower = services.columns
        progress = follower.progress if follower is not None else None
        building = progress.facets if progress is not None else {}
        found = []
        for element in await facets.added(services.log):
            field = field_named(element, Level.SERIES)
            there = follower is not None and follower.store.is_column(field)
            found.append(AddedFacet(element=element, in_memory=there, rows=Long(building[field.key]) if field.key in building else None))
        if progress is None:
            return Columns(state="off", position=Long(0), rows=Long(0), bytes=Long(0), facets=found)
        return Columns(state=progress.state, position=Long(progress.position), rows=Long(progress.rows), bytes=Long(progress.bytes), facets=found)


@strawberry.type
class ColumnsMutations:
    @strawberry.mutation(description="Lets an element be counted in memory. Its column is built in the background: `columns` says how far it is.")
    async def add_facet(self, info: Info, element: str) -> FacetPayload:
        info.context.require(WRITE)
        position = await facets.add(info.context.services.log, element, info.context.principal)
        return FacetPayload(element=facets.canonical(element), position=Long(position) if position is not None else None)

    @strawberry.mutation(description="Gives an added element's column up. What it says can be asked for as before, slower.")
    async def remove_facet(self, info: Info, element: str) -> FacetPayload:
        info.context.require(WRITE)
        position = await facets.remove(info.context.services.log, element, info.context.principal)
        return FacetPayload(element=facets.canonical(element), position=Long(position) if position is not None else None)
