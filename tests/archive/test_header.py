"""Headers: our reader and pydicom's give the same answer, and broken bytes are refused by name, whatever is broken."""

from __future__ import annotations

import contextlib
import io
import random
import warnings
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from archive import header as subject
from archive.errors import MissingUID, NotDicom, Refused, Truncated
from archive.header import MAX_INLINE_BYTES, read_header
from archive.part10 import read_part10

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]

words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="\\^="), min_size=1, max_size=20)
numbers = st.integers(-(10**9), 10**9)
elements = st.fixed_dictionaries(
    {},
    optional={
        "PatientName": st.builds("^".join, st.lists(words, min_size=1, max_size=3)),
        "PatientID": words,
        "StudyDescription": words,
        "StudyDate": st.dates().map(lambda d: d.strftime("%Y%m%d")).filter(lambda d: len(d) == 8),
        "SeriesNumber": numbers,
        "SliceThickness": st.floats(0.1, 10).map(lambda v: f"{v:.4f}"),
        "PixelSpacing": st.lists(st.floats(0.1, 2).map(lambda v: f"{v:.4f}"), min_size=2, max_size=2),
        "Rows": st.integers(0, 65535),
        "ImageComments": words,
        "SamplesPerPixel": st.integers(0, 65535),
        "RescaleIntercept": numbers.map(str),
        "ICCProfile": st.binary(max_size=2 * MAX_INLINE_BYTES).map(lambda b: b[: len(b) // 2 * 2]),
    },
)


def dataset(values: dict[str, Any], items: list[dict[str, Any]]) -> Dataset:
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.Modality = "1.2.3", "1.2.3.4", "CT"
    for keyword, value in values.items():
        setattr(made, keyword, value)
    if items:
        made.RequestAttributesSequence = [_item(item) for item in items]
    return made


def _item(values: dict[str, Any]) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def part10(data: Dataset, syntax: Any) -> bytes:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.get("SOPClassUID", "1.2")
    data.file_meta.MediaStorageSOPInstanceUID = data.get("SOPInstanceUID", "1.2")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def by_pydicom(path: Path) -> Any:
    with path.open("rb") as file:
        meta = read_part10(file)
    return subject._read_with_pydicom(path, meta, path.stat().st_size)


@settings(max_examples=60)
@given(elements, st.lists(elements, max_size=2), st.sampled_from(SYNTAXES))
def test_a_header_says_what_was_written(tmp_path_factory: pytest.TempPathFactory, values: Any, items: Any, syntax: Any) -> None:
    path = tmp_path_factory.mktemp("header") / "one.dcm"
    path.write_bytes(part10(dataset(values, items), syntax))
    header = read_header(path)
    assert (header.study_uid, header.series_uid, header.sop_instance_uid, header.modality) == ("1.2.3", "1.2.3.4", "1.2.3.4.5", "CT")
    assert header.transfer_syntax_uid == syntax
    assert header.elements == by_pydicom(path)[0]
    if "PatientName" in values:
        assert header.elements["00100010"]["Value"] == [{"Alphabetic": values["PatientName"]}]
    for keyword, tag in (("SeriesNumber", "00200011"), ("Rows", "00280010")):
        if keyword in values:
            assert header.elements[tag]["Value"] == [values[keyword]]
    if len(values.get("ICCProfile", b"")) > MAX_INLINE_BYTES:
        assert header.elements["00282000"] == {"vr": "OB"}, "large values stay in the file"


def test_both_readers_agree_on_every_real_file(dicom_data: Path) -> None:
    compared = 0
    for path in sorted(p for p in dicom_data.rglob("*") if p.is_file() and p.suffix in ("", ".dcm")):
        try:
            header = read_header(path)
        except Refused:
            continue
        assert header.elements == by_pydicom(path)[0], path.name
        compared += 1
    assert compared > 300


WHOLE = part10(dataset({"PatientName": "Doe^Jane", "Rows": 2, "ImageComments": "a comment"}, [{"PatientID": "1"}]), ExplicitVRLittleEndian)


def test_a_file_cut_anywhere_is_read_as_far_as_it_is_whole_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.dcm"
    path.write_bytes(WHOLE)
    whole = read_header(path).elements
    for length in range(len(WHOLE)):
        path.write_bytes(WHOLE[:length])
        try:
            found = read_header(path).elements
        except (Truncated, MissingUID, NotDicom):
            continue
        assert found.items() <= whole.items(), f"cut at {length}"


def test_pixels_that_are_not_all_there_are_a_truncation(tmp_path: Path) -> None:
    data = dataset({"Rows": 4, "Columns": 4, "BitsAllocated": 16, "SamplesPerPixel": 1}, [])
    data.add_new(0x7FE00010, "OW", bytes(32))
    path = tmp_path / "pixels.dcm"
    written = part10(data, ExplicitVRLittleEndian)
    path.write_bytes(written)
    assert read_header(path).has_pixel_data
    path.write_bytes(written[:-1])
    with pytest.raises(Truncated, match="should have 32 bytes; the file holds 31"):
        read_header(path)


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_missing_uid_is_named(tmp_path: Path, keyword: str) -> None:
    data = dataset({}, [])
    delattr(data, keyword)
    path = tmp_path / "one.dcm"
    path.write_bytes(part10(data, ExplicitVRLittleEndian))
    with pytest.raises(MissingUID, match=pydicom.datadict.dictionary_description(keyword)):
        read_header(path)


def test_flipped_bytes_are_read_or_refused_by_name(tmp_path: Path, dicom_data: Path) -> None:
    """Real headers of each kind with a few bytes changed at random: never an error without a name."""
    chance = random.Random(20261121)
    path = tmp_path / "flipped.dcm"
    for original in sorted((dicom_data / "modalities").rglob("*.dcm")):
        data = bytearray(original.read_bytes()[:20_000])
        for _ in range(8):
            flipped = bytearray(data)
            for _ in range(chance.randrange(1, 6)):
                flipped[chance.randrange(128, len(flipped))] = chance.randrange(256)
            path.write_bytes(flipped)
            with contextlib.suppress(Refused):  # every other error is a failure
                read_header(path)
