"""GraphiQL: its parts are what was published, it works without the Internet, and its examples are good."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from graphql import parse, validate
from served_site import Site, served_site

import server.graphql.page
from server.graphql.cost import Cost, refuse_costly
from server.graphql.errors import Code
from server.graphql.page import unpacked
from server.graphql.schema import build

FOLDER = Path(server.graphql.page.__file__).parent
PARTS = ("graphiql.js", "graphiql.css", "react.js", "react-dom.js", "page.js", "examples.json")
EXAMPLES = json.loads((FOLDER / "examples.json").read_text(encoding="utf-8"))


@pytest_asyncio.fixture
async def site(embedded_server: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with served_site(embedded_server, tmp_path) as site:
        yield site


def test_what_is_vendored_is_what_was_published() -> None:
    table = (FOLDER / "vendor" / "README.md").read_text(encoding="utf-8")
    named = dict(re.findall(r"\| `(.+?)\.gz` \|.*`([0-9a-f]{64})` \|", table))
    assert set(named) == {path.stem for path in (FOLDER / "vendor").glob("*.gz")}
    for name, digest in named.items():
        assert hashlib.sha256(unpacked(name)).hexdigest() == digest, name


async def test_a_browser_gets_a_page_that_loads_nothing_from_elsewhere(site: Site) -> None:
    answer = await site.client.get("/graphql", headers={"Accept": "text/html,application/xhtml+xml"})
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "http" not in policy
    linked = re.findall(r'(?:src|href)="(/[^"]+)"', answer.text)
    assert set(linked) == {f"/graphql/{name}" for name in PARTS if name != "examples.json"}
    assert not re.search(r'(src|href)="(https?:)?//', answer.text)
    for name in PARTS:
        part = await site.client.get(f"/graphql/{name}")
        assert part.status_code == 200 and part.headers["x-content-type-options"] == "nosniff"
        assert len(part.content) > 100
        again = await site.client.get(f"/graphql/{name}", headers={"If-None-Match": part.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_nothing_of_the_data_is_had_without_a_token(site: Site) -> None:
    assert (await site.client.get("/graphql")).status_code == 401
    assert (await site.client.get("/graphql", params={"extensions": "{}"}, headers={"Accept": "text/html"})).status_code == 401
    assert (await site.client.post("/graphql", json={"query": "{ position }"}, headers={"Accept": "text/html"})).status_code == 401


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: re.search(r"(?:query|subscription) (\w+)", example["query"])[1])
def test_each_example_fits_the_schema_and_may_be_asked(example: dict[str, str]) -> None:
    schema = build()._schema
    document = parse(example["query"])
    assert validate(schema, document) == []
    refuse_costly(schema, document, None, json.loads(example["variables"] or "{}"), Cost(values=100_000, depth=16))


DOCS = (Path(__file__).parents[2] / "docs" / "cohorts.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", re.findall(r"```graphql\n(.*?)```", DOCS, re.DOTALL))
def test_each_document_of_the_docs_fits_the_schema(document: str) -> None:
    assert validate(build()._schema, parse(document)) == []


def test_every_code_of_an_error_is_documented() -> None:
    table = DOCS.split("\n### Errors\n", 1)[1].split("\n## ", 1)[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(Code)
