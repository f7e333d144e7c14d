"""Pictures of a dataset's distributions, as SVG that is the same for the same numbers: no date, no random ids, glyphs as paths."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure

MOST_BARS = 20
MOST_BINS = 20
_STYLE: Any = ["default", {"svg.hashsalt": "anamnesis", "svg.fonttype": "path", "font.family": "DejaVu Sans", "font.size": 9.0}]
"""From what matplotlib ships with, whatever a machine has set."""


def bars(counts: Mapping[str, int], unit: str) -> str:
    """The most frequent first; what is beyond twenty is one bar."""
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    shown = dict(ordered[:MOST_BARS])
    if len(ordered) > MOST_BARS:
        shown[f"{len(ordered) - MOST_BARS} others"] = sum(count for _, count in ordered[MOST_BARS:])
    with style.context(_STYLE):
        figure = Figure(figsize=(6.4, 0.8 + 0.28 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        axes.barh([_short(name) for name in shown], list(shown.values()), color="#3b6ea5")
        axes.bar_label(axes.containers[0], padding=2)  # type: ignore[arg-type]
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        axes.spines[["top", "right"]].set_visible(False)
        return _svg(figure)


def histogram(values: Sequence[float], unit: str) -> str:
    with style.context(_STYLE):
        figure = Figure(figsize=(6.4, 2.8), layout="constrained")
        axes = figure.add_subplot()
        axes.hist(values, bins=min(MOST_BINS, max(1, len(set(values)))), color="#3b6ea5", edgecolor="white")
        axes.set_xlabel(unit)
        axes.set_ylabel("count")
        axes.spines[["top", "right"]].set_visible(False)
        return _svg(figure)


def boxes(values: Mapping[str, Sequence[float]], unit: str) -> str:
    """Quartiles, and whiskers to the ends; the twenty most frequent, on a logarithmic axis."""
    most = Counter({name: len(some) for name, some in values.items()})
    shown = sorted(most, key=lambda name: (-most[name], name))[:MOST_BARS]
    with style.context(_STYLE):
        figure = Figure(figsize=(6.4, 0.8 + 0.28 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        axes.boxplot([list(values[name]) for name in shown], orientation="horizontal", whis=(0, 100), tick_labels=[_short(name) for name in shown])
        axes.invert_yaxis()
        if min(min(values[name]) for name in shown) > 0:
            axes.set_xscale("log")
        axes.set_xlabel(unit)
        axes.spines[["top", "right"]].set_visible(False)
        return _svg(figure)


def _short(name: str) -> str:
    """Signs that mathtext would take for its own stay as they are."""
    return (name if len(name) <= 40 else f"{name[:39]}…").replace("$", r"\$")


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
