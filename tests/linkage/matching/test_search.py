"""A search: the same scores as a link run, in bands and words."""

from __future__ import annotations

import base64
import struct
from dataclasses import replace

import pytest

from linkage.matching.families import FAMILY
from linkage.matching.link import Linkage, link
from linkage.matching.model import default_model
from linkage.matching.search import BadRow, EncodedRow, Index, TooManyCandidates
from linkage.records import Profile
from tests.linkage.matching.people import COUNCIL, EDUCATION, HEALTH, PERSONS, Someone, asked, encoded, ids

ZOE = Someone(nhs_number="9990000018")
TOM = Someone(given_name="tom", family_name="price", date_of_birth="20110605", postcode="nx55aa", sex="M", ref="tom")


def index_of(people: list[Someone], profile: Profile = "guarded-3") -> tuple[Index, Linkage]:
    persons = encoded(people, profile)
    run = link(persons, model=default_model(profile), new_id=iter(ids()).__next__)
    return Index(persons, run.clusters, FAMILY.empty_table(), run.model), run


@pytest.mark.parametrize("profile", ["guarded-3", "accurate-2"])
@pytest.mark.parametrize(
    "changes",
    [
        {}, {"given_name": "zoey"}, {"postcode": "nx99zz"}, {"date_of_birth": "20150315"}, {"nhs_number": None},
        {"nhs_number": "9990000026"}, {"given_name": "agnieszka", "nhs_number": None}, {"given_name": None},
        {"family_name": "nowak", "postcode": None},
    ],
)  # fmt: skip
def test_a_search_says_what_a_link_run_says_of_the_same_pair(profile: Profile, changes: dict[str, str | None]) -> None:
    probe = ZOE.at(HEALTH, **changes)
    index, _ = index_of([ZOE, TOM], profile)
    pairs = link(
        encoded([ZOE, TOM, probe], profile), model=default_model(profile), new_id=iter(ids()).__next__
    ).pairs.to_pylist()
    found = index.candidates(asked(probe, profile))
    said = [(c.band, c.upper, set(c.agreed), set(c.differs)) for c in found]
    assert said == [(p["band"], p["upper"], set(p["agreed"]), set(p["differs"])) for p in pairs]


def test_a_candidate_is_a_person_with_all_records_that_fit() -> None:
    there = ZOE.at(HEALTH)
    index, _ = index_of([ZOE, there, TOM])
    (candidate,) = index.candidates(asked(ZOE))
    assert candidate.band == "match"
    assert candidate.upper
    assert set(candidate.records) == set(index.records_of(candidate.person_id)) == {ZOE.key, there.key}
    assert candidate.agreed == ("given_name", "family_name", "date_of_birth", "postcode", "sex", "nhs_number")
    assert (candidate.birth_year, candidate.sex) == (2015, "F")
    assert index.records_of("nobody") == ()
    assert index.family_of(candidate.person_id).schema == FAMILY


def test_a_number_that_another_record_of_the_person_contradicts_makes_it_possible_at_most() -> None:
    unnumbered = ZOE.at(PERSONS, nhs_number=None)
    index, _ = index_of([ZOE, unnumbered])
    (candidate,) = index.candidates(asked(replace(ZOE, nhs_number="9990000026")))
    assert candidate.band == "possible"
    assert not candidate.upper
    assert "nhs_number" in candidate.differs


@pytest.mark.parametrize(
    ("given", "born"), [("zara", "20120314"), ("zofia", "20160314"), ("zola", "20150314"), ("agnieszka", "20150314")]
)
def test_a_sibling_at_the_same_address_who_is_known_by_another_number_is_not_listed(given: str, born: str) -> None:
    """The last two are twins.  Without a number asked, each is listed, for the agency to say."""
    sibling = Someone(given_name=given, date_of_birth=born, nhs_number="9990000026", ref="sibling")
    index, _ = index_of([sibling, sibling.at(PERSONS, nhs_number=None)])
    assert index.candidates(asked(ZOE)) == ()
    (unsure,) = index.candidates(asked(replace(ZOE, nhs_number=None)))
    assert unsure.band == "possible"


def test_a_number_that_agrees_keeps_a_person_listed_whatever_another_says() -> None:
    there = ZOE.at(HEALTH, upn="A801200100001")
    index, _ = index_of([ZOE, there])
    (candidate,) = index.candidates(
        asked(replace(ZOE, given_name="zara", date_of_birth="20120314", upn="B801200100001"))
    )
    assert (candidate.band, "nhs_number" in candidate.agreed, "upn" in candidate.differs) == ("possible", True, True)


def test_the_twin_of_the_child_who_was_found_is_not_shown() -> None:
    twin = replace(ZOE, given_name="agnieszka", nhs_number=None, ref="twin")
    index, _ = index_of([ZOE, twin])
    (candidate,) = index.candidates(asked(replace(ZOE, nhs_number=None)))
    assert candidate.records == (ZOE.key,)


def test_too_many_that_fit_are_none() -> None:
    people = [replace(TOM, ref=str(n)) for n in range(7)]
    index, _ = index_of(people)
    with pytest.raises(TooManyCandidates):
        index.candidates(asked(TOM))


def test_alternatives_of_one_search_are_one_person() -> None:
    index, _ = index_of([ZOE, TOM])
    rows = [asked(replace(ZOE, given_name="agnieszka", nhs_number=None)), asked(replace(ZOE, nhs_number=None))]
    (candidate,) = index.candidates(rows)
    assert candidate.records == (ZOE.key,)


def test_a_row_of_the_wire_is_read_strictly() -> None:
    words = tuple(range(8))
    body = {
        "filters": {"dob": base64.b64encode(struct.pack("<8q", *words)).decode(), "postcode": None},
        "tokens": {"dob": "-7"}, "identifiers": {}, "birth_year": 2015, "sex": "F",
    }  # fmt: skip
    row = EncodedRow.parse(body)
    assert row.filters == {"dob": words, "postcode": None}
    assert row.tokens == {"dob": -7}
    for wrong in (
        {"filters": {"dob": "c2VjcmV0"}}, {"filters": {"name": None}}, {"tokens": {"dob": 7}}, {"tokens": {"dob": "7e3"}},
        {"identifiers": {"nhs_number": str(1 << 63)}}, {"birth_year": "2015"}, {"given_name": "secret"}, {"tokens": []},
    ):  # fmt: skip
        with pytest.raises(BadRow) as refused:
            EncodedRow.parse({**body, **wrong})
        assert "secret" not in str(refused.value)


def test_a_row_of_another_profile_is_refused() -> None:
    index, _ = index_of([ZOE])
    with pytest.raises(BadRow, match="guarded-3"):
        index.candidates(asked(ZOE, "accurate-2"))


def test_one_agencys_number_says_nothing_at_another() -> None:
    here = replace(TOM, local_nominal="n1", source=(COUNCIL, "housing"))
    stranger = ZOE.at(HEALTH, local_nominal="n1", nhs_number=None)
    index, _ = index_of([here])
    assert index.candidates(asked(stranger)) == ()
    assert EDUCATION[0] == COUNCIL
