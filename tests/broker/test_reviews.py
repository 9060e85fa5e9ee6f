"""Clerical review end to end: what a reviewer sees and may not see, decides, has confirmed; and the wrong person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import pyarrow as pa
import pytest

from agreements import read, sign
from audit.receipts import LogReceipt
from broker import activation, register, reviews, signin
from broker import clock as broker_clock
from broker.keys import Keys
from broker.linked import clusters_of
from broker.overrides import Sides, open_sides, pair_index, seal_sides
from broker.reviews import take_in
from broker.store import Store
from broker.store.log import EventRow
from broker.store.reviews import OverrideRow, ReviewActRow, ReviewRow, queue
from broker.store.runs import LinkRunRow, PublishedRow
from linkage.agency import client
from linkage.agency import clock as agency_clock
from linkage.matching.link import REVIEWS
from tests.builders import COUNCIL, ICB, POLICE
from tests.builders_area import ANALYST, BASE_URL, OPERATOR, Area, Clock
from tests.builders_families import ADOPTED, BIRTH, FAY, ROBIN, SOLO

SEES: dict[str, Any] = {"decision": "different", "reason": "levels_differ", "evidence": ["agreement_levels"]}
AT = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
RESTRICTION = Path(__file__).parents[1] / "spec" / "northshire-icb-r12.toml"


@dataclass(frozen=True)
class Officer:
    """Somebody signed in at the broker itself."""

    area: Area
    cookie: str
    csrf: str

    @classmethod
    def of(cls, area: Area, person: str = "links-1", role: str = "LINK_REVIEWER") -> Officer:
        broker = area.broker
        cookie, session = signin.start(
            broker.store, broker.settings, person=person, role=role, method="demo", at=broker_clock.now()
        )
        return cls(area, cookie, session.csrf)

    def get(self, path: str, **query: Any) -> Any:
        return self.area.http.get(f"/v1{path}", params=query, headers={"Cookie": f"{signin.COOKIE}={self.cookie}"})

    def post(self, path: str, body: Mapping[str, Any], **headers: str) -> Any:
        sent = {
            "Cookie": f"{signin.COOKIE}={self.cookie}", "X-CSRF-Token": self.csrf, "Origin": BASE_URL,
            "Sec-Fetch-Site": "same-origin", **headers,
        }  # fmt: skip
        return self.area.http.post(f"/v1{path}", json=body, headers={k: v for k, v in sent.items() if v})

    def waiting(self, **query: Any) -> list[dict[str, Any]]:
        answer = self.get("/reviews", **query)
        assert answer.status_code == 200, answer.text
        listed: list[dict[str, Any]] = answer.json()["reviews"]
        return listed

    def one(self, reason: str) -> str:
        """A waiting pair of this reason, opened."""
        review: str = self.waiting(reason=reason)[0]["review"]
        assert self.get(f"/reviews/{review}").status_code == 200
        return review


@pytest.fixture
def reader(linked: Area, request: pytest.FixtureRequest) -> Officer:
    """A reviewer of the area that tests share, who decides nothing; another one for each test."""
    return Officer.of(linked, f"reader-{crc32(request.node.nodeid.encode())}")


@pytest.fixture
def reviewer(area: Area) -> Officer:
    return Officer.of(area)


@pytest.fixture
def second(area: Area) -> Officer:
    return Officer.of(area, "links-2")


def published(area: Area) -> LinkRunRow:
    with area.broker.store.reading() as tx:
        pointer = tx.one(PublishedRow)
        assert pointer is not None
        run = tx.one(LinkRunRow, id=pointer.run)
        assert run is not None
        return run


def segment(area: Area, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = area.broker.vault.read_parts(published(area).segments, name).to_pylist()
    return rows


def owner(area: Area) -> dict[tuple[str, str, str], str]:
    rows = clusters_of(area.broker.vault, published(area)).to_pylist()
    return {(r["agency"], r["flow"], r["record_ref"]): r["person_id"] for r in rows}


def sides(area: Area, review: str) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    with area.broker.store.reading() as tx:
        row = tx.one(ReviewRow, id=review)
    assert row is not None
    both = open_sides(area.broker.keys, row.sealed, row.key_wrapped, row.id)
    return both.left[0], both.right[0]


def events(area: Area, kind: str) -> list[EventRow]:
    area.broker.trail.advance_pending()
    with area.broker.store.reading() as tx:
        return tx.all(EventRow, type=kind, order=("seq",))


def a_machine(area: Area, agency: str) -> dict[str, str]:
    """The headers of an agency's machine."""
    home = area.home(agency)
    tokens = client.Tokens(home, area.http, now=agency_clock.now, broker=BASE_URL)
    return {"Authorization": f"Bearer {tokens()}"}


def tomorrow(area: Area, clock: Clock) -> dict[str, Any]:
    clock.put(broker_clock.now() + timedelta(hours=16))
    return area.link()


# --- What is seen ----------------------------------------------------------------------------------------------------


def test_the_queue_names_pairs_by_opaque_ids_and_says_why_and_between_whom_and_nothing_of_how_likely(
    linked: Area, reader: Officer
) -> None:
    answer = reader.get("/reviews")
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert sorted(one["reason"] for one in body["reviews"]) == ["conflict", "conflict", "swapped", "swapped"]
    for one in body["reviews"]:
        assert set(one) == {"review", "reason", "sentence", "agencies", "since", "yours"}
        assert set(one["agencies"]) == {COUNCIL, ICB}
    secrets = {record_ref for _, _, record_ref in owner(linked)} | set(owner(linked).values())
    assert not [secret for secret in secrets if secret in answer.text]
    assert body["next"] is None
    (event,) = [event for event in events(linked, "review.listed") if event.actor_ref.startswith("reader-")][-1:]
    assert (event.role, event.outcome) == ("LINK_REVIEWER", "4_listed")
    assert LogReceipt.from_json(body["receipt"]).event_id == event.event_id


def test_a_night_brings_the_queue_up_to_date_as_it_ends(linked: Area) -> None:
    with linked.broker.store.reading() as tx:
        (taken,) = tx.all(ReviewActRow, act="taken_in")
        first = tx.all(ReviewRow)
    run = published(linked)
    assert taken.code == run.id
    assert {row.since for row in first} == {run.published_at}


def test_one_pair_is_shown_in_levels_and_words_and_never_in_values(linked: Area, reader: Officer) -> None:
    review = reader.waiting(reason="swapped")[0]["review"]
    answer = reader.get(f"/reviews/{review}")
    body = answer.json()
    fields = {one["field"]: (one["level"], one["rarity"]) for one in body["fields"]}
    given = fields.pop("given_name")
    assert given in {
        ("differ", None),
        ("close", None),
    }  # Ada and Ida: a letter apart, which a key may make look alike
    assert fields == {
        "family_name": ("agree", "uncommon"), "date_of_birth": ("agree", "rare"),
        "postcode": ("agree", "rare"), "sex": ("agree", "common"),
    }  # fmt: skip
    assert (body["numbers_agree"], body["numbers_differ"]) == (["nhs_number"], [])
    assert body["sentence"].startswith("The number is of one child")
    assert body["second_reviewer"] is True
    left, right = sides(linked, review)
    # not the token, salts and proof: among random letters a short word may stand
    opening = [one["body"] for one in body["receipt"]["opening"].values() if "body" in one]
    told = json.dumps([{name: body[name] for name in body.keys() - {"receipt", "csrf"}}, opening])
    for secret in (*left[1:], *right[1:], "Ada", "Ida", "Twinnery", "NS2", *owner(linked).values()):
        assert secret not in told
    assert "2018" not in json.dumps({name: body[name] for name in ("fields", "waterfall", "sentence")})
    (event,) = [event for event in events(linked, "review.opened") if event.event_id == body["receipt"]["event_id"]]
    assert event.actor_ref.startswith("reader-")


def test_the_waterfall_ends_where_the_scorer_did(linked: Area, reader: Officer) -> None:
    weights = {
        frozenset((row["record_ref_l"], row["record_ref_r"])): row["weight"] for row in segment(linked, "reviews")
    }
    for one in reader.waiting():
        steps = reader.get(f"/reviews/{one['review']}").json()["waterfall"]
        left, right = sides(linked, one["review"])
        assert steps[-1]["total"] == pytest.approx(weights[frozenset((left[2], right[2]))], abs=0.06)
        assert steps[0]["field"] == "prior"


def test_a_severed_pair_is_in_no_queue_and_has_no_page(area: Area, reviewer: Officer, clock: Clock) -> None:
    severed = {frozenset(row[f"record_ref_{side}"] for side in "lr") for row in segment(area, "severed")}
    assert len(severed) == 1
    reviewer.waiting()
    with area.broker.store.reading() as tx:
        known = [row.id for row in tx.all(ReviewRow)]
    assert known
    assert not severed & {frozenset(record[2] for record in sides(area, review)) for review in known}
    # one that was waiting when the sever came is not there any more, though the queue has not been brought up to date
    row = segment(area, "severed")[0]
    found = pa.Table.from_pylist([{**dict.fromkeys(REVIEWS.names), **row, "reason": "uncertain"}], schema=REVIEWS)
    broker = area.broker
    take_in(broker.store, broker.keys, "another-run", found, at=broker_clock.now())
    (late,) = [one["review"] for one in reviewer.waiting(reason="uncertain")] or [None]
    assert reviewer.get(f"/reviews/{late}").status_code == 404
    assert reviewer.post(f"/reviews/{late}/decision", SEES).status_code == 404


def test_only_a_link_reviewer_signed_in_at_the_broker_sees_pairs(linked: Area, reader: Officer) -> None:
    review = reader.one("swapped")
    officer = Officer.of(linked, "ig-1", "IG_OFFICER")
    paths = ("/reviews", f"/reviews/{review}", f"/reviews/{review}/ask")
    for path in paths:
        assert officer.get(path).status_code == 403
        assert linked.http.get(f"/v1{path}").status_code == 401
        assert linked.http.get(f"/v1{path}", headers=a_machine(linked, COUNCIL)).status_code == 401
    assert officer.post(f"/reviews/{review}/decision", SEES).status_code == 403
    assert reader.get("/reviews/nothing-of-the-kind").status_code == 422
    assert reader.get(f"/reviews/{'0' * 32}").status_code == 404


def test_a_reviewer_sees_no_log_and_an_analyst_no_queue(linked: Area, reader: Officer) -> None:
    page = linked.http.post(
        "/log", data={"csrf": reader.csrf, "reason": "lawfulness"},
        headers={"Cookie": f"{signin.COOKIE}={reader.cookie}", "Origin": BASE_URL},
    )  # fmt: skip
    assert page.status_code == 403
    actor = linked.asker(ANALYST)
    with pytest.raises(Exception, match="405"):
        actor.broker._post("/v1/reviews", {}, actor.actor)


# --- Deciding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [{"X-CSRF-Token": ""}, {"X-CSRF-Token": "another"}, {"Origin": "https://elsewhere.example"},
     {"Sec-Fetch-Site": "cross-site"}],
)  # fmt: skip
def test_a_decision_from_another_site_is_refused_and_changes_nothing(
    linked: Area, reader: Officer, headers: dict[str, str]
) -> None:
    review = reader.one("swapped")
    assert reader.post(f"/reviews/{review}/decision", SEES, **headers).status_code == 403
    assert review in {one["review"] for one in reader.waiting()}


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"decision": "certainly"}, 422),
        ({"reason": "levels_agree"}, 400),
        ({"reason": "because I know the family"}, 422),
        ({"evidence": []}, 422),
        ({"evidence": ["a_hunch"]}, 400),
        ({"note": "Ada Twinnery"}, 422),
    ],
)
def test_a_decision_is_made_of_codes_of_closed_lists_alone(
    linked: Area, reader: Officer, changed: dict[str, Any], status: int
) -> None:
    review = reader.one("swapped")
    answer = reader.post(f"/reviews/{review}/decision", {**SEES, **changed})
    assert answer.status_code == status
    assert "family" not in answer.text.replace("family_name", "")
    assert "Ada" not in answer.text


def test_what_has_not_been_opened_can_not_be_decided(reviewer: Officer, second: Officer) -> None:
    review = reviewer.one("swapped")
    assert second.post(f"/reviews/{review}/decision", SEES).status_code == 409


def test_two_people_says_one_reviewer_and_the_pair_leaves_the_queue_at_once_and_for_good(
    area: Area, reviewer: Officer, clock: Clock
) -> None:
    review = reviewer.one("conflict")
    answer = reviewer.post(f"/reviews/{review}/decision", SEES)
    assert answer.status_code == 201
    body = answer.json()
    assert (body["state"], body["takes_effect"]) == ("active", "next_night")
    (event,) = events(area, "override.must_not_link")
    assert LogReceipt.from_json(body["receipt"]).event_id == event.event_id
    assert (event.actor_ref, event.outcome) == ("links-1", "active")
    assert review not in {one["review"] for one in reviewer.waiting()}
    assert reviewer.post(f"/reviews/{review}/decision", SEES).status_code == 409
    left, right = sides(area, review)
    assert tomorrow(area, clock)["state"] == "published"  # with no new batch: a decision is reason enough
    assert owner(area)[left] != owner(area)[right]
    later = Officer.of(area)
    assert review not in {one["review"] for state in reviews.STATES for one in later.waiting(state=state)}
    assert tomorrow(area, clock)["state"] == "unchanged"


def test_joining_twins_takes_two_and_binds_from_the_night_after_the_second(
    area: Area, reviewer: Officer, second: Officer, clock: Clock
) -> None:
    review = reviewer.one("conflict")
    same = {"decision": "same", "reason": "number_replaced", "evidence": ["conflicting_numbers", "left_agency_rung"]}
    body = reviewer.post(f"/reviews/{review}/decision", same).json()
    assert (body["state"], body["takes_effect"]) == ("proposed", "when_confirmed")
    left, right = sides(area, review)
    assert review not in {one["review"] for one in reviewer.waiting()}
    assert [one["yours"] for one in reviewer.waiting(state="second")] == [True]
    assert [one["yours"] for one in second.waiting(state="second")] == [False]
    assert reviewer.post(f"/reviews/{review}/confirm", {"agree": True}).status_code == 403
    assert second.post(f"/reviews/{review}/confirm", {"agree": True}).status_code == 409  # not opened yet
    shown = second.get(f"/reviews/{review}").json()
    assert (shown["proposed"], [(act["act"], act["yours"]) for act in shown["history"]]) == (
        "same", [("decided", False)],
    )  # fmt: skip
    assert tomorrow(area, clock)["state"] == "unchanged"
    second = Officer.of(area, "links-2")
    done = second.post(f"/reviews/{review}/confirm", {"agree": True}).json()
    assert (done["state"], done["takes_effect"]) == ("active", "next_night")
    assert [event.actor_ref for event in events(area, "link.confirmed")] == ["links-2"]
    assert tomorrow(area, clock)["state"] == "published"
    assert owner(area)[left] == owner(area)[right]


def test_a_second_reviewer_who_does_not_agree_sends_the_pair_on_and_nothing_binds(
    area: Area, reviewer: Officer, second: Officer
) -> None:
    review = reviewer.one("swapped")
    same = {"decision": "same", "reason": "levels_agree", "evidence": ["waterfall"]}
    assert reviewer.post(f"/reviews/{review}/decision", same).json()["state"] == "proposed"
    second.get(f"/reviews/{review}")
    done = second.post(f"/reviews/{review}/confirm", {"agree": False}).json()
    assert (done["state"], done["takes_effect"]) == ("withdrawn", None)
    assert [one["review"] for one in second.waiting(state="passed_on")] == [review]
    assert [event.actor_ref for event in events(area, "override.must_link")] == ["links-1"]
    assert [event.actor_ref for event in events(area, "link.rejected")] == ["links-2"]
    with area.broker.store.reading() as tx:
        assert [row.state for row in tx.all(OverrideRow, kind="must_link")] == ["withdrawn"]


def test_cannot_tell_is_as_good_an_answer_and_passes_the_pair_on(
    area: Area, reviewer: Officer, second: Officer
) -> None:
    review = reviewer.one("swapped")
    unsure = {"decision": "cannot_tell", "reason": "not_enough", "evidence": ["agreement_levels", "waterfall"]}
    body = reviewer.post(f"/reviews/{review}/decision", unsure).json()
    assert (body["state"], body["override"], body["takes_effect"]) == ("passed_on", None, None)
    assert review not in {one["review"] for one in reviewer.waiting()}
    assert len(events(area, "review.passed_on")) == 1
    second.get(f"/reviews/{review}")
    assert second.post(f"/reviews/{review}/decision", SEES).json()["state"] == "active"


def test_a_decision_can_be_taken_back_and_then_the_pair_waits_again(
    area: Area, reviewer: Officer, second: Officer
) -> None:
    review = reviewer.one("conflict")
    path = f"/reviews/{review}/withdraw"
    assert reviewer.post(path, {"reason": "decided_in_error"}).status_code == 409
    reviewer.post(f"/reviews/{review}/decision", SEES)
    assert reviewer.post(path, {"reason": "a_whim"}).status_code == 400
    assert reviewer.post(path, {"reason": "decided_in_error"}, Origin="https://elsewhere.example").status_code == 403
    assert second.post(path, {"reason": "decided_in_error"}).json()["state"] == "withdrawn"
    assert review in {one["review"] for one in reviewer.waiting()}
    assert [event.actor_ref for event in events(area, "override.withdrawn")] == ["links-2"]


def test_a_reviewer_who_does_too_much_in_an_hour_is_held_up(
    area: Area, reviewer: Officer, second: Officer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.reviews.pairs.PER_HOUR", {**reviews.PER_HOUR, "opened": 2})
    review = reviewer.one("swapped")
    assert [reviewer.get(f"/reviews/{review}").status_code for _ in range(2)] == [200, 429]
    assert second.get(f"/reviews/{review}").status_code == 200
    clock.put(broker_clock.now() + timedelta(minutes=61))
    assert Officer.of(area).get(f"/reviews/{review}").status_code == 200


# --- Asking the agencies ---------------------------------------------------------------------------------------------


def test_each_agency_finds_its_own_record_by_the_reference_that_it_is_told_and_no_other(
    area: Area, reviewer: Officer
) -> None:
    review = reviewer.one("swapped")
    with area.broker.store.reading() as tx:
        row = tx.one(ReviewRow, id=review)
    assert row is not None
    council, icb = a_machine(area, COUNCIL), a_machine(area, ICB)
    path = "/v1/record-questions/"
    assert area.http.get(path + row.reference_l, headers=council).status_code == 404  # nobody has quoted it yet
    answer = reviewer.get(f"/reviews/{review}/ask")
    body = answer.json()
    assert [one["organisation"] for one in body["agencies"]] == [COUNCIL, ICB]
    assert all(one["contact"]["phone"] for one in body["agencies"])
    assert body["fields"] == ["given_name"]
    records = sides(area, review)
    assert not [record[2] for record in records if record[2] in answer.text]
    for machine, asked, mine, other in (
        (council, body["agencies"][0], records[0], records[1]), (icb, body["agencies"][1], records[1], records[0]),
    ):  # fmt: skip
        found = area.http.get(path + asked["reference"], headers=machine)
        assert (found.json()["flow"], found.json()["record_ref"]) == mine[1:]
        assert other[2] not in found.text
    assert area.http.get(path + row.reference_l, headers=icb).status_code == 404
    assert area.http.get(path + row.reference_l).status_code == 401
    assert [event.outcome for event in events(area, "review.asked")] == [
        "contacts_shown", "question_collected", "question_collected",
    ]  # fmt: skip


# --- The wrong person ------------------------------------------------------------------------------------------------


def report(area: Area, view: str, *, person: str = "", **changes: Any) -> Any:
    asker = area.asker(ANALYST, person=person)
    body = {"view": view, "what": "whole_child", "how": "knows_the_child", **changes}
    return asker.broker._post("/v1/wrong-person", body, asker.actor)


def test_a_wrong_person_goes_before_a_reviewer_at_the_weakest_link_and_who_saw_the_mixture_goes_with_the_event(
    area: Area, reviewer: Officer, clock: Clock
) -> None:
    view = area.asker(ANALYST).view(ROBIN.typed(), case="W1")["view"]
    before = owner(area)
    body = report(area, view)
    assert body["sentence"] == "Recorded. A reviewer looks at it. Do not use what you saw."
    (event,) = events(area, "link.wrong_person_reported")
    saw = json.loads(area.broker.trail.blob(event.event_id, "saw"))
    assert (COUNCIL, "p-mash_analyst") in {(organisation, person) for _, organisation, person, *_ in saw}
    (review,) = (one["review"] for one in reviewer.waiting(reason="wrong_person"))
    shown = reviewer.get(f"/reviews/{review}").json()
    assert sum(shown["records"]) == 4  # education, social care, health, police
    assert shown["sentence"] == "Somebody who knows the child says that these are two."
    assert report(area, view)["report"] != body["report"]
    assert len(reviewer.waiting(reason="wrong_person")) == 1
    decided = reviewer.post(f"/reviews/{review}/decision", SEES).json()
    assert decided["state"] in ("active", "proposed")
    if decided["state"] == "proposed":
        second = Officer.of(area, "links-2")
        second.get(f"/reviews/{review}")
        second.post(f"/reviews/{review}/confirm", {"agree": True})
    left, right = sides(area, review)
    assert before[left] == before[right]
    assert tomorrow(area, clock)["state"] == "published"
    assert owner(area)[left] != owner(area)[right]


def test_the_answer_to_a_report_tells_nothing_of_what_is_behind_it(area: Area, reviewer: Officer) -> None:
    asker = area.asker(ANALYST)
    bodies = []
    for child in (ROBIN, SOLO):
        body = report(area, asker.view(child.typed(), case=f"W2-{child.id}")["view"])
        bodies.append(set(body) | {body["sentence"]})
        body.pop("receipt")
    assert bodies[0] == bodies[1]
    assert len(reviewer.waiting(reason="wrong_person")) == 1  # of Solveig one record alone is known


def test_a_view_is_doubted_by_whom_it_was_shown_to_alone(area: Area) -> None:
    view = area.asker(ANALYST).view(ROBIN.typed(), case="W3")["view"]
    for changes in ({"person": "p-other"}, {"view": "0" * 32}):
        with pytest.raises(Exception, match=r"404|no such view"):
            report(area, **{"view": view, **changes})
    assert events(area, "link.wrong_person_reported") == []


def test_an_agency_may_doubt_its_own_record_and_a_shielded_child_takes_two_reviewers(
    area: Area, reviewer: Officer
) -> None:
    fay = [row for row in segment(area, "persons") if row["shield"] == "full"]
    mine = {"flow": "social_care", "record_ref": fay[0]["record_ref"]}
    body = {"record": mine, "what": "organisation_record", "how": "own_record_checked"}
    answer = area.http.post("/v1/wrong-person", json=body, headers=a_machine(area, COUNCIL))
    assert answer.status_code == 201, answer.text
    assert area.http.post("/v1/wrong-person", json=body, headers=a_machine(area, ICB)).status_code == 404
    (review,) = (one["review"] for one in reviewer.waiting(reason="wrong_person"))
    assert reviewer.get(f"/reviews/{review}").json()["second_reviewer"] is True
    assert reviewer.post(f"/reviews/{review}/decision", SEES).json()["state"] == "proposed"
    assert FAY.family not in answer.text


def test_a_record_that_a_restriction_names_takes_two_reviewers(area: Area, reviewer: Officer) -> None:
    review = reviewer.one("conflict")
    (sealed,) = (record for record in sides(area, review) if record[0] == ICB)
    text = RESTRICTION.read_text().replace("r_7Q2M4XK9TD", sealed[2])
    at, broker = broker_clock.now().replace(microsecond=0), area.broker
    ref = register.import_document(broker.store, broker.trail, text.encode(), who=OPERATOR, at=at)
    jws = sign(read(text.encode()), kid=f"{ICB}/signatory-1", key=area.signatory(ICB), at=at)
    register.add_signatures(broker.store, broker.trail, ref, jws, who=OPERATOR, at=at)
    activation.activate(broker.store, broker.trail, ref, who=OPERATOR, at=at)
    assert reviewer.post(f"/reviews/{review}/decision", SEES).json()["state"] == "proposed"


def test_a_reviewer_is_nobody_who_reports(linked: Area, reader: Officer) -> None:
    body = {"view": "0" * 32, "what": "whole_child", "how": "knows_the_child"}
    assert reader.post("/wrong-person", body).status_code == 403


def test_what_the_asker_types_of_the_household_leads_from_no_side_of_an_adoption_to_the_other(area: Area) -> None:
    asker = area.asker(ANALYST)
    for child, other in ((ADOPTED, BIRTH), (BIRTH, ADOPTED)):
        alone = asker.view(child.typed(), case=f"W4-{child.id}")
        both = asker.view(child.typed(), case=f"W5-{child.id}", household=[other.typed(relation="household")])
        assert [tile["organisation"] for tile in both["tiles"]] == [tile["organisation"] for tile in alone["tiles"]]
        assert both["family"] == alone["family"]


# --- The queue from run to run ---------------------------------------------------------------------------------------


def found(*pairs: tuple[str, str], reason: str = "uncertain") -> pa.Table:
    rows = [
        {
            "agency_l": COUNCIL, "flow_l": "education", "record_ref_l": left * 16,
            "agency_r": POLICE, "flow_r": "police", "record_ref_r": right * 16, "reason": reason,
        }
        for left, right in pairs
    ]  # fmt: skip
    return pa.Table.from_pylist([{**dict.fromkeys(REVIEWS.names), **row} for row in rows], schema=REVIEWS)


def listed(store: Store, **options: Any) -> list[ReviewRow]:
    with store.reading() as tx:
        return queue(tx, **{"states": ["waiting"], "limit": 50, **options})


def test_a_pair_keeps_its_place_while_runs_find_it_and_leaves_when_one_does_not(store: Store, keys: Keys) -> None:
    assert take_in(store, keys, "run-1", found(("a", "b"), ("c", "d")), at=AT) == 2
    assert take_in(store, keys, "run-1", found(("a", "b")), at=AT) == 0  # twice is once
    first = {row.id for row in listed(store)}
    assert take_in(store, keys, "run-2", found(("a", "b"), ("e", "f")), at=AT + timedelta(days=1)) == 1
    rows = listed(store)
    assert [row.since for row in rows] == [AT, AT + timedelta(days=1)]
    assert rows[0].id in first
    assert take_in(store, keys, "run-3", found(("c", "d")), at=AT + timedelta(days=2)) == 0
    assert [(row.id in first, row.since) for row in listed(store)] == [(True, AT + timedelta(days=2))]


def test_a_night_that_looks_up_what_differs_leaves_the_queue_that_looking_up_everything_leaves(
    store: Store, keys: Keys
) -> None:
    nights = ([("a", "b"), ("c", "d")], [("a", "b"), ("e", "f")], [("c", "d"), ("e", "f")], [], [("a", "b")])
    before = None
    for day, pairs in enumerate(nights):
        tonight = found(*pairs)
        take_in(store, keys, f"run-{day}", tonight, at=AT + timedelta(days=day), before=before)
        before = tonight
        waiting = {
            pair_index(keys, row) for row in (open_sides(keys, r.sealed, r.key_wrapped, r.id) for r in listed(store))
        }
        assert waiting == {pair_index(keys, side) for side in of(*pairs)}
    assert [row.since for row in listed(store)] == [AT + timedelta(days=4)]  # it had left, and is back
    take_in(store, keys, "run-5", found(("a", "b"), reason="twin"), at=AT + timedelta(days=5), before=before)
    assert [(row.reason, row.since) for row in listed(store)] == [("twin", AT + timedelta(days=4))]
    take_in(store, keys, "run-6", found(("a", "b"), reason="twin"), at=AT + timedelta(days=6))  # by everything again
    assert len(listed(store)) == 1


def of(*pairs: tuple[str, str]) -> list[Sides]:
    return [Sides.of([(COUNCIL, "education", left * 16)], [(POLICE, "police", right * 16)]) for left, right in pairs]


def decided(store: Store, keys: Keys, sides: Sides, scope: str, *, override: str, state: str) -> None:
    """A review that a reviewer decided, by an override that is now in this state."""
    sealed, wrapped = seal_sides(keys, sides, override)
    with store.transaction() as tx:
        tx.add(
            OverrideRow(
                id=override, kind="must_link", scope=scope, state=state, pair_index=pair_index(keys, sides),
                sealed=sealed, key_wrapped=wrapped, reason="levels_agree", evidence=[], organisation="hub",
                person="links-1", second_due=False, event_id="", valid_from=AT, made_at=AT, changed_at=AT,
            )
        )  # fmt: skip
        for row in tx.all(ReviewRow, pair_index=pair_index(keys, sides)):
            row.state, row.override, row.scope = "decided", override, scope
            tx.add(row)


@pytest.mark.parametrize("whole", [False, True])
def test_what_was_decided_waits_again_once_its_override_is_withdrawn_two_persons_though_no_run_doubts_them(
    store: Store, keys: Keys, whole: bool
) -> None:
    pairs = [("a", "b"), ("c", "d"), ("e", "f"), ("1", "2")]
    take_in(store, keys, "run-1", found(*pairs), at=AT)
    for n, (sides, scope, state) in enumerate(
        zip(of(*pairs), ("records", "persons", "records", "persons"), ("withdrawn", "withdrawn", "withdrawn", "active"),
            strict=True)
    ):  # fmt: skip
        decided(store, keys, sides, scope, override=f"override-{n}", state=state)
    assert listed(store) == []
    later = AT + timedelta(days=1)
    before = None if whole else found(*pairs)
    take_in(store, keys, "run-2", found(("a", "b")), at=later, before=before)
    waiting = {row.pair_index: (row.since, row.override) for row in listed(store)}
    assert waiting == {pair_index(keys, side): (later, None) for side in of(("a", "b"), ("c", "d"))}


def test_the_queue_is_by_age_alone_and_goes_on_where_the_last_page_ended(store: Store, keys: Keys) -> None:
    for day, pairs in enumerate(([("a", "b")], [("a", "b"), ("c", "d"), ("e", "f")], [("a", "b"), ("c", "d")])):
        take_in(store, keys, f"run-{day}", found(*pairs), at=AT + timedelta(days=day))
    everyone = listed(store)
    assert [row.since for row in everyone] == sorted(row.since for row in everyone)
    walked: list[ReviewRow] = []
    while page := listed(store, limit=1, after=walked[-1] if walked else None):
        walked += page
    assert [row.id for row in walked] == [row.id for row in everyone]
    assert len(listed(store, since_before=AT)) == 1
    assert listed(store, agency=POLICE) == everyone
    assert listed(store, agency=ICB) == listed(store, reason="tie") == []


def test_a_row_of_the_queue_says_neither_whose_records_they_are_nor_how_likely_one_person(
    store: Store, keys: Keys
) -> None:
    take_in(store, keys, "run-1", found(("a", "b")), at=AT)
    (row,) = listed(store)
    assert "a" * 16 not in repr(row.model_dump())
    assert not {"weight", "probability", "band"} & set(row.model_dump())
    with store.reading() as tx:
        assert [act.act for act in tx.all(ReviewActRow)] == ["taken_in"]
