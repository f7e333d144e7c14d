"""The rejects folder: bytes as they came, each with its reason, once."""

from __future__ import annotations

from pathlib import Path

from archive.rejects import Rejects


def test_refused_bytes_are_kept_as_they_were_with_their_reason(tmp_path: Path) -> None:
    rejects = Rejects(tmp_path / "rejects")
    file = tmp_path / "DOE^JANE.dcm"
    file.write_bytes(b"no DICOM at all")
    kept = rejects.keep(file, reason="not-dicom", detail="15 bytes are no DICOM file", door="ingest")
    assert rejects.path(kept.reject_id).read_bytes() == b"no DICOM at all"
    assert (kept.reason, kept.size) == ("not-dicom", 15)
    assert not any("DOE" in path.name or b"DOE" in path.read_bytes() for path in rejects.folder.iterdir()), "no file name: it may be a name"


def test_the_same_bytes_for_the_same_reason_are_kept_once(tmp_path: Path) -> None:
    rejects = Rejects(tmp_path / "rejects")
    for name, data, reason in (("a", b"x", "not-dicom"), ("b", b"x", "not-dicom"), ("c", b"x", "unreadable"), ("d", b"y", "not-dicom")):
        file = tmp_path / name
        file.write_bytes(data)
        rejects.keep(file, reason=reason, detail="", door="stow")
    assert [one.reason for one in rejects.listing()] == ["not-dicom", "unreadable", "not-dicom"]
    assert len(list(rejects.folder.glob("*.bin"))) == 3 and not list(rejects.folder.glob("*.part"))
