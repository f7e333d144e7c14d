"""Conditions of every kind, as the client builds them, with fields and texts that mean nothing."""

from __future__ import annotations

from hypothesis import strategies as st

from anamnesis.client import all_of, any_of, field, followed, has
from anamnesis.client.conditions import LEVELS

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(["and", "to", "true", "5", "1.5e3", "it's", '"', "a b", "00180050", ""])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
FIELDS = TEXTS.filter(bool).map(field)
BOUNDS = st.dictionaries(st.sampled_from(["at_least", "more_than", "at_most", "less_than"]), NUMBERS | TEXTS, min_size=1)
DAYS = st.integers(0, 10_000)

COMPARISONS = st.one_of(
    st.builds(lambda f, values: f.one_of(values), FIELDS, st.lists(NUMBERS | TEXTS | st.booleans(), max_size=3)),
    st.builds(lambda f, bounds, every: (f.every if every else f).between(**bounds), FIELDS, BOUNDS, st.booleans()),
    st.builds(lambda f: f.present(), FIELDS),
    st.builds(lambda f, text, tolerant: f.contains(text, tolerant=tolerant), FIELDS, TEXTS, st.booleans()),
)
CONDITIONS = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.builds(lambda of: all_of(*of), st.lists(inner, max_size=3)),
        st.builds(lambda of: any_of(*of), st.lists(inner, max_size=3)),
        st.builds(lambda one, other: one & other, inner, inner),
        st.builds(lambda one, other: one | other, inner, inner),
        st.builds(lambda one: ~one, inner),
        st.builds(lambda level, where, n: has(level, where, at_least=n), st.sampled_from(LEVELS), st.none() | inner, st.integers(0, 5)),
        st.builds(
            lambda one, other, least, most: followed(one, other, at_least_days=least, at_most_days=most), inner, inner, DAYS, st.none() | DAYS
        ),
    ),
    max_leaves=8,
)
