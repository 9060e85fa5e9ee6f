"""A link run over encoded people: who becomes one person, who never does, and what is left to a reviewer."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pyarrow as pa
import pytest

from linkage.matching.families import families
from linkage.matching.link import Linkage, link
from linkage.matching.model import BadModel, default_model
from linkage.matching.overrides import Overrides
from linkage.records import RELATIONSHIPS_SCHEMA
from tests.linkage.matching.people import EDUCATION, HEALTH, PERSONS, SOCIAL_CARE, Someone, encoded, ids

ZOE = Someone()
AMY = Someone(given_name="amelia", nhs_number="9990000018", ref="amy")
BETH = replace(AMY, given_name="bethany", nhs_number="9990000026", ref="beth")


def linked(people: Iterable[Someone], **options: object) -> Linkage:
    options = {"model": default_model("guarded-3"), "new_id": iter(ids()).__next__, **options}
    return link(encoded(people), **options)  # type: ignore[arg-type]


def person_of(linkage: Linkage, someone: Someone) -> str:
    rows = linkage.clusters.to_pylist()
    return next(r["person_id"] for r in rows if (r["agency"], r["flow"], r["record_ref"]) == someone.key)


def together(linkage: Linkage, *people: Someone) -> bool:
    return len({person_of(linkage, someone) for someone in people}) == 1


def reasons(linkage: Linkage) -> set[str]:
    return set(linkage.reviews["reason"].to_pylist())


def test_one_child_in_three_flows_is_one_person() -> None:
    elsewhere = [ZOE.at(HEALTH), ZOE.at(PERSONS, given_name="zoey")]
    run = linked([ZOE, *elsewhere])
    assert together(run, ZOE, *elsewhere)
    assert run.report.persons == 1
    assert set(run.pairs["rule"].to_pylist()) == {"two_fields"}


def test_a_number_and_a_date_of_birth_make_a_match_whatever_the_name() -> None:
    here = replace(ZOE, nhs_number="9990000018")
    there = here.at(HEALTH, given_name="agnieszka", family_name="nowak", postcode="nx99zz")
    assert together(linked([here, there]), here, there)


def test_a_number_alone_is_left_to_a_reviewer() -> None:
    here = replace(ZOE, nhs_number="9990000018")
    there = here.at(HEALTH, given_name="agnieszka", family_name="nowak", date_of_birth="19820101", postcode="nx99zz")
    run = linked([here, there])
    assert not together(run, here, there)
    assert reasons(run) == {"identifier_alone"}


@pytest.mark.parametrize(
    ("given_name", "date_of_birth", "postcode"),
    [("max", "20170506", ZOE.postcode), ("helen", "19850120", ZOE.postcode), ("victor", "20191106", "nx99zz"),
     (ZOE.given_name, "19850120", ZOE.postcode)],
    ids=["a brother's", "a mother's", "a stranger's", "a namesake's of another generation"],
)  # fmt: skip
def test_a_number_typed_on_somebody_of_the_same_family_name_is_left_to_a_reviewer(
    given_name: str, date_of_birth: str, postcode: str
) -> None:
    here = replace(ZOE, nhs_number="9990000018")
    there = here.at(HEALTH, given_name=given_name, date_of_birth=date_of_birth, postcode=postcode)
    run = linked([here, there])
    assert not together(run, here, there)
    assert reasons(run) == {"identifier_alone"}


def test_a_brother_and_a_sister_whose_numbers_were_swapped_are_left_to_a_reviewer() -> None:
    max_ = replace(ZOE, given_name="max", date_of_birth="20170506")
    sister, brother = replace(ZOE, nhs_number="9990000018"), replace(max_, ref="max", nhs_number="9990000026")
    there = [ZOE.at(HEALTH, nhs_number="9990000026"), max_.at(HEALTH, nhs_number="9990000018", ref="max there")]
    run = linked([sister, brother, *there])
    assert run.report.persons == 4
    assert reasons(run) == {"identifier_alone", "conflict"}


def test_a_superseded_number_agrees_with_the_current_one_even_through_another_agencys_table() -> None:
    old, new = replace(ZOE, nhs_number="9990000018"), ZOE.at(PERSONS, nhs_number="9990000026")
    both = ZOE.at(HEALTH, nhs_number="9990000026", superseded_nhs_number="9990000018")
    assert together(linked([old, both, new]), old, both, new)


def test_two_numbers_that_differ_never_meet_not_even_through_a_third_record() -> None:
    here, there = replace(ZOE, nhs_number="9990000018"), ZOE.at(HEALTH, nhs_number="9990000026")
    between = ZOE.at(PERSONS)
    run = linked([here, there, between])
    assert not together(run, here, there)
    assert "conflict" in reasons(run)
    assert person_of(run, between) not in (person_of(run, here), person_of(run, there))  # it fits both: not guessed


@pytest.mark.parametrize("numbered", [True, False])
def test_twins_never_merge_by_themselves(numbered: bool) -> None:
    strip = {} if numbered else {"nhs_number": None}
    amy, beth = replace(AMY, **strip), replace(BETH, **strip)
    in_health = [amy.at(HEALTH), beth.at(HEALTH)]
    run = linked([amy, beth, *in_health])
    assert together(run, amy, in_health[0])
    assert together(run, beth, in_health[1])
    assert not together(run, amy, beth)


def test_a_twin_known_to_one_agency_only_is_not_taken_for_the_other_twin() -> None:
    amy, beth = replace(AMY, nhs_number=None), BETH.at(HEALTH, nhs_number=None)
    run = linked([amy, beth])
    assert not together(run, amy, beth)
    assert reasons(run) == {"twin"}


def test_twins_with_swapped_names_and_numbers_never_merge() -> None:
    wrong = BETH.at(SOCIAL_CARE, nhs_number=AMY.nhs_number, ref="wrong")  # Beth's name, Amy's number
    everyone = [AMY.at(HEALTH), BETH.at(HEALTH), wrong, replace(AMY, nhs_number=None), replace(BETH, nhs_number=None)]
    run = linked(everyone)
    amys = [everyone[0], everyone[3]]
    assert together(run, *amys)
    for beth in (everyone[1], everyone[4], wrong):
        assert not together(run, amys[0], beth)
    assert {"swapped", "tie"} <= reasons(run)  # Beth's own record fits two that can't both be hers: not guessed


def test_siblings_at_one_address_stay_two() -> None:
    older = ZOE.at(HEALTH, given_name="agnieszka", date_of_birth="20121102", ref="2")
    assert not together(linked([ZOE, older]), ZOE, older)


def test_a_brother_of_the_same_first_name_stays_another() -> None:
    brother = ZOE.at(HEALTH, date_of_birth="20120927", ref="2")
    run = linked([ZOE, brother])
    assert not together(run, ZOE, brother)
    assert reasons(run) <= {"date_differs"}


def test_day_and_month_swapped_are_still_one_child() -> None:
    here = replace(ZOE, date_of_birth="20150311")
    there = here.at(HEALTH, date_of_birth="20151103")
    assert together(linked([here, there]), here, there)


def test_a_newborn_without_a_name_is_left_to_a_reviewer() -> None:
    baby = ZOE.at(HEALTH, given_name=None)
    run = linked([ZOE, baby])
    assert not together(run, ZOE, baby)
    assert reasons(run) == {"no_given_name"}


def test_missing_fields_are_no_evidence_either_way() -> None:
    nobody = Someone(given_name=None, family_name=None, date_of_birth=None, postcode=None, sex=None, ref="x")
    run = linked([nobody, nobody.at(HEALTH)])
    assert run.pairs.num_rows == 0
    assert run.report.persons == 2


def test_a_record_is_as_good_as_its_best_alternative() -> None:
    known_as = replace(ZOE, given_name="agnieszka")
    there = ZOE.at(HEALTH, given_name="agnieszka")
    assert together(linked([ZOE, known_as, there]), ZOE, there)


def test_one_flow_that_holds_two_equal_records_is_not_guessed_about() -> None:
    again, there = replace(ZOE, ref="2"), ZOE.at(HEALTH)
    run = linked([ZOE, again, there])
    assert run.report.persons == 3
    assert reasons(run) == {"tie"}
    declared = linked([ZOE, again, there], duplicates={EDUCATION})
    assert together(declared, ZOE, again, there)


def test_a_number_that_one_flow_gives_to_two_records_carries_no_weight() -> None:
    shared = {"nhs_number": "9990000018"}
    here = [
        replace(ZOE, **shared),
        Someone(given_name="tom", family_name="price", date_of_birth="20110605", postcode="nx55aa", ref="2", **shared),
    ]
    there = ZOE.at(HEALTH, nhs_number="9990000026")
    run = linked([*here, there])
    assert together(run, here[0], there)
    assert run.report.over_shared == {"nhs_number": 1}


def test_the_order_of_the_rows_does_not_matter() -> None:
    people = [AMY, BETH, ZOE, AMY.at(HEALTH), BETH.at(HEALTH), ZOE.at(HEALTH), ZOE.at(PERSONS, given_name="zoey")]
    partitions = set()
    for seed in range(3):
        random.Random(seed).shuffle(people)
        groups: dict[str, set[tuple[str, str, str]]] = {}
        for row in linked(people).clusters.to_pylist():
            groups.setdefault(row["person_id"], set()).add((row["agency"], row["flow"], row["record_ref"]))
        partitions.add(frozenset(map(frozenset, groups.values())))
    assert len(partitions) == 1


def test_persons_keep_their_ids_from_night_to_night() -> None:
    def fresh() -> Iterator[str]:
        return (f"new{n}" for n in range(100))

    first = linked([ZOE, AMY, ZOE.at(HEALTH)])
    second = linked([BETH, ZOE.at(PERSONS), ZOE, AMY, ZOE.at(HEALTH)], previous=first.clusters, new_id=fresh().__next__)
    assert person_of(second, ZOE) == person_of(first, ZOE) == person_of(second, ZOE.at(PERSONS))
    assert person_of(second, AMY) == person_of(first, AMY)
    assert person_of(second, BETH).startswith("new")
    assert second.report.events == ()


# --- Overrides -------------------------------------------------------------------------------------------------------

BEFORE = Someone(nhs_number="9990000018", family_name="jones", ref="before", source=SOCIAL_CARE)
AFTER = replace(BEFORE, family_name="clarke", nhs_number=None, postcode="nx77bb", ref="after")


def test_a_severed_pair_never_meets_not_through_a_number_an_address_or_a_third_record_nor_after_a_rerun() -> None:
    before, after = replace(BEFORE, sever_ref="s"), replace(AFTER, sever_ref="s", nhs_number=BEFORE.nhs_number)
    bridges = [BEFORE.at(HEALTH, ref="3"), replace(after, source=PERSONS, sever_ref=None, ref="4")]
    everyone = [before, after, *bridges]
    run = linked(everyone, duplicates={SOCIAL_CARE})
    again = linked(everyone, duplicates={SOCIAL_CARE}, previous=run.clusters)
    for found in (run, again):
        assert not together(found, before, after)
        assert found.report.severed_meetings == 0
        met = {(r["record_ref_l"], r["record_ref_r"]) for r in [*found.pairs.to_pylist(), *found.reviews.to_pylist()]}
        assert not met & {("before", "after"), ("after", "before")}


def test_a_reviewer_cannot_undo_a_sever_and_must_not_link_beats_must_link() -> None:
    there = ZOE.at(HEALTH)
    pair = frozenset({(there.key, ZOE.key)})
    for no in (Overrides(sever=pair, must_link=pair), Overrides(must_not_link=pair, must_link=pair)):
        assert not together(linked([ZOE, there], overrides=no), ZOE, there)
    assert together(linked([ZOE, there]), ZOE, there)


def test_a_reviewer_may_join_what_the_model_held() -> None:
    baby = ZOE.at(HEALTH, given_name=None)
    run = linked([ZOE, baby], overrides=Overrides(must_link=frozenset({(ZOE.key, baby.key)})))
    assert together(run, ZOE, baby)
    assert run.reviews.num_rows == 0


def test_no_path_of_family_edges_leads_from_one_side_of_a_severed_pair_to_the_other() -> None:
    before, after = replace(BEFORE, sever_ref="s"), replace(AFTER, sever_ref="s")
    sibling = Someone(given_name="oscar", family_name="jones", date_of_birth="20120203", ref="sib", source=SOCIAL_CARE)
    mother = Someone(given_name="karen", family_name="jones", date_of_birth="19880203", ref="mum", source=SOCIAL_CARE)
    people = [before, after, sibling, mother]
    run = linked(people)
    ties = [
        {"ref_a": "mum", "ref_b": "before", "type": "birth_parent"},
        {"ref_a": "mum", "ref_b": "sib", "type": "birth_parent"},
        {"ref_a": "sib", "ref_b": "after", "type": "sibling"},
        *({"ref_a": ref, "household": 7, "type": "household"} for ref in ("before", "after", "mum")),
    ]
    stated = pa.Table.from_pylist(ties, schema=RELATIONSHIPS_SCHEMA)
    for name, value in zip(("agency", "flow"), SOCIAL_CARE, strict=True):
        stated = stated.append_column(name, pa.array([value] * len(ties)))
    edges = families(run.clusters, stated, overrides=Overrides().with_markers(encoded(people)))
    reached = {person_of(run, after)}
    for _ in people:
        for a, b in zip(edges["person_a"].to_pylist(), edges["person_b"].to_pylist(), strict=True):
            reached |= {a, b} if {a, b} & reached else set()
    assert person_of(run, before) not in reached
    assert families(run.clusters, stated).num_rows > edges.num_rows > 0


def test_a_model_of_another_profile_is_refused() -> None:
    with pytest.raises(BadModel, match="profile"):
        linked([ZOE], model=default_model("accurate-2"))


def test_a_name_after_an_adoption_is_not_led_to_the_name_before_it_by_date_and_home_alone() -> None:
    before = ZOE.at(HEALTH, nhs_number="9990000018", sever_ref="aa" * 16)
    after = replace(ZOE, family_name="nowak", date_of_birth=None, postcode=None, sever_ref="aa" * 16, ref="2")
    after = after.at(HEALTH, nhs_number="9990000026")
    known_before = replace(ZOE, nhs_number="9990000018")
    known_after = replace(ZOE, family_name="nowak").at(PERSONS)
    run = linked([before, after, known_before, known_after])
    assert together(run, before, known_before)
    assert not together(run, known_before, known_after)
    plain = linked([known_before, known_after])
    assert together(plain, known_before, known_after), "without a sever near by they are one child"
