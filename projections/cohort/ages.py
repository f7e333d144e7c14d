"""How old somebody was on a day."""

from __future__ import annotations

import datetime

from projections.cohort.elements import Elements
from projections.dicom.attributes import STUDY_DATE

PATIENT_AGE = "00101010"


def study_date(elements: Elements) -> datetime.date | None:
    """The first that images of the study say."""
    said = elements.first(STUDY_DATE)
    return datetime.date.fromisoformat(said) if isinstance(said, str) else None


def age_at_study(born: datetime.date | None, elements: Elements) -> float | None:
    """By the subject's birth date and the study's date; else as the images say (Patient's Age)."""
    day = study_date(elements)
    if born is not None and day is not None and (age := age_years(born, day)) is not None:
        return age
    said = elements.first(PATIENT_AGE)
    return float(said) if isinstance(said, int | float) else None


def age_years(born: datetime.date, day: datetime.date) -> float | None:
    """Whole years, and the part of the year since the last birthday, rounded down to the hundredth; None before the birth.

    Who was born on 29 February has a birthday on 1 March in other years.
    """
    if day < born:
        return None
    years = day.year - born.year
    if _birthday(born, years) > day:
        years -= 1
    since = (day - _birthday(born, years)).days
    span = (_birthday(born, years + 1) - _birthday(born, years)).days
    return (years * 100 + since * 100 // span) / 100


def _birthday(born: datetime.date, years: int) -> datetime.date:
    try:
        return born.replace(year=born.year + years)
    except ValueError:
        return datetime.date(born.year + years, 3, 1)
