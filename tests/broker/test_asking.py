"""An analyst asks: encoded at a gateway, found, decided under signed agreements, recorded, shown; or refused, with why."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agreements import VOCABULARY, PartyKey, replay
from audit.policy import Policy
from audit.receipts import LogReceipt
from broker import agencies, register, searches
from broker.store.log import EventRow
from broker.store.runs import LinkRunRow, PersonEventRow
from broker.store.searches import SearchCandidateRow, ThresholdRow, ViewRow
from linkage.agency.gateway.broker_client import BrokerRefused
from tests.builders import COUNCIL, ICB, POLICE
from tests.builders_area import AFTER_EXPIRY, ANALYST, DECIDER, MORNING, Area, Asker, Clock, bands, shown, the_time
from tests.builders_families import (
    ADA,
    ADOPTED,
    BIRTH,
    DANA,
    ELI,
    FAY,
    KIT,
    MAX,
    NOBODY,
    NOOR,
    PAT,
    ROBIN,
    SOLO,
    VIC,
    a_linked_area,
)
from tests.builders_signer import policy_text

PLACES = {
    "education.enrolment", "health.registration", "health.emergency_attendance", "housing.tenancy",
    "housing.homelessness", "social_care.allocated_worker",
}  # fmt: skip


@pytest.fixture(scope="module")
def clock() -> Iterator[Clock]:
    with the_time(MORNING) as clock:
        yield clock


@pytest.fixture(scope="module")
def area(clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    """Read by most tests; one that changes the register or the feeds takes a copy."""
    made = a_linked_area(tmp_path_factory.mktemp("asking") / "northshire")
    yield made
    made.close()


@pytest.fixture
def analyst(area: Area) -> Asker:
    return area.asker(ANALYST)


@pytest.fixture
def decider(area: Area) -> Asker:
    return area.asker(DECIDER)


@pytest.fixture
def changed(area: Area, clock: Clock, tmp_path: Path) -> Iterator[Area]:
    """A copy that a test may change, and a clock that it may put on."""
    made = area.copied(tmp_path / "northshire")
    yield made
    made.close()
    clock.put(MORNING)


def masked(answer: dict[str, Any]) -> bytes:
    """An answer's bytes without what differs from one answer to the next: ids, times, salts and the proof."""
    body = copy.deepcopy(answer)
    receipt = body.pop("receipt")
    body |= {"search": "", "at": ""}
    sections = receipt["opening"]
    for name, section in sections.items():
        sections[name] = section.get("body", "withheld")
    sections["what"] |= {"id": "", "search": ""}
    sections["who"]["assertion_sha256"] = ""
    return json.dumps([body, sections, receipt["decisions"]], sort_keys=True).encode()


def policy(area: Area) -> Policy:
    return Policy.parse(policy_text(area.broker.store).encode())


def codes(answer: dict[str, Any], organisation: str | None = None) -> set[str]:
    listed = answer.get("withheld", answer.get("refusals"))
    return {one["code"] for one in listed if organisation in (None, one["organisation"])}


# --- What is shown -----------------------------------------------------------------------------------------------


def test_a_child_who_is_already_open_is_answered_first_by_the_team_to_ring(analyst: Asker) -> None:
    first = analyst.view(ROBIN.typed(), case="A1")["first_call"]
    assert first["kind"] == "already_open"
    assert first["contact"]["name"] == "Assessment Team 2"
    assert "01632 960105" in first["sentence"]


def test_without_a_social_worker_the_schools_lead_practitioner_heads_the_view(analyst: Asker) -> None:
    first = analyst.view(ELI.typed(), case="A2")["first_call"]
    assert (first["kind"], first["contact"]["name"]) == ("lead_practitioner", "Hilltop School lead")


def test_one_child_is_known_to_three_organisations_and_every_category_names_the_words_it_is_shown_under(
    analyst: Asker,
) -> None:
    view = analyst.view(ROBIN.typed(), case="A3")
    assert {tile["organisation"] for tile in view["tiles"]} == {COUNCIL, ICB, POLICE}
    for category in shown(view).values():
        (clause,) = category["under"]
        assert clause["agreement"] == "northshire-mash@3.0.0"
        assert clause["text"].startswith(("4.1", "4.2"))
    assert {category["mode"] for category in shown(view).values()} == {"existence", "status"}
    assert view["chronology"] == []  # screening shows no dated item


def test_a_feed_that_is_two_days_late_says_so_and_never_that_there_is_nothing(analyst: Asker) -> None:
    view = analyst.view(ROBIN.typed(), case="A4")
    (housing,) = [other for other in view["others"] if other["flow"] == "housing"]
    assert housing["state"] == "STALE"
    assert "last sent information on 20 Nov 2026" in housing["sentence"]
    assert "Nothing to show" not in housing["sentence"]
    known = analyst.view(KIT.typed(), case="A4K")
    assert [tile["state"] for tile in known["tiles"] if tile["flow"] == "housing"] == ["STALE"]


def test_a_merely_possible_match_shows_existence_unconfirmed_and_no_item_and_no_family(
    analyst: Asker, decider: Asker
) -> None:
    guess = ROBIN.typed(given_name="Zora", family_name="Unlike", day="01", month="01", year="2005", postcode="NS9 9ZZ")
    answer = analyst.search(guess, case="A5")
    assert bands(answer) == ["possible"]
    view = analyst.open(answer)
    assert {category["mode"] for category in shown(view).values()} == {"existence"}
    assert all(category["unconfirmed"] for category in shown(view).values())
    assert view["family"] == view["chronology"] == []
    again = decider.search(guess, case="A5")
    assert decider.threshold(again, case="A5")["set"]
    enquiry = decider.open(decider.search(guess, case="A5", purpose="S47"))
    assert {category["mode"] for category in shown(enquiry).values()} == {"existence"}
    assert all(category["items"] == [] for category in shown(enquiry).values())


def test_a_level_recorded_by_the_decision_maker_widens_what_is_shown_from_then_on(
    analyst: Asker, decider: Asker
) -> None:
    before = decider.search(ROBIN.typed(), case="A6", purpose="S47")
    assert before["candidates"] == []
    assert codes(before, COUNCIL) == {"THRESHOLD_NOT_MET"}
    screened = decider.search(ROBIN.typed(), case="A6")
    assert decider.threshold(screened, case="A6")["set"] is True
    view = decider.view(ROBIN.typed(), case="A6", purpose="S47")
    assert view["threshold"] == "L4"
    modes = {category: each["mode"] for category, each in shown(view).items()}
    assert modes["social_care.child_protection"] == modes["police.missing_episode"] == "summary"
    assert modes["police.custody"] == "detail"
    assert modes["health.mental_health_open"] == "detail"
    assert shown(view)["police.custody"]["may_ask_holder"] is True
    assert "police.missing_episode" in {entry["category"] for entry in view["chronology"]}
    assert [entry["date"] for entry in view["chronology"]] == sorted(
        (entry["date"] for entry in view["chronology"]), reverse=True
    )
    # neither for an analyst, nor for another case
    assert analyst.search(ROBIN.typed(), case="A6", purpose="S47")["candidates"] == []
    assert decider.search(ROBIN.typed(), case="A6-other", purpose="S47")["candidates"] == []


def test_a_child_whom_one_school_alone_knows_is_shown_as_surely_as_it_was_found(decider: Asker) -> None:
    """No other record ties the one that was found to anybody; the search itself passed the higher bar on it."""
    assert decider.threshold(decider.search(SOLO.typed(), case="A6S"), case="A6S")["set"]
    view = decider.view(SOLO.typed(), case="A6S", purpose="S47")
    assert shown(view)["education.attendance"]["mode"] == "summary"
    assert [entry["code"] for entry in view["chronology"]] == ["SEVERE"]


def test_a_victim_is_never_shown_as_anything_else_and_police_items_keep_their_role(decider: Asker) -> None:
    assert decider.threshold(decider.search(VIC.typed(), case="A7"), case="A7")["set"]
    view = decider.view(VIC.typed(), case="A7", purpose="S47")
    (item,) = shown(view)["police.domestic_abuse"]["items"]
    assert item["role"] == "victim"
    assert "suspect" not in json.dumps(view)


def test_the_family_is_as_those_tell_it_who_show_the_child(analyst: Asker, decider: Asker) -> None:
    view = analyst.view(ROBIN.typed(), case="A8")
    (sibling,) = view["family"]  # the mother: a clause of screening is about children alone
    assert (sibling["relation"], sibling["birth_year"], sibling["sources"]) == ("sibling", 2019, [COUNCIL])
    assert decider.threshold(decider.search(ROBIN.typed(), case="A8"), case="A8")["set"]
    enquiry = decider.view(ROBIN.typed(), case="A8", purpose="S47")
    mother = next(one for one in enquiry["family"] if one["relation"] == "birth_parent")
    assert [each["category"] for each in mother["categories"]] == ["police.domestic_abuse"]
    assert {entry["about"] for entry in enquiry["chronology"]} >= {"subject_child", "parent"}


# --- Refusals ----------------------------------------------------------------------------------------------------


def test_an_analyst_who_asks_for_police_detail_is_told_who_can_change_that(analyst: Asker) -> None:
    answer = analyst.search(ROBIN.typed(), case="B1", purpose="S47")
    police = [one for one in answer["refusals"] if one["organisation"] == POLICE]
    assert {one["code"] for one in police} == {"THRESHOLD_NOT_MET"}
    assert all("MASH decision-maker" in one["sentence"] for one in police)
    assert answer["candidates"] == []


def test_an_analyst_can_not_set_the_level(analyst: Asker, decider: Asker) -> None:
    answer = analyst.search(ROBIN.typed(), case="B2")
    refused = analyst.threshold(answer, case="B2")
    assert refused["set"] is False
    assert refused["refusal"]["code"] == "THRESHOLD_UNAUTHORISED"
    assert refused["receipt"]["opening"]["what"]["body"]["type"] == "threshold.refused"
    assert decider.search(ROBIN.typed(), case="B2", purpose="S47")["candidates"] == []


@pytest.mark.parametrize(("given", "member"), [({"case": "other"}, "case"), ({"grounds": "i_say_so"}, "grounds")])
def test_a_level_is_for_the_searchs_own_case_and_on_a_listed_ground(
    decider: Asker, given: dict[str, str], member: str
) -> None:
    answer = decider.search(ROBIN.typed(), case="B3")
    with pytest.raises(BrokerRefused) as refused:
        decider.threshold(answer, **({"case": "B3"} | given))
    assert (refused.value.status, refused.value.detail.split(":")[0]) == (400, member)


@pytest.mark.parametrize("purpose", sorted(VOCABULARY.prohibited))
def test_a_prohibited_purpose_is_a_logged_refusal_with_its_receipt(analyst: Asker, purpose: str) -> None:
    answer = analyst.ask({**analyst.body(ROBIN.typed(), case="B4"), "purpose": purpose})
    assert (answer["candidates"], codes(answer)) == ([], {"PURPOSE_PROHIBITED"})
    opened = answer["receipt"]["opening"]
    assert opened["what"]["body"]["type"] == "search.refused"
    assert opened["why"]["body"]["purpose"] == purpose


def test_what_is_no_purpose_at_all_is_refused_in_words_and_not_kept(area: Area, analyst: Asker) -> None:
    answer = analyst.ask({**analyst.body(ROBIN.typed(), case="B5"), "purpose": "Robin.Samplewick"})
    (refusal,) = answer["refusals"]
    assert refusal["code"] == "PURPOSE_UNKNOWN"
    assert "{" not in refusal["sentence"]
    assert answer["receipt"]["opening"]["why"]["body"]["purpose"] == "UNKNOWN"


def test_planning_statistics_ask_nothing_of_any_child(area: Area) -> None:
    for role in (ANALYST, "SERVICE_PLANNER"):
        planner = area.asker(role)
        answer = planner.ask({**planner.body(ROBIN.typed(), case="B6"), "purpose": "PLAN"})
        assert answer["candidates"] == []


def test_too_many_who_may_be_known_of_ask_for_another_detail_and_hidden_children_never_count(
    analyst: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "LISTED", 0)
    answer = analyst.search(ROBIN.typed(), case="B7a")
    assert (answer["candidates"], answer["too_many"]) == ([], searches.ADD_DETAIL)
    assert answer["receipt"]["opening"]["subjects"]["body"] == []
    assert analyst.search(FAY.typed(), case="B7a")["too_many"] is None


def test_who_searches_too_much_is_told_when_to_try_again(
    area: Area, analyst: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(area.settings.budgets), "person_searches_hour", 0)
    (refusal,) = analyst.search(ROBIN.typed(), case="B7b")["refusals"]
    assert refusal["code"] == "RATE_LIMIT"
    assert "Try again at 10:0" in refusal["sentence"]


def test_who_opens_too_many_views_is_told_when_to_try_again_and_the_log_says_so(
    area: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(area.settings.budgets), "person_views_hour", 1)
    asker = area.asker(ANALYST, person="p-many")
    answer = asker.search(ROBIN.typed(), case="B7e")
    asker.open(answer)
    with pytest.raises(BrokerRefused) as refused:
        asker.open(answer)
    assert (refused.value.status, refused.value.code) == (429, "too-many")
    assert "Try again at 10:0" in refused.value.detail
    area.broker.trail.advance_pending()
    with area.broker.store.reading() as reading:
        assert reading.one(EventRow, type="disclosure.refused", outcome="RATE_LIMIT") is not None
        assert len(reading.all(ViewRow, person="p-many")) == 1


def test_a_case_of_another_child_shows_nothing_and_says_nothing_of_it(analyst: Asker) -> None:
    analyst.view(ROBIN.typed(), case="B7")
    other = analyst.search(ELI.typed(), case="B7")
    nobody = analyst.search(NOBODY.typed(), case="B7")
    assert other["candidates"] == []
    assert masked(other) == masked(nobody)
    assert "match" in bands(analyst.search(KIT.typed(), case="B7"))  # the family is the same case


@pytest.mark.parametrize("kind", ["merge", "split"])
def test_a_case_follows_its_child_whatever_id_the_records_have_now_and_a_level_ends_with_a_split(
    changed: Area, kind: str
) -> None:
    decider = changed.asker(DECIDER)
    answer = decider.search(ROBIN.typed(), case="B7c")
    assert decider.threshold(answer, case="B7c")["set"]
    decider.open(answer)
    linked_otherwise_since(changed, answer["search"], kind)
    assert decider.search(ELI.typed(), case="B7c")["candidates"] == []
    assert bands(decider.search(ROBIN.typed(), case="B7c")) == ["match"]
    enquiry = bands(decider.search(ROBIN.typed(), case="B7c", purpose="S47"))
    assert enquiry == (["match"] if kind == "merge" else [])


def test_a_case_of_a_child_of_whom_nothing_is_left_is_the_next_childs(changed: Area) -> None:
    analyst = changed.asker(ANALYST)
    answer = analyst.search(ROBIN.typed(), case="B7d")
    analyst.open(answer)
    linked_otherwise_since(changed, answer["search"], "gone")
    analyst.view(ELI.typed(), case="B7d")
    assert bands(analyst.search(ELI.typed(), case="B7d")) == ["match"]
    assert analyst.search(ROBIN.typed(), case="B7d")["candidates"] == []


def linked_otherwise_since(area: Area, search: str, kind: str) -> None:
    """As after a later night: the persons of a search had other ids then, which led to today's; or to nobody."""
    with area.broker.store.transaction() as tx:
        (run,) = tx.all(LinkRunRow)
        assert run.published_at is not None
        for n, candidate in enumerate(tx.all(SearchCandidateRow, search=search)):
            now, then = candidate.person_id, f"{n:032x}"
            for row in (candidate, *tx.all(ThresholdRow, search=search, person_id=now)):
                row.person_id = then
                tx.add(row)
            if kind != "gone":
                later = run.published_at + timedelta(hours=1)
                tx.add(PersonEventRow(seq=99, run=run.id, kind=kind, before=then, after=now, at=later))


def test_opening_a_merely_possible_match_binds_no_case(analyst: Asker) -> None:
    guess = PAT.typed(given_name="Zora", family_name="Unlike", day="01", month="01", year="2005", postcode="NS1 9ZZ")
    analyst.open(analyst.search(guess, case="B8"))
    assert bands(analyst.search(ELI.typed(), case="B8")) == ["match"]


def test_a_search_of_somebody_else_an_invented_and_an_expired_one_are_alike_not_there(
    area: Area, clock: Clock, analyst: Asker
) -> None:
    answer = analyst.search(ELI.typed(), case="B9")
    said = []
    other = area.asker(ANALYST, person="p-other")
    icb = area.asker(ANALYST, agency=ICB)
    for asker, search in ((other, answer), (icb, answer), (analyst, {**answer, "search": "0" * 32})):
        with pytest.raises(BrokerRefused) as refused:
            asker.open(search)
        said.append((refused.value.status, refused.value.code, refused.value.detail))
    clock.put(MORNING + timedelta(hours=9))
    with pytest.raises(BrokerRefused) as refused:
        area.asker(ANALYST).open(answer)
    clock.put(MORNING)
    said.append((refused.value.status, refused.value.code, refused.value.detail))
    assert set(said) == {(404, "not-found", said[0][2])}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"key_fingerprint": "0" * 16}, "key_epoch"),
        ({"profile": "accurate-2"}, "profile"),
        ({"family_informed": "no_Robin_would_be_upset"}, "family_informed"),
    ],
)
def test_another_key_profile_or_reason_is_malformed(analyst: Asker, change: dict[str, str], place: str) -> None:
    with pytest.raises(BrokerRefused) as refused:
        analyst.ask({**analyst.body(ROBIN.typed(), case="B10"), **change})
    assert refused.value.status == 400
    assert refused.value.detail.startswith(place)


def test_refusals_are_the_same_sentences_for_every_child(analyst: Asker) -> None:
    lists = {
        json.dumps(analyst.view(child.typed(), case=f"B11-{child.id}")["withheld"]) for child in (ROBIN, NOOR, ELI)
    }
    assert len(lists) == 1


# --- The life of an agreement --------------------------------------------------------------------------------------


def test_from_midnight_after_its_last_day_an_agreement_shows_nothing(changed: Area, clock: Clock) -> None:
    clock.put(AFTER_EXPIRY)
    answer = changed.asker().search(ROBIN.typed(), case="C1")
    assert answer["candidates"] == []
    assert codes(answer) == {"DSA_EXPIRED"}


def test_a_party_that_suspends_stops_its_own_data_alone_even_between_search_and_view(changed: Area) -> None:
    analyst = changed.asker()
    answer = analyst.search(ROBIN.typed(), case="C2")
    for agreement in ("northshire-mash", "northshire-early-help", "northshire-planning"):
        changed.suspend(ICB, agreement)
    view = analyst.open(answer)
    assert {tile["organisation"] for tile in view["tiles"]} == {COUNCIL, POLICE}
    assert codes(view, ICB) == {"DSA_SUSPENDED"}
    assert "DSA_SUSPENDED" not in codes(view, COUNCIL) | codes(view, POLICE)
    assert view["receipt"]["opening"]["what"]["body"]["type"] == "disclosure.authorised"


def test_an_organisation_that_was_suspended_shares_nothing_and_the_view_says_paused(changed: Area) -> None:
    agencies.set_state(
        changed.broker.store, changed.broker.trail, POLICE, "suspended", who={"person": "operator"},
        at=MORNING,
    )  # fmt: skip
    view = changed.asker().view(ROBIN.typed(), case="C3")
    assert {tile["organisation"] for tile in view["tiles"]} == {COUNCIL, ICB}
    (other,) = [other for other in view["others"] if other["organisation"] == POLICE]
    assert (other["state"], other["paused_since"]) == ("PAUSED", "2026-11-22T09:00:00Z")
    assert "has paused its sharing since 22 Nov 2026. Ring" in other["sentence"]


def test_a_pause_of_one_agreement_is_said_alike_for_a_child_who_is_shown_and_one_who_is_hidden(changed: Area) -> None:
    changed.suspend(ICB)
    analyst = changed.asker()
    view = analyst.view(ROBIN.typed(), case="C5")
    assert {tile["organisation"] for tile in view["tiles"]} == {COUNCIL, POLICE}
    (sentence,) = {
        one["sentence"] for one in view["withheld"] if one["organisation"] == ICB and one["code"] == "DSA_SUSPENDED"
    }
    assert "has paused its sharing since 22 Nov 2026. Ring" in sentence
    assert view["withheld"] == analyst.view(NOOR.typed(), case="C6")["withheld"]
    hidden = analyst.search(FAY.typed(), case="C7")
    assert hidden["candidates"] == []
    assert hidden["refusals"] == view["withheld"]


def test_before_the_first_night_nobody_is_found_and_the_search_is_recorded(tmp_path: Path, clock: Clock) -> None:
    empty = Area(tmp_path / "northshire")
    empty.folder.mkdir()
    empty.install()
    answer = empty.asker().search(ROBIN.typed(), case="C4")
    assert answer["candidates"] == []
    assert {feed["state"] for feed in answer["organisations"]} == {"NOT_CONNECTED"}
    assert answer["receipt"]["opening"]["what"]["body"]["type"] == "search.authorised"
    empty.close()


# --- Identity and shields ------------------------------------------------------------------------------------------


def test_twins_with_swapped_given_names_are_never_merged(area: Area, analyst: Asker) -> None:
    answer = analyst.search(ADA.typed(), case="D1")
    assert bands(answer).count("match") == 2  # the school's record, and the one that bears the number
    for n in range(2):
        view = analyst.open(answer, n)
        assert len({tile["organisation"] for tile in view["tiles"]}) == 1


def test_neither_identity_of_an_adopted_child_leads_to_the_other(analyst: Asker, decider: Asker) -> None:
    new = analyst.view(ADOPTED.typed(), case="D2")
    assert {tile["flow"] for tile in new["tiles"]} == {"education", "health"}
    assert new["family"] == []
    for before in (BIRTH, MAX):
        answer = analyst.search(before.typed(), case=f"D2-{before.id}")
        for n in range(len(answer["candidates"])):
            view = analyst.open(answer, n)
            assert all(member["birth_year"] != 2016 or before is MAX for member in view["family"])
            assert "654321" not in json.dumps(view)
    household = [BIRTH.typed(relation="sibling")]
    both = analyst.view(ADOPTED.typed(), case="D2-both", household=household)
    assert set(shown(both)) == set(shown(new))


def test_one_flag_on_the_mother_takes_every_place_from_every_view_of_the_child(analyst: Asker, decider: Asker) -> None:
    view = analyst.view(NOOR.typed(), case="D3")
    assert shown(view)
    assert not PLACES & set(shown(view))
    assert decider.threshold(decider.search(NOOR.typed(), case="D3"), case="D3")["set"]
    enquiry = decider.view(NOOR.typed(), case="D3", purpose="S47")
    assert not PLACES & set(shown(enquiry))
    assert "RX123" not in json.dumps(enquiry)
    assert "postcode" not in enquiry["person"]["agreed"] + enquiry["person"]["differs"]


def test_a_shielded_address_finds_nobody(area: Area, analyst: Asker) -> None:
    by_place = NOOR.typed(nhs_number="", day="", month="", year="")
    nobody = NOBODY.typed(nhs_number="", day="", month="", year="")
    assert masked(analyst.search(by_place, case="D4")) == masked(analyst.search(nobody, case="D4"))
    # nor is a wrong one told from the right one
    right = analyst.search(NOOR.typed(), case="D4N")
    wrong = analyst.search(NOOR.typed(postcode="NS9 9ZZ"), case="D4N")
    for answer in (right, wrong):
        for candidate in answer["candidates"]:
            candidate["candidate"] = ""
    assert right["candidates"] == wrong["candidates"]


@pytest.mark.parametrize("purpose", ["MASH_SCREEN", "S47"])
def test_a_child_who_is_shielded_altogether_is_answered_as_one_nobody_knows(
    area: Area, analyst: Asker, purpose: str
) -> None:
    sizes = [area.size()]
    answers = []
    for child in (FAY, NOBODY):
        answers.append(analyst.search(child.typed(), case="D5", purpose=purpose))
        sizes.append(area.size())
    assert masked(answers[0]) == masked(answers[1])
    assert answers[0]["candidates"] == []
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1] == 2  # that it was authorised, and that it left
    details = [
        area.broker.trail.opening(answer["receipt"]["event_id"], show=("detail",)).body("detail") for answer in answers
    ]
    codes_hidden = [[code for _, code in detail["hidden"]] for detail in details]  # type: ignore[index,call-overload]
    assert codes_hidden == [["SHIELDED"], []]  # in the log alone: so the protecting agency can be told


# --- What is recorded ----------------------------------------------------------------------------------------------


def test_each_receipt_verifies_offline_and_never_opens_what_was_hidden(area: Area, analyst: Asker) -> None:
    answer = analyst.search(ROBIN.typed(), case="E1")
    view = analyst.open(answer)
    for given in (answer["receipt"], view["receipt"]):
        receipt = LogReceipt.from_json(given)
        accepted = receipt.verify(policy(area))
        assert accepted.checkpoint.size == given["log"]["size"]
        assert receipt.opening.withheld == ("detail",)


def test_a_search_is_logged_with_what_was_asked_and_found_and_with_its_end(area: Area, analyst: Asker) -> None:
    before = area.size()
    answer = analyst.search(ROBIN.typed(), case="E2")
    view = analyst.open(answer)
    assert area.size() - before == 4
    trail = area.broker.trail
    opened = trail.opening(answer["receipt"]["event_id"], show=("what", "detail"))
    assert opened.body("what")["outcome"] == f"{len(answer['candidates'])}_listed"  # type: ignore[index,call-overload]
    assert "dob_p" in opened.body("detail")["fields"]  # type: ignore[index,call-overload]
    query = json.loads(trail.blob(answer["receipt"]["event_id"], "query"))
    assert [row["relation"] for row in query["rows"]] == ["subject"]
    about = view["receipt"]["opening"]
    assert about["what"]["body"]["categories"][POLICE] == {"police.missing_episode": "existence"}
    assert json.loads(trail.blob(view["receipt"]["event_id"], "subjects")) == about["subjects"]["body"]


def test_decisions_replay_from_the_full_receipts_and_the_asker_holds_a_copy_of_each(area: Area, analyst: Asker) -> None:
    view = analyst.view(ROBIN.typed(), case="E3")
    keys = area.broker.keys
    signers = {keys.receipt_kid: PartyKey(kid=keys.receipt_kid, public=keys.receipt_key.public_key())}
    with area.broker.store.reading() as reading:
        snapshot = register.snapshot(reading)
    copies = {one["source"]: one for one in view["receipt"]["decisions"]}
    assert set(copies) == {COUNCIL, ICB, POLICE}
    for source, told in copies.items():
        full = json.loads(area.broker.trail.blob(view["receipt"]["event_id"], f"decision/{source}"))
        for slow in (False, True):
            assert replay(full, snapshot, VOCABULARY, signers, slow=slow) == ()
        assert told["commitment"] == view["receipt"]["opening"]["what"]["body"]["decisions"][source]
        assert "facts" not in json.dumps(told)


def test_what_is_typed_at_the_gateway_is_found_nowhere_at_the_broker(area: Area, analyst: Asker) -> None:
    canary = NOBODY.typed(given_name="Quixotina", family_name="Canaryfeather", postcode="NS77 7QQ")
    household = [DANA.typed(given_name="Zephyrine", relation="birth_parent")]
    analyst.search(canary, case="CANARY-CASE-7", household=household)
    analyst.view(ROBIN.typed(), case="CANARY-CASE-8", household=household)
    area.size()
    texts = [
        "Quixotina", "Canaryfeather", "Zephyrine", "Samplewick", "Hiddenham", "NS77 7QQ", "NS777QQ", "CANARY-CASE",
        ROBIN.nhs, NOBODY.nhs, DANA.nhs, "NS1 1AA", "NS11AA", "2017-03-07",
    ]  # fmt: skip
    files = [path for path in area.folder.rglob("*") if path.is_file() and not _of_an_agency(area, path)]
    assert any(path.name == "broker.sqlite" for path in files)
    for path in files:
        held = path.read_bytes().lower()
        found = [text for text in texts if text.lower().encode() in held]
        assert not found, (path.name, found)


def _of_an_agency(area: Area, path: Path) -> bool:
    return path.relative_to(area.folder).parts[0] in ("homes", "extracts")
