"""Part 10 meta information: what is written is read back, by ours and by pydicom; noise is refused by name."""

from __future__ import annotations

import io

import pydicom
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from archive.errors import NotDicom, Truncated
from archive.part10 import IMPLICIT_VR_LITTLE_ENDIAN, part10_header, read_part10

uids = st.from_regex(r"[0-2](\.(0|[1-9][0-9]{0,8})){1,6}", fullmatch=True)


@given(uids, uids, uids, st.binary(max_size=64))
def test_what_is_written_is_read_back(sop_class: str, sop_instance: str, syntax: str, data: bytes) -> None:
    head = part10_header(sop_class_uid=sop_class, sop_instance_uid=sop_instance, transfer_syntax_uid=syntax)
    meta = read_part10(io.BytesIO(head + data))
    assert (meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid) == (sop_class, sop_instance, syntax)
    assert meta.dataset_offset == len(head)
    theirs = pydicom.dcmread(io.BytesIO(head)).file_meta
    assert (theirs.MediaStorageSOPInstanceUID, theirs.TransferSyntaxUID) == (sop_instance, syntax)


HEAD = part10_header(sop_class_uid="1.2", sop_instance_uid="1.2.3", transfer_syntax_uid="1.2.840.10008.1.2.1")


@pytest.mark.parametrize("start", [128, 132], ids=["without preamble", "meta information alone"])
def test_what_others_leave_out_is_read_all_the_same(start: int) -> None:
    meta = read_part10(io.BytesIO(HEAD[start:] + b"\x08\x00"))
    assert meta.sop_instance_uid == "1.2.3" and meta.dataset_offset == len(HEAD) - start


def test_a_bare_data_set_is_taken_for_what_its_first_element_looks_like() -> None:
    implicit = b"\x08\x00\x05\x00\x0a\x00\x00\x00ISO_IR 100" + b"\x00" * 8
    explicit = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + b"\x00" * 8
    assert read_part10(io.BytesIO(implicit)).transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    assert read_part10(io.BytesIO(explicit)).transfer_syntax_uid == "1.2.840.10008.1.2.1"


@pytest.mark.parametrize("cut", range(132, len(HEAD), 7))
def test_a_cut_meta_information_is_named(cut: int) -> None:
    try:
        meta = read_part10(io.BytesIO(HEAD[:cut]))
    except Truncated:
        return
    assert meta.dataset_offset == cut, "cut between two elements"


@given(st.binary(max_size=400))
@example(b"")
@example(b"\x00" * 128 + b"DICM")
@example(b"\x00" * 128 + b"DICM\x02\x00\x01\x00OB\x00\x00\xff\xff\xff\xff")
def test_noise_is_read_or_refused_by_name(noise: bytes) -> None:
    for data in (noise, b"\x00" * 128 + b"DICM" + noise, HEAD + noise):
        try:
            assert 0 <= read_part10(io.BytesIO(data)).dataset_offset <= len(data)
        except (NotDicom, Truncated):
            pass
