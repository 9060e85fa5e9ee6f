"""What it takes to put an agreement in force, and who may not; what a newer version replaces; what falls due."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agreements import Basis, Mode, Request, Snapshot, read, sign, sign_event, verify
from agreements.agreement import Agreement, Period
from agreements.analysis import diff
from agreements.analysis.boxes import EVER
from agreements.assurance import Gap, gaps
from agreements.bundle import pack, unpack
from agreements.signing import Act, PartyKey
from agreements.vocabulary import VOCABULARY
from broker import activation, analysing, expiry, register
from broker.agencies import Enrolment, enrol
from broker.errors import BadAgreement, BadSignature, NotAllowed, UnsafeRegister, WrongState
from broker.keys import Keys
from broker.store import Store
from broker.store.agencies import AgencyRow
from broker.store.documents import AgreementRow, AgreementStatusRow
from broker.store.log import EventRow
from broker.store.searches import SearchRow
from broker.trail import Trail
from tests.broker.platform import AnAgency
from tests.broker.test_register import COUNCIL, DETAILS, ICB, MASH, UMBRELLA, WHO, enrolled

POLICE, HUBS = "northshire-police", "northshire-family-hubs"
AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
OFFICER = {**WHO, "person": "ig-1"}
RULE = b"""
format = 1
kind = "restriction"
id = "northshire-icb-r12"
version = "1.0.0"
vocabulary = "uk-safeguarding@2026.1"
owner = "northshire-icb"
authority = "court_order"
text = "Family court order: missed appointments at most as a status."
period = {effective = 2026-05-01, expires = 2027-04-30}
subject = {record_ref = "r_7Q2M4XK9TD"}
categories = ["health.not_brought"]
at_most = "status"
"""
NEXT_UMBRELLA = UMBRELLA.replace(b'version = "2.1.0"', b'version = "3.0.0"', 1).replace(
    b"effective = 2026-04-01, expires = 2028-03-31, review_by = 2027-03-31",
    b"effective = 2026-11-20, expires = 2030-03-31, review_by = 2029-03-31",
)
UNDER_THE_NEXT = MASH.replace(b"northshire-tier1@2.1.0", b"northshire-tier1@3.0.0", 1)


def newer(source: bytes = MASH, version: bytes = b"3.1.0", **changed: bytes) -> bytes:
    """The hub's agreement in a newer version, with other words."""
    made = source.replace(b'version = "3.0.0"', b'version = "' + version + b'"', 1)
    for old, new in {"effective = 2026-04-01": changed.get("effective", b"effective = 2026-04-01")}.items():
        made = made.replace(old.encode(), new)
    return made


class Hub:
    """A register, and the parties' signatories."""

    def __init__(self, store: Store, trail: Trail) -> None:
        self.store, self.trail = store, trail
        types = {COUNCIL: "local_authority", ICB: "nhs", POLICE: "police", HUBS: "charity"}
        self.agencies = {party: AnAgency(party) for party in types}
        self.keys = {
            party: enrolled(store, trail, self.agencies[party], party_type=kind) for party, kind in types.items()
        }

    def becomes(self, party: str, kind: str, *, at: datetime = AT) -> None:
        enrolment = Enrolment.parse(self.agencies[party].public(), {**DETAILS, "party_type": kind})
        enrol(self.store, self.trail, enrolment, partnership="northshire", who=WHO, at=at)

    def document(self, source: bytes) -> Any:
        umbrellas = [read(text) for text in (UMBRELLA, NEXT_UMBRELLA)]
        return read(source, umbrellas=[one for one in umbrellas if isinstance(one, Agreement)])

    def take_in(self, source: bytes, *parties: str, at: datetime = AT) -> str:
        ref = register.import_document(self.store, self.trail, source, who=WHO, at=at)
        for party in parties:
            jws = sign(self.document(source), kid=f"{party}/signatory-1", key=self.keys[party], at=at)
            register.add_signatures(self.store, self.trail, ref, jws, who=WHO, at=at)
        return ref

    def put_in_force(self, source: bytes, *parties: str, at: datetime = AT, who: Mapping[str, Any] = OFFICER) -> str:
        ref = self.take_in(source, *parties, at=at)
        activation.activate(self.store, self.trail, ref, who=who, at=at)
        return ref

    def event(self, source: bytes, by: str, do: Act, *, at: datetime = AT, **more: Any) -> str:
        document = self.document(source)
        jws = sign_event(document, do, kid=f"{by}/signatory-1", key=self.keys[by], at=at)
        return register.add_party_event(self.store, self.trail, document.ref, jws, who=WHO, at=at, **more).do

    def snapshot(self) -> Snapshot:
        with self.store.reading() as reading:
            return register.snapshot(reading)

    def listed(self, ref: str, at: datetime = AT) -> register.Listed:
        with self.store.reading() as reading:
            return next(row for row in register.documents(reading, at=at) if row.ref == ref)

    def types(self) -> list[str]:
        self.trail.advance_pending()
        with self.store.reading() as reading:
            return [row.type for row in reading.all(EventRow, order=("seq",))]

    def live(self, ref: str, source: str, recipient: str, at: datetime) -> bool:
        snapshot = self.snapshot()
        (agreement,) = [one for one in snapshot.agreements if one.ref == ref]
        return snapshot.standing(agreement, source, recipient, at).live


@pytest.fixture
def hub(store: Store, trail: Trail) -> Hub:
    made = Hub(store, trail)
    made.put_in_force(UMBRELLA, COUNCIL, ICB, POLICE)
    return made


# --- Gates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("party", "kind", "says"),
    [
        (COUNCIL, "local_authority", None),
        (HUBS, "charity", None),
        (HUBS, "local_authority", "the register has northshire-family-hubs as local_authority, which is a public"),
        (HUBS, "a type nobody knows", "which is a public authority; write public_authority = true in a new version"),
        (COUNCIL, "charity", "the register has northshire-council as charity, which is no public authority"),
    ],
)
def test_whether_a_party_is_a_public_authority_is_the_registers_to_say(
    store: Store, trail: Trail, party: str, kind: str, says: str | None
) -> None:
    hub = Hub(store, trail)
    ref = hub.take_in(UMBRELLA, COUNCIL, ICB)
    with store.transaction() as tx:
        row = tx.one(AgencyRow, id=party)
        assert row is not None
        row.party_type = kind
        tx.add(row)
    if says is None:
        assert activation.activate(store, trail, ref, who=OFFICER, at=AT) is not None
        if party == HUBS:  # nor may it become one later, unasked
            agency = AnAgency(party)
            with pytest.raises(WrongState, match="as local_authority is a public authority, and northshire-"):
                enrolled(store, trail, agency, party_type="local_authority")
        return
    with pytest.raises(activation.NotAssured, match=says) as refused:
        activation.activate(store, trail, ref, who=OFFICER, at=AT)
    assert [gap.code for gap in refused.value.gaps] == ["BASIS_INVALID_FOR_PARTY"]
    assert hub.snapshot().agreements == ()


@pytest.mark.parametrize("how", ["replaced", "left"])
def test_a_version_that_can_come_into_force_no_more_holds_up_no_change_of_a_partys_type(hub: Hub, how: str) -> None:
    alone = b"\n".join(line for line in MASH.split(b"\n") if not line.startswith(b"under"))
    as_charity = alone.replace(b"public_authority = true", b"public_authority = false", 1)
    hub.becomes(COUNCIL, "charity")
    hub.put_in_force(as_charity, COUNCIL, ICB)
    with pytest.raises(WrongState, match=r"northshire-mash@3\.0\.0, in force, says it is none"):
        hub.becomes(COUNCIL, "local_authority")
    if how == "replaced":
        activation.suspend(hub.store, hub.trail, hub.put_in_force(newer(as_charity), COUNCIL, ICB), who=OFFICER, at=AT)
    else:
        hub.event(as_charity, COUNCIL, "withdraw")
    hub.becomes(COUNCIL, "local_authority", at=AT + timedelta(seconds=1))


def without(*parts: bytes) -> Callable[[bytes], bytes]:
    def strike(source: bytes) -> bytes:
        for part in parts:
            assert part in source
            source = source.replace(part, b"")
        return source

    return strike


@pytest.mark.parametrize(
    ("change", "code", "path"),
    [
        (without(b" approved = 2026-02-11,"), "NO_DPIA", "assurance.approved"),
        (
            lambda text: text.replace(b"approved = 2026-02-11", b"approved = 2026-11-03"),
            "NO_DPIA",
            "assurance.approved",
        ),
        (
            lambda text: text.replace(b'signs_as = "Caldicott Guardian"', b'signs_as = "Chief Executive"').replace(
                b', caldicott_guardian = "Chief Nurse"', b""
            ),
            "NO_CALDICOTT",
            "parties[1]",
        ),
        (lambda text: text.replace(b'"health.not_brought", ', b"", 1), None, ""),
    ],
)
def test_an_agreement_is_put_in_force_only_with_its_papers_and_the_guardian(
    hub: Hub, change: Callable[[bytes], bytes], code: str | None, path: str
) -> None:
    ref = hub.take_in(change(MASH), COUNCIL, ICB)
    if code is None:
        assert activation.activate(hub.store, hub.trail, ref, who=OFFICER, at=AT) is not None
        return
    with pytest.raises(activation.NotAssured) as refused:
        activation.activate(hub.store, hub.trail, ref, who=OFFICER, at=AT)
    assert [(gap.code, gap.path) for gap in refused.value.gaps] == [(code, path)]
    assert all(gap.fix for gap in refused.value.gaps)
    assert hub.listed(ref).state.name == "in_signature"


def test_every_paper_has_its_code_and_a_missing_legal_row_its_place() -> None:
    umbrella = read(UMBRELLA)
    assert isinstance(umbrella, Agreement)
    document = read(MASH, umbrellas=[umbrella])
    assert isinstance(document, Agreement)
    body = document.body

    def found(**changes: Any) -> tuple[Gap, ...]:
        from dataclasses import replace

        import rfc8785

        return gaps(replace(document, canonical=rfc8785.dumps(body | changes)), VOCABULARY, on=AT.date())

    assert found() == gaps(umbrella, VOCABULARY, on=AT.date()) == ()
    codes = [gap.code for gap in found(assurance={})]
    assert codes == ["NO_DPIA", "NO_NOTICE", "NO_APD"]
    assert {gap.code for gap in found(legal=body["legal"][1:])} == {"NO_LEGAL_ROW"}
    assert all(gap.path.startswith(("grants[", "flows[")) for gap in found(legal=body["legal"][1:]))
    none = found(legal=[])
    assert {gap.code for gap in none} == {"NO_LEGAL_ROW"}
    assert {gap.path for gap in none} >= {f"grants[{index}]" for index in range(len(body["grants"]))}


@pytest.mark.parametrize(
    ("signs_as", "signs"),
    [
        ("Caldicott Guardian", True),
        ("caldicott  guardian", True),
        ("Caldicott Guardian, northshire-icb", True),
        ("Caldicott Guardian, NHS Northshire ICB", True),
        ("Caldicott Guardian, on behalf of nobody", False),
        ("Caldicott Guardian, northshire-council", False),
        ("Caldicott Guardian's secretary", False),
        ("Caldicott Guardian (post vacant)", False),
    ],
)
def test_the_guardian_signs_by_the_title_itself_or_with_the_name_of_its_own_organisation(
    signs_as: str, *, signs: bool
) -> None:
    umbrella = read(UMBRELLA)
    assert isinstance(umbrella, Agreement)
    text = MASH.replace(
        b'signs_as = "Caldicott Guardian"', f'signs_as = "{signs_as}", legal_entity = "NHS Northshire ICB"'.encode()
    ).replace(b', caldicott_guardian = "Chief Nurse"', b"")
    document = read(text, umbrellas=[umbrella])
    assert isinstance(document, Agreement)
    assert [gap.code for gap in gaps(document, VOCABULARY, on=AT.date())] == ([] if signs else ["NO_CALDICOTT"])


def test_an_agreement_without_any_legal_row_is_not_put_in_force(hub: Hub) -> None:
    head, *rows = MASH.split(b"[[legal]]")
    rest = rows[-1].partition(b"\n[")[2]
    ref = hub.take_in(head + b"[" + rest, COUNCIL, ICB)
    with pytest.raises(activation.NotAssured, match="NO_LEGAL_ROW: grants") as refused:
        activation.activate(hub.store, hub.trail, ref, who=OFFICER, at=AT)
    assert all("[[legal]]" in gap.fix for gap in refused.value.gaps)


def test_what_is_unsigned_has_ended_or_lacks_its_umbrella_is_not_put_in_force(hub: Hub) -> None:
    unsigned = hub.take_in(MASH)
    with pytest.raises(BadAgreement, match="signed by nobody"):
        activation.activate(hub.store, hub.trail, unsigned, who=OFFICER, at=AT)
    ref = hub.take_in(MASH, COUNCIL, ICB)
    with pytest.raises(BadAgreement, match="DSA_EXPIRED"):
        activation.activate(hub.store, hub.trail, ref, who=OFFICER, at=datetime(2028, 4, 1, tzinfo=UTC))
    activation.suspend(hub.store, hub.trail, "northshire-tier1@2.1.0", who=OFFICER, at=AT)
    with pytest.raises(WrongState, match="stands under"):
        activation.activate(hub.store, hub.trail, ref, who=OFFICER, at=AT)


# --- Whose hand -----------------------------------------------------------------------------------------------------


def a_search(person: str, at: datetime, agency: str = COUNCIL) -> SearchRow:
    return SearchRow(
        id=f"search-{person}-{at:%s}", agency=agency, person=person, role="MASH_ANALYST", session="s", purpose="S47",
        basis={}, case_hmac="", household=[], family_informed="yes", run=None, event_id="e", outcome="searched",
        created_at=at, expires_at=at + timedelta(hours=8),
    )  # fmt: skip


def test_who_asks_may_not_put_an_agreement_in_force_and_who_did_may_not_ask_under_it(hub: Hub) -> None:
    ref = hub.take_in(MASH, COUNCIL, ICB)
    with hub.store.transaction() as tx:
        tx.add(a_search("p-17", AT - timedelta(days=300)), a_search("p-old", AT - timedelta(days=400)))
        tx.add(a_search("ig-1", AT, agency=HUBS))
    with pytest.raises(NotAllowed, match="p-17 has asked"):
        activation.activate(hub.store, hub.trail, ref, who={**WHO, "person": "p-17"}, at=AT)
    activation.activate(hub.store, hub.trail, ref, who={**WHO, "person": "p-old"}, at=AT)
    with hub.store.reading() as reading:
        theirs, barred = activation.snapshot_for(reading, "p-old")
        assert barred == (ref,)
        assert {one.ref for one in theirs.agreements} == {"northshire-tier1@2.1.0"}
        everybody, none = activation.snapshot_for(reading, "p-17")
        assert (none, everybody) == ((), register.snapshot(reading))
        umbrellas, under = activation.snapshot_for(reading, "ig-1")  # who put the umbrella in force
        assert (under, umbrellas.agreements) == ((ref, "northshire-tier1@2.1.0"), ())
    assert hub.listed(ref).approved_by == "p-old"


def test_what_has_ended_or_gives_nothing_of_what_is_asked_bars_nobody(hub: Hub) -> None:
    ref = hub.take_in(MASH, COUNCIL, ICB)
    activation.activate(hub.store, hub.trail, ref, who={**WHO, "person": "p-old"}, at=AT)
    agreement = hub.document(MASH)
    assert isinstance(agreement, Agreement)
    grant = next(one for one in agreement.grants if ICB in one.sources and one.break_glass is None)
    request = Request(
        organisation=COUNCIL, role="SOCIAL_WORKER", purpose="S47", basis=Basis(art6="public_task"),
        asked=dict.fromkeys(grant.modes, Mode.EXISTENCE),
    )  # fmt: skip
    with hub.store.reading() as reading:
        barred = activation.snapshot_for(reading, "p-old")[1]
        assert activation.barring(reading, barred, request, at=AT) == (ref,)
        over = agreement.period.end
        assert activation.barring(reading, barred, request, at=over - timedelta(seconds=1)) == (ref,)
        assert activation.barring(reading, barred, request, at=over) == ()
        stranger = replace(request, organisation="a-charity")
        assert activation.barring(reading, barred, stranger, at=AT) == ()
        counted = replace(request, asked={"health.not_brought": Mode.AGGREGATE})
        assert activation.barring(reading, barred, counted, at=AT) == ()
        assert activation.barring(reading, (), request, at=AT) == ()


def test_another_hand_sets_right_who_approved(hub: Hub) -> None:
    ref = hub.put_in_force(MASH, COUNCIL, ICB, who={**WHO, "person": "p-17"})
    activation.suspend(hub.store, hub.trail, ref, who=OFFICER, at=AT)
    activation.activate(hub.store, hub.trail, ref, who=OFFICER, at=AT)
    with hub.store.reading() as reading:
        assert activation.approved_by(reading, "p-17") == frozenset()
        assert activation.approved_by(reading, "ig-1") == {ref, "northshire-tier1@2.1.0"}


# --- Versions -------------------------------------------------------------------------------------------------------


def test_a_newer_version_takes_the_place_of_the_older_for_those_who_signed_it_from_its_first_day(hub: Hub) -> None:
    old = hub.put_in_force(MASH, COUNCIL, ICB, POLICE)
    first = datetime(2026, 12, 1, tzinfo=UTC)
    text = newer(effective=b"effective = 2026-12-01")
    new = hub.put_in_force(text, COUNCIL, ICB, at=AT + timedelta(hours=1))
    before, after = first - timedelta(seconds=1), first
    assert hub.live(old, COUNCIL, ICB, before)
    assert not hub.live(new, COUNCIL, ICB, before)
    assert not hub.live(old, COUNCIL, ICB, after)
    assert hub.live(new, COUNCIL, ICB, after)
    assert not hub.live(old, POLICE, ICB, after)  # the ICB has moved on; the police have yet to sign
    assert not hub.live(new, POLICE, ICB, after)
    assert (hub.listed(new, before).state.name, hub.listed(new, after).state.name) == ("agreed", "active")
    assert (hub.listed(old, before).state.name, hub.listed(old, after).state.name) == ("active", "superseded")
    joins = first + timedelta(days=3)
    hub.take_in(text, POLICE, at=joins)
    assert hub.live(new, POLICE, ICB, joins)
    assert hub.listed(old, joins).state.parties[POLICE].state == "superseded"
    assert hub.types().count("agreement.superseded") == 3


def test_what_was_replaced_does_not_come_back_when_the_newer_version_is_stopped(hub: Hub) -> None:
    old = hub.put_in_force(MASH, COUNCIL, ICB)
    new = hub.put_in_force(newer(), COUNCIL, ICB, at=AT)
    later = AT + timedelta(seconds=1)
    assert hub.live(new, COUNCIL, ICB, later)
    activation.suspend(hub.store, hub.trail, new, who=OFFICER, at=later)
    assert not hub.live(old, COUNCIL, ICB, later)
    activation.suspend(hub.store, hub.trail, old, who=OFFICER, at=later)
    activation.activate(hub.store, hub.trail, old, who=OFFICER, at=later)
    assert not hub.live(old, COUNCIL, ICB, later)


def test_an_older_version_put_in_force_later_gives_nothing_to_those_who_signed_the_newer(hub: Hub) -> None:
    hub.put_in_force(newer(), COUNCIL, ICB, at=AT)
    old = hub.put_in_force(MASH, COUNCIL, ICB, at=AT)
    assert not hub.live(old, COUNCIL, ICB, AT + timedelta(seconds=1))


def test_that_a_version_was_replaced_is_signed_by_the_host_and_replays_offline(hub: Hub, keys: Keys) -> None:
    old = hub.put_in_force(MASH, COUNCIL, ICB)
    hub.put_in_force(newer(), COUNCIL, ICB, at=AT)
    with hub.store.reading() as reading:
        rows = reading.all(AgreementStatusRow, agreement=old, status="superseded")
        registered = list(register.party_keys(reading).values())
        signatures = register.signatures_kept(reading, hub.listed(old).digest)
    ours = PartyKey(keys.receipt_kid, keys.receipt_key.public_key())
    events = [json.loads(row.jws or "") for row in rows]
    packed = pack([read(UMBRELLA), hub.document(MASH)], signatures, events, [*registered, ours])
    opened = unpack(packed).snapshot
    assert {(event.party, event.do) for event in opened.events} == {(COUNCIL, "supersede"), (ICB, "supersede")}
    forged = PartyKey(keys.receipt_kid, Ed25519PrivateKey.generate().public_key())
    from agreements.bundle import BundleRefused

    with pytest.raises(BundleRefused):
        unpack(packed, trusted=[*registered, forged])


def test_who_has_not_signed_the_newer_versions_umbrella_stays_in_the_older_until_it_has(hub: Hub) -> None:
    old = hub.put_in_force(MASH, COUNCIL, ICB, POLICE)
    hub.put_in_force(NEXT_UMBRELLA, COUNCIL, ICB)
    new = hub.put_in_force(newer(UNDER_THE_NEXT), COUNCIL, ICB, POLICE)
    before, first = datetime(2026, 11, 19, 12, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC)
    assert hub.live(old, COUNCIL, ICB, before)  # the newer one's umbrella begins a day later
    assert not hub.live(old, COUNCIL, ICB, first)
    assert hub.live(new, COUNCIL, ICB, first)
    assert hub.listed(old, first).state.parties[POLICE].state == "signed"
    joins = first + timedelta(days=3)
    hub.take_in(NEXT_UMBRELLA, POLICE, at=joins)
    assert hub.live(new, POLICE, ICB, joins)
    assert hub.listed(old, joins).state.name == "superseded"


@pytest.mark.parametrize("what", ["fewer purposes", "another umbrella", "a rule"])
def test_what_is_foretold_of_a_document_is_what_comes_when_all_have_signed_it(hub: Hub, what: str) -> None:
    hub.put_in_force(MASH, COUNCIL, ICB, POLICE)
    if what == "another umbrella":
        hub.put_in_force(NEXT_UMBRELLA, COUNCIL, ICB)
    source, signing = {
        "fewer purposes": (
            newer(effective=b"effective = 2026-12-01").replace(b'"CHILD_PROTECTION"', b'"S47"'),
            (COUNCIL, ICB, POLICE),
        ),
        "another umbrella": (newer(UNDER_THE_NEXT), (COUNCIL, ICB, POLICE)),
        "a rule": (RULE, (ICB,)),
    }[what]
    before, ref = hub.snapshot(), hub.take_in(source)
    with hub.store.reading() as reading:
        foretold = analysing.against_register(reading, analysing.candidate_of(reading, ref), at=AT)
    hub.take_in(source, *signing)
    if what != "a rule":
        activation.activate(hub.store, hub.trail, ref, who=OFFICER, at=AT)
    came = diff(before, hub.snapshot(), VOCABULARY, period=Period(AT, EVER.end))
    assert came.lines() == foretold.lines() != []


@pytest.mark.parametrize("how", ["over", "unreviewed"])
def test_a_version_that_could_show_nothing_takes_no_other_ones_place(hub: Hub, how: str) -> None:
    at = datetime(2028, 4, 3, 9, tzinfo=UTC)
    hub.put_in_force(NEXT_UMBRELLA, COUNCIL, ICB, at=at)
    running = b"effective = 2028-04-01, expires = 2030-03-31, review_by = 2029-03-31"
    for_good = UNDER_THE_NEXT.replace(b"effective = 2026-04-01, expires = 2028-03-31, review_by = 2027-03-31", running)
    old = hub.put_in_force(newer(for_good, b"4.0.0"), COUNCIL, ICB, at=at)
    if how == "over":  # it stands under the umbrella that has ended
        empty, code = newer(for_good.replace(b"northshire-tier1@3.0.0", b"northshire-tier1@2.1.0"), b"5.0.0"), "EXPIRED"
    else:
        late = for_good.replace(b"review_by = 2029-03-31", b"review_by = 2028-04-02")
        empty, code = (
            newer(late.replace(b'if_review_overdue = "warn"', b'if_review_overdue = "suspend"'), b"5.0.0"),
            "SUSPENDED",
        )
    with pytest.raises(BadAgreement, match=f"DSA_{code}: .*; sign a new version"):
        hub.put_in_force(empty, COUNCIL, ICB, at=at)
    assert hub.live(old, COUNCIL, ICB, at + timedelta(seconds=1))


# --- After the language has become stricter ---------------------------------------------------------------------------


def spoil(hub: Hub, ref: str) -> None:
    """A text that loaded when it was taken in, and loads no more."""
    with hub.store.transaction() as tx:
        row = tx.one(AgreementRow, ref=ref)
        assert row is not None
        row.document = row.document.replace(b"format = 1", b"format = 0", 1)
        tx.add(row)


@pytest.mark.parametrize("status", ["draft", "active"])
def test_a_document_that_loads_no_more_shows_nothing_and_holds_up_no_other(hub: Hub, status: str) -> None:
    old = hub.take_in(MASH, COUNCIL, ICB) if status == "draft" else hub.put_in_force(MASH, COUNCIL, ICB)
    spoil(hub, old)
    assert {one.ref for one in hub.snapshot().agreements} == {"northshire-tier1@2.1.0"}
    hub.becomes(COUNCIL, "local_authority")
    with hub.store.reading() as reading:
        assert register.unread(reading) == {old: "format: it is another; write 1"}
        assert [one.ref for one in register.documents(reading, at=AT)] == ["northshire-tier1@2.1.0"]
    new = hub.put_in_force(newer(), COUNCIL, ICB)
    assert hub.live(new, COUNCIL, ICB, AT)
    assert expiry.tell(hub.store, hub.trail, who=WHO, at=AT) == []
    with pytest.raises(BadAgreement, match=rf"{old} does not load any more: format: "):
        hub.event(MASH, ICB, "withdraw")


def test_a_restriction_that_loads_no_more_stops_all_disclosure_and_is_named(hub: Hub) -> None:
    spoil(hub, hub.take_in(RULE, ICB))
    with pytest.raises(UnsafeRegister, match=r"restriction northshire-icb-r12@1\.0\.0 does not load any more: format"):
        hub.snapshot()


# --- A party's own acts ------------------------------------------------------------------------------------------------


def test_a_party_stops_its_own_disclosures_and_no_other(hub: Hub) -> None:
    ref = hub.put_in_force(MASH, COUNCIL, ICB, POLICE)
    at = AT + timedelta(hours=1)
    assert hub.event(MASH, ICB, "suspend", at=at, party=ICB) == "suspend"
    assert not hub.live(ref, ICB, COUNCIL, at)
    assert hub.live(ref, COUNCIL, ICB, at)
    assert hub.live(ref, POLICE, ICB, at)
    assert hub.listed(ref, at).state.name == "active"
    assert hub.event(MASH, ICB, "suspend", at=at) == "suspend"  # said twice, kept once
    assert hub.types().count("agreement.suspended") == 1
    assert hub.event(MASH, ICB, "resume", at=at + timedelta(hours=1)) == "resume"
    assert hub.live(ref, ICB, COUNCIL, at + timedelta(hours=1))


def test_an_event_of_another_party_of_tomorrow_or_of_one_who_has_left_is_refused(hub: Hub) -> None:
    ref = hub.put_in_force(MASH, COUNCIL, ICB)
    with pytest.raises(BadSignature, match=f"{COUNCIL}'s, not {ICB}'s"):
        hub.event(MASH, COUNCIL, "suspend", party=ICB)
    with pytest.raises(BadSignature, match="ahead of now"):
        jws = sign_event(
            hub.document(MASH), "suspend", kid=f"{ICB}/signatory-1", key=hub.keys[ICB], at=AT + timedelta(days=1)
        )
        register.add_party_event(hub.store, hub.trail, ref, jws, who=WHO, at=AT)
    with pytest.raises(BadSignature, match="ahead of now"):
        hub.take_in(newer(), COUNCIL, at=AT)
        jws = sign(hub.document(newer()), kid=f"{ICB}/signatory-1", key=hub.keys[ICB], at=AT + timedelta(hours=1))
        register.add_signatures(hub.store, hub.trail, register.ref_signed(hub.store, jws), jws, who=WHO, at=AT)
    with pytest.raises(WrongState, match="unsigned"):
        hub.event(MASH, POLICE, "suspend")
    hub.event(MASH, ICB, "withdraw")
    with pytest.raises(WrongState, match="withdrawn"):
        hub.event(MASH, ICB, "resume", at=AT + timedelta(seconds=1))


# --- Restrictions ----------------------------------------------------------------------------------------------------


def test_a_restriction_holds_back_as_soon_as_its_owner_has_signed_it_and_until_its_owner_lifts_it(hub: Hub) -> None:
    ref = hub.take_in(RULE)
    assert hub.snapshot().restrictions == ()
    hub.take_in(RULE, ICB)
    assert [one.record for one in hub.snapshot().restrictions] == ["r_7Q2M4XK9TD"]
    assert hub.listed(ref).state.name == "active"
    with pytest.raises(WrongState, match="nobody pauses it"):
        hub.event(RULE, ICB, "suspend")
    with pytest.raises(WrongState, match="its owner withdraws it"):
        activation.suspend(hub.store, hub.trail, ref, who=OFFICER, at=AT)
    with pytest.raises(BadSignature, match="no party"):
        hub.event(RULE, COUNCIL, "withdraw")
    hub.event(RULE, ICB, "withdraw")
    assert hub.listed(ref).state.name == "terminated"
    assert not any(hub.snapshot().in_force(one, AT) for one in hub.snapshot().restrictions)
    assert [kind for kind in hub.types() if kind.startswith("restriction.")] == [
        "restriction.added",
        "restriction.lifted",
    ]


def test_a_restriction_of_another_signature_or_that_is_an_agreement_is_refused(hub: Hub) -> None:
    hub.take_in(RULE)
    jws = sign(hub.document(RULE), kid=f"{ICB}/signatory-1", key=hub.keys[COUNCIL], at=AT)
    with pytest.raises(BadSignature):
        register.add_signatures(hub.store, hub.trail, "northshire-icb-r12@1.0.0", jws, who=WHO, at=AT)
    with pytest.raises(BadAgreement, match="not a restriction"):
        register.import_restriction(hub.store, hub.trail, MASH, who=WHO, at=AT)


# --- What falls due ------------------------------------------------------------------------------------------------------


def test_each_thing_that_falls_due_is_told_once_and_is_in_the_log(hub: Hub) -> None:
    ref = hub.put_in_force(MASH, COUNCIL, ICB)
    hub.take_in(RULE, ICB)

    def told(at: datetime) -> list[tuple[str, str]]:
        done = expiry.tell(hub.store, hub.trail, who=WHO, at=at)
        assert expiry.tell(hub.store, hub.trail, who=WHO, at=at) == []
        assert all(one["words"].startswith(one["ref"]) for one in done)
        return [(one["ref"], one["code"]) for one in done if one["ref"] != "northshire-tier1@2.1.0"]

    rule = "northshire-icb-r12@1.0.0"
    assert told(AT) == []
    assert told(datetime(2027, 3, 1, 12, tzinfo=UTC)) == [(rule, "expiry-60"), (ref, "review-30")]
    assert told(datetime(2027, 3, 2, 12, tzinfo=UTC)) == []
    assert told(datetime(2027, 3, 31, 22, 59, tzinfo=UTC)) == [(rule, "expiry-30"), (ref, "review-7")]
    assert told(datetime(2027, 3, 31, 23, tzinfo=UTC)) == [(ref, "review-overdue")]
    assert told(datetime(2027, 4, 30, 23, tzinfo=UTC)) == [(rule, "ended-period")]
    assert told(datetime(2028, 3, 31, 23, tzinfo=UTC)) == [(ref, "ended-period")]
    types = hub.types()
    assert (types.count("restriction.expired"), types.count("agreement.review_overdue")) == (1, 2)
    assert types.count("agreement.warned") >= 4
    with hub.store.reading() as reading:
        due = expiry.calendar(reading, at=AT, within=365)
    assert [(one.ref, one.kind) for _, one in due if one.ref in (ref, rule)] == [(ref, "review"), (rule, "expiry")]


def test_a_draft_falls_due_for_nobody(hub: Hub) -> None:
    hub.take_in(MASH, COUNCIL)
    told = expiry.tell(hub.store, hub.trail, who=WHO, at=datetime(2027, 3, 31, tzinfo=UTC))
    assert {one["ref"] for one in told} == {"northshire-tier1@2.1.0"}


def test_a_signature_is_verified_by_the_key_it_was_made_with_and_no_other(hub: Hub) -> None:
    ref = hub.put_in_force(MASH, COUNCIL, ICB)
    with hub.store.reading() as reading:
        (first, *_) = register.signatures_kept(reading, hub.listed(ref).digest)
        keys = register.party_keys(reading)
    assert verify(hub.document(MASH), first, keys)[0].party == COUNCIL


@pytest.mark.parametrize("two", ["versions", "people"])
def test_two_who_put_in_force_at_once_do_it_one_after_the_other(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, two: str
) -> None:
    hub.put_in_force(UMBRELLA, COUNCIL, ICB, POLICE, HUBS)
    old = hub.take_in(MASH, COUNCIL, ICB, POLICE)
    new = hub.take_in(newer(), COUNCIL, ICB, POLICE) if two == "versions" else old
    before, said, record = told(hub), [], activation.record_change

    def put(ref: str, person: str) -> None:
        who = {"organisation": "northshire", "person": person}
        said.append((person, activation.activate(hub.store, hub.trail, ref, who=who, at=AT)))

    other = threading.Thread(target=put, args=(new, "ig-2"))

    def meanwhile(*told: Any, **more: Any) -> Any:
        if other.ident is None:
            other.start()
            other.join(0.3)
        return record(*told, **more)

    monkeypatch.setattr(activation, "record_change", meanwhile)
    put(old, "ig-1")
    other.join(20)
    added = told(hub) - before
    assert sorted(person for person, _ in said) == ["ig-1", "ig-2"]
    assert added["agreement.activated"] == (2 if two == "versions" else 1)
    assert added["agreement.superseded"] == (3 if two == "versions" else 0)


def test_of_two_who_suspend_at_once_one_does_and_the_log_says_so_once(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = hub.put_in_force(MASH, COUNCIL, ICB, POLICE)
    said, record = [], activation.record_change

    def suspend() -> None:
        try:
            activation.suspend(hub.store, hub.trail, ref, who=OFFICER, at=AT)
            said.append("done")
        except WrongState as wrong:
            said.append(str(wrong))

    other = threading.Thread(target=suspend)

    def meanwhile(*told: Any, **more: Any) -> Any:
        if other.ident is None:
            other.start()
            other.join(0.3)
        return record(*told, **more)

    monkeypatch.setattr(activation, "record_change", meanwhile)
    suspend()
    other.join(20)
    assert sorted(said) == ["done", f"{ref} is not in force"]
    assert told(hub)["agreement.suspended"] == 1


def told(hub: Hub) -> Counter[str]:
    hub.trail.advance_pending()
    with hub.store.reading() as reading:
        return Counter(row.type for row in reading.all(EventRow))
