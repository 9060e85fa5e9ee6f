"""A subject's pack says who saw what, each line provable offline; what is withheld can't be told from it."""

import io
import json
import zipfile
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from audit.events import InvalidEvent, Section, section_commitment
from audit.receipts import LogReceipt
from broker import access
from broker.access import Pack, Rulings
from broker.errors import Malformed, NotAllowed, NotFound
from broker.keys import Keys
from broker.store import Store
from broker.store.log import EventRow
from broker.store.log_search import is_known
from broker.store.tombstones import Tombstones
from broker.trail import Trail
from tests.broker.test_erasure import (
    AT,
    CANARY,
    CHILD,
    RECORD,
    SIBLING,
    auditor_says,
    erased,
    looked,
    officer,
    write_policy,
)
from tests.broker.test_trail import policy_of, published


def issued(store: Store, trail: Trail, keys: Keys, *, relation: str = "representative", **rulings: Any) -> Pack:
    """A pack for the child and their record."""
    return access.report(
        store, trail, keys, None, officer(), ids=[CHILD, RECORD], relation=relation, rulings=Rulings(**rulings), at=AT
    ).answer


def unpacked(pack: Pack, folder: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(pack.content)) as found:
        found.extractall(folder)
    return folder


def test_each_line_of_a_pack_verifies_offline_with_the_auditor(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    for _ in range(3):
        looked(store, trail, CHILD, more=(RECORD,))
    looked(store, trail, SIBLING)
    pack = issued(store, trail, keys)
    assert len(pack.ledger["entries"]) == 3
    folder, policy = unpacked(pack, tmp_path / "pack"), tmp_path / "policy"
    write_policy(store, policy)
    published(store, tmp_path / "log")
    for row in pack.ledger["entries"]:
        receipt = folder / row["receipt"]
        for more in ((), ("--log", tmp_path / "log")):
            code, said = auditor_says("inclusion", "--policy", policy, "--event", receipt, *more)
            assert code == 0, said
        assert row["event_id"] in receipt.read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sorted([*manifest, "manifest.json"]) == sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


def test_a_line_says_organisation_role_purpose_clause_and_categories_and_no_member_of_staff(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    looked(store, trail, CHILD)
    (row,) = issued(store, trail, keys).ledger["entries"]
    assert row["organisation"] == "northshire-icb"
    assert row["role"] == "MASH analyst"
    assert row["clauses"] == ["northshire-mash@3.0.0#attendance"]
    assert row["shown"] == {"northshire-council": {"education.attendance": "status"}}
    assert row["exemption"] == {"detail": "serious_harm"}
    folder = unpacked(issued(store, trail, keys), tmp_path / "pack")
    assert "p-17" not in (folder / "ledger.csv").read_text() + (folder / "ledger.json").read_text()


def test_what_is_withheld_is_not_in_the_pack_and_can_not_be_derived_from_it(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    looked(store, trail, CHILD, SIBLING)
    pack = issued(store, trail, keys)
    (row,) = pack.ledger["entries"]
    assert row["exemption"] == {"detail": "serious_harm"} | dict.fromkeys(("subjects", "what", "why"), "third_party")
    assert (row["shown"], row["outcome"], row["clauses"]) == (None, None, None)
    assert row["purpose"]  # told, though not proved
    folder = unpacked(pack, tmp_path / "pack")
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()).decode()
    for secret in (SIBLING, CANARY, "education.attendance", "#attendance"):
        assert secret not in everything
    receipt = LogReceipt.loads((folder / row["receipt"]).read_text())
    receipt.verify(policy_of(store))
    hidden = receipt.opening.sections["subjects"]
    assert isinstance(hidden, bytes)
    # who knows the very body, and every word of the pack, still can't confirm a guess: the salt is 32 random bytes
    for guess, salt in product(([SIBLING], sorted([CHILD, SIBLING]), []), (bytes(32), b"\xff" * 32)):
        with pytest.raises(InvalidEvent):
            receipt.opening.with_section(Section("subjects", guess, salt))
    own = trail.opening(row["event_id"], show=("subjects",)).sections["subjects"]  # with the salt it is the same event
    assert isinstance(own, Section)
    assert own.body == sorted([CHILD, SIBLING])
    receipt.opening.with_section(own)


def test_an_unsalted_dictionary_finds_no_number_in_a_commitment(store: Store, trail: Trail, keys: Keys) -> None:
    """Ten thousand numbers, the right one among them, against everything a pack or a tile shows."""
    number = "9434765919"
    event = looked(store, trail, CHILD, detail={"number": number})
    receipt = LogReceipt.loads(
        zipfile.ZipFile(io.BytesIO(issued(store, trail, keys).content)).read("receipts/0001.json")
    )
    shown = {
        receipt.proof.leaf.commitment,
        *(one for one in receipt.opening.sections.values() if isinstance(one, bytes)),
    }
    salts = [bytes(32), *(one.salt for one in receipt.opening.sections.values() if isinstance(one, Section))]
    for candidate in range(9434760000, 9434770000):
        body = b'{"number":"%d"}' % candidate
        assert shown.isdisjoint(section_commitment("detail", salt, body) for salt in salts)
    own = trail.opening(event, show=("detail",)).sections["detail"]  # who had the salt would find it at once
    assert isinstance(own, Section)
    assert section_commitment("detail", own.salt, b'{"number":"%s"}' % number.encode()) in shown


def test_the_officer_rules_section_by_section_and_entry_by_entry(store: Store, trail: Trail, keys: Keys) -> None:
    one, two, three = (looked(store, trail, CHILD) for _ in range(3))
    pack = issued(
        store, trail, keys, withheld={one: {"*": "crime"}, two: {"who": "serious_harm"}}, opened={three: ["detail"]}
    )
    rows = {row["event_id"]: row for row in pack.ledger["entries"]}
    assert set(rows) == {two, three}
    assert rows[two]["organisation"] is rows[two]["role"] is None
    (silent,) = issued(
        store, trail, keys, withheld={two: {"why": "crime"}, one: {"*": "crime"}, three: {"*": "crime"}}
    ).ledger["entries"][:1]
    assert silent["purpose"] is None
    assert rows[three]["exemption"] == {}
    text = pack.content + json.dumps(dict(pack.ledger)).encode()
    assert one.encode() not in text
    assert "crime" not in json.dumps(dict(pack.ledger))  # not even that something was left out
    sealed = json.loads(trail.blob(pack.report, "withheld"))
    assert sealed[one]["*"] == "crime"


def test_a_parent_is_not_shown_child_abuse_data_nor_where_a_shielded_child_is_known(
    store: Store, trail: Trail, keys: Keys
) -> None:
    class Shielded:
        """An area in which a shield lies over everybody, or nobody."""

        def __init__(self, *tags: str) -> None:
            self.index = self
            self._tags = frozenset(tags)

        def person_of(self, _: object) -> str:
            return CHILD

        def tags(self, _: str) -> frozenset[str]:
            return self._tags

    looked(store, trail, CHILD)
    abuse = {"northshire-council": {"social_care.child_protection": "status"}}
    looked(store, trail, CHILD, what={"outcome": "disclosed", "categories": abuse})

    def asked(relation: str, area: Any) -> list[dict[str, Any]]:
        released = access.report(
            store, trail, keys, area, officer(), ids=[CHILD, RECORD], relation=relation, rulings=Rulings(), at=AT
        )
        return [row for row in released.answer.ledger["entries"] if row["event"].startswith("disclosure")]

    usual, kept = asked("parent", Shielded())
    assert "what" not in usual["exemption"]
    assert (kept["exemption"]["what"], kept["shown"]) == ("child_abuse_data", None)
    assert asked("parent", Shielded("shield_address")) == []
    assert asked("parent", None) == []  # before anything was linked nobody can tell
    assert len(asked("self", Shielded("shield_address"))) == 2


def test_issuing_a_pack_is_an_event_with_its_digest_and_is_in_the_next_one(
    store: Store, trail: Trail, keys: Keys
) -> None:
    looked(store, trail, CHILD)
    first = issued(store, trail, keys)
    with store.reading() as reading:
        row = reading.one(EventRow, event_id=first.report)
    assert row is not None
    assert (row.type, row.op) == ("subject.report_issued", "disclosure")
    opening = trail.opening(first.report, show=("what",))
    assert opening.body("what")["sha256"] == first.sha256  # type: ignore[index,call-overload]
    second = issued(store, trail, keys)
    assert [row["event"] for row in second.ledger["entries"]] == ["disclosure.authorised", "subject.report_issued"]
    with zipfile.ZipFile(io.BytesIO(second.content)) as found:
        assert RECORD not in found.read("receipts/0002.json").decode()  # which would tell who holds a record
    assert json.loads(trail.blob(first.report, "ids")) == sorted([CHILD, RECORD])


def test_after_an_erasure_there_is_nothing_to_report(store: Store, trail: Trail, keys: Keys, tmp_path: Path) -> None:
    looked(store, trail, CHILD, more=(RECORD,))
    shared = looked(store, trail, SIBLING, CHILD)
    erased(store, trail, keys, Tombstones(tmp_path), CHILD, RECORD)
    pack = issued(store, trail, keys)
    assert pack.ledger["entries"] == []
    with store.reading() as reading:  # and that it was asked for ties nothing to the child again
        assert not [one for one in (CHILD, RECORD) if is_known(reading, subject_hmac=keys.subject_index(one))]
    assert json.loads(trail.blob(pack.report, "ids")) == []
    released = access.report(
        store, trail, keys, None, officer(), ids=[SIBLING], relation="representative", rulings=Rulings(), at=AT
    )
    (row,) = [row for row in released.answer.ledger["entries"] if row["event_id"] == shared]
    assert row["exemption"]["subjects"] == "third_party"
    assert row["organisation"] == "northshire-icb"


def test_nobody_else_issues_a_pack_and_codes_are_of_the_lists(store: Store, trail: Trail, keys: Keys) -> None:
    looked(store, trail, CHILD)
    for caller, relation, rulings, wrong in (
        (officer(role="LINK_REVIEWER"), "self", Rulings(), NotAllowed),
        (officer(), "neighbour", Rulings(), Malformed),
        (officer(), "self", Rulings(withheld={"0" * 32: {"who": "crime"}}), NotFound),
    ):
        with pytest.raises(wrong):
            access.report(store, trail, keys, None, caller, ids=[CHILD], relation=relation, rulings=rulings, at=AT)
    for bad in ({"withheld": {"e": {"who": "because"}}}, {"opened": {"e": ["whom"]}}):
        with pytest.raises(Malformed):
            Rulings(**bad)  # type: ignore[arg-type]


def test_the_same_files_make_the_same_zip(store: Store, trail: Trail, keys: Keys) -> None:
    looked(store, trail, CHILD)
    pack = issued(store, trail, keys)
    with zipfile.ZipFile(io.BytesIO(pack.content)) as found:
        assert found.testzip() is None
        assert {info.date_time for info in found.infolist()} == {(2026, 11, 23, 9, 30, 0)}
