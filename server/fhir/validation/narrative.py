"""What a narrative may hold (R5 narrative.html, txt-1 and txt-2): XHTML with formatting alone, and something to read."""

from __future__ import annotations

import html
import re
from typing import Any
from xml.parsers import expat

XHTML = "http://www.w3.org/1999/xhtml"
_ELEMENTS = frozenset(
    {
        "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "blockquote", "br", "caption", "cite", "code", "col", "colgroup", "dd",
        "dfn", "div", "dl", "dt", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "li", "ol", "p", "pre", "q", "samp",
        "small", "span", "strong", "sub", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "tt", "ul", "var",
    }
)
_ATTRIBUTES = frozenset(
    {
        "abbr", "accesskey", "align", "alt", "axis", "bgcolor", "border", "cellpadding", "cellspacing", "char", "charoff", "cite",
        "class", "colspan", "compact", "coords", "dir", "frame", "headers", "height", "href", "hspace", "id", "idref", "ismap",
        "lang", "longdesc", "name", "nowrap", "rel", "rev", "rowspan", "rules", "scope", "shape", "span", "src", "start", "style",
        "summary", "tabindex", "title", "type", "usemap", "valign", "value", "vspace", "width", "xml:lang", "xml:space", "xmlns",
    }
)
_NAMED = re.compile(r"&(?!(?:amp|lt|gt|quot|apos);)([A-Za-z][A-Za-z0-9]*;)")
_ACTIVE = re.compile(r"\s*(javascript|vbscript|data:text)", re.IGNORECASE)


class _Refused(Exception):
    """Raised where a narrative holds what it may not."""


def is_plain(text: Any) -> bool:
    """txt-1: well-formed, and nothing in it but formatting."""
    return not isinstance(text, str) or _content(text) is not None


def says_something(text: Any) -> bool:
    """txt-2: text that is not white space, or an image. What is not plain is not looked into."""
    content = _content(text) if isinstance(text, str) else None
    return content is None or bool(content)


def _content(text: str) -> list[str] | None:
    """What there is to see; None where the narrative is not plain. No entity of a document's own is ever expanded."""
    parser = expat.ParserCreate()
    seen: list[str] = []
    open_elements: list[str] = []

    def opened(name: str, attributes: dict[str, str]) -> None:
        if not open_elements and (name != "div" or attributes.get("xmlns", XHTML) != XHTML):
            raise _Refused
        if name not in _ELEMENTS or not _ATTRIBUTES.issuperset(attributes):
            raise _Refused
        if any(_ACTIVE.match(attributes.get(one, "")) for one in ("href", "src")):
            raise _Refused
        if name == "img":
            seen.append(name)
        open_elements.append(name)

    def closed(name: str) -> None:
        open_elements.pop()

    def characters(data: str) -> None:
        if data.strip():
            seen.append(data)

    def refused(*given: Any) -> None:
        raise _Refused

    parser.StartElementHandler, parser.EndElementHandler = opened, closed
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = parser.ProcessingInstructionHandler = refused
    try:
        parser.Parse(_NAMED.sub(lambda found: html.unescape(found[0]), text).encode("utf-8", "replace"), True)
    except (_Refused, expat.ExpatError):
        return None
    return seen
