"""The log's tables: made and changed by Alembic, as the role that owns them; the server's role gets only what it needs."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from eventlog.database import migration_url
from eventlog.errors import HalfRestored, SchemaOutdated
from eventlog.settings import LogSettings

SERVER_ROLE = "anamnesis_server"
HALF_RESTORED = "half_restored"
"""The table that is there from the first step of a restore to its last."""


def scripts_folder() -> Path:
    """Where the migrations are: beside the packages in a checkout, under share/ in an installation."""
    beside = Path(__file__).parent.parent / "alembic"
    return beside if (beside / "env.py").exists() else Path(sys.prefix) / "share" / "anamnesis" / "alembic"


@cache
def newest_revision() -> str:
    """The migrations' files have the names of their revisions, which are numbered."""
    return max(script.stem for script in (scripts_folder() / "versions").glob("[0-9]*.py"))


async def migrate(settings: LogSettings, revision: str = "head") -> None:
    """Brings the database to the newest schema (or to that of a backup); nothing to do is fine.

    Raises ServerTooOld, LogUnavailable, HalfRestored.
    """
    from eventlog.upgrading import upgrade  # Alembic and SQLAlchemy: who only opens a log need not wait for them

    await upgrade(await migration_url(settings), revision)


def refuse_half_restored(is_half_restored: bool) -> None:
    """Raises HalfRestored."""
    if is_half_restored:
        raise HalfRestored("a restore into this database has not ended: run the same `anamnesis restore` again, or give it an empty one")


def check_revision(found: str | None) -> None:
    """Raises SchemaOutdated unless the database is at the revision that this code needs."""
    if found != newest_revision():
        raise SchemaOutdated(f"the database is at {found or 'no'} schema revision, not at {newest_revision()}: run `anamnesis db upgrade`")
