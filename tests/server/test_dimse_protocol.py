"""What PS3.7 and PS3.8 allow a peer to do, and what they do not: fragments, roles, limits, TLS, noise. Both lanes where both can."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from certificate import certificate_files
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pynetdicom import AE, AllStoragePresentationContexts, build_context, build_role
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification

from archive.errors import SpoolFull
from archive.part10 import read_part10
from archive.rejects import Rejects
from archive.spool import Reception, Spool
from archive.store import Store
from eventlog.log import EventLog
from server.dimse.fast_lane import FastLane
from server.dimse.pynetdicom_lane import PynetdicomLane
from server.dimse.reception import Receiver
from server.intake import Intake

CT = "1.2.840.10008.5.1.4.1.1.2"
CT_FILE = str(get_testdata_file("CT_small.dcm"))
EXPLICIT = "1.2.840.10008.1.2.1"
LANES = [FastLane, PynetdicomLane]
Lane = FastLane | PynetdicomLane


class Place:
    def __init__(self, log: EventLog, folder: Path) -> None:
        self.spool, self.store = Spool(folder / "spool"), Store(str(folder / "archive"))
        self.rejects = Rejects(folder / "rejects")
        self.intake = Intake(log, self.store, self.spool, self.rejects, linger_s=0.01)

    @contextlib.contextmanager
    def serve(self, lane_type: type[FastLane] | type[PynetdicomLane], *, spool: Spool | None = None, **options: object):  # type: ignore[no-untyped-def]
        lane = lane_type(Receiver(spool or self.spool, self.intake), host="127.0.0.1", port=0, **options)  # type: ignore[arg-type]
        lane.start()
        try:
            yield lane
        finally:
            lane.stop()


@pytest_asyncio.fixture
async def place(event_log: EventLog, tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(event_log, tmp_path)
    yield place
    await place.intake.close()


def requestor() -> AE:
    ae = AE(ae_title="TESTER")
    ae.add_requested_context(CT, EXPLICIT)
    return ae


def store(lane: Lane, ae: AE | None = None, **options: object) -> int:
    """The status of one C-STORE; -1 without an association."""
    association = (ae or requestor()).associate("127.0.0.1", lane.port, **options)
    if not association.is_established:
        return -1
    status = association.send_c_store(dcmread(CT_FILE))
    association.release()
    return int(status.Status) if "Status" in status else -2


@pytest.mark.parametrize("lane_type", LANES)
async def test_every_storage_class_and_transfer_syntax_is_accepted(place: Place, lane_type: type[Lane]) -> None:
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    assert len(classes) > 128, "more than one association can propose (PS3.8, 7.1.1.13)"

    def refused(lane: Lane) -> list[str]:
        left: list[str] = []
        for start in range(0, len(classes), 128):
            association = AE().associate("127.0.0.1", lane.port, contexts=[build_context(uid, EXPLICIT) for uid in classes[start : start + 128]])
            assert association.is_established
            left += [str(context.abstract_syntax) for context in association.rejected_contexts]
            association.release()
        one_each = [build_context(CT, syntax) for syntax in ALL_TRANSFER_SYNTAXES]
        association = AE().associate("127.0.0.1", lane.port, contexts=one_each)
        left += [str(context.transfer_syntax) for context in association.rejected_contexts]
        association.release()
        return left

    with place.serve(lane_type) as lane:
        assert await asyncio.to_thread(refused, lane) == []


@pytest.mark.parametrize("lane_type", LANES)
async def test_what_is_no_storage_is_rejected_context_by_context(place: Place, lane_type: type[Lane]) -> None:
    find = "1.2.840.10008.5.1.4.1.2.1.1"

    def rejected(lane: Lane) -> list[str]:
        association = AE().associate("127.0.0.1", lane.port, contexts=[build_context(CT, EXPLICIT), build_context(find, EXPLICIT)])
        found = [str(context.abstract_syntax) for context in association.rejected_contexts]
        association.release()
        return found

    with place.serve(lane_type) as lane:
        assert await asyncio.to_thread(rejected, lane) == [find]


@pytest.mark.parametrize("lane_type", LANES)
async def test_a_role_that_is_proposed_is_answered(place: Place, lane_type: type[Lane]) -> None:
    def send(lane: Lane) -> int:
        return store(lane, ext_neg=[build_role(CT, scu_role=True, scp_role=False)])

    with place.serve(lane_type) as lane:
        assert await asyncio.to_thread(send, lane) == 0x0000


@pytest.mark.parametrize("lane_type", LANES)
async def test_one_association_too_many_is_rejected_until_another_ends(place: Place, lane_type: type[Lane]) -> None:
    def work(lane: Lane) -> tuple[bool, int]:
        first = requestor().associate("127.0.0.1", lane.port)
        refused = requestor().associate("127.0.0.1", lane.port)
        assert first.is_established
        was_rejected = refused.is_rejected
        first.release()
        for _ in range(100):  # the slot is free a moment after the release
            if (status := store(lane)) == 0x0000:
                return was_rejected, status
        return was_rejected, status

    with place.serve(lane_type, max_associations=1) as lane:
        assert await asyncio.to_thread(work, lane) == (True, 0x0000)


class FullSpool(Spool):
    """A disk with no room: nobody can fill the machine's for a test."""

    def receive(self, **names: object) -> Reception:  # type: ignore[override]
        reception = super().receive(**names)  # type: ignore[arg-type]

        def full(_: object) -> None:
            raise SpoolFull("the spool's disk is full")

        reception.write = full  # type: ignore[method-assign, assignment]
        return reception


@pytest.mark.parametrize("lane_type", LANES)
async def test_a_full_disk_is_out_of_resources_and_the_association_goes_on(place: Place, lane_type: type[Lane], tmp_path: Path) -> None:
    full = FullSpool(tmp_path / "full")

    def twice(lane: Lane) -> list[int]:
        association = requestor().associate("127.0.0.1", lane.port)
        statuses = [int(association.send_c_store(dcmread(CT_FILE)).Status) for _ in range(2)]
        association.release()
        return statuses

    with place.serve(lane_type, spool=full) as lane:
        assert await asyncio.to_thread(twice, lane) == [0xA700, 0xA700]
    assert list(full.folder.iterdir()) == []


@pytest.mark.parametrize("lane_type", LANES)
async def test_tls_takes_only_senders_with_a_certificate(place: Place, lane_type: type[Lane], tmp_path: Path) -> None:
    certificate, key = certificate_files(tmp_path)
    accepting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    accepting.load_cert_chain(certificate, key)
    accepting.load_verify_locations(certificate)
    accepting.verify_mode = ssl.CERT_REQUIRED
    known, stranger = (ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(certificate)) for _ in range(2))
    known.load_cert_chain(certificate, key)
    with place.serve(lane_type, tls=accepting) as lane:
        assert await asyncio.to_thread(store, lane, tls_args=(known, "localhost")) == 0x0000
        assert await asyncio.to_thread(store, lane, tls_args=(stranger, "localhost")) == -1
        assert await asyncio.to_thread(store, lane) == -1, "nothing in the clear"


class Raw:
    """A sender that cuts its messages as it likes."""

    def __init__(self, lane: Lane) -> None:
        self.socket = socket.create_connection(("127.0.0.1", lane.port), timeout=20)

    def associate(self) -> None:
        self.socket.sendall(associate_request())
        kind, _ = self.answer()
        assert kind == 2

    def answer(self) -> tuple[int, bytes]:
        head = self.exactly(6)
        return head[0], self.exactly(struct.unpack(">I", head[2:])[0])

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("the lane closed the connection")
            data += more
        return data


def associate_request() -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "RAW", "ANAMNESIS"
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = 16_384, "1.2.3"
    primitive.user_information = [length, implementation]
    context = build_context(CT, EXPLICIT)
    context.context_id = 1
    primitive.presentation_context_definition_list = [context]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def command(uid: str) -> bytes:
    padded = uid.encode() + b"\0" * (len(uid) % 2)
    elements = b"".join(
        struct.pack("<HHI", 0, element, len(value)) + value
        for element, value in (
            (0x0002, CT.encode() + b"\0"), (0x0100, b"\x01\0"), (0x0110, b"\x07\0"), (0x0700, b"\0\0"),
            (0x0800, b"\0\0"), (0x1000, padded),
        )
    )  # fmt: skip
    return struct.pack("<HHI", 0, 0, 4) + struct.pack("<I", len(elements)) + elements


def value_items(data: bytes, cuts: Sequence[int], *, is_command: bool) -> list[bytes]:
    pieces, at, n = [], 0, 0
    while at < len(data) or not pieces:
        step = cuts[n % len(cuts)]
        piece, at, n = data[at : at + step], at + step, n + 1
        control = (1 if is_command else 0) | (2 if at >= len(data) else 0)
        pieces.append(struct.pack(">IBB", len(piece) + 2, 1, control) + piece)
    return pieces


def pdus(items: Sequence[bytes], groups: Sequence[int]) -> bytes:
    data, at, n = b"", 0, 0
    while at < len(items):
        step = groups[n % len(groups)]
        body = b"".join(items[at : at + step])
        data += struct.pack(">BBI", 4, 0, len(body)) + body
        at, n = at + step, n + 1
    return data


def data_set() -> bytes:
    with open(CT_FILE, "rb") as file:
        file.seek(read_part10(file).dataset_offset)
        return file.read()


@pytest.mark.parametrize("lane_type", LANES)
async def test_a_message_arrives_whole_however_it_is_cut(place: Place, lane_type: type[Lane]) -> None:
    """Several value items in a PDU, empty ones, command and data set in one PDU or in a hundred (PS3.8, 9.3.5 and annex E)."""
    whole = data_set()

    def check(lane: Lane) -> None:
        raw = Raw(lane)
        raw.associate()

        @settings(max_examples=25)
        @given(
            command_cuts=st.lists(st.integers(2, 200), min_size=1, max_size=4),
            data_cuts=st.lists(st.integers(1, 9000), min_size=1, max_size=5).filter(lambda cuts: sum(cuts) > 600),
            groups=st.lists(st.integers(1, 6), min_size=1, max_size=4),
        )
        def message(command_cuts: list[int], data_cuts: list[int], groups: list[int]) -> None:
            # A command and its data set never share a PDU with pynetdicom's own senders; they may.
            items = value_items(command("1.2.3"), command_cuts, is_command=True) + value_items(whole, data_cuts, is_command=False)
            raw.socket.sendall(pdus(items, groups))
            kind, answer = raw.answer()
            assert kind == 4 and struct.pack("<HHIH", 0, 0x0900, 2, 0x0000) in answer

        message()
        raw.socket.sendall(bytes([5, 0, 0, 0, 0, 4, 0, 0, 0, 0]))
        assert raw.answer()[0] == 6
        raw.socket.close()

    with place.serve(lane_type) as lane:
        await asyncio.to_thread(check, lane)
    await place.intake.close()
    (kept,) = [path for path in Path(place.store._root).rglob("*") if path.is_file()]
    with kept.open("rb") as file:
        file.seek(read_part10(file).dataset_offset)
        assert file.read() == whole, "every one of them had the same bytes"


async def test_bytes_gone_wrong_anywhere_end_one_association_and_leave_nothing(place: Place) -> None:
    """A-ABORT or a closed connection, no leftover in the spool, and the next sender is served."""
    good = pdus(value_items(command("1.2.3"), [80], is_command=True) + value_items(b"x" * 3000, [700], is_command=False), [2])

    def check(lane: FastLane) -> None:
        @settings(max_examples=60)
        @given(at=st.integers(0, 400), noise=st.binary(min_size=1, max_size=12), cut=st.integers(0, 3000))
        def send(at: int, noise: bytes, cut: int) -> None:
            raw = Raw(lane)
            raw.associate()
            broken = good[:at] + noise + good[at + len(noise) :]
            with contextlib.suppress(ConnectionError):
                raw.socket.sendall(broken[: max(1, len(broken) - cut)])
                raw.socket.shutdown(socket.SHUT_WR)
                while raw.socket.recv(4096):
                    pass
            raw.socket.close()

        send()
        assert store(lane) == 0x0000

    with place.serve(FastLane) as lane:
        await asyncio.to_thread(check, lane)
    await place.intake.close()
    async with asyncio.timeout(10):
        while list(place.spool.folder.iterdir()):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(struct.pack(">BBI", 4, 0, 10) + struct.pack(">IBB", 6, 3, 3) + b"abcd", id="unknown context"),
        pytest.param(struct.pack(">BBI", 4, 0, 10) + struct.pack(">IBB", 6, 1, 2) + b"abcd", id="data set without a command"),
        pytest.param(struct.pack(">BBI", 4, 0, 10) + struct.pack(">IBB", 60, 1, 3) + b"abcd", id="item beyond its PDU"),
        pytest.param(struct.pack(">BBI", 4, 0, 0xFFFFFFFF), id="PDU of 4 GiB"),
        pytest.param(bytes([9, 0, 0, 0, 0, 0]), id="unknown PDU"),
        pytest.param(associate_request(), id="a second request"),
    ],
)
async def test_what_the_standard_does_not_allow_is_aborted(place: Place, bad: bytes) -> None:
    def answer(lane: FastLane) -> int:
        raw = Raw(lane)
        raw.associate()
        raw.socket.sendall(bad)
        kind, _ = raw.answer()
        raw.socket.close()
        return kind

    with place.serve(FastLane) as lane:
        assert await asyncio.to_thread(answer, lane) == 7
