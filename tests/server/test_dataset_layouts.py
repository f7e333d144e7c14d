"""A frozen dataset of real series in every layout, read by those who will read it: nnU-Net, BIDS, Croissant, Excel, pandas, nibabel."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import mlcroissant
import nibabel
import numpy as np
import openpyxl
import pandas
import polars
import pydicom
import pytest
from frozen_dataset import LIVER_CT, TILTED, files_in, freeze, series_uid, store_liver_cases, subjects_in
from served_site import PLANTED_MRN, PLANTED_NAME, served_site, slice_of

from archive.header import read_header
from archive.store import Store
from server.datasets.plan import Layout, Plan, decode, encode
from server.datasets.planning import Wanted, make_plan
from server.datasets.writing import write_export

MR = "modalities/mr_small"


class Export:
    def __init__(self, plan: Plan, store: Store, root: Path) -> None:
        self.plan, self.store, self.root = plan, store, root

    def json(self, path: str) -> Any:
        return json.loads((self.root / path).read_text())

    def files(self) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file() and ".export" not in path.parts}

    def path_of(self, series: str) -> str:
        return next(one.path for one in self.plan.series if one.series_uid == series)


@pytest.fixture(scope="module")
def export(embedded_server: str, dicom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    folder = tmp_path_factory.mktemp("layouts")

    async def planned() -> Plan:
        async with served_site(embedded_server, folder / "site") as site:
            await store_liver_cases(site, dicom_data)
            await site.store(*files_in(dicom_data / TILTED), *[path.read_bytes() for path in sorted((dicom_data / MR).glob("IM*.dcm"))])
            await site.store(slice_of("1.2.3.4", 1, name=PLANTED_NAME, PatientBirthDate="19200101"))
            livers = await subjects_in(site, "SEG")
            parts = {one: "train" for one in await subjects_in(site)} | dict(zip(livers, ("train", "validation", "test"), strict=True))
            dataset = await freeze(site, parts)
            return await make_plan(site.services, Wanted(dataset_id=dataset, version=1, layouts=tuple(Layout)))

    plan = asyncio.run(planned())
    store = Store(str(folder / "site" / "archive"))
    write_export(plan, store, folder / "export")
    return Export(plan, store, folder / "export")


def test_every_file_is_listed_with_its_digest_and_nothing_else_is_there(export: Export) -> None:
    sums = dict(reversed(line.split("  ")) for line in (export.root / "SHA256SUMS").read_text().splitlines())
    assert {*sums, "SHA256SUMS"} == export.files()
    for path, sha256 in sums.items():
        assert hashlib.sha256((export.root / path).read_bytes()).hexdigest() == sha256
    listed = {one["path"]: one["sha256"] for one in export.json("manifest.json")["files"]}
    assert listed == {path: sha256 for path, sha256 in sums.items() if path != "manifest.json"}


def test_every_file_names_the_events_that_it_comes_from(export: Export) -> None:
    manifest = export.json("manifest.json")
    types = {position: one["type"] for position, one in manifest["events"].items()}
    for one in manifest["files"]:
        assert one["positions"], one["path"]
        found = {types[str(position)] for position in one["positions"]}
        if one["entity"].startswith("instance:"):
            assert found == {"InstancesStored"}
        if one["path"].startswith("tables/findings"):
            assert found == {"SeriesIndexed"}
        if one["path"] == "manifest.json":
            assert {"DatasetCreated", "DatasetTermsSet", "DatasetFrozen", "DatasetSplit"} == found
    assert manifest["dataset"]["position"] == export.plan.about.position
    assert manifest["dataset"]["members_sha256"] == export.plan.about.digest


def test_dicom_files_are_those_that_came(export: Export, dicom_data: Path) -> None:
    folder = export.root / "dicom" / export.path_of(series_uid(dicom_data / LIVER_CT))
    came = [pydicom.dcmread(path) for path in (dicom_data / LIVER_CT).glob("0*.dcm")]
    there = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    assert sorted(there, key=lambda one: one.SOPInstanceUID) == sorted(came, key=lambda one: one.SOPInstanceUID)
    stored = {source.sha256 for one in export.plan.series for source in one.instances}
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()} <= stored
    numbers = [read_header(path).elements["00200013"]["Value"][0] for path in sorted(folder.iterdir())]
    assert numbers == sorted(numbers)


def test_names_and_tables_tell_nobody_who_it_is(export: Export) -> None:
    family = PLANTED_NAME.split("^", maxsplit=1)[0]
    for path in export.files():
        content = (export.root / path).read_bytes()
        assert family not in path and PLANTED_MRN not in path
        if not path.startswith("dicom/") and not path.endswith((".xlsx", ".parquet")):
            assert family.encode() not in content and PLANTED_MRN.encode() not in content
    ages = {one.age_years for one in export.plan.persons}
    assert 89.0 in ages and max(age for age in ages if age is not None) == 89.0


def test_what_cannot_be_a_volume_is_left_out_by_name(export: Export, dicom_data: Path) -> None:
    left_out = {one["entity"]: one["reason"] for one in export.json("manifest.json")["left_out"] if one["layout"] == "images"}
    assert left_out == {f"series:{series_uid(dicom_data / TILTED)}": "gantry-tilt", "series:1.2.3.4.1": "no-geometry"}


def test_nnunet_accepts_its_datasets(export: Export, tmp_path: Path) -> None:
    verification = pytest.importorskip("nnunetv2.experiment_planning.verify_dataset_integrity")
    (folder,) = [path for path in (export.root / "nnunet").iterdir() if path.name.startswith("Dataset001")]
    shutil.copytree(folder, tmp_path / folder.name)
    verification.verify_dataset_integrity(str(tmp_path / folder.name), 1)
    described = json.loads((folder / "dataset.json").read_text())
    assert described["channel_names"] == {"0": "CT"} and described["numTraining"] == 2 and described["file_ending"] == ".nii.gz"
    assert described["labels"] == {"background": 0, "liver": 1}
    train, validation, test = (f"{one.label}_ses-01_ser-01-CT" for part in ("train", "validation", "test") for one in export.plan.persons if one.part == part and (folder / f"labels{'Ts' if part == 'test' else 'Tr'}" / f"{one.label}_ses-01_ser-01-CT.nii.gz").exists())
    assert json.loads((folder / "splits_final.json").read_text()) == [{"train": [train], "val": [validation]}]
    assert (folder / "imagesTs" / f"{test}_0000.nii.gz").exists() and not (folder / "imagesTr" / f"{test}_0000.nii.gz").exists()


def test_masks_lie_where_the_images_lie(export: Export) -> None:
    for mask in sorted((export.root / "nnunet").glob("*/labelsTr/*.nii.gz")):
        image = nibabel.load(mask.parents[1] / "imagesTr" / mask.name.replace(".nii.gz", "_0000.nii.gz"))
        labels = nibabel.load(mask)
        assert labels.shape == image.shape and np.array_equal(labels.affine, image.affine)
        inside = np.asarray(image.dataobj)[np.asarray(labels.dataobj) == 1]
        assert len(inside) == 107098 and 30 < float(np.median(inside)) < 80  # a liver, in HU


def test_bids_has_the_files_that_the_specification_asks_for(export: Export) -> None:
    root = export.root / "bids"
    described = export.json("bids/dataset_description.json")
    assert {"Name", "BIDSVersion"} <= described.keys() and described["License"] == "CC-BY-4.0"
    with (root / "participants.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["participant_id"] for row in rows} == {path.name for path in root.glob("sub-*")}
    assert rows[0].keys() - {"participant_id"} == export.json("bids/participants.json").keys()
    name = re.compile(r"(sub-[0-9a-z]+)/(ses-\d+)/(ct|mr|anat)/\1_\2_run-\d+_(ct|mr|T1w|T2w|FLAIR|PDw)\.nii\.gz")
    images = [path.relative_to(root).as_posix() for path in root.glob("sub-*/*/*/*.nii.gz")]
    assert images and all(name.fullmatch(path) for path in images)
    for path in images:
        assert json.loads((root / path.replace(".nii.gz", ".json")).read_text())["Modality"] in ("CT", "MR")
    derived = json.loads((root / "derivatives/segmentations/dataset_description.json").read_text())
    assert derived["DatasetType"] == "derivative" and derived["GeneratedBy"]
    for mask in root.glob("derivatives/segmentations/sub-*/*/*/*_dseg.nii.gz"):
        assert mask.with_name(mask.name.replace(".nii.gz", ".tsv")).read_text() == "index\tname\n1\tliver\n"


def test_tables_hold_the_same_in_every_format(export: Export) -> None:
    for table, key in (("series", "series_uid"), ("findings", "finding_key")):
        path = export.root / "tables" / table
        lines = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
        assert lines and list(lines[0]) == (export.plan.series_columns if table == "series" else export.plan.finding_columns)
        parquet = pandas.read_parquet(path.with_suffix(".parquet"))
        assert list(parquet[key]) == [line[key] for line in lines]
        assert polars.read_parquet(path.with_suffix(".parquet")).to_dicts() == lines
        with path.with_suffix(".csv").open(newline="") as file:
            text = list(csv.DictReader(file))
        assert [row[key] for row in text] == [line[key] for line in lines]
        head, *rows = openpyxl.load_workbook(path.with_suffix(".xlsx"))[table].iter_rows(values_only=True)
        assert [dict(zip(head, row, strict=True)) for row in rows] == lines
    findings = {line["label"]: line for line in lines}
    assert findings["liver"]["volume_ml"] == 0.01 and findings["liver"]["verdict"] == "unreviewed" and findings["liver"]["structure"] == "10200004"


def test_croissant_is_valid_and_its_records_can_be_read(export: Export) -> None:
    dataset = mlcroissant.Dataset(jsonld=str(export.root / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors and not dataset.metadata.ctx.issues.warnings
    uids = [record["series/series_uid"].decode() for record in dataset.records("series")]
    assert uids == [one.series_uid for one in export.plan.series]


def test_the_datasheet_answers_and_shows(export: Export) -> None:
    text, page = (export.root / "datasheet.md").read_text(), (export.root / "datasheet.html").read_text()
    for title in ("Motivation", "Composition", "Collection process", "Preprocessing, cleaning and labelling", "Uses", "Distribution", "Maintenance"):
        assert f"\n## {title}\n" in text and f"<h2>{title}</h2>" in page
    assert "Livers &amp; &lt;others&gt;" in page and "CC-BY-4.0" in page and "not for children" in page and "research" in page
    pictures = set(re.findall(r"\((datasheet/[a-z]+\.svg)\)", text))
    assert pictures == set(re.findall(r'src="(datasheet/[a-z]+\.svg)"', page)) >= {f"datasheet/{name}.svg" for name in ("site", "scanner", "age", "volume")}
    assert all((export.root / path).read_text().startswith("<?xml") for path in pictures)


def test_written_again_it_is_the_same_byte_for_byte(export: Export, tmp_path: Path) -> None:
    plan = decode(encode(export.plan))
    write_export(plan, export.store, tmp_path / "again")
    done = subprocess.run(["diff", "-r", "-x", ".export", str(export.root), str(tmp_path / "again")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_goes_on_where_it_was_left(export: Export, tmp_path: Path) -> None:
    """Killed at each step in turn, with a file damaged and another one half written."""
    root, killed, steps = tmp_path / "killed", 0, 0

    class Killed(Exception):
        pass

    while True:

        def heard(progress: Any, after: int = steps) -> None:
            if progress.done > after:
                raise Killed

        try:
            write_export(export.plan, export.store, root, heard)
            break
        except Killed:
            killed, steps = killed + 1, steps + 4
            (root / ".export/partial" / "123-half.nii.gz").write_bytes(b"half")
            victim = sorted(path for path in root.rglob("*.*") if path.is_file() and path.parent != root and ".export" not in path.parts)[0]
            victim.write_bytes(b"damaged")
            with (root / ".export/journal").open("ab") as journal:
                journal.write(b'{"step": "cut off')
    assert killed >= 3
    done = subprocess.run(["diff", "-r", "-x", ".export", str(export.root), str(root)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
