"""How files of an export are named: the same for the same members, each person, study and series by another name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.datasets.names import Placed, paths_of, subject_labels, suffix_of


@given(st.sets(st.uuids(), min_size=1, max_size=50), st.integers(0, 30))
def test_every_person_has_another_label_of_the_same_length(ids: set[object], shared: int) -> None:
    subjects = {("0" * shared + str(one).replace("-", ""))[:32] + str(one) for one in ids}
    labels = subject_labels(subjects)
    assert len({*labels.values()}) == len(subjects) and len({len(label) for label in labels.values()}) == 1
    assert all(label.startswith("sub-") and len(label) >= 12 and label[4:].isalnum() for label in labels.values())


def placed(study: str, series: str, studied: str, number: int | None, subject: str = "a") -> Placed:
    return Placed(subject_id=subject, study_uid=study, series_uid=series, modality="CT", studied=studied, number=number)


def test_studies_are_in_the_order_of_time_and_series_in_that_of_their_numbers() -> None:
    series = [
        placed("2.1", "2.1.1", "20240102", 10),
        placed("2.1", "2.1.2", "20240102", 9),
        placed("2.1", "2.1.3", "20240102", None),
        placed("2.2", "2.2.1", "20230101", -1),
        placed("2.3", "2.3.1", "20230101", 5, "b"),
    ]
    labels = {"a": "sub-a", "b": "sub-b"}
    paths = paths_of(series, labels)
    assert paths == paths_of(series[::-1], labels) == {
        "2.1.1": "sub-a/ses-02/ser-02-CT",
        "2.1.2": "sub-a/ses-02/ser-01-CT",
        "2.1.3": "sub-a/ses-02/ser-03-CT",
        "2.2.1": "sub-a/ses-01/ser-01-CT",
        "2.3.1": "sub-b/ses-01/ser-01-CT",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("descriptions", "suffix"),
    [
        (["Ax T1 post"], "T1w"),
        (["sag_t2_tse", "knee"], "T2w"),
        (["AX FLAIR"], "FLAIR"),
        (["T2* GRE"], "T2starw"),
        (["T2 FLAIR"], ""),
        (["HASTE cor"], ""),
        (["PT1 research"], ""),
    ],
)
def test_a_contrast_is_taken_from_one_word_or_from_none(descriptions: list[str], suffix: str) -> None:
    assert suffix_of(descriptions) == suffix
