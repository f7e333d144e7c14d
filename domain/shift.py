"""How far a distribution moved: the population stability index (PSI), a plain and symmetric statistic of two lists of counts.

PSI = Σ (after − before) · ln(after / before) over the shares of each value. By custom, below 0.1 is no shift to speak of, and from 0.25
on a marked one. A value that one side lacks would make it infinite, so every count has one half added (as Jeffreys' prior does).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

MARKED = 0.25
"""From here on a shift is marked."""


def psi(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """The index of two distributions of counts over the same kind of values; 0 where one of them holds nothing."""
    values = sorted({*before, *after})
    if not sum(before.values()) or not sum(after.values()):
        return 0.0
    totals = [sum(counts.values()) + len(values) / 2 for counts in (before, after)]
    shares = [((before.get(one, 0) + 0.5) / totals[0], (after.get(one, 0) + 0.5) / totals[1]) for one in values]
    return math.fsum((new - old) * math.log(new / old) for old, new in shares)
