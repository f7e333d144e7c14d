"""Splits: nobody in two parts, each stratum shared out to within one, the same for ever, and no leakage over versions."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import SplitRefused, SubjectWouldLeak
from domain.splits import USUAL, Part, assign, exact_shares, groups_of, refuse_leakage

SUBJECTS = st.sets(st.integers(0, 60).map(lambda n: f"s{n:02}"), max_size=40)
STRATA = st.dictionaries(st.integers(0, 60).map(lambda n: f"s{n:02}"), st.sampled_from("abcde"))
PAIRS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda p: (f"s{p[0]:02}", f"s{p[1]:02}")), max_size=12)
SEEDS = st.integers(0, 1000).map(str)


@st.composite
def parts(draw: st.DrawFn) -> list[Part]:
    weights = draw(st.lists(st.integers(0, 10), min_size=1, max_size=5).filter(any))
    return [Part(f"p{n}", weight / sum(weights)) for n, weight in enumerate(weights)]


@given(subjects=SUBJECTS, pairs=PAIRS, strata=STRATA, wanted=parts(), seed=SEEDS)
def test_no_person_is_in_two_parts(subjects: set[str], pairs: list[tuple[str, str]], strata: dict[str, str], wanted: list[Part], seed: str) -> None:
    assigned = assign(subjects, groups_of(subjects, pairs), strata, wanted, seed, {})
    assert assigned.keys() == subjects
    person = {subject: {subject} for subject in subjects}
    for _ in range(len(pairs)):  # the naive closure
        for a, b in pairs:
            together = person.setdefault(a, {a}) | person.setdefault(b, {b})
            for one in together:
                person[one] = person.setdefault(one, {one}) | together
    for subject in subjects:
        assert len({assigned[one] for one in person[subject] & subjects}) == 1


@given(subjects=SUBJECTS, strata=STRATA, wanted=parts(), seed=SEEDS)
def test_each_stratum_is_shared_out_to_within_one(subjects: set[str], strata: dict[str, str], wanted: list[Part], seed: str) -> None:
    assigned = assign(subjects, groups_of(subjects, []), strata, wanted, seed, {})
    shares = exact_shares(wanted)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for subject, part in assigned.items():
        counts[strata.get(subject, "")][part] += 1
    for stratum, count in counts.items():
        size = sum(count.values())
        for name, share in shares.items():
            assert math.floor(size * share) <= count[name] <= math.ceil(size * share), (stratum, name)


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=60), seed=SEEDS)
def test_many_small_strata_do_not_all_favour_the_largest_part(sizes: list[int], seed: str) -> None:
    strata = {f"{n}-{k}": str(n) for n, size in enumerate(sizes) for k in range(size)}
    assigned = Counter(assign(strata.keys(), groups_of(strata, []), strata, USUAL, seed, {}).values())
    for part in USUAL:
        assert abs(assigned[part.name] - part.share * len(strata)) < len(USUAL)


@given(subjects=SUBJECTS, more=SUBJECTS, strata=STRATA, wanted=parts(), seed=SEEDS, other_seed=SEEDS)
@settings(max_examples=200)
def test_a_version_that_grew_keeps_who_was_there(
    subjects: set[str], more: set[str], strata: dict[str, str], wanted: list[Part], seed: str, other_seed: str
) -> None:
    first = assign(subjects, groups_of(subjects, []), strata, wanted, seed, {})
    everybody = subjects | more
    second = assign(everybody, groups_of(everybody, []), strata, wanted, other_seed, first)
    assert {subject: second[subject] for subject in subjects} == first
    refuse_leakage(first, second, {})
    third = assign(more, groups_of(everybody, []), strata, wanted, seed, second)
    assert third == {subject: second[subject] for subject in more}


@given(subjects=SUBJECTS, strata=STRATA, wanted=parts(), seed=SEEDS)
def test_the_same_seed_gives_the_same_split(subjects: set[str], strata: dict[str, str], wanted: list[Part], seed: str) -> None:
    groups = groups_of(subjects, [])
    again = dict(reversed(list(groups.items())))
    assert assign(sorted(subjects), groups, strata, wanted, seed, {}) == assign(sorted(subjects, reverse=True), again, strata, wanted, seed, {})


def test_what_a_seed_drew_once_it_draws_for_ever() -> None:
    subjects = [f"s{n}" for n in range(8)]
    parts = [Part("train", 0.5), Part("test", 0.5)]
    drawn = assign(subjects, groups_of(subjects, []), {}, parts, "42", {})
    assert [subject for subject, part in drawn.items() if part == "train"] == ["s1", "s5", "s6", "s7"]


def test_another_seed_draws_otherwise() -> None:
    subjects = [f"s{n}" for n in range(40)]
    groups = groups_of(subjects, [])
    assert assign(subjects, groups, {}, USUAL, "1", {}) != assign(subjects, groups, {}, USUAL, "2", {})


def test_new_subjects_fill_what_the_parts_lack() -> None:
    before = {f"s{n}": "train" for n in range(6)}
    subjects = [*before, *(f"t{n}" for n in range(6))]
    half = [Part("train", 0.5), Part("test", 0.5)]
    assigned = assign(subjects, groups_of(subjects, []), {}, half, "", before)
    assert Counter(assigned.values()) == {"train": 6, "test": 6}


def test_who_is_the_same_person_as_somebody_before_goes_where_that_one_was() -> None:
    """Also where the earlier number is in no series of this version."""
    groups = groups_of(["a", "b"], [("a", "b")])
    for seed in "12345678":
        assert assign(["b"], groups, {}, USUAL, seed, {"a": "test"}) == {"b": "test"}


def test_joined_subjects_of_two_parts_are_refused_until_one_is_left_out() -> None:
    before = {"a": "train", "b": "test"}
    groups = groups_of(before, [("a", "b")])
    with pytest.raises(SubjectWouldLeak, match="subject b turned out"):
        assign(["a", "b"], groups, {}, USUAL, "", before)
    with pytest.raises(SubjectWouldLeak):
        assign(["a"], groups, {}, USUAL, "", before)
    assert assign(["a"], groups, {}, USUAL, "", {"a": "train"}) == {"a": "train"}


def test_moving_a_subject_is_refused() -> None:
    with pytest.raises(SubjectWouldLeak, match="subject a would leave"):
        refuse_leakage({"a": "train"}, {"a": "test"}, {})
    with pytest.raises(SubjectWouldLeak, match="one person"):
        refuse_leakage({}, {"a": "train", "b": "test"}, {"a": "a", "b": "a"})
    with pytest.raises(SubjectWouldLeak, match="one person"):
        refuse_leakage({"a": "train"}, {"b": "test"}, {"a": "a", "b": "a"})
    refuse_leakage({"a": "train"}, {"a": "train", "b": "test"}, {"a": "a", "b": "b"})


def test_a_part_of_an_earlier_version_has_to_be_named() -> None:
    with pytest.raises(SplitRefused, match="a part holdout"):
        assign(["a"], {"a": "a"}, {}, USUAL, "", {"a": "holdout"})
    assert assign(["a"], {"a": "a"}, {}, [*USUAL, Part("holdout", 0)], "", {"a": "holdout"}) == {"a": "holdout"}


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [Part("train", 0.5), Part("train", 0.5)],
        [Part("train", 0.5), Part("test", 0.4)],
        [Part("", 1.0)],
        [Part("a part", 1.0)],
        [Part("train", 1.5), Part("test", -0.5)],
        [Part("train", math.nan)],
    ],
)
def test_parts_that_make_no_sense_are_refused(wrong: list[Part]) -> None:
    with pytest.raises(SplitRefused):
        assign(["a"], {"a": "a"}, {}, wrong, "", {})


def test_thirds_are_taken_for_one() -> None:
    assert sum(exact_shares([Part("a", 0.3333), Part("b", 0.3333), Part("c", 0.3333)]).values()) == 1
