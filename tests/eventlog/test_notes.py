"""Signed notes and checkpoints against the vectors of the C2SP specifications and of the reference implementation in Go."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from eventlog.errors import NoteMalformed
from eventlog.notes import (
    ED25519,
    Checkpoint,
    NoteKey,
    NoteSigner,
    log_signer,
    open_note,
    parse_checkpoint,
    parse_key,
    sign,
    time_signer,
)
from server.audit import verifier

PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETERS_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = (
    TEXT + "\n\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
"""The example of the signed-note specification, which Go's golang.org/x/mod/sumdb/note has as its test."""
BEHIND_THE_SOFA = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)
"""The example of the tlog-checkpoint specification."""
SEED = bytes(range(32))


def test_the_specifications_key_is_read_and_written() -> None:
    key = parse_key(PETER)
    assert (key.name, key.key_id.hex(), key.text()) == ("PeterNeumann", "c74f20a3", PETER)


def test_the_specifications_note_verifies_and_is_signed_the_same() -> None:
    opened = open_note(NOTE, [parse_key(PETER)])
    assert opened.text == TEXT and opened.signed_by == (parse_key(PETER),) and not opened.bad
    secret = Ed25519PrivateKey.from_private_bytes(PETERS_SEED)
    signer = NoteSigner(key=NoteKey(name="PeterNeumann", algorithm=ED25519, public=secret.public_key().public_bytes_raw()), secret=secret)
    assert sign(TEXT, [signer], 0) == NOTE


def test_no_piece_of_a_key_and_no_change_of_it_is_a_key() -> None:
    """As the reference implementation's test does."""
    for start in range(len(PETER)):
        for end in range(start + 1, len(PETER) + 1):
            if (start, end) != (0, len(PETER)):
                with pytest.raises((NoteMalformed, UnicodeError)):
                    parse_key(PETER[start:end])
    for n in range(len(PETER)):
        with pytest.raises(NoteMalformed):
            parse_key(PETER[:n] + chr(ord(PETER[n]) + 1) + PETER[n + 1 :])


def test_the_specifications_checkpoint_is_read() -> None:
    checkpoint = parse_checkpoint(open_note(BEHIND_THE_SOFA, []).text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.text() + "\n" == BEHIND_THE_SOFA[: BEHIND_THE_SOFA.index("\u2014")]


def test_a_signature_of_an_unknown_key_counts_for_nothing() -> None:
    opened = open_note(NOTE, [log_signer("PeterNeumann", SEED).key])
    assert not opened.signed_by and not opened.bad


@given(st.integers(0, len(TEXT) - 2))
def test_a_changed_text_has_a_bad_signature(at: int) -> None:
    changed = NOTE[:at] + ("x" if NOTE[at] != "x" else "y") + NOTE[at + 1 :]
    opened = open_note(changed, [parse_key(PETER)])
    assert not opened.signed_by and opened.bad == 1


def test_a_checkpoint_carries_a_signed_time() -> None:
    checkpoint = Checkpoint(origin="anamnesis/here", size=7, root=bytes(32))
    signers = [log_signer("anamnesis/here", SEED), time_signer("anamnesis/here", SEED)]
    note = sign(checkpoint.text(), signers, 1_700_000_000)
    keys = [signer.key for signer in signers]
    opened = open_note(note, keys)
    assert opened.signed_by == tuple(keys) and opened.signed_at == 1_700_000_000
    assert keys[0].public != keys[1].public
    alone = verifier.parse_checkpoint(note, [verifier.parse_key(key.text()) for key in keys])
    assert (alone.size, alone.signed_at, len(alone.signed_by), alone.bad_signatures) == (7, 1_700_000_000, 2, 0)
    line = next(line for line in note.splitlines() if "/time " in line)
    raw = bytearray(base64.b64decode(line.rsplit(" ", 1)[1]))
    raw[11] ^= 1  # the last byte of the time
    dated_anew = note.replace(line.rsplit(" ", 1)[1], base64.b64encode(bytes(raw)).decode())
    assert open_note(dated_anew, keys).signed_at is None and open_note(dated_anew, keys).bad == 1


@pytest.mark.parametrize(
    "note",
    ["", "text\n", "text\n\n", "text\n\nno dash\n", "text\n\n\u2014 name\n", "text\n\n\u2014 name !!!\n", "text\n\n\u2014 name AAAA\n", NOTE[:-1]],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(NoteMalformed):
        open_note(note, [parse_key(PETER)])


@pytest.mark.parametrize("text", ["", "origin\n", "origin\n-1\nAAAA\n", "origin\n01\n" + "A" * 43 + "=\n", "origin\n5\nAAAA\n", "\n5\n" + "A" * 43 + "=\n"])
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteMalformed):
        parse_checkpoint(text)


@given(st.text(max_size=200))
def test_no_text_breaks_the_parsers(text: str) -> None:
    for parse in (parse_key, parse_checkpoint, lambda note: open_note(note, [parse_key(PETER)])):
        try:
            parse(text)
        except NoteMalformed:
            pass
