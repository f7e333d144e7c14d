"""A document of headings, paragraphs, tables and pictures, as Markdown and as HTML of the same content."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import msgspec


class Paragraph(msgspec.Struct, frozen=True):
    text: str


class Table(msgspec.Struct, frozen=True):
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Picture(msgspec.Struct, frozen=True):
    """``path`` from where the document is."""

    path: str
    caption: str


class Section(msgspec.Struct, frozen=True):
    title: str
    blocks: Sequence[Paragraph | Table | Picture]


_MARKED = re.compile(r"([\\`*_{}\[\]<>#|])")
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}th,td{border:1px solid #ccc;padding:.25rem .6rem;text-align:left}"
    "img{max-width:100%}figcaption{color:#555}p{white-space:pre-line}"
)


def markdown(title: str, sections: Sequence[Section]) -> str:
    lines = [f"# {_plain(title)}", ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for block in section.blocks:
            lines += [*_markdown(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def web_page(title: str, sections: Sequence[Section]) -> str:
    """Without scripts, and with nothing from elsewhere."""
    body = "\n".join(f"<h2>{html.escape(section.title)}</h2>\n" + "\n".join(_html(block) for block in section.blocks) for section in sections)
    name = html.escape(title)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}</title>\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n<h1>{name}</h1>\n{body}\n</body>\n</html>\n"
    )


def _markdown(block: Paragraph | Table | Picture) -> list[str]:
    match block:
        case Paragraph():
            return [_plain(line) for line in block.text.splitlines()]
        case Picture():
            return [f"![{_plain(block.caption)}]({block.path})"]
        case Table():
            rows = [f"| {' | '.join(_plain(cell).replace(chr(10), ' ') for cell in row)} |" for row in block.rows]
            return [f"| {' | '.join(block.head)} |", f"|{'---|' * len(block.head)}", *rows]


def _plain(text: str) -> str:
    """Text that nobody meant as Markdown stays text."""
    return _MARKED.sub(r"\\\1", text)


def _html(block: Paragraph | Table | Picture) -> str:
    match block:
        case Paragraph():
            return f"<p>{html.escape(block.text)}</p>"
        case Picture():
            name = html.escape(block.caption)
            return f'<figure><img src="{html.escape(block.path)}" alt="{name}"><figcaption>{name}</figcaption></figure>'
        case Table():
            head = "".join(f"<th>{html.escape(cell)}</th>" for cell in block.head)
            rows = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in block.rows)
            return f"<table>\n<tr>{head}</tr>\n{rows}\n</table>"
