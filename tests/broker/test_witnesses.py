"""Witnesses at the broker: enrolled, their lines kept, quorum, lapses told once, forks kept; never in an answer's way."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from audit.checkpoint import WITNESS_KEY, Checkpoint, SignedCheckpoint, VerifierKey, sign
from audit.merkle import verify_consistency
from audit.policy import Policy, QuorumMissing
from audit.receipts import TlogProof
from audit.witness import WitnessKey
from broker import clock, witnesses
from broker.errors import Conflict, LogUnavailable, Malformed, NotFound, StoreUnavailable, TooMany
from broker.shards import log_keys, turn
from broker.store import Store
from broker.store.log import CosignatureRow, EventRow
from broker.store.witnesses import ConflictRow, WitnessRow, keep_cosignature
from broker.trail import EntryRef, Trail, record_change
from broker.wiring import Broker
from tests.broker.platform import OPERATOR, AnAgency, an_app
from tests.builders_log import a_key
from tests.builders_signer import log_key, stolen_key

SHARD = f"/audit/log/{clock.now().year}"


class Site:
    """A broker over HTTP, with witnesses that hold their keys."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.app = an_app(folder, **settings)
        self.http = TestClient(self.app, base_url="http://127.0.0.1:8400")
        self.broker: Broker = self.app.state.broker
        self.keys = [WitnessKey(f"witness-{n}.example", a_key(100 + n)) for n in range(4)]

    def grow(self, by: int = 1) -> EntryRef:
        for _ in range(by):
            with self.broker.store.transaction() as tx:
                entry = record_change(tx, self.broker.trail, "config.changed", OPERATOR, clock.now())
            self.broker.trail.advance_pending()
        return entry

    def enrols(self, count: int, at: datetime | None = None) -> None:
        for key in self.keys[:count]:
            witnesses.enrol(
                self.broker.store, self.broker.trail, str(key.verifier), "northshire-icb", who=OPERATOR,
                at=at or clock.now(),
            )  # fmt: skip
        self.broker.trail.advance_pending()

    def fetch(self, name: str = "checkpoint") -> SignedCheckpoint:
        return SignedCheckpoint.parse(self.http.get(f"{SHARD}/{name}").raise_for_status().text)

    def cosigned(self, *numbers: int, note: SignedCheckpoint | None = None, at: datetime | None = None) -> str:
        note = note or self.fetch("checkpoint.witness")
        note = SignedCheckpoint(note.checkpoint, note.signatures[:1])
        for number in numbers:
            at_s = int((at or clock.now()).timestamp())
            note = note.with_signature(self.keys[number].cosign(note.checkpoint, at_s=at_s))
        return note.note

    def hands_in(self, note: str) -> Response:
        return self.http.post("/audit/cosignatures", content=note.encode(), headers={"Content-Type": "text/plain"})

    def policy(self) -> Policy:
        return Policy.parse(self.http.get("/audit/policy").raise_for_status().content)

    def told(self, kind: str) -> int:
        self.broker.trail.advance_pending()
        with self.broker.store.reading() as reading:
            return len(reading.all(EventRow, type=kind))

    def watch(self, at: datetime) -> tuple[str, ...]:
        return witnesses.watch(self.broker.store, self.broker.trail, who=OPERATOR, at=at)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.broker.store.close()


def test_lines_handed_in_are_served_under_their_checkpoint_and_make_a_quorum(site: Site) -> None:
    site.enrols(3)
    first = site.hands_in(site.cosigned(0))
    assert (first.status_code, first.json()["witnessed"]) == (201, False)
    with pytest.raises(QuorumMissing):
        site.policy().accept(site.fetch())
    assert site.http.get(f"{SHARD}/checkpoint.witnessed").status_code == 404
    second = site.hands_in(site.cosigned(2))
    assert second.json() == {"size": first.json()["size"], "witnesses": ["witness-2.example"], "witnessed": True}
    accepted = site.policy().accept(site.fetch())
    assert set(accepted.cosigned) == {"witness-0.example", "witness-2.example"}
    assert site.fetch("checkpoint.witnessed").note == site.fetch().note


def test_what_one_has_signed_stays_up_until_a_quorum_has_while_the_log_grows(site: Site) -> None:
    site.enrols(3)
    begun = site.fetch("checkpoint.witness").checkpoint
    site.hands_in(site.cosigned(0))
    site.grow(3)
    assert site.fetch("checkpoint.witness").checkpoint == begun
    assert site.fetch().checkpoint.size == begun.size + 3
    site.hands_in(site.cosigned(1))
    assert site.fetch("checkpoint.witnessed").checkpoint == begun
    assert site.fetch("checkpoint.witness").checkpoint == site.fetch().checkpoint


def test_two_that_came_at_once_and_signed_two_checkpoints_meet_on_the_newer(site: Site) -> None:
    site.enrols(2)
    older = site.cosigned(0)
    site.grow()
    newer = site.cosigned(1)
    site.hands_in(older)
    site.hands_in(newer)
    assert site.hands_in(site.cosigned(0)).json()["witnessed"]


def test_a_checkpoint_that_no_second_witness_signs_is_not_held_up_for_ever(site: Site) -> None:
    site.enrols(3)
    site.hands_in(site.cosigned(0))
    site.grow()
    newest = site.fetch().checkpoint
    with site.broker.store.reading() as reading:
        later = clock.now() + witnesses.AMBER
        served = witnesses.served(reading, site.broker.trail.origin, "checkpoint.witness", at=later)
    assert served is not None
    assert served.checkpoint == newest


@pytest.mark.parametrize(
    ("change", "status"),
    [
        pytest.param(lambda site: site.cosigned(3), 401, id="a stranger's line"),
        pytest.param(lambda site: site.cosigned(), 401, id="no line"),
        pytest.param(lambda site: site.cosigned(0).replace("\n\n— 127", "\n\n— x.example AAAAAAAA\n— 127", 1)[:-9] + "AAAA=\n", 400, id="cut base64"),
        pytest.param(lambda site: site.cosigned(0, at=clock.now() + timedelta(minutes=9)), 400, id="dated ahead"),
        pytest.param(lambda site: "hello\n", 400, id="no note"),
        pytest.param(lambda site: "x" * 70_000, 413, id="too large"),
        pytest.param(lambda site: site.cosigned(0).replace("/audit/2026\n", "/audit/1999\n", 1), 404, id="another log"),
        pytest.param(lambda site: site.cosigned(0).replace("\n2\n", "\n1\n", 1), 401, id="a size the log did not sign"),
    ],
)  # fmt: skip
def test_what_is_no_line_of_a_witness_over_a_checkpoint_of_ours_is_refused(
    site: Site, change: Any, status: int
) -> None:
    site.enrols(1)
    assert site.hands_in(change(site)).status_code == status
    assert site.http.get("/audit/witnesses").json()["witnesses"][0]["size"] == 0


def test_a_line_copied_to_another_checkpoint_or_with_another_time_counts_for_nothing_14_15(site: Site) -> None:
    site.enrols(1)
    line = site.cosigned(0).split("\n")[-2]
    site.grow()
    assert site.hands_in(site.cosigned() + line + "\n").status_code == 401
    name, _, encoded = site.cosigned(0).split("\n")[-2].rpartition(" ")
    data = bytearray(base64.b64decode(encoded))
    data[11] ^= 1  # the time
    edited = f"{name} {base64.b64encode(bytes(data)).decode()}"
    assert site.hands_in(site.cosigned() + edited + "\n").status_code == 401


def test_of_two_lines_over_one_checkpoint_the_newer_is_kept_and_twice_does_no_harm(site: Site) -> None:
    site.enrols(1)
    now = clock.now()
    for at in (now - timedelta(seconds=50), now, now - timedelta(seconds=90), now):
        assert site.hands_in(site.cosigned(0, at=at)).status_code == 201
    served = site.fetch()
    assert served.cosigned_at(site.keys[0].verifier) == int(now.timestamp())
    assert len(served.signatures) == 2


def forged(site: Site, size: int) -> str:
    """What a stolen log key signs, cosigned by nobody."""
    return sign(
        Checkpoint(site.broker.trail.origin, size, b"\7" * 32), stolen_key(site.broker.settings.data_dir, SHARD[-4:])
    ).note


@pytest.mark.parametrize(("ahead", "kind"), [(0, "another_tree"), (-1, "another_tree"), (50, "larger_tree")])
def test_a_note_of_the_logs_own_key_over_another_tree_is_kept_with_ours_and_told_10(
    site: Site, ahead: int, kind: str
) -> None:
    site.enrols(1)
    site.grow(2)
    size = site.fetch().checkpoint.size + ahead
    note = forged(site, size)
    for _ in range(2):
        refused = site.hands_in(note)
        assert refused.status_code == 409
        assert "two trees" in refused.json()["detail"]
    with site.broker.store.reading() as reading:
        (row,) = reading.all(ConflictRow)
    assert (row.kind, row.size, row.presented.decode()) == (kind, size, note)
    assert SignedCheckpoint.parse(row.ours.decode()).signed_by(log_key(site.broker.store))
    assert site.told("witness.conflict") == 1
    assert site.http.get("/audit/witnesses").json()["conflicts"] == 1
    site.grow()  # an answer does not wait for anybody who looks into it


def test_a_conflict_the_log_can_not_tell_at_once_is_kept_and_told_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.enrols(1)

    def can_not(*_: object, **__: object) -> None:
        raise LogUnavailable("the log can't record just now")

    monkeypatch.setattr(site.broker.trail, "record", can_not)
    assert site.hands_in(forged(site, 1)).status_code == 409
    with pytest.raises(LogUnavailable):
        site.watch(clock.now())
    monkeypatch.undo()
    assert site.told("witness.conflict") == 0
    site.watch(clock.now())
    site.watch(clock.now())
    assert site.told("witness.conflict") == 1


def test_a_lapse_is_told_once_and_again_only_after_the_witness_came_back(site: Site) -> None:
    begun = clock.now()
    site.enrols(2, at=begun)
    site.hands_in(site.cosigned(0))
    site.grow()
    assert site.watch(begun + timedelta(minutes=14)) == ()
    late = begun + timedelta(minutes=16)
    assert site.watch(late) == ("witness-0.example", "witness-1.example")
    assert site.watch(late + timedelta(hours=9)) == ()
    assert site.told("witness.late") == 2
    site.hands_in(site.cosigned(0, note=site.fetch()))  # the newest, with what the log told of the lapse
    assert site.watch(clock.now()) == ()
    with site.broker.store.reading() as reading:
        assert [row.late_since is None for row in reading.all(WitnessRow, order=("name",))] == [True, True]
    site.grow()
    assert site.watch(clock.now() + timedelta(minutes=16)) == ("witness-0.example", "witness-1.example")


def test_the_standing_is_green_then_amber_then_red_and_none_without_witnesses(site: Site) -> None:
    assert site.http.get("/audit/witnesses").json()["state"] == "none"
    assert site.http.get("/health/ready").json()["witnesses"]["state"] == "none"
    site.enrols(1)
    with site.broker.store.reading() as reading:
        for minutes, state in ((1, "green"), (16, "amber"), (250, "red")):
            at = clock.now() + timedelta(minutes=minutes)
            stand = witnesses.standing(reading, site.broker.trail.origin, at=at)
            assert (stand.state, stand.witnesses[0].state) == (state, state)
    site.hands_in(site.cosigned(0))
    stand = site.http.get("/audit/witnesses").json()
    assert (stand["state"], stand["behind_s"], stand["witnessed"]) == ("green", 0, stand["size"])


def test_a_shard_that_ended_unwitnessed_is_behind_though_the_new_one_is_witnessed(site: Site) -> None:
    begun = clock.now()
    site.enrols(2, at=begun)
    site.hands_in(site.cosigned(0, 1))
    site.grow()
    trail, at = site.broker.trail, clock.now() + timedelta(days=366)
    assert turn(trail, site.broker.settings.log_base, who=OPERATOR, at=at) is not None
    witnesses.enrol(  # who was not there yet is not asked for what had ended
        site.broker.store, trail, str(site.keys[2].verifier), "northshire-icb", who=OPERATOR, at=at + timedelta(days=1)
    )
    trail.advance_pending()
    newest = trail.signed()
    assert newest is not None
    assert site.hands_in(site.cosigned(0, 1, 2, note=SignedCheckpoint.parse(newest.note.decode()))).is_success
    with site.broker.store.reading() as reading:
        stand = witnesses.standing(reading, trail.origin, at=clock.now() + timedelta(minutes=16))
    assert stand.witnessed == stand.size
    assert [(one.name, one.state) for one in stand.witnesses] == [
        ("witness-0.example", "amber"), ("witness-1.example", "amber"), ("witness-2.example", "green"),
    ]  # fmt: skip
    assert stand.state == "amber"


def test_a_proof_given_out_later_is_under_a_checkpoint_that_a_quorum_signed(site: Site) -> None:
    agency = AnAgency().enrolled(site.broker)
    entry = witnesses.enrol(
        site.broker.store, site.broker.trail, str(site.keys[0].verifier), "northshire-icb",
        who={"organisation": agency.id}, at=clock.now(),
    )  # fmt: skip
    site.broker.trail.advance_pending()
    headers = {"Authorization": f"Bearer {site.broker.tokens.issue(agency.id, at=clock.now())}"}

    def proof() -> TlogProof:
        answer = site.http.get(f"/audit/events/{entry.event_id}/proof", headers=headers)
        return TlogProof.parse(answer.raise_for_status().text)

    with pytest.raises(QuorumMissing):
        proof().verify(site.policy())
    site.hands_in(site.cosigned(0))
    site.grow(5)  # the newest has no lines yet
    assert proof().verify(site.policy()).cosigned.keys() == {"witness-0.example"}


def test_the_proof_that_the_log_grew_is_public(site: Site) -> None:
    old = site.fetch().checkpoint
    site.grow(5)
    new = site.fetch().checkpoint
    text = site.http.get("/audit/consistency", params={"old": old.size, "new": new.size}).raise_for_status().text
    proof = [base64.b64decode(line) for line in text.splitlines()]
    verify_consistency(old.size, new.size, old.root, new.root, proof)
    for old_size, new_size, status in ((5, 4, 400), (0, new.size + 1, 404), (-1, 2, 422)):
        asked = site.http.get("/audit/consistency", params={"old": old_size, "new": new_size})
        assert asked.status_code == status


def test_a_removed_witness_counts_no_more_and_its_lines_are_served_no_more(site: Site) -> None:
    site.enrols(2)
    site.hands_in(site.cosigned(0, 1))
    witnesses.remove(site.broker.store, site.broker.trail, "witness-0.example", who=OPERATOR, at=clock.now())
    site.broker.trail.advance_pending()
    assert set(site.policy().witnesses) == {"witness-1.example"}
    assert len(site.fetch("checkpoint.witnessed").signatures) == 2
    assert site.hands_in(site.cosigned(0)).status_code == 401
    with pytest.raises(NotFound):
        witnesses.remove(site.broker.store, site.broker.trail, "witness-0.example", who=OPERATOR, at=clock.now())
    assert (site.told("witness.enrolled"), site.told("witness.removed")) == (2, 1)


def test_enrolling_refuses_what_is_no_new_witness(site: Site) -> None:
    site.enrols(1)
    key, other = site.keys[0], a_key(9)
    for vkey, fault in (
        (str(key.verifier), Conflict),
        (str(VerifierKey.of(other, key.name, WITNESS_KEY)), Conflict),
        (str(VerifierKey.of(key.key, "other.example", WITNESS_KEY)), Conflict),
        (str(VerifierKey.of(other, "log.example")), Malformed),
        ("nothing", Malformed),
    ):
        with pytest.raises(fault):
            witnesses.enrol(site.broker.store, site.broker.trail, vkey, "x", who=OPERATOR, at=clock.now())
    for number in range(30, 30 + witnesses.MOST - 1):
        vkey = str(VerifierKey.of(a_key(number), f"w{number}.example", WITNESS_KEY))
        witnesses.enrol(site.broker.store, site.broker.trail, vkey, "x", who=OPERATOR, at=clock.now())
    with pytest.raises(TooMany):
        vkey = str(site.keys[1].verifier)
        witnesses.enrol(site.broker.store, site.broker.trail, vkey, "x", who=OPERATOR, at=clock.now())


def test_on_both_databases_lines_gather_and_evidence_can_not_be_deleted(
    store: Store, trail: Trail, tmp_path: Path
) -> None:
    keys = [WitnessKey(f"witness-{n}.example", a_key(100 + n)) for n in range(3)]
    for key in keys:
        witnesses.enrol(store, trail, str(key.verifier), "northshire-icb", who=OPERATOR, at=clock.now())
    size = trail.advance_pending()

    def fetched(which: witnesses.Which) -> SignedCheckpoint | None:
        with store.reading() as reading:
            return witnesses.served(reading, trail.origin, which, at=clock.now())

    with store.reading() as reading:
        logs = log_keys(reading)
    for number, key in enumerate(keys[:2]):
        asked = fetched("checkpoint.witness")
        assert asked is not None
        line = key.cosign(asked.checkpoint, at_s=int(clock.now().timestamp()))
        note = asked.with_signature(line).note.encode()
        taken = witnesses.take(store, trail, note, logs, who=OPERATOR, at=clock.now())
        assert taken.witnessed is (number == 1)
    witnessed = fetched("checkpoint.witnessed")
    assert witnessed is not None
    assert (witnessed.checkpoint.size, len(witnessed.signatures)) == (size, 3)
    other = sign(Checkpoint(trail.origin, size, b"\7" * 32), stolen_key(tmp_path)).note.encode()
    with pytest.raises(Conflict):
        witnesses.take(store, trail, other, logs, who=OPERATOR, at=clock.now())
    with pytest.raises((StoreUnavailable, Conflict)), store.transaction() as tx:
        tx.delete(*tx.all(ConflictRow))


def test_the_look_at_the_witnesses_goes_on_after_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witnesses, "LOOKS_EVERY", 0.01)
    looked = threading.Semaphore(0)

    def looks(at: datetime) -> None:
        looked.release()
        raise LogUnavailable("the log can't record just now")

    watching = witnesses.Watch(looks)
    watching.start()
    assert all(looked.acquire(timeout=10) for _ in range(3))
    watching.stop()


@pytest.mark.parametrize(("witnesses_", "quorum"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (12, 7)])
def test_a_quorum_is_more_than_half(witnesses_: int, quorum: int) -> None:
    assert witnesses.quorum_of(witnesses_) == quorum


def test_without_one_cosignature_an_entry_has_its_receipt_all_the_same(site: Site) -> None:
    site.enrols(3, at=clock.now() - timedelta(days=9))
    assert site.broker.trail.receipt(site.grow()).size == site.fetch().checkpoint.size


def test_one_line_handed_in_twice_at_once_is_kept_once_and_neither_is_refused(store: Store) -> None:
    said: list[bool] = []

    def again(t_s: int) -> None:
        line = f"line of {t_s}"
        with store.transaction() as tx:
            row = CosignatureRow(
                log_id="log", size=7, witness="w", t_s=t_s, line=line, first_t_s=t_s, first_line=line
            )  # fmt: skip
            said.append(keep_cosignature(tx, row))
            if other.ident is None:
                other.start()
                other.join(0.3)

    other = threading.Thread(target=again, args=(9,))
    again(8)
    other.join(20)
    assert said == [True, True]
    with store.reading() as reading:
        (row,) = reading.all(CosignatureRow)
    assert (row.t_s, row.first_t_s) == (9, 8)
