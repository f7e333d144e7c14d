"""The Brain Imaging Data Structure (https://bids-specification.readthedocs.io), as far as it speaks of what clinics make.

The specification has MR by its contrast, which DICOM does not tell: an MR series is `anat` where its description says the contrast in
one word (names.suffix_of), else it is in `mr/`. CT is in `ct/`, as the extension proposal 24 has it. What the specification does not
know is named in .bidsignore, so that validators pass over it. Masks are a derivative, as it has discrete segmentations (`dseg`).
"""

from __future__ import annotations

from collections.abc import Mapping

from server.datasets.folder import Step
from server.datasets.layouts.json_text import json_text
from server.datasets.plan import Plan, PlannedSeries

FOLDER = "bids"
MASKS = "derivatives/segmentations"
VERSION = "1.9.0"
MADE_BY = {"Name": "Anamnesis"}


def image_path(series: PlannedSeries) -> str:
    return f"{FOLDER}/{_stem(series)}_{_suffix(series)}.nii.gz"


def mask_paths(plan: Plan, series: PlannedSeries) -> list[str]:
    return [f"{FOLDER}/{MASKS}/{_stem(series)}_dseg.nii.gz"]


def write_beside(step: Step, series: PlannedSeries, labels: Mapping[str, int]) -> None:
    """The sidecar of an image, and the table of its mask's labels."""
    entity, positions = f"series:{series.series_uid}", series.positions
    step.text(f"{FOLDER}/{_stem(series)}_{_suffix(series)}.json", json_text(series.sidecar), entity, positions)
    if labels:
        lines = ["index\tname", *(f"{number}\t{name}" for name, number in labels.items())]
        step.text(f"{FOLDER}/{MASKS}/{_stem(series)}_dseg.tsv", "\n".join(lines) + "\n", entity, [one.position for one in series.masks])


def write_descriptions(step: Step, plan: Plan, paths: frozenset[str]) -> None:
    """What describes the whole: once it is known which series there are."""
    about = plan.about
    entity = f"dataset:{about.dataset_id}"
    there = [one for one in plan.series if image_path(one) in paths]
    if not there:
        return
    described = {
        "Name": about.title,
        "BIDSVersion": VERSION,
        "DatasetType": "raw",
        "License": about.license or about.license_text,
        "Authors": [about.site or "Anamnesis"],
        "GeneratedBy": [MADE_BY],
        "SourceDatasets": [{"URL": f"urn:uuid:{about.dataset_id}", "Version": str(about.version)}],
    }
    step.text(f"{FOLDER}/dataset_description.json", json_text(described), entity, about.positions)
    step.text(f"{FOLDER}/README", _readme(plan), entity, about.positions)
    ignored = sorted({_kind(one)[0] for one in there} - {"anat"})
    step.text(f"{FOLDER}/.bidsignore", "".join(f"{kind}/\n" for kind in ignored), entity, about.positions)
    step.text(f"{FOLDER}/participants.tsv", _participants(plan, {one.subject_id for one in there}), entity, _positions(plan))
    step.text(f"{FOLDER}/participants.json", json_text(_PARTICIPANTS), entity, about.positions)
    if any(path.startswith(f"{FOLDER}/{MASKS}/") for path in paths):
        derived = {**described, "Name": f"{about.title}: segmentations", "DatasetType": "derivative"}
        derived["GeneratedBy"] = [{**MADE_BY, "Description": "DICOM segmentations laid over the series that they name"}]
        step.text(f"{FOLDER}/{MASKS}/dataset_description.json", json_text(derived), entity, about.positions)


_PARTICIPANTS = {
    "age": {"Description": "Age at the first study; 89 for all who were older", "Units": "year"},
    "sex": {"Description": "As recorded", "Levels": {"F": "female", "M": "male", "O": "other"}},
    "part": {"Description": "The part of the dataset's split that the participant is in"},
}


def _participants(plan: Plan, subjects: set[str]) -> str:
    lines = ["participant_id\tage\tsex\tpart"]
    for one in plan.persons:
        if one.subject_id in subjects:
            age = "n/a" if one.age_years is None else str(int(one.age_years))
            lines.append(f"{one.label}\t{age}\t{one.sex or 'n/a'}\t{one.part or 'n/a'}")
    return "\n".join(lines) + "\n"


def _positions(plan: Plan) -> list[int]:
    return sorted({*plan.about.positions, *(position for one in plan.persons for position in one.positions)})


def _kind(series: PlannedSeries) -> tuple[str, str]:
    """Folder and suffix."""
    if series.modality == "MR" and series.suffix:
        return "anat", series.suffix
    kind = "pet" if series.modality == "PT" else series.modality.lower()
    return kind, kind


def _suffix(series: PlannedSeries) -> str:
    return _kind(series)[1]


def _stem(series: PlannedSeries) -> str:
    """Without a suffix: sub-1a2b3c4d/ses-01/ct/sub-1a2b3c4d_ses-01_run-02."""
    subject, session, run = series.path.split("/")
    return f"{subject}/{session}/{_kind(series)[0]}/{subject}_{session}_run-{run.split('-')[1]}"


def _readme(plan: Plan) -> str:
    return (
        f"{plan.about.title}\n\n{plan.about.description}\n\n"
        f"Dataset {plan.about.dataset_id}, version {plan.about.version}, frozen at log position {plan.about.position}.\n\n"
        "CT is in ct/ as BIDS extension proposal 24 has it. MR is in anat/ where its description says the contrast in one word, else in mr/.\n"
        "What the specification does not know is named in .bidsignore. Sessions are the studies of a person in their order; runs are the\n"
        "series of a study in the order of their numbers. ../manifest.json says which series and events each file comes from.\n"
    )
