"""Silence: a record that may not be shown leaves answer, log and database as they are where there is no such record.

Two worlds differ in one record, which nobody may know of.  Both are asked the same; the bytes that leave (but ids,
times, salts and proofs), the leaves of the log and the statements of the database are equal.  And where a rule can't be
evaluated at all, nothing leaves.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import SecretStr
from sqlalchemy import delete, event, insert, select, update

from agreements import PartyKey
from agreements.receipts import RECEIPT_TYPE
from agreements.signing import open_payload
from broker import deciding
from broker.api.searches import in_service
from broker.linked import InService
from broker.settings import Settings
from broker.store import Store
from broker.store.columns import metadata
from broker.store.documents import AgreementSignatureRow
from broker.store.items import ItemRow
from broker.store.log import BlobRow, EventRow
from broker.store.runs import LinkRunRow
from broker.store.searches import SearchRow, ViewRow
from broker.store.sessions import InstallationRow
from broker.vault import Vault
from linkage.agency.gateway.broker_client import BrokerRefused, BrokerUnavailable
from tests.builders import ICB, POLICE
from tests.builders_area import AFTER_EXPIRY, ANALYST, MORNING, Area, Asker, Clock, the_time
from tests.builders_families import ADOPTED, BIRTH, FAY, NOBODY, PAT, ROBIN, VIC, a_linked_area
from tests.postgres import a_database


@pytest.fixture(scope="module")
def clock() -> Iterator[Clock]:
    with the_time(MORNING) as clock:
        yield clock


@pytest.fixture(scope="module")
def base(clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    made = a_linked_area(tmp_path_factory.mktemp("silence") / "northshire")
    yield made
    made.close()


@dataclass
class OnPostgres(Area):
    """The same partnership, its tables in PostgreSQL."""

    url: str = ""

    @cached_property
    def settings(self) -> Settings:
        found: Settings = Area.settings.func(self)  # type: ignore[attr-defined]
        changes = {"environment": "production", "signer": "inline", "database_url": SecretStr(self.url)}
        return found.model_copy(update=changes)

    @classmethod
    def of(cls, area: Area, url: str) -> OnPostgres:
        into = Store(url)
        with area.broker.store.engine.connect() as source, into.engine.begin() as target:
            for table in metadata.sorted_tables:
                rows = [dict(row._mapping) for row in source.execute(select(table))]
                if rows:
                    target.execute(insert(table), rows)
            target.execute(update(InstallationRow).values(environment="production"))
        into.close()
        return cls(area.folder, url)


Make = Callable[[str], Area]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def make(request: pytest.FixtureRequest, base: Area, tmp_path: Path) -> Iterator[Make]:
    """Worlds to change, on each kind of database."""
    with ExitStack() as stack:

        def one(name: str) -> Area:
            area = base.copied(tmp_path / name)
            if request.param == "postgresql":
                server, template = (request.getfixturevalue(n) for n in ("postgres_server", "migrated_postgres"))
                url = stack.enter_context(a_database(server, template=template))
                area, was = OnPostgres.of(area, url), area
                was.close()
            stack.callback(area.close)
            return area

        yield one


class Lacking(InService):
    """What was linked, without what one record brought in."""

    def __init__(self, store: Store, vault: Vault, record: tuple[str, str, str]) -> None:
        super().__init__(store, vault)
        self._record = record

    def _records(self, run: LinkRunRow) -> tuple[pa.Table, pa.Table]:
        persons, clusters = super()._records(run)
        persons = persons.filter(pc.invert(self._its(persons)))
        its = self._its(clusters)
        for name in ("person_id", "record_ref"):  # its row stays, and is nobody's: pairs may count rows
            place = clusters.column_names.index(name)
            clusters = clusters.set_column(place, name, pc.if_else(its, "gone", clusters[name].cast(pa.string())))
        return persons, clusters

    def _its(self, table: pa.Table) -> pa.ChunkedArray:
        same = [pc.equal(table[n], v) for n, v in zip(KEY, self._record, strict=True)]
        return pc.and_(pc.and_(*same[:2]), same[2])


KEY = ("agency", "flow", "record_ref")


def without(area: Area, agency: str, flow: str, id_: str) -> None:
    """Make it a world that never had this record."""
    record = (agency, flow, area.home(agency).record_ref(flow, id_))
    broker = area.broker
    broker.parts["in_service"] = Lacking(broker.store, broker.vault, record)
    known = in_service(broker).area()
    assert known is not None
    assert known.index.person_of(record) is None
    with broker.store.transaction() as tx:
        gone = delete(ItemRow).where(*(getattr(ItemRow, n) == v for n, v in zip(KEY, record, strict=True)))
        tx.session.exec(gone)


def unsigned(area: Area, party: str = POLICE) -> None:
    """An organisation has signed nothing."""
    with area.broker.store.transaction() as tx:
        tx.session.exec(delete(AgreementSignatureRow).where(AgreementSignatureRow.party == party))


def nothing_for_screening(area: Area) -> None:
    """What the police hold takes a threshold."""
    with area.broker.store.transaction() as tx:
        tx.session.exec(delete(ItemRow).where(ItemRow.agency == POLICE, ItemRow.category != "police.custody"))


def empty(area: Area) -> None:
    """The police hold records, and nothing on them."""
    with area.broker.store.transaction() as tx:
        tx.session.exec(delete(ItemRow).where(ItemRow.agency == POLICE))


class Response(NamedTuple):
    """All that could tell two worlds apart."""

    said: bytes
    leaves: int
    statements: list[str]


@contextmanager
def statements(area: Area) -> Iterator[list[str]]:
    said: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        said.append(statement.split("\n", maxsplit=1)[0][:60])

    event.listen(area.broker.store.engine, "before_cursor_execute", note)
    yield said
    event.remove(area.broker.store.engine, "before_cursor_execute", note)


def respond(area: Area, ask: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], Response]:
    before = area.size()
    with statements(area) as said:
        answer = ask()
        leaves = area.size() - before
    return answer, Response(masked(answer), leaves, said)


def masked(answer: dict[str, Any]) -> bytes:
    """An answer without what differs from one to the next whatever is held: ids, times, salts, signatures, proofs."""
    body = copy.deepcopy(answer)
    receipt = body.pop("receipt")
    for name in ("search", "view", "at", "ends_at"):
        body[name] = ""
    for candidate in body.get("candidates", ()):
        candidate["candidate"] = ""
    sections = {name: section.get("body", "withheld") for name, section in receipt["opening"].items()}
    for name in ("id", "search", "view"):
        sections["what"][name] = ""
    sections["what"]["decisions"] = sorted(sections["what"].get("decisions", ()))
    sections["who"]["assertion_sha256"] = ""
    copies = [{**one, "commitment": "", "at": ""} for one in receipt["decisions"]]
    return json.dumps([body, sections, copies, sorted(receipt)], sort_keys=True).encode()


def warm(area: Area) -> Asker:
    """An analyst who has a token and has asked before, so that nothing is done for the first time."""
    analyst = area.asker(ANALYST)
    analyst.view(VIC.typed(), case="warm")
    area.size()
    return analyst


WORLDS = [(unsigned, ROBIN), (nothing_for_screening, VIC), (empty, ROBIN)]


@pytest.mark.parametrize(("change", "child"), WORLDS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_record_nobody_may_see_is_answered_as_if_it_were_not_there(make: Make, change: Any, child: Any) -> None:
    responses = []
    for name in ("with", "without"):
        area = make(name)
        change(area)
        if name == "without":
            without(area, POLICE, "police", child.id)
        analyst = warm(area)
        found, search = respond(area, lambda who=analyst: who.search(child.typed(), case="S1"))  # type: ignore[misc]
        view, disclosure = respond(area, lambda who=analyst, of=found: who.open(of))  # type: ignore[misc]
        assert {tile["organisation"] for tile in view["tiles"]}.isdisjoint({POLICE})
        assert view["tiles"]
        for event_id in (found["receipt"]["event_id"], view["receipt"]["event_id"]):  # it was looked at, in one world
            looked_at = json.loads(area.broker.trail.blob(event_id, "looked_at"))
            ref = area.home(POLICE).record_ref("police", child.id)
            assert ([POLICE, "police", ref] in [row[2:4] + row[1:2] for row in looked_at]) is (name == "with")
        responses.append((search, disclosure))
    for held, absent in zip(*responses, strict=True):
        assert held.said == absent.said
        assert held.leaves == absent.leaves == 2
        assert held.statements == absent.statements


def test_nobody_is_found_by_a_hidden_record_alone_nor_more_surely_for_it(make: Make) -> None:
    """Health alone knows the number, and none of what else was typed fits the school's record; then some of it does."""
    wrong = {"given_name": "Zora", "family_name": "Unlike", "day": "01", "month": "01", "year": "2005"}
    for typed in (PAT.typed(**wrong, postcode="NS1 9ZZ"), PAT.typed(given_name="Patt", family_name="Unlike")):
        pair = []
        for name in ("with", "without"):
            area = make(f"{name}-{typed.given_name}")
            unsigned(area, ICB)
            if name == "without":
                without(area, ICB, "health", PAT.id)
            analyst = warm(area)
            pair.append(respond(area, lambda who=analyst, of=typed: who.search(of, case="S4"))[1])  # type: ignore[misc]
        assert pair[0] == pair[1]


def test_a_child_who_is_hidden_altogether_is_answered_as_one_nobody_knows(make: Make) -> None:
    """Shielded; under another child's case; before a threshold: hidden or not there, it is one answer."""
    area = make("one")
    analyst = warm(area)
    analyst.view(ROBIN.typed(), case="S2")
    for hidden, more in (
        (FAY, {"case": "S2-shield"}),
        (VIC, {"case": "S2"}),
        (ROBIN, {"case": "S2-level", "purpose": "S47"}),
    ):
        pair = [
            respond(area, lambda one=one, more=more: analyst.search(one.typed(), **more))[1]  # type: ignore[misc]
            for one in (hidden, NOBODY)
        ]
        assert pair[0] == pair[1]
        assert pair[0].leaves == 2


def test_a_member_of_the_household_who_must_stay_hidden_is_as_one_nobody_knows(make: Make) -> None:
    """A child on the other side of a severance, and one who is shielded altogether."""
    area = make("one")
    analyst = warm(area)
    for child, hidden in ((ADOPTED, BIRTH), (ROBIN, FAY)):
        analyst.view(child.typed(), case=f"S3-{child.id}")  # what was opened under a case is asked for, each time
        pair = []
        for named in (hidden, NOBODY):
            household = [named.typed(relation="sibling")]
            found, search = respond(
                area,
                lambda child=child, household=household: analyst.search(  # type: ignore[misc]
                    child.typed(), case=f"S3-{child.id}", household=household
                ),
            )
            pair.append((search, respond(area, lambda of=found: analyst.open(of))[1]))  # type: ignore[misc]
        assert pair[0] == pair[1]


# --- A rule that can't be evaluated ---------------------------------------------------------------------------------


@pytest.fixture
def area(base: Area, tmp_path: Path) -> Iterator[Area]:
    made = base.copied(tmp_path / "northshire")
    yield made
    made.close()


class Broken(RuntimeError):
    """A fault of ours."""


def break_for_police(function: Any) -> Any:
    """The rule, but for a record of the police: there it fails."""

    def broken(*given: Any, **more: Any) -> Any:
        if any(getattr(one, "source", None) == POLICE for one in given) or POLICE in given:
            raise Broken("a rule that nobody wrote to the end")
        if any(str(one).startswith("police.") for one in given):
            raise Broken("a rendering that nobody wrote to the end")
        return function(*given, **more)

    return broken


@pytest.mark.parametrize("rule", ["decide", "render", "explain_for_asker"])
def test_a_rule_that_fails_shows_nothing_of_anybody_and_the_log_says_so(
    area: Area, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    analyst = area.asker(ANALYST)
    answer = analyst.search(ROBIN.typed(), case="F1")
    size = area.size()
    monkeypatch.setattr(deciding, rule, break_for_police(getattr(deciding, rule)))
    kinds = ["disclosure.refused"]
    with pytest.raises(BrokerUnavailable):
        analyst.open(answer)
    if rule != "explain_for_asker":  # a search that lists somebody explains nothing
        kinds.append("search.refused")
        with pytest.raises(BrokerUnavailable):
            analyst.search(ROBIN.typed(), case="F1")
    area.size()
    keys = area.broker.keys
    signers = {keys.receipt_kid: PartyKey(kid=keys.receipt_kid, public=keys.receipt_key.public_key())}
    with area.broker.store.reading() as reading:
        found = [row for row in reading.all(EventRow, order=("seq",)) if row.seq >= size]
        assert [(row.type, row.outcome) for row in found] == [(kind, "engine_error") for kind in kinds]
        assert reading.all(ViewRow) == []
        assert len(reading.all(SearchRow)) == 1
        blobs = {row.event_id: [] for row in found}
        for row in reading.all(BlobRow, event_id=tuple(blobs)):
            blobs[row.event_id].append(row.name)
    for row in found:
        assert f"decision/{POLICE}" in blobs[row.event_id]
        for name in blobs[row.event_id]:
            payload, _ = open_payload(json.loads(area.broker.trail.blob(row.event_id, name)), signers, typ=RECEIPT_TYPE)
            body = json.loads(payload)
            assert (body["engine_error"], body["records"]) == (True, [])


def test_a_failed_rule_is_told_as_a_problem_that_names_the_event_and_nothing_else(
    area: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyst = area.asker(ANALYST)
    monkeypatch.setattr(deciding, "decide", break_for_police(deciding.decide))
    body = json.dumps(analyst.body(ROBIN.typed(), case="F2")).encode()
    answer = area.http.post(
        "/v1/searches",
        content=body,
        headers={
            "Authorization": f"Bearer {analyst.broker._token()}", "Content-Type": "application/json",
            "Gateway-Assertion": analyst.broker.assertion(analyst.actor, "POST", "/v1/searches", body),
        },
    )  # fmt: skip
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    told = answer.json()
    area.size()
    with area.broker.store.reading() as reading:
        (row,) = reading.all(EventRow, type="search.refused")
    assert told["type"].endswith("engine-failed")
    assert row.event_id in told["detail"]
    assert set(told) == {"type", "title", "status", "instance", "detail"}
    assert "nobody wrote" not in answer.text


# --- While a view is open --------------------------------------------------------------------------------------------


def test_each_time_a_view_is_opened_it_is_decided_on_what_is_in_force_then(area: Area, clock: Clock) -> None:
    analyst = area.asker(ANALYST)
    answer = analyst.search(ROBIN.typed(), case="V1")
    first = analyst.open(answer)
    assert ICB in {tile["organisation"] for tile in first["tiles"]}
    for agreement in ("northshire-mash", "northshire-early-help", "northshire-planning"):
        area.suspend(ICB, agreement)
    again = analyst.open(answer)
    assert ICB not in {tile["organisation"] for tile in again["tiles"]}
    assert again["view"] != first["view"]
    unsigned(area)
    assert {POLICE, ICB}.isdisjoint({tile["organisation"] for tile in analyst.open(answer)["tiles"]})


def test_a_view_ends_no_later_than_the_agreement_it_is_shown_under(area: Area, clock: Clock) -> None:
    midnight = AFTER_EXPIRY.replace(month=3, day=31, hour=23)  # the last day is 31 March, in London's summer time
    clock.put(midnight - timedelta(minutes=20))
    try:
        analyst = area.asker(ANALYST)
        answer = analyst.search(ROBIN.typed(), case="V2")
        view = analyst.open(answer)
        assert view["tiles"]
        assert view["ends_at"] == "2028-03-31T23:00:00Z"
        clock.put(midnight)
        late = area.asker(ANALYST).open(answer)
        assert late["tiles"] == []
        clock.put(midnight + timedelta(hours=8))
        with pytest.raises(BrokerRefused) as refused:
            area.asker(ANALYST).open(answer)
        assert refused.value.status == 404
    finally:
        clock.put(MORNING)
