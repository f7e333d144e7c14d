"""What is counted and listed, as GraphQL names it."""

from __future__ import annotations

import strawberry

from domain.condition import Level

__all__ = ["Level"]

strawberry.enum(Level, name="Level", description="What is counted and listed: subjects are persons, facts what clinical records say of them.")
