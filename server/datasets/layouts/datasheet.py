"""The datasheet: the questions of Gebru et al., Datasheets for Datasets (2021), answered from the log, with pictures.

What the log cannot know (who paid, why it was made) is said by the dataset's description and terms, or is said to be unknown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from server.datasets.folder import File, Step
from server.datasets.layouts.document import Paragraph, Picture, Section, Table, markdown, web_page
from server.datasets.plan import About, LeftOut, Plan

PICTURES = "datasheet"
UNKNOWN = "unknown"


def write_datasheet(step: Step, plan: Plan, files: Sequence[File], left_out: Sequence[LeftOut]) -> None:
    entity = f"dataset:{plan.about.dataset_id}"
    positions = sorted({*plan.about.positions, *(p for one in plan.series for p in one.positions)})
    drawn = _pictures(plan)
    for name, (_, svg) in drawn.items():
        step.text(f"{PICTURES}/{name}.svg", svg, entity, positions)
    shown = [Picture(f"{PICTURES}/{name}.svg", caption) for name, (caption, _) in drawn.items()]
    title = f"Datasheet: {plan.about.title}, version {plan.about.version}"
    sections = _sections(plan, shown, files, left_out)
    step.text("datasheet.md", markdown(title, sections), entity, positions)
    step.text("datasheet.html", web_page(title, sections), entity, positions)


def _pictures(plan: Plan) -> dict[str, tuple[str, str]]:
    """Name → caption, and the SVG; of what there are values."""
    from server.datasets.layouts import pictures  # Matplotlib: who exports nothing need not wait for it

    found: dict[str, tuple[str, str]] = {}
    for name, caption, column in (
        ("site", "Series by site", "site"),
        ("scanner", "Series by scanner", "scanner"),
        ("modality", "Series by modality", "modality"),
        ("part", "Series by part of the split", "part"),
    ):
        counts = Counter(str(one.row.get(column) or UNKNOWN) for one in plan.series)
        if counts and set(counts) != {UNKNOWN}:
            found[name] = caption, pictures.bars(counts, "series")
    ages = [one.age_years for one in plan.persons if one.age_years is not None]
    if ages:
        found["age"] = "Persons by age at their first study", pictures.histogram(ages, "age (years; 89 and older together)")
    volumes: dict[str, list[float]] = defaultdict(list)
    for row in plan.findings:
        if isinstance(row.get("volume_ml"), float):
            volumes[str(row.get("label"))].append(float(row["volume_ml"] or 0))
    if volumes:
        found["volume"] = "Volumes of findings by structure", pictures.boxes(volumes, "volume (ml)")
    return found


def _sections(plan: Plan, shown: Sequence[Picture], files: Sequence[File], left_out: Sequence[LeftOut]) -> list[Section]:
    about = plan.about
    return [
        Section("Motivation", [Paragraph(about.description or "The dataset was given no description."), *_uses(about)]),
        Section("Composition", [*_composition(plan), *shown, *_omissions(left_out)]),
        Section("Collection process", _collection(plan)),
        Section("Preprocessing, cleaning and labelling", _preprocessing(plan)),
        Section("Uses", [*_uses(about), Paragraph(about.use_note or "Nothing was noted on uses for which it should not be used.")]),
        Section("Distribution", _distribution(about, files)),
        Section("Maintenance", _maintenance(about)),
    ]


def _uses(about: About) -> list[Paragraph]:
    return [Paragraph(f"Intended use: {', '.join(about.intended_uses) or 'none was stated'}.")]


def _composition(plan: Plan) -> list[Paragraph | Table]:
    persons = {one.subject_id: one for one in plan.persons}
    parts: dict[str, list[int]] = {}
    for name in sorted({one.part for one in plan.series}):
        some = [one for one in plan.series if one.part == name]
        parts[name or "(in no part)"] = [len({s.subject_id for s in some}), len({s.study_uid for s in some}), len(some)]
    rows = [[name, *map(str, counts)] for name, counts in parts.items()] if plan.about.parts else []
    sexes = Counter(one.sex or UNKNOWN for one in persons.values())
    instances = sum(len(one.instances) for one in plan.series)
    return [
        Paragraph(
            f"Each item is a DICOM series. There are {len(plan.series)} series of {len({one.study_uid for one in plan.series})} studies of"
            f" {len(persons)} persons: {instances} instances, {sum(s.size for one in plan.series for s in one.instances)} bytes."
            f" Sex as recorded: {', '.join(f'{sex} {count}' for sex, count in sorted(sexes.items()))}."
            f" There are {len(plan.findings)} findings, made by segmenters or persons, as of the same position of the log."
        ),
        *([Table(["part", "persons", "studies", "series"], rows)] if rows else []),
        Paragraph(
            "Persons are named by pseudonyms. No person is in two parts of a split. DICOM files hold the headers that they came with, which"
            " may identify a person; images in NIfTI and tables hold no names, dates or record numbers. Pictures of a head may show a face."
        ),
    ]


def _omissions(left_out: Sequence[LeftOut]) -> list[Paragraph | Table]:
    if not left_out:
        return [Paragraph("Nothing was left out of this export.")]
    counts = Counter((one.layout or "all", one.reason) for one in left_out)
    return [
        Paragraph("Left out of this export, each with its reason in manifest.json:"),
        Table(["layout", "reason", "number"], [[layout, reason, str(count)] for (layout, reason), count in sorted(counts.items())]),
    ]


def _collection(plan: Plan) -> list[Paragraph]:
    sites = Counter(str(one.row.get("site") or UNKNOWN) for one in plan.series)
    return [
        Paragraph(
            f"Images were received as DICOM at {', '.join(sorted(sites))}, and each receipt is an event of a log that cannot be changed."
            " manifest.json names the events from which each file comes."
        ),
        Paragraph(f"The members are what this query found at position {plan.about.position}: {plan.about.query or '(not readable)'}"),
        Paragraph(f"Consent: each person has to meet {plan.about.consent}, asked whenever the dataset leaves." if plan.about.consent else
                  "Consent: the dataset's terms ask nothing of the persons' consent."),
    ]  # fmt: skip


def _preprocessing(plan: Plan) -> list[Paragraph]:
    return [
        Paragraph(
            "Values in NIfTI are stored values times slope plus intercept (DICOM PS3.3, C.11.1): Hounsfield units of CT. Slices are in the"
            " order of their positions, and nothing is resampled. Series of uneven slices, missing slices, a tilted gantry or mixed geometry"
            " are refused, and not mended."
        ),
        Paragraph("Masks are DICOM segmentations that name the series, on the series' own grid. Findings are not corrected but by reviews."),
        Paragraph(f"Split with seed {plan.about.split_seed}, stratified by {', '.join(plan.about.stratified_by) or 'nothing'}." if plan.about.parts
                  else "The dataset is not split."),
    ]  # fmt: skip


def _distribution(about: About, files: Sequence[File]) -> list[Paragraph | Table]:
    return [
        Paragraph(f"License: {about.license or 'in words'}. {about.license_text}".strip()),
        Table(
            ["what", "value"],
            [
                ["dataset", about.dataset_id],
                ["version", str(about.version)],
                ["log position", str(about.position)],
                ["SHA-256 of the members", about.digest],
                ["frozen on", about.frozen_on],
                ["files besides these pages", str(len(files))],
            ],
        ),
        Paragraph("manifest.json lists every file with its digest; `sha256sum --check SHA256SUMS` compares them."),
    ]


def _maintenance(about: About) -> list[Paragraph]:
    return [
        Paragraph(
            "A version does not change. Later members, corrections and withdrawals come in later versions. When a person's data are erased,"
            " exports at the site are taken away, and a new export of the same version holds them no more and says so."
        ),
        Paragraph(f"Maintained at {about.site or 'the site that froze it'}."),
    ]
