"""What is typed is checked field by field, encoded inside, and struck from whatever is written beside it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkage.agency.gateway.encoder import SearchEncoder
from linkage.agency.gateway.forms import BadForm, Form, parse
from linkage.agency.gateway.typed import STRUCK, Typed, TypedPerson, faults, read, strike
from linkage.agency.gateway.words import FAMILY_NOT_TOLD, PURPOSES, RELATIONS
from tests.linkage.agency.gateway.builders import ROBIN, a_home, as_form, something_typed

TODAY = date(2026, 11, 21)


def fault_of(typed: Typed, box: str) -> str | None:
    return faults(typed, confirmed=False, today=TODAY).get(box)


def child(**changes: str) -> Typed:
    return something_typed(child=replace(ROBIN, **changes))


def test_a_whole_form_has_no_fault() -> None:
    assert faults(something_typed(), confirmed=False, today=TODAY) == {}


def test_an_empty_form_has_every_message_in_the_order_of_the_page() -> None:
    assert list(faults(Typed(), confirmed=False, today=TODAY).items()) == [
        ("child-family_name", "Enter a family name, or an NHS number, UPN or other number"),
        ("child-day", "Enter a date of birth, or choose month, year or not born"),
        ("case_reference", "Enter the case reference this search belongs to"),
        ("purpose", "Choose why you are asking"),
        ("told", "Say whether the family was told, or why not"),
        ("acknowledged", "Confirm that you are asking for this purpose only"),
    ]


@pytest.mark.parametrize(
    ("typed", "box", "message"),
    [
        (child(year="2031"), "child-day", "Date of birth must be in the past"),
        (child(day="31", month="2"), "child-day", "Date of birth must be a real date, for example 7 3 2017"),
        (child(precision="year", year="17"), "child-year", "Year must be four digits, for example 2017"),
        (
            child(nhs_number="943 476 5918"),
            "child-nhs_number",
            "Check the NHS number: one digit is wrong or two are swapped",
        ),
        (
            something_typed(child=TypedPerson(postcode="NS1 1AA", day="7", month="3", year="2017")),
            "child-family_name",
            "An address on its own cannot be searched. Enter a name or a number.",
        ),
        (
            something_typed(household=(TypedPerson(given_name="Sam"),)),
            "person-0-relation",
            "Choose how this person is related to the child",
        ),
        (something_typed(reason_not_told=""), "reason_not_told", "Say whether the family was told, or why not"),
    ],
)
def test_a_fault_is_said_beside_its_box(typed: Typed, box: str, message: str) -> None:
    assert fault_of(typed, box) == message


def test_no_message_repeats_what_was_typed() -> None:
    said = " ".join(faults(child(nhs_number="9434765918", upn="nonsense"), confirmed=True, today=TODAY).values())
    assert "9434765918" not in said
    assert "nonsense" not in said


def test_a_child_who_is_not_born_needs_no_date_and_no_given_name() -> None:
    unborn = TypedPerson(family_name="Samplewick", precision="unborn")
    assert faults(something_typed(child=unborn), confirmed=False, today=TODAY) == {}


def test_a_purpose_that_was_confirmed_in_this_session_is_not_asked_again() -> None:
    assert faults(something_typed(acknowledged=False), confirmed=True, today=TODAY) == {}


def test_a_form_comes_back_as_it_was_sent() -> None:
    typed = something_typed(household=(TypedPerson(given_name="Sam", relation="sibling", same_address=True),))
    assert read(Form(list(as_form(typed).items()))) == typed
    assert Typed.from_json(typed.as_json()) == typed


def test_nothing_typed_shows_in_a_repr() -> None:
    for shown in (repr(something_typed()), repr(ROBIN), repr(Form([("child-family_name", "Samplewick")]))):
        assert "Samplewick" not in shown
        assert "943" not in shown


@pytest.mark.parametrize("body", [b"a=1&" * 500, b"\xff=1", b"name=%ff"])
def test_a_body_that_no_page_of_ours_sends_is_refused(body: bytes) -> None:
    with pytest.raises(BadForm):
        parse(body)


@pytest.mark.parametrize(
    "text",
    [
        "Robin was seen at school",
        "ROBIN's mother rang",
        "the Samplewick family",
        "number 943-476-5919 or 9434765919",
        "born 7.3.17, 07/03/2017, 2017-03-07",
        "moved from ns11aa to NS1 1AA",
        "Rôbin",
    ],
)
def test_names_numbers_dates_and_postcodes_are_struck_however_they_are_written(text: str) -> None:
    struck = strike(text, [replace(ROBIN, postcode="NS1 1AA")])
    assert STRUCK in struck
    for value in ("robin", "samplewick", "rôbin", "5919", "2017", "3.17", "1aa"):
        assert value not in struck.lower()


@given(st.text(st.characters(categories=["Lu", "Ll", "Nd", "Zs", "Po"]), max_size=60))
def test_striking_leaves_text_without_the_names_alone_and_never_leaves_a_name(text: str) -> None:
    person = TypedPerson(given_name="Quillon", family_name="Zephyrine")
    if "quillon" not in text.lower() and "zephyrine" not in text.lower():
        assert strike(text, [person]) == text
    assert "Quillon" not in strike(f"{text} Quillon {text}", [person])


def test_what_is_sent_holds_no_name_number_date_or_case_reference(tmp_path: Path) -> None:
    typed = something_typed(
        household=(TypedPerson(given_name="Ashling", family_name="Exampleton", year="1989", precision="year",
                               relation="birth_parent", same_address=True),),
    )  # fmt: skip
    encoder = SearchEncoder(a_home(tmp_path / "home"))
    body = encoder.search(typed, today=TODAY)
    sent = repr(body).lower()
    for value in ("robin", "samplewick", "9434765919", "943 476", "sample-0412", "ashling", "exampleton", "2017-03"):
        assert value not in sent
    assert body["subject"]["birth_year"] == 2017
    assert body["household"][0]["birth_year"] == 1980  # of grown-ups the decade
    assert body["household"][0]["relation"] == "birth_parent"
    assert len(body["case"]) == 64
    assert body["case"] == encoder.search(replace(typed, case_reference=" sample-0412 "), today=TODAY)["case"]


def test_our_closed_lists_are_those_of_the_vocabulary() -> None:
    from agreements import VOCABULARY

    assert set(PURPOSES) <= set(VOCABULARY.purposes)
    assert all(code.startswith("no_") for code in FAMILY_NOT_TOLD)
    from typing import get_args

    from broker.api.searches import MemberBody

    assert set(RELATIONS) == set(get_args(MemberBody.model_fields["relation"].annotation))
