"""Handing in a night over HTTP: whole or not at all, once, and every refusal names its place."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from audit.receipts import LogReceipt
from broker import activation, agencies, clock, receipts, submissions, validation
from broker.errors import WrongState
from broker.keys import verify_general
from broker.reception import Reception
from broker.settings import Settings
from broker.store.agencies import AgencyFlowRow
from broker.store.batches import BatchChunkRow, BatchRow
from broker.store.documents import AgreementRow
from broker.store.items import ItemRow, held_by
from broker.store.log import EventRow
from linkage.records import MANIFEST_MEDIA_TYPE, schema_of
from tests.builders import COUNCIL, ICB, Batch, a_batch, a_person, a_ref, a_signer, an_entry, an_item, parquet
from tests.builders_broker import AGREEMENT, Caller, agreed, codes_sha256, pause

MIB = 1024 * 1024
ALICE = a_ref(COUNCIL, None, "alice")


@pytest.fixture
def council(http: TestClient) -> Caller:
    return Caller(http)


def a_night(**said: Any) -> Batch:
    return agreed(a_batch(**said))


def everything(desk: Reception) -> dict[str, Any]:
    """All that the broker holds of batches, to see that nothing changed."""
    with desk.store.reading() as tx:
        return {
            "batches": [(row.id, row.state, row.manifest_sha256) for row in tx.all(BatchRow, order=("id",))],
            "items": sorted((row.item_ref, row.batch, row.sealed) for row in tx.all(ItemRow)),
            "flows": [(row.flow, row.last_sequence, row.last_batch) for row in tx.all(AgencyFlowRow, order=("flow",))],
            "spool": desk.spool.batches(),
        }


def state_of(desk: Reception, batch: str) -> str:
    with desk.store.reading() as tx:
        row = tx.one(BatchRow, id=batch)
        assert row is not None
        return row.state


def test_a_night_is_opened_filled_sealed_and_accepted(council: Caller, desk: Reception) -> None:
    batch = a_night()
    opened = council.open(batch)
    assert opened.status_code == 201
    assert opened.json()["state"] == "open"
    assert opened.json()["missing"] == [
        {"table": "persons", "chunk": 0}, {"table": "relationships", "chunk": 0}, {"table": "items", "chunk": 0},
    ]  # fmt: skip
    id_ = opened.json()["batch"]
    council.fill(batch, id_)
    assert council.on(batch, id_).json()["missing"] == []
    sealed = council.commit(batch, id_)
    assert (sealed.status_code, sealed.json()["state"]) == (202, "sealed")
    assert validation.validate_sealed(desk) == {id_: "accepted"}
    shown = council.on(batch, id_).json()
    assert shown["state"] == "accepted"
    assert shown["counts"] == {"persons": 2, "relationships": 1, "items": 2}
    with desk.store.reading() as tx:
        flow = tx.one(AgencyFlowRow, agency=COUNCIL, flow="education")
        assert flow is not None
        assert (flow.last_sequence, flow.last_batch, flow.last_manifest_sha256) == (1, id_, batch.sha256)
        assert flow.as_of is not None
        held = held_by(tx, [(COUNCIL, "education", ALICE), (COUNCIL, "education", "nobody")], keys=desk.keys)
        [((item, _),)] = held.values()
    assert (item.category, item.code, item.occurred_on) == ("education.enrolment", "ENROLLED", date(2025, 9, 2))


def test_the_same_night_handed_in_twice_changes_nothing(council: Caller, desk: Reception) -> None:
    batch = a_night()
    id_ = council.hand_in(batch)
    validation.validate_sealed(desk)
    before = everything(desk)
    first = council.open(batch)
    again = council.open(batch)
    assert first.content == again.content
    assert again.headers["Idempotency-Replayed"] == "true"
    assert council.hand_in(batch) == id_
    assert council.open(batch, key="another-key-of-this-client").json()["batch"] == id_
    assert validation.validate_sealed(desk) == {}
    assert everything(desk) == before


def test_an_interrupted_upload_goes_on_where_it_broke_off(council: Caller, desk: Reception) -> None:
    batch = a_night()
    id_ = council.open(batch).json()["batch"]
    assert council.put(batch, id_, "persons", 0, batch.files["persons"]).status_code == 204
    missing = council.on(batch, id_).json()["missing"]
    assert [entry["table"] for entry in missing] == ["relationships", "items"]
    refused = council.commit(batch, id_)
    assert refused.status_code == 409
    assert "relationships chunk 0, items chunk 0" in refused.json()["detail"]
    council.fill(batch, id_)
    assert council.commit(batch, id_).status_code == 202


def test_a_table_of_several_chunks_is_put_together_in_any_order(council: Caller, desk: Reception) -> None:
    batch = a_night(persons=[a_person(ALICE)], items=[an_item(a_ref(at), ALICE) for at in range(6_000)], chunk_size=MIB)
    out = io.BytesIO()
    table = pq.read_table(io.BytesIO(batch.files["items"]))
    pq.write_table(table, out, compression="none", use_dictionary=False)
    batch = batch.with_files(items=out.getvalue())
    assert len(batch.manifest.tables["items"].chunks) > 1
    id_ = council.open(batch).json()["batch"]
    for table, number, content in reversed(batch.chunks()):
        assert council.put(batch, id_, table, number, content).status_code == 204
    council.commit(batch, id_)
    assert validation.validate_sealed(desk) == {id_: "accepted"}


def test_receipts_are_signed_and_in_the_log(council: Caller, desk: Reception) -> None:
    batch = a_night()
    id_ = council.hand_in(batch)
    received = council.on(batch, id_, "receipt?kind=received").json()
    assert council.on(batch, id_, "receipt?kind=verdict").status_code == 404
    validation.validate_sealed(desk)
    verdict = council.on(batch, id_, "receipt").json()
    for receipt, kind, state in ((received, "received", "sealed"), (verdict, "verdict", "accepted")):
        logged = LogReceipt.from_json(receipt)
        logged.verify_itself()
        assert logged.opening.body("what")["manifest_sha256"] == batch.sha256  # type: ignore[index, call-overload]
        said = json.loads(verify_general(receipt["signed"], desk.keys.receipt_public()))
        assert (said["kind"], said["state"], said["manifest_sha256"]) == (kind, state, batch.sha256)
        assert said["counts"] == {"persons": 2, "relationships": 1, "items": 2}
        assert said["log"] == {"origin": desk.trail.origin, "index": logged.proof.index}
        assert said["event"] == receipt["event_id"]
    again = council.on(batch, id_, "receipt?kind=received").json()
    assert again["event_id"] == received["event_id"]


def _resigned(batch: Batch, **changes: Any) -> tuple[Batch, str]:
    changed = batch.saying(**changes)
    return changed, changed.signature


@pytest.mark.parametrize(
    ("change", "status", "place"),
    [
        ({"key_epoch": "2025-1"}, 422, "manifest.key_epoch"),
        ({"key_fingerprint": "0" * 16}, 422, "manifest.key_fingerprint"),
        ({"canaries": (1, 2, 3)}, 422, "manifest.canaries"),
        ({"profile": "accurate-2"}, 422, "manifest.profile"),
        ({"encoder": "encoder-0"}, 422, "encoder-3"),
        ({"codes_sha256": "0" * 64}, 422, "manifest.codes_sha256"),
        ({"agreements": ("northshire-mash@3.0.0", "made-up@1.0.0")}, 422, "manifest.agreements[1]"),
        ({"agreements": ()}, 422, "manifest.agreements"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 422, "manifest.expires_at"),
        ({"expires_at": "tomorrow"}, 400, "manifest.expires_at"),
        ({"extracted_at": "2026-02-30T00:00:00Z"}, 400, "manifest.extracted_at"),
        ({"period_from": "last week"}, 400, "manifest.period_from"),
        ({"chunk_size": 5}, 413, "manifest.chunk_size"),
        ({"agency": ICB}, 403, "manifest.agency"),
        ({"schema": "batch-9"}, 400, "schema"),
        ({"sequence": 0}, 400, "sequence"),
    ],
)
def test_a_manifest_not_on_our_terms_is_refused_by_the_place(
    change: dict[str, Any], status: int, place: str, council: Caller, desk: Reception
) -> None:
    before = everything(desk)
    changed = replace(a_night().saying(**change), signer=a_signer(COUNCIL))
    answer = council.open(changed)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert place in answer.json()["detail"]
    assert everything(desk) == before


def test_an_unsigned_manifest_is_refused(council: Caller, desk: Reception) -> None:
    batch = a_night()
    before = everything(desk)
    answers = {
        "no signature": council.open(batch, signature=None),
        "another agency's key": council.open(batch, signature=a_signer(ICB).sign(batch.body)),
        "a key nobody enrolled": council.open(batch, signature=a_signer(COUNCIL, 2).sign(batch.body)),
        "over other bytes": council.open(batch, signature=a_signer(COUNCIL).sign(batch.body + b" ")),
        "no JWS": council.open(batch, signature="signed, the council"),
    }
    for name, answer in answers.items():
        assert answer.status_code == 401, name
        assert answer.json()["type"].endswith("bad-signature")
    assert "header Manifest-Signature" in answers["no signature"].json()["detail"]
    assert everything(desk) == before


def test_a_manifest_is_taken_in_its_canonical_form_only(council: Caller) -> None:
    batch = a_night()
    for raw, place in (
        (json.dumps(json.loads(batch.body)).encode(), "RFC 8785"),
        (b"[" * 100_000, "nested"),
        (b"not json", "not JSON"),
        (batch.body[:-1] + b',"note":"x"}', "known"),
        (batch.body.replace(b'"flow":', b'"flow":"x","flow":'), "repeats"),
    ):
        headers = {
            "Idempotency-Key": "a-key-of-a-client", "Manifest-Signature": a_signer().sign(raw),
            "Content-Type": "application/json",
        }  # fmt: skip
        answer = council.call("POST", "/v1/flows/education/batches", headers=headers, content=raw)
        assert answer.status_code == 400
        assert place in answer.json()["detail"]


def test_a_key_or_a_night_of_another_batch_is_a_conflict(council: Caller) -> None:
    batch = a_night()
    other = a_night(items=[], persons=[a_person(a_ref("x"))])
    assert council.open(batch, key="one-and-the-same-key").status_code == 201
    key = council.open(other, key="one-and-the-same-key")
    assert (key.status_code, "Idempotency-Key" in key.json()["detail"]) == (409, True)
    night = council.open(other)
    assert (night.status_code, "manifest.sequence" in night.json()["detail"]) == (409, True)


def test_a_fifth_open_batch_waits(council: Caller) -> None:
    for sequence in range(1, 5):
        assert council.open(a_night(sequence=sequence)).status_code == 201
    answer = council.open(a_night(sequence=5))
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


def test_whoever_has_many_batches_waiting_comes_back_later(council: Caller, desk: Reception) -> None:
    id_ = council.hand_in(a_night())
    with desk.store.transaction() as tx:
        row = tx.one(BatchRow, id=id_)
        assert row is not None
        row.flow = "social_care"
        for number in range(submissions.WAITING - 1):
            like = row.model_dump() | {"id": f"{number:032x}", "sequence": 2 + number, "idempotency_key": f"k{number}"}
            tx.add(BatchRow(**like))
    refused = [council.open(a_night()) for _ in range(8)]
    assert {answer.status_code for answer in refused} == {429}
    assert len({int(answer.headers["Retry-After"]) for answer in refused}) > 1
    with desk.store.transaction() as tx:
        for row in tx.all(BatchRow):
            row.verdict = {"code": "gap"}  # what waits for a night keeps that night out of no queue
            tx.add(row)
    assert council.open(a_night()).status_code == 201


def test_a_flow_says_what_it_has_what_it_waits_for_and_on_what_terms(council: Caller, desk: Reception) -> None:
    fresh = council.call("GET", "/v1/flows/education").json()
    assert (fresh["state"], fresh["last_sequence"], fresh["batches"]) == ("NOT_CONNECTED", 0, [])
    (form,) = fresh["terms"]["manifests"]
    assert form == {"schema": "batch-1", "media_type": MANIFEST_MEDIA_TYPE, "deprecated": None, "sunset": None}
    assert fresh["terms"]["codes"]["sha256"] == codes_sha256()
    assert fresh["terms"]["chunk_bytes"] == [MIB, 64 * MIB]
    first = a_night()
    council.hand_in(first)
    later = [a_night(kind="delta", sequence=number, previous="0" * 64) for number in (3, 6)]
    ids = [council.hand_in(night) for night in later]
    validation.validate_sealed(desk)
    opened = council.open(a_night(sequence=9)).json()["batch"]
    stands = council.call("GET", "/v1/flows/education").json()
    assert (stands["state"], stands["last_sequence"]) == ("CURRENT", 1)
    assert stands["last_manifest_sha256"] == first.sha256
    assert stands["missing_nights"] == [2, 4, 5]
    assert [(one["batch"], one["state"], one["reason"]) for one in stands["batches"]] == [
        (ids[0], "sealed", "gap"), (ids[1], "sealed", "gap"), (opened, "open", None),
    ]  # fmt: skip
    assert council.call("GET", "/v1/flows/health").status_code == 404  # another's
    council.hand_in(agreed(a_batch(flow="social_care")))
    validation.validate_sealed(desk)
    chased = {(agency, one.flow): one for agency, one in submissions.to_chase(desk, at=clock.now())}
    assert chased.keys() == {(COUNCIL, "education"), (ICB, "health")}
    assert chased[COUNCIL, "education"].missing_nights == (2, 4, 5)
    assert chased[ICB, "health"].state == "NOT_CONNECTED"


def test_nights_that_wait_have_an_end_and_the_one_they_wait_for_is_let_in(
    council: Caller, desk: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submissions, "HELD", 1)
    council.hand_in(a_night())
    council.hand_in(a_night(kind="delta", sequence=3, previous="0" * 64))
    validation.validate_sealed(desk)
    assert council.open(a_night(kind="delta", sequence=4, previous="0" * 64)).status_code == 429
    assert council.open(a_night(kind="delta", sequence=2, previous="0" * 64)).status_code == 201
    assert council.open(a_night(sequence=5)).status_code == 201


def test_tampered_chunks_never_reach_the_spool(council: Caller, desk: Reception) -> None:
    batch = a_night()
    id_ = council.open(batch).json()["batch"]
    good = batch.files["persons"]
    flipped = good[:50] + bytes([good[50] ^ 1]) + good[51:]
    true_digest = base64.b64encode(bytes.fromhex(batch.manifest.tables["persons"].chunks[0])).decode()
    lying = {"Content-Digest": f"sha-256=:{true_digest}:"}
    answers = [
        (council.put(batch, id_, "persons", 0, flipped), 422, "persons chunk 0: the header's digest"),
        (council.put(batch, id_, "persons", 0, flipped, **lying), 422, "persons chunk 0: the bytes"),
        (council.put(batch, id_, "persons", 0, good[:-1], **lying), 422, "persons chunk 0:"),
        (council.put(batch, id_, "persons", 0, good + b"x", **lying), 422, "persons chunk 0: more than"),
        (council.put(batch, id_, "persons", 0, good, **{"Content-Digest": "md5=:x:"}), 400, "Content-Digest"),
        (council.put(batch, id_, "persons", 1, good), 404, "no such chunk"),
        (council.put(batch, id_, "people", 0, good), 404, "no such chunk"),
        (council.put(batch, id_, "persons", 0, good, **{"Content-Encoding": "gzip"}), 415, "encoding"),
        (council.put(batch, id_, "persons", 0, good, **{"Content-Type": "text/csv"}), 415, "Content-Type"),
        (council.put(batch, "0" * 32, "persons", 0, good), 404, "no such batch"),
    ]
    for answer, status, place in answers:
        assert (answer.status_code, place in answer.json()["detail"]) == (status, True), answer.text
    with desk.store.reading() as tx:
        assert tx.all(BatchChunkRow) == []
    assert list((desk.spool.folder / id_).iterdir()) == []
    council.fill(batch, id_)
    assert council.commit(batch, id_).status_code == 202


def test_a_commit_for_another_manifest_is_refused(council: Caller) -> None:
    batch = a_night()
    id_ = council.open(batch).json()["batch"]
    council.fill(batch, id_)
    answer = council.on(batch, id_, "commit", "POST", json={"manifest_sha256": "0" * 64})
    assert (answer.status_code, "manifest_sha256" in answer.json()["detail"]) == (422, True)
    assert council.commit(batch, id_).status_code == 202
    late = council.put(batch, id_, "persons", 0, batch.files["persons"])
    assert late.status_code == 204  # it is here already


def test_what_is_not_committed_can_be_withdrawn_and_its_night_taken_again(council: Caller, desk: Reception) -> None:
    batch = a_night()
    id_ = council.open(batch).json()["batch"]
    council.fill(batch, id_)
    assert council.on(batch, id_, method="DELETE").status_code == 204
    assert council.on(batch, id_, method="DELETE").status_code == 204
    assert desk.spool.batches() == frozenset()
    assert council.on(batch, id_).json()["reason"] == "withdrawn"
    other = council.hand_in(a_night(items=[]))
    assert council.on(batch, other, method="DELETE").status_code == 409
    desk.trail.advance_pending()
    with desk.store.reading() as reading:
        told = [row.type for row in reading.all(EventRow, order=("seq",)) if row.type.startswith("submission.")]
    assert told == ["submission.withdrawn", "submission.received"]


def test_nobody_sees_or_touches_anothers_batch(http: TestClient, council: Caller, desk: Reception) -> None:
    icb = Caller(http, ICB)
    batch = a_night()
    id_ = council.hand_in(batch)
    for answer in (
        icb.on(batch, id_), icb.on(batch, id_, "receipt"), icb.on(batch, id_, "rejections"),
        icb.on(batch, id_, method="DELETE"), icb.commit(batch, id_),
        icb.put(batch, id_, "persons", 0, batch.files["persons"]),
    ):  # fmt: skip
        assert answer.status_code == 404
    foreign = a_night(agency=COUNCIL, flow="education", sequence=2)
    assert icb.open(replace(foreign, signer=a_signer(ICB))).status_code == 403
    assert council.open(a_night(flow="health")).status_code == 404
    validation.validate_sealed(desk)
    with desk.store.reading() as tx:
        assert {row.agency for row in tx.all(ItemRow)} == {COUNCIL}


def test_a_revoked_agency_is_shut_out_at_once_and_its_receipts_stay(
    http: TestClient, council: Caller, desk: Reception
) -> None:
    done = council.hand_in(a_night())
    validation.validate_sealed(desk)
    begun = a_night(sequence=2)
    id_ = council.open(begun).json()["batch"]
    council.fill(begun, id_)
    before = everything(desk)
    agencies.set_state(desk.store, desk.trail, COUNCIL, "revoked", who={"person": "test"}, at=clock.now())
    for answer in (council.commit(begun, id_), council.open(a_night(sequence=3)), council.on(begun, id_)):
        assert answer.status_code == 403
        assert answer.json()["type"].endswith("agency-not-active")
    assert Caller(http).sign_in().status_code == 401
    assert everything(desk) == before
    assert receipts.receipt(desk, COUNCIL, "education", done, "verdict")["state"] == "accepted"


def test_a_key_revoked_in_mid_upload_stops_the_commit(council: Caller, desk: Reception) -> None:
    batch = a_night()
    id_ = council.open(batch).json()["batch"]
    council.fill(batch, id_)
    agencies.revoke_key(desk.store, desk.trail, f"{COUNCIL}/1", agency=COUNCIL, who={"person": "test"}, at=clock.now())
    answer = council.commit(batch, id_)
    assert (answer.status_code, "revoked" in answer.json()["detail"]) == (401, True)
    assert state_of(desk, id_) == "open"


def _spoilt_items(**changes: Any) -> Callable[[], Batch]:
    return lambda: a_night(
        persons=[a_person(ALICE)], items=[an_item(a_ref(1), ALICE), {**an_item(a_ref(2), ALICE), **changes}]
    )


def _more_column() -> Batch:
    batch = a_night()
    table = pq.read_table(io.BytesIO(batch.files["items"])).append_column("given_name", pa.array(["Alice", "Ben"]))
    return batch.with_files(items=parquet(table))


def _short_file() -> Batch:
    batch = a_night()
    return batch.with_files(persons=parquet([], schema_of("persons", "guarded-3")))


def _swapped_table() -> Batch:
    """Chunk digests are those of the bytes; the table's is another's."""
    batch = a_night()
    entry = replace(batch.manifest.tables["items"], sha256="0" * 64)
    return batch.saying(tables={**batch.manifest.tables, "items": entry})


@pytest.mark.parametrize(
    ("spoilt", "place"),
    [
        (_spoilt_items(category="education.gossip"), ("items", 2, "category", "unknown_category")),
        (_spoilt_items(category="health.sealed"), ("items", 2, "category", "never_ingest")),
        (_spoilt_items(code="EXPELLED"), ("items", 2, "code", "unknown_code")),
        (_spoilt_items(occurred_on=date(2205, 9, 2)), ("items", 2, "occurred_on", "bad_date")),
        (_more_column, ("items", None, "given_name", "unknown_column")),
        (_short_file, ("persons", None, None, "empty_table")),
        (_swapped_table, ("items", None, None, "wrong_digest")),
    ],
)
def test_one_bad_row_refuses_the_whole_batch_and_is_named(
    spoilt: Callable[[], Batch], place: tuple[str, int | None, str | None, str], council: Caller, desk: Reception
) -> None:
    good = council.hand_in(a_night())
    validation.validate_sealed(desk)
    before = everything(desk)
    bad = spoilt().saying(sequence=2)
    id_ = council.hand_in(bad)
    assert validation.validate_sealed(desk) == {id_: "rejected"}
    lines = [json.loads(line) for line in council.on(bad, id_, "rejections").text.splitlines()]
    table, row, column, code = place
    assert lines[0]["state"] == "rejected"
    assert {"table": table, "column": column or "", "code": code, "count": 1} in lines[0]["totals"]
    found = [line for line in lines[1:] if line["code"] == code]
    assert [(line["table"], line["row"], line["column"]) for line in found] == [(table, row, column)]
    assert all(line["hint"] for line in lines[1:])
    assert council.on(bad, id_, "receipt").json()["state"] == "rejected"
    after = everything(desk)
    assert (after["items"], after["flows"], after["spool"]) == (before["items"], before["flows"], frozenset({good}))
    corrected = council.hand_in(a_night(sequence=2, items=[]))  # the number is free again
    assert validation.validate_sealed(desk) == {corrected: "accepted"}


def test_a_zero_row_file_is_refused_before_anything_is_sent(council: Caller) -> None:
    answer = council.open(a_night(persons=[]))
    assert (answer.status_code, "manifest.tables.persons.rows" in answer.json()["detail"]) == (422, True)


def test_a_refusal_at_the_door_may_be_tried_again_under_the_same_key(council: Caller) -> None:
    batch = a_night(persons=[])
    assert council.open(batch, key="tonight-in-education").status_code == 422
    assert council.open(a_night(), key="tonight-in-education").status_code == 201


def test_the_spool_and_the_database_hold_ciphertext_only(council: Caller, desk: Reception, settings: Settings) -> None:
    batch = a_night()
    id_ = council.hand_in(batch)
    spooled = [path.read_bytes() for path in (desk.spool.folder / id_).iterdir()]
    assert len(spooled) == 3
    assert not any(b"PAR1" in raw or b"ENROLLED" in raw for raw in spooled)
    validation.validate_sealed(desk)
    database = b"".join(path.read_bytes() for path in settings.data_dir.glob("broker.sqlite*"))
    assert b"ENROLLED" not in database
    assert b"education.enrolment" in database  # what is found by is not hidden


def test_a_full_night_replaces_the_flows_items_and_no_others(
    council: Caller, http: TestClient, desk: Reception
) -> None:
    icb = Caller(http, ICB)
    icb.hand_in(a_night(agency=ICB, flow="health"))
    council.hand_in(a_night())
    council.hand_in(a_night(flow="social_care"))
    validation.validate_sealed(desk)
    council.hand_in(a_night(sequence=2, persons=[a_person(ALICE)], items=[an_item(a_ref("new"), ALICE)]))
    validation.validate_sealed(desk)
    with desk.store.reading() as tx:
        held = {(row.agency, row.flow, row.item_ref) for row in tx.all(ItemRow)}
    assert {ref for agency, flow, ref in held if (agency, flow) == (COUNCIL, "education")} == {a_ref("new")}
    assert len(held) == 1 + 2 + 2


def test_a_delta_changes_what_it_names_and_waits_for_the_night_before(council: Caller, desk: Reception) -> None:
    first = a_night(items=[an_item(a_ref("kept"), ALICE), an_item(a_ref("gone"), ALICE)], persons=[a_person(ALICE)])
    second = a_night(
        kind="delta", sequence=2, previous=first.sha256, persons=[a_person(ALICE)],
        items=[an_item(a_ref("new"), ALICE), {**an_item(a_ref("gone"), ALICE), "op": "delete"}],
    )  # fmt: skip
    third = a_night(kind="delta", sequence=3, previous=second.sha256, persons=[a_person(ALICE)], items=[])
    ids = [council.hand_in(night) for night in (third, first, second)]
    assert validation.validate_sealed(desk) == dict.fromkeys(ids, "accepted")
    with desk.store.reading() as tx:
        assert {row.item_ref for row in tx.all(ItemRow)} == {a_ref("kept"), a_ref("new")}


def test_a_gap_is_held_and_named(council: Caller, desk: Reception) -> None:
    first = a_night()
    council.hand_in(first)
    ahead = a_night(kind="delta", sequence=3, previous="0" * 64)
    id_ = council.hand_in(ahead)
    assert validation.validate_sealed(desk)[id_] == "sealed"
    shown = council.on(ahead, id_).json()
    assert (shown["state"], shown["reason"]) == ("sealed", "gap")
    wrong = a_night(kind="delta", sequence=2, previous="0" * 64)
    assert validation.validate(desk, council.hand_in(wrong)) == "rejected"


def test_a_night_that_comes_late_is_kept_and_not_applied(council: Caller, desk: Reception) -> None:
    council.hand_in(a_night(sequence=7))
    validation.validate_sealed(desk)
    before = everything(desk)["items"]
    late = council.hand_in(a_night(sequence=6, items=[]))
    assert validation.validate_sealed(desk) == {late: "superseded"}
    assert everything(desk)["items"] == before


def test_a_night_judged_while_a_newer_one_is_taken_in_is_judged_anew_and_takes_nothing_away(
    council: Caller, desk: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    council.hand_in(a_night(sequence=5))
    validation.validate_sealed(desk)
    older, newer, judge = council.hand_in(a_night(sequence=6, items=[])), [], validation.judge

    def judged_meanwhile(*given: Any, **named: Any) -> Any:
        judged = judge(*given, **named)  # the real one, and only then the newer night comes in
        if not newer:
            newer.append(council.hand_in(a_night(sequence=7)))
            assert validation.validate(desk, newer[0]) == "accepted"
        return judged

    monkeypatch.setattr(validation, "judge", judged_meanwhile)
    assert validation.validate(desk, older) == "superseded"
    with desk.store.reading() as tx:
        assert {item.batch for item in tx.all(ItemRow)} == {newer[0]}
        flow = tx.one(AgencyFlowRow, agency=COUNCIL, flow="education")
    assert flow is not None
    assert flow.last_sequence == 7


def test_a_county_is_not_deleted_by_a_short_file(council: Caller, desk: Reception) -> None:
    people = [a_person(a_ref("p", at), given=f"child{at}") for at in range(60)]
    council.hand_in(a_night(persons=people))
    validation.validate_sealed(desk)
    short = a_night(sequence=2, persons=people[:10])
    id_ = council.hand_in(short)
    assert validation.validate_sealed(desk) == {id_: "quarantined"}
    assert council.on(short, id_).json()["reason"] == "unusual_size"
    assert council.on(short, id_, "receipt").json()["state"] == "quarantined"
    assert validation.release(desk, id_, by="op-1") == "accepted"
    with pytest.raises(WrongState):
        validation.release(desk, id_, by="op-1")


def test_an_extract_from_the_future_waits_for_a_person(council: Caller, desk: Reception) -> None:
    ahead = a_night().saying(extracted_at="2035-01-01T00:00:00Z", expires_at="2035-01-03T00:00:00Z")
    id_ = council.hand_in(ahead)
    assert validation.validate_sealed(desk) == {id_: "quarantined"}
    assert council.on(ahead, id_).json()["reason"] == "from_the_future"


def test_from_midnight_after_its_agreement_s_last_day_a_feed_ingests_to_quarantine(
    council: Caller, desk: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = council.hand_in(a_night()), datetime(2099, 3, 31, 22, 59, 59, tzinfo=UTC)  # London is an hour ahead
    monkeypatch.setattr(clock, "now", lambda: last)
    assert validation.validate_sealed(desk) == {first: "accepted"}
    before = everything(desk)
    monkeypatch.undo()
    night = a_night(sequence=2)
    second = council.hand_in(night)
    monkeypatch.setattr(clock, "now", lambda: last + timedelta(seconds=1))
    assert validation.validate_sealed(desk) == {second: "quarantined"}
    assert validation.release(desk, second, by="op-1") == "quarantined"  # the parties have to sign, not we
    monkeypatch.undo()
    assert council.on(night, second).json()["reason"] == "agreement_not_live"
    assert council.on(night, second, "receipt").json()["state"] == "quarantined"
    after = everything(desk)
    assert (after["items"], after["flows"]) == (before["items"], before["flows"])
    assert second in after["spool"]


def test_an_agency_that_paused_its_sharing_is_quarantined_and_no_other(
    http: TestClient, council: Caller, desk: Reception
) -> None:
    pause(desk, COUNCIL)
    mine, icb = council.hand_in(a_night()), Caller(http, ICB).hand_in(a_night(agency=ICB, flow="health"))
    assert validation.validate_sealed(desk) == {mine: "quarantined", icb: "accepted"}
    pause(desk, COUNCIL, "resume")
    assert validation.release(desk, mine, by="op-1") == "accepted"


def test_an_agreement_that_the_host_took_out_of_force_holds_its_batches(council: Caller, desk: Reception) -> None:
    activation.suspend(desk.store, desk.trail, AGREEMENT, who={"person": "test"}, at=clock.now())
    id_ = council.hand_in(a_night())
    assert validation.validate_sealed(desk) == {id_: "quarantined"}


def test_a_draft_and_what_is_no_agreement_are_refused_by_the_place(council: Caller, desk: Reception) -> None:
    for change in ({"status": "draft"}, {"status": "active", "kind": "restriction"}):
        with desk.store.transaction() as tx:
            row = tx.one(AgreementRow, ref=AGREEMENT)
            assert row is not None
            for name, value in change.items():
                setattr(row, name, value)
            tx.add(row)
        answer = council.open(a_night())
        assert (answer.status_code, "manifest.agreements[0]" in answer.json()["detail"]) == (422, True)


def test_two_that_validate_at_once_apply_a_batch_once(council: Caller, desk: Reception) -> None:
    import threading

    id_ = council.hand_in(a_night())
    states: list[str] = []
    racers = [threading.Thread(target=lambda: states.append(validation.validate(desk, id_))) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert set(states) == {"accepted"}
    with desk.store.reading() as tx:
        assert len(tx.all(ItemRow)) == 2


def test_a_worker_that_was_killed_between_claim_and_verdict_is_followed_by_another(
    council: Caller, desk: Reception
) -> None:
    id_ = council.hand_in(a_night())
    with desk.store.transaction() as tx:
        row = tx.one(BatchRow, id=id_)
        assert row is not None
        row.state = "validating"
        tx.add(row)
    assert validation.validate_sealed(desk) == {id_: "accepted"}


def test_a_batch_that_fails_to_be_judged_keeps_no_other_out(council: Caller, desk: Reception) -> None:
    broken = council.hand_in(a_night(flow="social_care"))
    with desk.store.transaction() as tx:
        row = tx.one(BatchRow, id=broken)
        assert row is not None
        row.dek_wrapped = row.dek_wrapped[:-1] + bytes([row.dek_wrapped[-1] ^ 1])
        tx.add(row)
    fine = council.hand_in(a_night())
    assert validation.validate_sealed(desk) == {broken: "undecided", fine: "accepted"}


def test_chunks_swapped_in_the_spool_are_noticed(council: Caller, desk: Reception) -> None:
    batch = a_night()
    id_ = council.hand_in(batch)
    folder = desk.spool.folder / id_
    (folder / "items.0").write_bytes((folder / "relationships.0").read_bytes())
    assert validation.validate_sealed(desk) == {id_: "rejected"}
    assert council.on(batch, id_).json()["reason"] == "wrong_digest"


def test_nothing_decrypted_stays_behind(council: Caller, desk: Reception) -> None:
    council.hand_in(a_night())
    left = desk.spool._memory() / "a-batch-0000"
    left.parent.mkdir(mode=0o700)
    left.mkdir()
    (left / "persons.parquet").write_bytes(b"PAR1")
    validation.validate_sealed(desk)
    assert not desk.spool._memory().exists()


def test_a_folder_in_memory_that_others_can_read_is_not_used(council: Caller, desk: Reception) -> None:
    desk.spool._memory().mkdir(mode=0o755)
    id_ = council.hand_in(a_night())
    with desk.store.reading() as tx:
        row = tx.one(BatchRow, id=id_)
    assert row is not None
    key = desk.keys.data_key(row.dek_wrapped, id_)
    with desk.spool.opened(id_, a_night().manifest, key) as (folder, _):
        assert folder.is_relative_to(desk.spool.folder)
    assert desk.spool.batches() == {id_}
    desk.spool._memory().rmdir()


def test_sizes_that_do_not_fit_are_refused(council: Caller) -> None:
    batch = a_night()
    entry = batch.manifest.tables["items"]
    for changed, place in (
        (replace(entry, rows=2_000_001), "manifest.tables.items.rows"),
        (replace(entry, chunks=()), "manifest.tables.items.chunks"),
        (an_entry(b"", rows=0), "manifest.tables.items.size"),
    ):
        answer = council.open(batch.saying(tables={**batch.manifest.tables, "items": changed}))
        assert answer.status_code in (400, 413)
        assert place in answer.json()["detail"]
