"""Verifiers that are not ours agree with ours: on random logs (40 in `make test`, 200 in `make faults`), and on every
one of them that somebody changed, in eighteen ways.

Go's checksum-database library (a page of Go, built where Debian's golang packages are), sigstore's JavaScript (where
node is), a Python reader of tile logs, and openssl.  What can't run here is skipped aloud, with what to install.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey, VkeySet
from tlog_scales.tlog import Checkpoint as ForeignCheckpoint
from tlog_scales.tlog import InclusionProof

from audit.checkpoint import NoteInvalid, SignedCheckpoint, VerifierKey
from audit.merkle import leaf_hash
from audit.policy import Policy, QuorumMissing
from audit.receipts import ReceiptInvalid, TlogProof
from audit.verify import Finding, LogFolder, consistency, fsck
from tests.builders_log import ORIGIN, START_S, a_key, a_witness
from tests.foreign.builders import OF_THE_PROOF, POLICY, QUORUM, TAMPERS, WITNESSES, Kept, Tamper, a_log

HERE: Final = Path(__file__).parent
BUILT: Final = HERE.parents[1] / "build" / "foreign"
GO_LIBRARY: Final = Path("/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog")
LOGS, LOGS_IN_THE_LONG_RUN = 40, 200
ONLY_IN_ENTRIES_OR_TILES: Final = {
    "_leaf_edited", "_leaves_swapped", "_leaf_left_out", "_leaf_put_in", "_tile_edited",
}  # fmt: skip
"""What a mere reader of tiles does not look at."""


@cache
def trusted() -> Policy:
    return Policy.parse(POLICY.encode())


def ours(kept: Kept) -> bool:
    """Whether `auditor` finds nothing: fsck, consistency with what was kept, and the proof."""
    try:
        folder, old = LogFolder(kept.folder), (kept.folder / "old").read_text()
        fsck(folder, trusted(), old)
        consistency(folder, trusted(), old, now_s=START_S)
        return proof_holds(kept)
    except Finding:
        return False


def proof_holds(kept: Kept) -> bool:
    """Whether the tlog-proof alone holds."""
    try:
        TlogProof.parse(kept.proof).verify(trusted())
    except (ReceiptInvalid, NoteInvalid, QuorumMissing):
        return False
    return True


def a_tile_reader(kept: Kept) -> bool:
    """tlog-scales: signatures, the root of the tiles, growth since the kept checkpoint, and the proof."""
    try:
        return _a_tile_reader(kept)
    except Exception:  # it has no one way to say no
        return False


def _a_tile_reader(kept: Kept) -> bool:
    log = Vkey.from_string(str(VerifierKey.of(a_key(), ORIGIN)))
    witnesses = [Vkey.from_string(str(a_witness(number))) for number in range(WITNESSES)]

    def signed(text: str, *, quorum: bool = True) -> ForeignCheckpoint:
        checkpoint = ForeignCheckpoint.from_text(text)
        checkpoint.verify(log)
        seen = 0
        for witness in witnesses:
            for line in checkpoint.signatures:
                try:
                    seen += bool(VkeySet(witness).verify([line], checkpoint))
                except Exception:  # a line that does not verify counts for nothing
                    continue
        assert seen >= QUORUM or not quorum
        return checkpoint

    newest, old = signed(kept.note), signed((kept.folder / "old").read_text(), quorum=False)
    reader = TilesReader(LocalBackend(kept.folder))
    reader.set_size(newest.size)
    assert reader.calculate_root_hash() == newest.root_hash
    reader.get_consistency_proof(old.size, newest.size).check(old.root_hash, newest.root_hash)
    head, _, note = kept.proof.partition("\n\n")
    _, extra, index, *path = head.split("\n")
    under = signed(note)
    proof = InclusionProof(int(index.split(" ")[1]), under.size, [base64.b64decode(one) for one in path])
    proof.check(leaf_hash(base64.b64decode(extra.split(" ")[1])), under.root_hash)
    return True


@pytest.fixture(scope="module")
def long(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture(scope="module")
def kept_logs(tmp_path_factory: pytest.TempPathFactory, long: bool) -> list[Kept]:
    home = tmp_path_factory.mktemp("logs")
    count = LOGS_IN_THE_LONG_RUN if long else LOGS
    return [a_log(home / f"log-{seed}", seed) for seed in range(count)]


@pytest.fixture(scope="module")
def changed_logs(kept_logs: list[Kept]) -> list[tuple[Tamper, Kept]]:
    """Every one of the logs, changed in every way."""
    changed = []
    for number, kept in enumerate(kept_logs):
        for tamper in TAMPERS:
            folder = kept.folder.with_name(f"{kept.folder.name}{tamper.__name__}")
            shutil.copytree(kept.folder, folder, copy_function=shutil.copyfile)
            one = Kept(folder, kept.log, kept.size, kept.index)
            tamper(one, random.Random(number))
            changed.append((tamper, one))
    return changed


def test_ours_accepts_every_honest_log_and_finds_every_change(
    kept_logs: list[Kept], changed_logs: list[tuple[Tamper, Kept]], tally: Callable[[str], None]
) -> None:
    assert [kept.folder.name for kept in kept_logs if not ours(kept)] == []
    assert [kept.folder.name for _, kept in changed_logs if ours(kept)] == []
    tally(f"ours: {len(kept_logs)} logs accepted, {len(changed_logs)} changed ones found")


def test_go_agrees_on_every_log(
    kept_logs: list[Kept], changed_logs: list[tuple[Tamper, Kept]], tmp_path: Path, tally: Callable[[str], None]
) -> None:
    verifier = built_with_go()
    (tmp_path / "policy").write_text(POLICY)
    folders = [*kept_logs, *(kept for _, kept in changed_logs)]
    asked = "".join(f"{kept.folder}\n" for kept in folders)
    command = [str(verifier), str(tmp_path / "policy")]
    answers = subprocess.run(command, input=asked, text=True, capture_output=True, check=True).stdout.splitlines()
    assert len(answers) == len(folders)
    assert disagreements(answers[: len(kept_logs)], "ok") == []
    assert disagreements(answers[len(kept_logs) :], "bad") == []
    tally(f"Go: {len(kept_logs)} logs accepted, {len(changed_logs)} changed ones found")


def test_sigstores_javascript_agrees_on_every_proof(
    kept_logs: list[Kept], changed_logs: list[tuple[Tamper, Kept]], tally: Callable[[str], None]
) -> None:
    modules = built_with_npm()
    spoilt = [kept for tamper, kept in changed_logs if tamper in OF_THE_PROOF]
    asked = "".join(f"{json.dumps(a_question(kept))}\n" for kept in [*kept_logs, *spoilt])
    command = ["node", str(HERE / "verify.cjs"), str(modules)]
    answers = subprocess.run(command, input=asked, text=True, capture_output=True, check=True).stdout.splitlines()
    assert answers == ["ok"] * len(kept_logs) + ["bad"] * len(spoilt)
    tally(f"@sigstore/verify: {len(kept_logs)} proofs accepted, {len(spoilt)} changed ones found")


def test_a_python_reader_of_tile_logs_agrees_on_what_it_looks_at(
    kept_logs: list[Kept], changed_logs: list[tuple[Tamper, Kept]], tally: Callable[[str], None]
) -> None:
    assert [kept.folder.name for kept in kept_logs if not a_tile_reader(kept)] == []
    seen = [kept for tamper, kept in changed_logs if tamper.__name__ not in ONLY_IN_ENTRIES_OR_TILES]
    assert [kept.folder.name for kept in seen if a_tile_reader(kept)] == []
    tally(f"tlog-scales: {len(kept_logs)} logs accepted, {len(seen)} changed ones found")


def test_openssl_agrees_on_signatures(
    kept_logs: list[Kept], tmp_path: Path, long: bool, tally: Callable[[str], None]
) -> None:
    public = a_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key").write_bytes(public)

    def verifies(text: str, signature: bytes) -> bool:
        (tmp_path / "text").write_text(text)
        (tmp_path / "signature").write_bytes(signature)
        command = "openssl pkeyutl -verify -pubin -keyform DER -inkey key -rawin -in text -sigfile signature"
        return subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=False).returncode == 0

    some = kept_logs if long else kept_logs[:20]
    for kept in some:
        signed = SignedCheckpoint.parse(kept.note)
        signature = signed.signatures[0].signature
        assert verifies(signed.checkpoint.text, signature)
        assert not verifies(signed.checkpoint.text.replace(ORIGIN, f"{ORIGIN}0"), signature)
        assert not verifies(signed.checkpoint.text, signature[:-1] + bytes([signature[-1] ^ 1]))
    tally(f"openssl: {len(some)} signatures accepted, {2 * len(some)} changed ones found")


def disagreements(answers: list[str], expected: str) -> list[str]:
    return [answer for answer in answers if not answer.startswith(f"{expected} ")]


def a_question(kept: Kept) -> dict[str, object]:
    head, _, note = kept.proof.partition("\n\n")
    _, extra, index, *path = head.split("\n")
    key = VerifierKey.of(a_key(), ORIGIN)
    public = a_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "name": ORIGIN, "public": base64.b64encode(public).decode(), "keyId": key.key_id.hex(), "note": note,
        "leaf": extra.removeprefix("extra "), "index": index.removeprefix("index "), "path": path,
    }  # fmt: skip


def built_with_go() -> Path:
    """The page of Go, built; skips aloud where Debian's Go and its x/mod are not installed."""
    if not shutil.which("go") or not GO_LIBRARY.is_dir():
        pytest.skip("no Go verifier here: apt-get install golang-go golang-golang-x-mod-dev")
    BUILT.mkdir(parents=True, exist_ok=True)
    binary = BUILT / "verify"
    environment = os.environ | {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(BUILT / "cache")}
    subprocess.run(["go", "build", "-o", str(binary), str(HERE / "verify.go")], env=environment, check=True)
    return binary


def built_with_npm() -> Path:
    """A folder with sigstore's verifier as locked here; skips aloud where there is no node."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("no JavaScript verifier here: apt-get install nodejs npm")
    folder = BUILT / "npm"
    wanted = (HERE / "package-lock.json").read_bytes()
    if not (folder / "node_modules").is_dir() or (folder / "package-lock.json").read_bytes() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(HERE / name, folder / name)
        subprocess.run(["npm", "ci", "--ignore-scripts", "--silent"], cwd=folder, check=True)
    return folder
