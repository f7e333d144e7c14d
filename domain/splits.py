"""How a dataset is split into parts (train, validation, test) so that no person is in two of them, now or in a later version.

Pure and deterministic: who goes where follows from the seed, the groups of subjects that are one person, what they are alike in
(strata), and where they were before. Within each stratum the parts get their shares to within one group; which part gets the odd one
follows what the parts lack over all strata so far, so that many small strata do not all favour the largest part.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from fractions import Fraction

import msgspec

from domain.errors import SplitRefused, SubjectWouldLeak

MAX_PARTS = 100


class Part(msgspec.Struct, frozen=True):
    """A part of a dataset and its share. Shares add up to 1; a part may have none (then nobody new is put into it)."""

    name: str
    share: float


USUAL = (Part("train", 0.7), Part("validation", 0.15), Part("test", 0.15))


def exact_shares(parts: Sequence[Part]) -> dict[str, Fraction]:
    """The shares as they are written, in decimal: 0.7 is seven tenths. Raises SplitRefused."""
    if not 1 <= len(parts) <= MAX_PARTS or len({part.name for part in parts}) != len(parts):
        raise SplitRefused(f"a split has 1 to {MAX_PARTS} parts, each with a name of its own")
    for part in parts:
        if not part.name.replace("-", "").replace("_", "").isalnum() or not part.name.isascii() or len(part.name) > 40:
            raise SplitRefused("a part's name is of letters, digits, - and _, and has at most 40 characters")
        if not 0 <= part.share <= 1:
            raise SplitRefused(f"the share of part {part.name} is not between 0 and 1")
    shares = {part.name: Fraction(repr(part.share)) for part in parts}
    total = sum(shares.values(), Fraction(0))
    if abs(total - 1) > Fraction(1, 1000):
        raise SplitRefused(f"the shares add up to {float(total):g}, not to 1")
    return {name: share / total for name, share in shares.items()}


def groups_of(subjects: Iterable[str], same_person: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Subject → the group that it is in: subjects that are one person are one group, named by the smallest of their ids.

    ``same_person`` may name subjects that are not asked for, and link two that are through them.
    """
    leader: dict[str, str] = {}

    def lead(one: str) -> str:
        path = []
        while leader.get(one, one) != one:
            path.append(one)
            one = leader[one]
        for passed in path:
            leader[passed] = one
        return one

    for a, b in same_person:
        first, second = sorted((lead(a), lead(b)))
        leader[second] = first
    return {subject: lead(subject) for subject in subjects}


def assign(
    subjects: Collection[str],
    groups: Mapping[str, str],
    strata: Mapping[str, str],
    parts: Sequence[Part],
    seed: str,
    before: Mapping[str, str],
) -> dict[str, str]:
    """Subject → part.

    ``groups``: subject → group, of these subjects and of those in ``before`` (see groups_of). ``strata``: subject → what it is alike in;
    a group is in the stratum of its first subject by id. ``before``: subject → part of an earlier version, which it keeps, as does who
    is the same person. Raises SplitRefused, SubjectWouldLeak.
    """
    shares = exact_shares(parts)
    members: dict[str, list[str]] = defaultdict(list)
    for subject in sorted(subjects):
        members[groups[subject]].append(subject)
    kept = _kept(groups, before, members.keys(), shares.keys())
    by_stratum: dict[str, list[str]] = defaultdict(list)
    for group, of_group in members.items():
        by_stratum[strata.get(of_group[0], "")].append(group)
    part_of: dict[str, str] = {}
    owed = dict.fromkeys(shares, Fraction(0))
    for stratum in sorted(by_stratum):
        everybody = by_stratum[stratum]
        new = sorted((group for group in everybody if group not in kept), key=lambda group: _draw(seed, group))
        has = Counter(kept[group] for group in everybody if group in kept)
        targets = _targets(len(everybody), shares, owed)
        quotas = _fill(len(new), {name: targets[name] - has[name] for name in shares}, owed)
        for name, share in shares.items():
            owed[name] += len(everybody) * share - has[name] - quotas[name]
        part_of.update({group: kept[group] for group in everybody if group in kept})
        places = [name for name in shares for _ in range(quotas[name])]
        part_of.update(zip(new, places, strict=True))
    return {subject: part_of[groups[subject]] for subject in sorted(subjects)}


def refuse_leakage(before: Mapping[str, str], now: Mapping[str, str], groups: Mapping[str, str]) -> None:
    """Raises SubjectWouldLeak where a subject would change its part, or subjects that are one person are in two."""
    moved = sorted(subject for subject, part in now.items() if before.get(subject, part) != part)
    if moved:
        raise SubjectWouldLeak(f"{_named(moved)} would leave the part that an earlier version put them into: what was learned of them would leak")
    parts_of: dict[str, set[str]] = defaultdict(set)
    for subject, part in (*before.items(), *now.items()):
        parts_of[groups.get(subject, subject)].add(part)
    torn = sorted(subject for subject in now if len(parts_of[groups.get(subject, subject)]) > 1)
    if torn:
        raise SubjectWouldLeak(f"{_named(torn)}: numbers of one person would be in two parts")


def _kept(groups: Mapping[str, str], before: Mapping[str, str], wanted: Collection[str], names: Collection[str]) -> dict[str, str]:
    """Group → the part in which one of its subjects was."""
    kept: dict[str, str] = {}
    torn: list[str] = []
    for subject, part in sorted(before.items()):
        group = groups[subject]
        if group not in wanted:
            continue
        if part not in names:
            raise SplitRefused(f"an earlier version has a part {part}, with subjects of this one in it: name it too (its share may be 0)")
        if kept.setdefault(group, part) != part:
            torn.append(subject)
    if torn:
        raise SubjectWouldLeak(
            f"{_named(torn)} turned out to be the same person as somebody in another part since an earlier version was split:"
            " leave one of them out (exclude)"
        )
    return kept


def _draw(seed: str, group: str) -> bytes:
    """What orders groups by lot: the same for the same seed, on any machine, whoever else takes part."""
    return hashlib.sha256(f"{seed}|{group}".encode()).digest()


def _targets(size: int, shares: Mapping[str, Fraction], owed: Mapping[str, Fraction]) -> dict[str, int]:
    """Each part's share of ``size``, down to a whole number or up to the next: up where most is owed."""
    targets = {name: int(size * share) for name, share in shares.items()}
    left = size - sum(targets.values())
    wanting = [name for name, share in shares.items() if size * share != targets[name]]
    for name in sorted(wanting, key=lambda one: targets[one] - size * shares[one] - owed[one])[:left]:
        targets[name] += 1
    return targets


def _fill(count: int, lacking: Mapping[str, int], owed: Mapping[str, Fraction]) -> dict[str, int]:
    """How many of ``count`` go to each part, where some lack more than others, or have too many already."""
    lacks = {name: max(0, lack) for name, lack in lacking.items()}
    total = sum(lacks.values())
    if total == count:
        return lacks
    return _targets(count, {name: Fraction(lack, total) for name, lack in lacks.items()}, owed)


def _named(subjects: Sequence[str]) -> str:
    more = f" and {len(subjects) - 5} more" if len(subjects) > 5 else ""
    return f"{'subjects' if len(subjects) > 1 else 'subject'} {', '.join(subjects[:5])}{more}"
