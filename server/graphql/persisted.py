"""Documents that are asked for by their SHA-256 (Apollo's automatic persisted queries), and those that a site allows, in a folder.

What clients persist is in memory only, and forgotten with the process: a client that is told PERSISTED_QUERY_NOT_FOUND sends the
document with its digest once more.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

from server.errors import SettingRefused
from server.graphql.errors import Code, GraphqlError

REMEMBERED = 1000
LONGEST = 100_000
"""Characters of a document that is persisted."""


class Persisted:
    """``folder``: of documents (``*.graphql``) that are known by their digest from the start. ``only``: no others are answered."""

    def __init__(self, folder: Path | None, *, only: bool) -> None:
        """Raises SettingRefused."""
        if folder is not None and not folder.is_dir():
            raise SettingRefused(f"graphql_persisted_dir={folder} is not a folder")
        if only and folder is None:
            raise SettingRefused("graphql_only_persisted needs graphql_persisted_dir: without it nothing could be asked")
        texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.graphql"))] if folder is not None else []
        self._allowed = {digest(form): form for text in texts for form in (text, text.strip())}
        self._only = only
        self._remembered: OrderedDict[str, str] = OrderedDict()

    def text(self, query: str | None, extensions: dict[str, Any] | None) -> str:
        """The document that is meant. Raises GraphqlError."""
        asked = (extensions or {}).get("persistedQuery")
        if asked is None:
            if not query:
                raise GraphqlError(Code.BAD_INPUT, "there is no `query`")
            return self._permitted(query, digest(query)) if self._only else query
        if not isinstance(asked, dict) or asked.get("version") != 1 or not isinstance(asked.get("sha256Hash"), str):
            raise GraphqlError(Code.BAD_INPUT, 'a persisted query is named {"version": 1, "sha256Hash": "…"}')
        name = asked["sha256Hash"].lower()
        if query:
            if digest(query) != name:
                raise GraphqlError(Code.BAD_INPUT, "sha256Hash is not the digest of `query`")
            return self._remember(self._permitted(query, name), name)
        found = self._allowed.get(name) or self._remembered.get(name)
        if found is None:
            raise GraphqlError(Code.PERSISTED_QUERY_NOT_FOUND, "PersistedQueryNotFound")
        if name in self._remembered:
            self._remembered.move_to_end(name)
        return found

    def _permitted(self, query: str, name: str) -> str:
        if self._only and name not in self._allowed:
            raise GraphqlError(Code.PERSISTED_QUERY_ONLY, "this server answers only documents that it knows: ask who runs it to add yours")
        return query

    def _remember(self, query: str, name: str) -> str:
        if len(query) <= LONGEST and name not in self._allowed:
            self._remembered[name] = query
            self._remembered.move_to_end(name)
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return query


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
