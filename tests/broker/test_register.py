"""What was signed, and what of it is in force."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agreements import sign, sign_event
from agreements.vocabulary import of_lists, shipped
from broker import activation, agencies, documents, register
from broker.errors import (
    BadAgreement,
    BadSignature,
    Conflict,
    NotFound,
    WrongState,
)
from broker.keys import b64url
from broker.store import Store
from broker.store.log import EventRow
from broker.trail import Trail
from tests.broker.platform import DETAILS, OPERATOR, AnAgency

AGREEMENTS = Path(__file__).parents[2] / "deploy" / "demo" / "agreements"
UMBRELLA = (AGREEMENTS / "northshire-tier1.toml").read_bytes()
MASH = (AGREEMENTS / "northshire-mash.toml").read_bytes()
AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
COUNCIL, ICB = "northshire-council", "northshire-icb"
WHO: Mapping[str, Any] = OPERATOR


def enrolled(store: Store, trail: Trail, agency: AnAgency, **more: Any) -> Ed25519PrivateKey:
    """Enrol an agency with a signatory; the signatory's key."""
    signatory = Ed25519PrivateKey.generate()
    public = agency.public() | {
        "signatory": {
            "kid": f"{agency.id}/signatory-1",
            "public": b64url(signatory.public_key().public_bytes_raw()),
        }
    }
    enrolment = agencies.Enrolment.parse(public, {**DETAILS, **more})
    agencies.enrol(store, trail, enrolment, partnership="northshire", who=WHO, at=AT)
    return signatory


@pytest.fixture
def signatories(store: Store, trail: Trail) -> dict[str, Ed25519PrivateKey]:
    return {agency: enrolled(store, trail, AnAgency(agency)) for agency in (COUNCIL, ICB)}


def signed(source: bytes, party: str, key: Ed25519PrivateKey, *, at: datetime = AT) -> dict[str, Any]:
    umbrellas = [UMBRELLA] if source is not UMBRELLA else []
    return sign(documents.read_alone(source, umbrellas), kid=f"{party}/signatory-1", key=key, at=at)


def in_force(store: Store, trail: Trail, signatories: Mapping[str, Ed25519PrivateKey]) -> list[str]:
    """The umbrella and the hub's agreement, signed by both, and active."""
    refs = []
    for source in (UMBRELLA, MASH):
        ref = register.import_document(store, trail, source, who=WHO, at=AT)
        for party, key in signatories.items():
            register.add_signatures(store, trail, ref, signed(source, party, key), who=WHO, at=AT)
        activation.activate(store, trail, ref, who=WHO, at=AT)
        refs.append(ref)
    return refs


def live(store: Store) -> set[str]:
    with store.reading() as reading:
        return {agreement.ref for agreement in register.snapshot(reading).agreements}


def test_signed_and_active_is_in_force_and_each_step_is_in_the_log(
    store: Store, trail: Trail, signatories: dict[str, Ed25519PrivateKey]
) -> None:
    refs = in_force(store, trail, signatories)
    assert live(store) == set(refs)
    trail.advance_pending()
    with store.reading() as reading:
        types = [row.type for row in reading.all(EventRow, order=("seq",)) if row.type.startswith("agreement.")]
        listed = register.documents(reading, at=AT + timedelta(seconds=1))
    step = ["agreement.imported", "agreement.signed", "agreement.signed", "agreement.activated"]
    assert types == step * 2
    assert {each.ref: each.status for each in listed} == dict.fromkeys(refs, "active")
    assert {each.state.parties[ICB].state for each in listed} == {"signed"}


def test_twice_the_same_document_changes_nothing_and_another_text_under_its_ref_is_refused(
    store: Store, trail: Trail, signatories: dict[str, Ed25519PrivateKey]
) -> None:
    register.import_document(store, trail, UMBRELLA, who=WHO, at=AT)
    ref = register.import_document(store, trail, MASH, who=WHO, at=AT)
    assert register.import_document(store, trail, MASH, who=WHO, at=AT) == ref
    changed = MASH.replace(b"6.1 Where", b"6.1 If", 1)
    assert changed != MASH
    with pytest.raises(Conflict):
        register.import_document(store, trail, changed, who=WHO, at=AT)
    jws = signed(MASH, ICB, signatories[ICB])
    for _ in range(2):
        register.add_signatures(store, trail, ref, jws, who=WHO, at=AT)
    trail.advance_pending()
    with store.reading() as reading:
        assert len(reading.all(EventRow, type="agreement.signed")) == 1


def test_nothing_is_in_force_unsigned_or_as_a_draft(
    store: Store, trail: Trail, signatories: dict[str, Ed25519PrivateKey]
) -> None:
    ref = register.import_document(store, trail, UMBRELLA, who=WHO, at=AT)
    assert live(store) == set()
    with pytest.raises(BadAgreement):
        activation.activate(store, trail, ref, who=WHO, at=AT)
    with pytest.raises(NotFound):
        activation.activate(store, trail, "none@1.0.0", who=WHO, at=AT)


def test_suspending_takes_it_out_with_the_next_decision_and_activating_puts_it_back(
    store: Store, trail: Trail, signatories: dict[str, Ed25519PrivateKey]
) -> None:
    umbrella, mash = in_force(store, trail, signatories)
    activation.suspend(store, trail, mash, who=WHO, at=AT)
    assert live(store) == {umbrella}
    with pytest.raises(WrongState):
        activation.suspend(store, trail, mash, who=WHO, at=AT)
    activation.activate(store, trail, mash, who=WHO, at=AT)
    assert live(store) == {umbrella, mash}


def test_what_stands_under_an_umbrella_falls_with_it(
    store: Store, trail: Trail, signatories: dict[str, Ed25519PrivateKey]
) -> None:
    umbrella, _ = in_force(store, trail, signatories)
    activation.suspend(store, trail, umbrella, who=WHO, at=AT)
    assert live(store) == set()


def test_a_signature_over_another_text_by_another_key_or_another_party_is_refused(
    store: Store, trail: Trail, signatories: dict[str, Ed25519PrivateKey]
) -> None:
    register.import_document(store, trail, UMBRELLA, who=WHO, at=AT)
    ref = register.import_document(store, trail, MASH, who=WHO, at=AT)
    good = signed(MASH, ICB, signatories[ICB])
    for wrong in (
        signed(UMBRELLA, ICB, signatories[ICB]),
        signed(MASH, ICB, signatories[COUNCIL]),
        good | {"payload": good["payload"][:-4] + "AAAA"},
        {"payload": good["payload"], "signatures": []},
        {},
    ):
        with pytest.raises(BadSignature):
            register.add_signatures(store, trail, ref, wrong, who=WHO, at=AT)
    assert register.ref_signed(store, good) == ref
    with pytest.raises(BadSignature):
        register.ref_signed(store, {})


def test_a_revoked_signatory_s_old_signature_still_counts_and_the_batch_key_never_does(
    store: Store, trail: Trail, signatories: dict[str, Ed25519PrivateKey]
) -> None:
    refs = in_force(store, trail, signatories)
    agencies.revoke_key(store, trail, f"{ICB}/signatory-1", agency=ICB, who=WHO, at=AT + timedelta(days=1))
    with store.reading() as reading:
        assert {signature.party for signature in register.snapshot(reading).signatures} == {COUNCIL, ICB}
    assert live(store) == set(refs)
    with pytest.raises(Conflict):  # enrolling the batch key as signatory's
        agency = AnAgency(COUNCIL)
        agencies.enrol(
            store, trail, agencies.Enrolment.parse(agency.public(), DETAILS), partnership="northshire", who=WHO, at=AT
        )


def test_a_party_s_own_event_is_kept_and_read_by_decisions(
    store: Store, trail: Trail, signatories: dict[str, Ed25519PrivateKey]
) -> None:
    _, mash = in_force(store, trail, signatories)
    document = documents.read_alone(MASH, [UMBRELLA])
    kid, at = f"{ICB}/signatory-1", AT + timedelta(hours=1)
    event = sign_event(document, "suspend", kid=kid, key=signatories[ICB], at=at)
    assert register.add_party_event(store, trail, mash, event, who=WHO, at=at).do == "suspend"
    with store.reading() as reading:
        assert [(one.party, one.do) for one in register.snapshot(reading).events] == [(ICB, "suspend")]
        states = {each.ref: each.state for each in register.documents(reading, at=at + timedelta(seconds=1))}
    assert (states[mash].name, states[mash].parties[ICB].state) == ("active", "suspended")
    forged = sign_event(document, "resume", kid=kid, key=signatories[COUNCIL], at=at)
    with pytest.raises(BadSignature):
        register.add_party_event(store, trail, mash, forged, who=WHO, at=AT)


def test_the_snapshot_is_compiled_once_for_one_state_of_the_register(
    store: Store, trail: Trail, signatories: dict[str, Ed25519PrivateKey]
) -> None:
    in_force(store, trail, signatories)
    with store.reading() as reading:
        first = register.snapshot(reading)
        assert register.snapshot(reading) is first
    agencies.revoke_key(store, trail, f"{ICB}/signatory-1", agency=ICB, who=WHO, at=AT + timedelta(days=1))
    with store.reading() as reading:
        assert register.snapshot(reading) is not first


def test_what_can_not_be_read_says_every_finding(store: Store, trail: Trail) -> None:
    with pytest.raises(BadAgreement):
        register.import_document(store, trail, b"format = 1", who=WHO, at=AT)
    with pytest.raises(BadAgreement):  # its umbrella is not here
        register.import_document(store, trail, MASH, who=WHO, at=AT)
    assert any(finding.severity == "refused" for finding in documents.findings(b"kind = 1"))
    assert not any(finding.severity == "refused" for finding in documents.findings(MASH, [UMBRELLA]))


def test_what_is_in_force_has_another_mark_from_the_day_a_statute_comes_into_force(
    store: Store, trail: Trail, signatories: dict[str, Ed25519PrivateKey]
) -> None:
    in_force(store, trail, signatories)
    lists = shipped()
    lists["gateways"]["ca2004-s16la"]["commences"] = "2026-12-01"
    appointed, midnight = of_lists(lists), datetime(2026, 12, 1, tzinfo=UTC)
    instants = (
        midnight - timedelta(hours=3),
        midnight - timedelta(microseconds=1),
        midnight,
        midnight + timedelta(days=2),
    )
    with store.reading() as reading:
        marks = [register.mark_in_force(reading, COUNCIL, at=at, vocabulary=appointed) for at in instants]
        assert marks[0] == marks[1] != marks[2] == marks[3]
        assert register.mark_in_force(reading, COUNCIL, at=midnight) == marks[0]
