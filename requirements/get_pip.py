"""Installs pip into the virtual environment that runs this, where Python came without it (Debian's python3 does).

Asks the index that pip itself would ask (PIP_INDEX_URL, or the public one), and takes nothing but the wheel with this digest.
Standard library alone.
"""

from __future__ import annotations

import hashlib
import html.parser
import os
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

WHEEL = "pip-26.3-py3-none-any.whl"
SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
PUBLIC_INDEX = "https://pypi.org/simple"  # PEP 503; pip's own default


class Links(html.parser.HTMLParser):
    """Every href of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.extend(value for name, value in attrs if tag == "a" and name == "href" and value)


def fetch(url: str) -> bytes:
    certificates = os.environ.get("PIP_CERT")
    context = ssl.create_default_context(cafile=certificates) if url.startswith("https:") else None
    with urllib.request.urlopen(url, context=context, timeout=60) as answer:
        return bytes(answer.read())


def main() -> None:
    page_url = os.environ.get("PIP_INDEX_URL", PUBLIC_INDEX).rstrip("/") + "/pip/"
    try:
        page = Links()
        page.feed(fetch(page_url).decode("utf-8"))
        link = next((link for link in page.found if link.partition("#")[0].endswith(f"/{WHEEL}")), None)
        if link is None:
            sys.exit(f"{page_url} has no {WHEEL}: install python3-venv, then run make again")
        wheel = fetch(urllib.parse.urljoin(page_url, link.partition("#")[0]))
    except OSError as error:
        sys.exit(f"pip cannot be fetched ({error}): install python3-venv, then run make again")
    if hashlib.sha256(wheel).hexdigest() != SHA256:
        sys.exit(f"{WHEEL} from {page_url} is not the one that is pinned here")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WHEEL
        path.write_bytes(wheel)
        # A wheel of pip runs as it is, and installs itself.
        command = [sys.executable, str(path / "pip"), "install", "--quiet", "--no-index", "--no-deps", str(path)]
        subprocess.run(command, check=True)


main()
