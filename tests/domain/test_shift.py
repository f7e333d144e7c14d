"""The population stability index, against its definition and its properties."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from domain.shift import MARKED, psi

COUNTS = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 1000))


def test_by_hand() -> None:
    """Shares 0.75 and 0.25 (of 3 and 1 with one half added to 2.5 and 0.5) against the reverse."""
    assert math.isclose(psi({"a": 5, "b": 1}, {"a": 1, "b": 5}), 2 * (5.5 / 7 - 1.5 / 7) * math.log(5.5 / 1.5))


@given(COUNTS, COUNTS)
def test_it_is_symmetric_and_never_negative(before: dict[str, int], after: dict[str, int]) -> None:
    assert math.isclose(psi(before, after), psi(after, before), abs_tol=1e-12)
    assert psi(before, after) >= 0
    assert psi(before, before) == 0


def test_what_was_not_moves_it_and_nothing_has_none() -> None:
    assert psi({"a": 100}, {"b": 100}) > MARKED > psi({"a": 50, "b": 50}, {"a": 48, "b": 52})
    assert psi({}, {"a": 5}) == 0 == psi({"a": 0}, {"a": 5})
