"""Signed notes: read and written byte for byte, and refused in any other form."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from audit.checkpoint import (
    LOG_KEY,
    ML_DSA_KEY,
    Checkpoint,
    NoteInvalid,
    Signature,
    SignedCheckpoint,
    VerifierKey,
    sign,
)
from audit.merkle import EMPTY_ROOT
from tests.builders_log import ORIGIN, START_S, ALog, a_key, a_witness

NOTE = json.loads((Path(__file__).parents[1] / "vectors" / "signed_note.json").read_text())


def test_the_published_note_verifies_under_its_published_key() -> None:
    key = VerifierKey.parse(NOTE["vkey"])
    line = Signature.parse(NOTE["line"])
    assert str(key) == NOTE["vkey"]
    assert line.line == NOTE["line"]
    assert (line.name, line.key_id) == (key.name, key.key_id)
    assert key.verifies(line.signature, NOTE["text"].encode())
    assert not key.verifies(line.signature, NOTE["text"].encode() + b"\n")


@pytest.mark.parametrize("vkey", NOTE["other_vkeys"])
def test_a_published_key_is_read_and_written_as_published(vkey: str) -> None:
    assert str(VerifierKey.parse(vkey)) == vkey


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_verifier_key_with_one_letter_changed_is_refused(part: int) -> None:
    parts = NOTE["vkey"].split("+", 2)
    parts[part] = ("X" if parts[part][0] != "X" else "Y") + parts[part][1:]
    with pytest.raises(NoteInvalid):
        VerifierKey.parse("+".join(parts))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_alone_verifies_a_checkpoint(tmp_path: Path) -> None:
    signed = ALog().add(5).signed()
    public = bytes.fromhex("302a300506032b6570032100") + a_key().public_key().public_bytes_raw()  # RFC 8410
    (tmp_path / "key.der").write_bytes(public)
    (tmp_path / "text").write_text(signed.checkpoint.text)
    line = signed.note.splitlines()[-1].split(" ")[-1]
    (tmp_path / "signature").write_bytes(base64.b64decode(line)[4:])
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key.der"]
    command += ["-rawin", "-in", "text", "-sigfile", "signature"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    (tmp_path / "text").write_text(signed.checkpoint.text.replace("\n5\n", "\n6\n"))
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 1


def test_a_note_is_read_and_written_byte_for_byte() -> None:
    signed = ALog().add(3).signed([0, 1])
    assert SignedCheckpoint.parse(signed.note) == signed
    assert signed.signed_by(VerifierKey.of(a_key(), ORIGIN))
    assert signed.cosigned_at(a_witness(1)) == START_S
    assert signed.cosigned_at(a_witness(2)) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda note: note.replace("\n3\n", "\n03\n"),
        lambda note: note.replace("\n3\n", "\n-3\n"),
        lambda note: note.replace("\n3\n", "\n٣\n"),
        lambda note: note.replace("\n\n", "\nextension line\n\n"),
        lambda note: note.replace("— ", "- "),
        lambda note: note[:-1],
        lambda note: note + "\n",
        lambda note: note.replace("\n\n", "\n"),
        lambda note: note.replace("\n", "\r\n"),
        lambda note: note + "— a\x1b[2J.example AAAAAAAA\n",
        lambda note: note + "— two words AAAAAAAA\n",
        lambda note: note + "— short.example AAAA\n",
        lambda note: note + 17 * "— many.example AAAAAAAA\n",
        lambda note: note + f"— long.example {'A' * 65536}\n",
        lambda note: "",
    ],
)
def test_a_note_in_any_other_form_is_refused(spoil) -> None:
    with pytest.raises(NoteInvalid):
        SignedCheckpoint.parse(spoil(ALog().add(3).signed().note))


def test_a_line_of_an_unknown_key_or_a_second_line_of_a_known_one_is_ignored() -> None:
    signed = ALog().add(3).signed()
    stray = Signature(ORIGIN, b"abcd", b"x" * 64)
    twice = Signature(ORIGIN, signed.signatures[0].key_id, b"x" * 64)
    assert signed.with_signature(stray).with_signature(twice).signed_by(VerifierKey.of(a_key(), ORIGIN))
    with pytest.raises(NoteInvalid, match="does not verify"):
        SignedCheckpoint(signed.checkpoint, (twice,)).signed_by(VerifierKey.of(a_key(), ORIGIN))


def test_a_logs_signature_does_not_count_as_a_witnesss() -> None:
    signed = ALog().add(3).signed()
    posing = VerifierKey(ORIGIN, 0x04, a_key().public_key().public_bytes_raw())
    assert signed.cosigned_at(posing) is None
    assert posing.key_id != VerifierKey(ORIGIN, LOG_KEY, posing.public).key_id


def test_an_origin_with_a_line_break_or_a_space_is_no_origin() -> None:
    for origin in ("", "a b", "a\nb", "a+b"):
        with pytest.raises(NoteInvalid):
            Checkpoint(origin, 0, EMPTY_ROOT)


def test_an_ml_dsa_line_signs_the_structure_of_the_specification_and_no_time() -> None:
    key = MLDSA44PrivateKey.generate()
    head, _ = ALog().add(3).grown()
    signed = sign(Checkpoint(ORIGIN, 3, head.root), a_key(), key)
    mine, theirs = VerifierKey.of(a_key(), ORIGIN), VerifierKey.of(key, ORIGIN)
    assert (theirs.kind, len(theirs.public)) == (ML_DSA_KEY, 1312)
    assert VerifierKey.parse(str(theirs)) == theirs
    again = SignedCheckpoint.parse(signed.note)
    assert again.signed_by(mine)
    assert again.signed_by(theirs)
    line = again.signatures[1].signature
    assert (line[:8], len(line)) == (bytes(8), 8 + 2420)
    # struct cosigned_message of C2SP tlog-cosignature: label[12], name<1..255>, time, origin<1..255>, start, end, hash
    name = bytes([len(ORIGIN)]) + ORIGIN.encode()
    message = b"subtree/v1\n\0" + name + bytes(8) + name + bytes(8) + (3).to_bytes(8, "big") + head.root
    key.public_key().verify(line[8:], message)
    assert theirs.key_id == hashlib.sha256(ORIGIN.encode() + b"\n\x06" + theirs.public).digest()[:4]


@pytest.mark.parametrize("which", ["size", "root", "time", "name"])
def test_an_ml_dsa_line_over_anything_else_does_not_verify(which: str) -> None:
    key = MLDSA44PrivateKey.generate()
    head, _ = ALog().add(3).grown()
    signed = sign(Checkpoint(ORIGIN, 3, head.root), key)
    line, verifier = signed.signatures[0], VerifierKey.of(key, ORIGIN)
    if which == "name":
        verifier = VerifierKey.of(key, "other.example")
        line = Signature(verifier.name, verifier.key_id, line.signature)
    if which == "time":
        line = Signature(line.name, line.key_id, b"\0" * 7 + b"\1" + line.signature[8:])
    moved = Checkpoint(ORIGIN, 4 if which == "size" else 3, EMPTY_ROOT if which == "root" else head.root)
    with pytest.raises(NoteInvalid, match="does not verify"):
        SignedCheckpoint(moved, (line,)).signed_by(verifier)
