"""What the schema is made of. A part is a folder or module with mixins of what can be asked, done and followed; it is named here."""

from __future__ import annotations

from server.graphql.columns import ColumnsMutations, ColumnsQueries
from server.graphql.curation.mutations import CurationMutations
from server.graphql.curation.queries import CurationQueries
from server.graphql.nodes.fact import Fact
from server.graphql.nodes.instance import Instance
from server.graphql.nodes.tag import Tag
from server.graphql.queries import CohortQueries
from server.graphql.subscriptions import CohortSubscriptions

QUERIES: tuple[type, ...] = (CohortQueries, CurationQueries, ColumnsQueries)
MUTATIONS: tuple[type, ...] = (CurationMutations, ColumnsMutations)
SUBSCRIPTIONS: tuple[type, ...] = (CohortSubscriptions,)
TYPES: tuple[type, ...] = (Fact, Instance, Tag)
"""Types that are met only behind an interface."""
