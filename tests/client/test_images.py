"""Images through the client, over HTTP: bytes as the server holds them, geometry as SimpleITK and nibabel read it, and breaks on the way."""

from __future__ import annotations

import asyncio
import ssl
import stat
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from certificate import certificate_files
from cutting_proxy import BUFFER, cutting_proxy
from listening_site import ListeningSite

from anamnesis.client import AsyncClient, Client
from anamnesis.client.errors import (
    BytesDiffer,
    GeometryRefused,
    NotFound,
    NotPermitted,
    PlainTextRefused,
    ServerFailed,
    ServerUnreachable,
    TokenRefused,
)

Sources = dict[str, list[Path]]
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.fixture
def client(imaged_site: ListeningSite, token: str):
    with Client(imaged_site.url, token=token) as client:
        yield client


def uids(sources: Sources, folder: str) -> tuple[str, str]:
    """Study and series of a folder."""
    file = next(files[0] for files in sources.values() if folder in str(files[0]))
    header = pydicom.dcmread(file, stop_before_pixels=True)
    return str(header.StudyInstanceUID), str(header.SeriesInstanceUID)


def as_simple_itk_reads(files: list[Path]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    folder = str(files[0].parent)
    uid = str(pydicom.dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder, uid))
    return reader.Execute()


@pytest.mark.parametrize("folder", ["totalseg_siemens_body20", "mr_tcga_lihc_siemens30"])
def test_an_image_is_what_simple_itk_reads_from_the_files(client: Client, sources: Sources, folder: str) -> None:
    study, series = uids(sources, folder)
    image = client.images(study, series).to_sitk()
    expected = as_simple_itk_reads(sources[series])
    assert image.GetSize() == expected.GetSize()
    np.testing.assert_allclose(image.GetSpacing(), expected.GetSpacing(), atol=1e-3)
    np.testing.assert_allclose(image.GetOrigin(), expected.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(image.GetDirection(), expected.GetDirection(), atol=1e-5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(expected))
    assert image.GetPixelIDTypeAsString() == "16-bit signed integer"


def test_a_nifti_file_has_the_affine_of_the_positions(client: Client, sources: Sources, tmp_path: Path) -> None:
    study, series = uids(sources, "mr_tcga_lihc_siemens30")
    made = nibabel.load(client.images(study, series).to_nifti(tmp_path / "series.nii.gz"))
    headers = [pydicom.dcmread(file) for file in sources[series]]
    normal = np.cross(headers[0].ImageOrientationPatient[:3], headers[0].ImageOrientationPatient[3:])
    headers.sort(key=lambda header: float(np.dot(header.ImagePositionPatient, normal)))
    lps_to_ras = np.diag([-1.0, -1.0, 1.0])
    for number, header in enumerate(headers):
        for row, column in ((0, 0), (header.Rows - 1, header.Columns - 1)):
            # PS3.3, C.7.6.2.1.1: pixel spacing is between rows, then between columns.
            between_rows, between_columns = header.PixelSpacing
            x, y = np.array(header.ImageOrientationPatient[:3], float), np.array(header.ImageOrientationPatient[3:], float)
            where = np.array(header.ImagePositionPatient, float) + x * between_columns * column + y * between_rows * row
            np.testing.assert_allclose((made.affine @ [column, row, number, 1])[:3], lps_to_ras @ where, atol=0.01)
            assert made.dataobj[column, row, number] == header.pixel_array[row, column]


def test_frames_of_an_enhanced_image_lie_where_its_groups_say(client: Client, sources: Sources) -> None:
    study, series = uids(sources, "mr_enhanced")
    dataset = pydicom.dcmread(sources[series][0])
    image = client.images(study, series).to_sitk(rescale=False)
    assert image.GetSize() == (dataset.Columns, dataset.Rows, int(dataset.NumberOfFrames))
    values = sitk.GetArrayFromImage(image)
    for group, pixels in zip(dataset.PerFrameFunctionalGroupsSequence, dataset.pixel_array, strict=True):
        position = [float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]
        index = image.TransformPhysicalPointToContinuousIndex(position)
        np.testing.assert_allclose(index, np.round(index), atol=0.02)
        np.testing.assert_array_equal(values[round(index[2])], pixels)


def test_data_sets_are_those_that_were_sent(client: Client, sources: Sources) -> None:
    study, series = uids(sources, "totalseg_siemens_body20")
    told: list[tuple[int, int]] = []
    datasets = client.images(study, series).datasets(told=lambda done, total: told.append((done, total)))
    sent = {str(dataset.SOPInstanceUID): dataset for dataset in map(pydicom.dcmread, sources[series])}
    assert {str(dataset.SOPInstanceUID) for dataset in datasets} == set(sent)
    for dataset in datasets:
        assert dataset == sent[str(dataset.SOPInstanceUID)]
        np.testing.assert_array_equal(dataset.pixel_array, sent[str(dataset.SOPInstanceUID)].pixel_array)
    assert told[0] == (0, 20) and told[-1] == (20, 20)


@pytest.mark.parametrize(("folder", "code"), [("gantry_tilt_siemens4", "gantry-tilt"), ("cr_dx", "no-geometry"), ("modalities/us", "colour")])
def test_what_makes_no_volume_is_refused_by_name(client: Client, sources: Sources, folder: str, code: str) -> None:
    with pytest.raises(GeometryRefused) as caught:
        client.images(*uids(sources, folder)).to_sitk()
    assert caught.value.code == code


def test_a_missing_slice_is_refused(client: Client, sources: Sources, tmp_path: Path) -> None:
    from anamnesis.client.volume import read_volume

    files = client.images(*uids(sources, "totalseg_siemens_body20")).download(tmp_path)
    positions = sorted(files, key=lambda file: float(pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient[2]))
    with pytest.raises(GeometryRefused, match="missing") as caught:
        read_volume(positions[:7] + positions[8:])
    assert caught.value.code == "missing-slices"


def test_files_are_for_this_user_alone_and_a_second_call_asks_for_nothing_more(
    imaged_site: ListeningSite, token: str, sources: Sources, tmp_path: Path
) -> None:
    with cutting_proxy(imaged_site.url) as proxy, Client(proxy.url, token=token) as client:
        images = client.images(*uids(sources, "totalseg_siemens_body20"))
        files = images.download(tmp_path)
        asked = proxy.requests
        assert asked == 2 and all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
        files[3].unlink()
        assert images.download(tmp_path) == files and proxy.requests == asked + 2
        assert sorted(tmp_path.iterdir()) == sorted(files)


def test_what_breaks_off_goes_on_where_it_was(imaged_site: ListeningSite, token: str, sources: Sources, tmp_path: Path) -> None:
    study, series = uids(sources, "mr_tcga_lihc_siemens30")
    with cutting_proxy(imaged_site.url) as proxy, Client(proxy.url, token=token) as client:
        whole = {file.name: file.read_bytes() for file in client.images(study, series).download(tmp_path / "whole")}
        proxy.answers, proxy.cuts, proxy.requests = [BUSY], [10**9, 1_500_000, 20_000], 0
        broken = {file.name: file.read_bytes() for file in client.images(study, series).download(tmp_path / "broken")}
    assert broken == whole and len(whole) == 30
    assert 20 < proxy.requests < 33, "those that were whole were not asked for again"


def test_other_bytes_than_the_server_holds_are_not_kept(imaged_site: ListeningSite, token: str, sources: Sources, tmp_path: Path) -> None:
    study, series = uids(sources, "totalseg_siemens_body20")
    with cutting_proxy(imaged_site.url) as proxy, Client(proxy.url, token=token) as client:
        first = client.images(study, series).download(tmp_path / "one")[0]
        proxy.changed = lambda data: data[:8000] + bytes([data[8000] ^ 1]) + data[8001:] if len(data) == BUFFER else data
        first.unlink()
        for folder in ("one", "none"):  # a single instance, and all of them as one answer
            with pytest.raises(BytesDiffer):
                client.images(study, series).download(tmp_path / folder)
        assert not first.exists() and not list((tmp_path / "none").iterdir())


def test_async_gives_what_sync_gives(imaged_site: ListeningSite, token: str, client: Client, sources: Sources, tmp_path: Path) -> None:
    study, series = uids(sources, "totalseg_siemens_body20")

    async def fetched() -> tuple[list[Path], list[sitk.Image]]:
        async with AsyncClient(imaged_site.url, token=token) as client:
            images = client.images(study, series)
            return await images.download(tmp_path / "async"), await asyncio.gather(images.to_sitk(), images.to_sitk())

    files, (one, other) = asyncio.run(fetched())
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in client.images(study, series).download(tmp_path / "sync")]
    expected = client.images(study, series).to_sitk()
    assert one == expected and other == expected


def test_a_series_as_of_before_it_came_is_not_there(client: Client, sources: Sources, tmp_path: Path) -> None:
    study, series = uids(sources, "mr_tcga_lihc_siemens30")
    with pytest.raises(NotFound):
        client.images(study, series, as_of=1).download(tmp_path)
    with pytest.raises(NotFound):
        client.images("1.2.3", "4.5.6").datasets()


def test_who_may_not_is_told_so(imaged_site: ListeningSite, sources: Sources, tmp_path: Path) -> None:
    study, series = uids(sources, "mr_tcga_lihc_siemens30")
    with Client(imaged_site.url, token="nobody") as client, pytest.raises(TokenRefused):
        client.images(study, series).download(tmp_path)
    headers = imaged_site.do(imaged_site.site.headers("metrics:read"))
    with Client(imaged_site.url, token=headers["Authorization"].split()[1]) as client, pytest.raises(NotPermitted, match="dicom:read") as caught:
        client.images(study, series).download(tmp_path)
    assert caught.value.status == 403


def test_nobody_there_and_a_server_that_stays_busy_are_named(imaged_site: ListeningSite, token: str) -> None:
    with Client("http://127.0.0.1:1", token=token, attempts=2) as client, pytest.raises(ServerUnreachable, match="does not answer"):
        client.images("1.2", "1.3").datasets()
    with cutting_proxy(imaged_site.url) as proxy, Client(proxy.url, token=token, attempts=2) as client:
        proxy.answers = [BUSY, BUSY]
        with pytest.raises(ServerFailed) as caught:
            client.images("1.2", "1.3").datasets()
        assert caught.value.status == 503
        behind = b'{"data":null,"errors":[{"message":"try again","extensions":{"code":"UNAVAILABLE"}}]}'
        proxy.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(behind), behind)] * 2
        with pytest.raises(ServerFailed) as caught:
            client.position()
        assert caught.value.code == "UNAVAILABLE" and proxy.answers == []


def test_a_token_is_sent_to_nobody_in_plain_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ANAMNESIS_TOKEN", raising=False)
    with pytest.raises(PlainTextRefused):
        Client("http://192.0.2.1:8080", token="secret")
    with pytest.raises(TokenRefused, match="ANAMNESIS_TOKEN"):
        Client("https://site.test")
    (tmp_path / "token").write_text("secret\n")
    with Client("https://site.test", token_file=tmp_path / "token") as client:
        assert "secret" not in repr(client)


def test_a_site_with_an_authority_of_its_own_is_reached_by_its_certificate(imaged_site: ListeningSite, token: str, sources: Sources, tmp_path: Path) -> None:
    certificate, key = certificate_files(tmp_path)
    accepting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    accepting.load_cert_chain(certificate, key)
    study, series = uids(sources, "cr_dx")
    with cutting_proxy(imaged_site.url, accepting) as proxy:
        with Client(proxy.url, token=token, ca=certificate) as client:
            assert len(client.images(study, series).datasets()) == 1
        with Client(proxy.url, token=token, attempts=1) as client, pytest.raises(ServerUnreachable):
            client.images(study, series).datasets()


@pytest.mark.parametrize("uid", ["../../etc", "1.2/3", "", "1" * 65])
def test_what_is_no_uid_is_no_path(client: Client, uid: str) -> None:
    with pytest.raises(ValueError, match="UID"):
        client.images("1.2", uid).datasets()
