"""What the endpoint keeps between requests: the schema, documents that came in, and whose pseudonym is which."""

from __future__ import annotations

from server.auth.principals import Authenticated
from server.errors import ScopeUnusable
from server.graphql.context import Context, Pseudonyms
from server.graphql.cost import Cost
from server.graphql.documents import Documents
from server.graphql.persisted import Persisted
from server.graphql.schema import build
from server.read_models import require_held
from server.services import Services

READ_MODEL = "cohort"


class Served:
    def __init__(self, services: Services) -> None:
        """Raises SettingRefused."""
        settings = services.settings
        self.services = services
        self.schema = build()
        self.documents = Documents(Cost(values=settings.graphql_max_cost, depth=settings.graphql_max_depth))
        self.persisted = Persisted(settings.graphql_persisted_dir, only=settings.graphql_only_persisted)
        self._pseudonyms = Pseudonyms()

    def context(self, reader: Authenticated, *, over_get: bool = False) -> Context:
        return Context(self.services, reader, self.documents, self._pseudonyms, over_get=over_get)

    async def require_complete(self) -> None:
        """Raises ProjectionIncomplete."""
        await require_held(self.services, READ_MODEL)


def refuse_one_patient(reader: Authenticated) -> None:
    """Raises ScopeUnusable: what counts all subjects cannot be kept to one."""
    if reader.patient is not None:
        raise ScopeUnusable("cohorts:read", "the token is about one patient, and cohorts are about all")
