"""Values and counts as a terminal shows them."""

from __future__ import annotations

from rich.bar import Bar
from rich.table import Column, Table

BAR_WIDTH = 40


def as_text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:,.6g}" if abs(value) >= 100_000 else f"{value:.6g}"
    return str(value)


def bar(number: int, most: int) -> Bar:
    return Bar(size=max(most, 1), begin=0, end=number, width=BAR_WIDTH)


def table_of(*columns: str, title: str | None = None, caption: str | None = None) -> Table:
    """Names and UIDs are folded where they are too long, so that they can be copied whole."""
    return Table(*(Column(name, overflow="fold") for name in columns), title=title, caption=caption)
