"""A condition on one field, as a question to a dictionary's entry or to an array of numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from domain.condition import Between, Contains, OneOf, Present, Value
from projections.cohort.errors import FieldRefused
from projections.cohort.fields import Field
from projections.cohort.naming import Kind
from projections.cohort.postgresql.values import TEXTS, asked_value
from projections.cohort.terms import folded
from projections.columns.column import Encoded, Plain
from projections.columns.dictionary import Values
from projections.columns.pieces import taken

Leaf = OneOf | Between | Present | Contains
FEW = 3
"""So many codes are compared one by one, which is faster than looking each row up."""


def check(leaf: Leaf, field: Field) -> None:
    """As the rows are asked, so are columns. Raises FieldRefused."""
    match leaf:
        case OneOf():
            for value in leaf.values:
                asked_value(field, value)
        case Contains() if field.kind not in TEXTS:
            raise FieldRefused(f"{field.name} is a {field.kind}: text within it cannot be searched, ask for the whole value")
        case Between():
            if field.kind not in (Kind.NUMBER, Kind.DATE, Kind.TIME):
                raise FieldRefused(f"{field.name} is a {field.kind}: it has no ranges, ask for one of its values")
            bounds = [bound for bound in (leaf.at_least, leaf.more_than, leaf.at_most, leaf.less_than) if bound is not None]
            if not bounds:
                raise FieldRefused(f"a range of {field.name} needs a bound")
            for bound in bounds:
                asked_value(field, bound)


def met_by_codes(leaf: Leaf, column: Encoded, codes: np.ndarray) -> np.ndarray:
    """Of these codes, which stand for values that meet it."""
    match leaf:
        case Present():
            return codes != 0
        case OneOf():
            wanted = sorted({code for value in leaf.values for code in column.dictionary.holding(value)})
            if not wanted:
                return np.zeros(len(codes), bool)
            if len(wanted) <= FEW:
                found = codes == wanted[0]
                for code in wanted[1:]:
                    found |= codes == code
                return found
            table = np.zeros(max(len(column.dictionary), wanted[-1] + 1), bool)
            table[wanted] = True
            return taken(table, codes)
    return taken(column.dictionary.table(leaf, _meets(leaf)), codes)


def met_by_numbers(leaf: Leaf, column: Plain, numbers: np.ndarray) -> np.ndarray:
    match leaf:
        case Present():
            return ~np.isnan(numbers) if numbers.dtype.kind == "f" else np.ones(len(numbers), bool)
        case OneOf():
            return np.isin(numbers, [float(value) for value in leaf.values if not isinstance(value, str)])
        case Between():
            found = np.ones(len(numbers), bool)
            for bound, compare in ((leaf.at_least, np.greater_equal), (leaf.more_than, np.greater), (leaf.at_most, np.less_equal), (leaf.less_than, np.less)):
                if bound is not None:
                    found &= compare(numbers, bound)
            return found
    return np.zeros(len(numbers), bool)


def _meets(leaf: Between | Contains) -> Callable[[Values], bool]:
    if isinstance(leaf, Contains):
        text = folded(leaf.text.replace("\0", " "))
        return lambda values: any(text in folded(str(value)) for value in values)
    lies = _lies(leaf)
    if leaf.every:
        return lambda values: bool(values) and all(map(lies, values))
    return lambda values: any(map(lies, values))


def _lies(leaf: Between) -> Callable[[Value], bool]:
    at_least, more_than, at_most, less_than = leaf.at_least, leaf.more_than, leaf.at_most, leaf.less_than

    def lies(value: Value) -> bool:
        return (
            (at_least is None or value >= at_least)  # type: ignore[operator]
            and (more_than is None or value > more_than)  # type: ignore[operator]
            and (at_most is None or value <= at_most)  # type: ignore[operator]
            and (less_than is None or value < less_than)  # type: ignore[operator]
        )

    return lies
