"""UCUM units as multiples of SI base units, by the library ucumvert, so that quantities in different units compare."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

import msgspec

DIGITS = 12
"""Significant ones that are compared: a factor such as that of mL is not exact in binary."""
_ATOM = re.compile(r"\[[^\]]*\]")


class Unit(msgspec.Struct, frozen=True):
    """``canonical`` = ``factor`` × value + ``offset``."""

    canonical: str
    factor: float = 1.0
    offset: float = 0.0

    def of(self, value: float) -> float:
        return float(f"{value * self.factor + self.offset:.{DIGITS}g}")


@lru_cache(maxsize=1024)
def unit(code: str) -> Unit:
    """How a UCUM code compares. What has no fixed relation to others (arbitrary units, logarithms, no UCUM) compares with itself alone."""
    try:
        if any(_is_arbitrary(atom) for atom in _ATOM.findall(code)):
            return Unit(code)
        values = [_base(code, value) for value in (0, 1, 2)]
    except Exception:  # the library raises whatever its parser and its registry raise
        return Unit(code)
    zero, one, two = (float(value.magnitude) for value in values)
    if abs((two - one) - (one - zero)) > abs(one - zero) * 1e-9 or one == zero:
        return Unit(code)
    return Unit(str(values[0].units), float(f"{one - zero:.{DIGITS}g}"), float(f"{zero:.{DIGITS}g}"))


def _is_arbitrary(atom: str) -> bool:
    """Such as [iU] and [hnsf'U] (UCUM §24): by the library dimensionless, and yet of one kind only."""
    return bool(_registry().from_ucum(atom).to_base_units().dimensionless)


def _base(code: str, value: int) -> Any:
    registry = _registry()
    given = registry.from_ucum(code)
    return registry.Quantity(value * given.magnitude, given.units).to_base_units()


@cache
def _registry() -> Any:
    """Made when the first quantity comes: it takes most of a second."""
    from ucumvert import PintUcumRegistry

    return PintUcumRegistry()
