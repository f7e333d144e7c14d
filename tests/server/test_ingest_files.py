"""Which files a path stands for: folders, zip archives, DICOMDIRs, and what must not be unpacked."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from server.cli import files
from server.cli.files import Found, Unusable, find_files

CT = Path(str(get_testdata_file("CT_small.dcm")))
MEDIUM = Path(str(get_testdata_file("DICOMDIR"))).parent


def found(*paths: Path) -> list[str]:
    return [one.shown for one in find_files(list(paths)) if isinstance(one, Found)]


def unusable(*paths: Path) -> list[Unusable]:
    return [one for one in find_files(list(paths)) if isinstance(one, Unusable)]


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_a_folder_gives_each_file_once_whatever_names_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/1", "a/2", "b"):
        (tmp_path / name).write_bytes(b"x" * 200)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    assert found(tmp_path, tmp_path / "b") == [str(tmp_path / name) for name in ("b", "a/1", "a/2")]


def test_members_of_a_zip_in_a_zip_are_found(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(zipped({"a.dcm": CT.read_bytes(), "deep/inner.zip": zipped({"b.dcm": CT.read_bytes()})}))
    contents = [(one.shown, one.path.read_bytes()) for one in find_files([tmp_path]) if isinstance(one, Found)]
    assert [name.rsplit("/", 1)[1] for name, _ in contents] == ["x.zip: a.dcm", "inner.zip: b.dcm"]
    assert {data for _, data in contents} == {CT.read_bytes()}


def test_zips_nested_too_deeply_are_reported(tmp_path: Path) -> None:
    data = CT.read_bytes()
    for _ in range(files.MAX_DEPTH + 1):
        data = zipped({"x.zip": data})
    (tmp_path / "x.zip").write_bytes(data)
    assert [one.reason for one in unusable(tmp_path)] == ["unsafe-archive"]


def test_a_zip_bomb_is_stopped_by_what_comes_out_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_FREE_BYTES", 1 << 20)
    (tmp_path / "x.zip").write_bytes(zipped({"zeros": bytes(64 << 20), "good.dcm": CT.read_bytes()}))
    monkeypatch.setattr(files, "MAX_RATIO", 100)
    assert [one.reason for one in unusable(tmp_path)] == ["unsafe-archive"]
    assert len(found(tmp_path)) == 1, "the rest of the archive is not lost"


def test_an_archive_over_its_budget_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = zipped({f"{n}.dcm": CT.read_bytes() for n in range(6)})
    monkeypatch.setattr(files, "MAX_ARCHIVE_BYTES", len(inner) + 2 * CT.stat().st_size + 1)
    (tmp_path / "x.zip").write_bytes(zipped({"inner.zip": inner}))
    assert len(found(tmp_path)) == 2 and {one.reason for one in unusable(tmp_path)} == {"unsafe-archive"}


@pytest.mark.parametrize(
    "damage",
    [b"PK\x03\x04 and then nothing", zipped({"a": b"x" * 5000})[:-30], zipped({"a": b"x" * 5000}, zipfile.ZIP_STORED).replace(b"xxx", b"xyx", 1)],
    ids=["a start alone", "cut off", "other bytes"],
)
def test_a_broken_zip_is_reported(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(damage)
    assert [one.reason for one in unusable(tmp_path)] == ["unreadable"]


def test_a_zip_member_cannot_name_a_place_outside(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "x.zip").write_bytes(zipped({"../../evil.dcm": CT.read_bytes(), "/abs.dcm": CT.read_bytes()}))
    assert len(found(inside)) == 2
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["in", "x.zip"]


def test_a_dicomdir_leads_to_its_files_and_names_those_that_are_missing() -> None:
    """pydicom's own medium: 31 records with a file, a part of them there."""
    everything = list(find_files([MEDIUM / "DICOMDIR"]))
    there = [one for one in everything if isinstance(one, Found)]
    missing = [one for one in everything if isinstance(one, Unusable)]
    assert len(everything) == 31 and there
    assert all(one.path.is_file() for one in there)
    assert {one.reason for one in missing} <= {"missing-file"}


def test_a_dicomdir_in_lower_case_copies_still_leads_to_its_files(tmp_path: Path) -> None:
    for one in find_files([MEDIUM / "DICOMDIR"]):
        if isinstance(one, Found):
            target = tmp_path / str(one.path.relative_to(MEDIUM)).lower()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(one.path.read_bytes())
    (tmp_path / "dicomdir").write_bytes((MEDIUM / "DICOMDIR").read_bytes())
    assert len(found(tmp_path / "dicomdir")) == len(found(MEDIUM / "DICOMDIR"))


def test_a_broken_instance_is_no_dicomdir(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(CT.read_bytes()[:140])
    assert found(tmp_path) == [str(tmp_path / "cut")]
