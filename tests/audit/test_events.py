"""What may be evidence, how it is committed to, and what a redacted event still proves."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from itertools import islice

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from audit.events import (
    EVENT_TYPES,
    MAX_EVENT_BYTES,
    OPS,
    SECTIONS,
    SHOWN_TO_ASKER,
    InvalidEvent,
    Leaf,
    Op,
    Opening,
    Section,
    canonical,
    leaf_ms,
    loads,
    seal,
)
from tests.builders_log import START_MS, an_event, salts


def sealed(number: int = 0, **changes: object):
    given_salts = salts()
    return seal(
        an_event(number, **changes), at_ms=START_MS, salts=lambda size: b"".join(islice(given_salts, size // 32))
    )


def test_every_type_has_one_operation_of_section_62_or_is_the_systems() -> None:
    assert len(EVENT_TYPES) == len(OPS) == len(set(EVENT_TYPES))
    assert OPS["submission.accepted"] is Op.COLLECTION
    assert OPS["linkage.published"] is Op.COMBINATION
    assert OPS["search.authorised"] is Op.CONSULTATION
    assert OPS["disclosure.refused"] is Op.DISCLOSURE
    assert OPS["override.sever"] is Op.ALTERATION
    assert OPS["subject.erased"] is Op.ERASURE
    assert OPS["decision.made"] is Op.SYSTEM
    assert {op.value for op in Op} - {"system"} == {
        "collection", "alteration", "consultation", "disclosure", "combination", "erasure",
    }  # fmt: skip


def test_the_commitment_is_the_one_the_specification_spells_out() -> None:
    event = sealed()
    sections = {}
    for name, section in event.sections.items():
        data = b"sg-audit/section/v1\0" + name.encode() + b"\0" + section.salt + rfc8785.dumps(section.body)
        sections[name] = base64.b64encode(hashlib.sha256(data).digest()).decode()
    whole = hashlib.sha256(b"sg-audit/event/v1\0" + rfc8785.dumps(sections)).digest()
    assert event.commitment == whole
    assert event.leaf.text == b"sg-audit/v1\n1790000000000\n" + base64.b64encode(whole) + b"\n"
    assert len(event.leaf.text) == 71


def test_the_event_writes_its_own_id_type_and_operation_into_what() -> None:
    what = sealed(7).sections["what"].body
    assert what["id"] == "event-000007"
    assert (what["type"], what["op"], what["v"]) == ("disclosure.authorised", "disclosure", 1)
    with pytest.raises(InvalidEvent, match="may not set id"):
        an_event(what={"id": "another"})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"type": "disclosure.maybe"}, "closed set"),
        ({"id": "a b"}, "event id"),
        ({"id": "é" * 10}, "event id"),
        ({"detail": {"score": 0.5}}, "floating"),
        ({"detail": {"deep": [{"n": float("nan")}]}}, "floating"),
        ({"detail": {"n": 2**53}}, "canonical"),
        ({"detail": {"s": "\ud800"}}, "canonical"),
        ({"detail": {1: "a"}}, "canonical"),
        ({"detail": {"b": b"bytes"}}, "canonical"),
        ({"detail": {"big": "x" * MAX_EVENT_BYTES}}, "at most 8192"),
    ],
)
def test_an_event_outside_the_closed_set_or_without_a_canonical_form_is_refused(changes: dict, says: str) -> None:
    with pytest.raises(InvalidEvent, match=says):
        an_event(**changes)


def test_an_event_of_exactly_eight_kib_is_taken() -> None:
    bare = sum(len(canonical(body)) for body in an_event(detail={"x": ""}).bodies().values())
    an_event(detail={"x": "y" * (MAX_EVENT_BYTES - bare)})
    with pytest.raises(InvalidEvent, match="8193"):
        an_event(detail={"x": "y" * (MAX_EVENT_BYTES - bare + 1)})


@given(st.sets(st.sampled_from(SECTIONS)))
def test_whatever_is_withheld_the_commitment_is_the_same(shown: set) -> None:
    event = sealed()
    opening = Opening.from_json(loads(json.dumps(event.opening(shown).to_json())))
    assert opening.commitment == event.commitment
    assert set(opening.withheld) == set(SECTIONS) - shown


def test_the_askers_opening_yields_nothing_of_detail() -> None:
    event = sealed(detail={"reason": "MORRIGAN-CANARY"})
    shown = json.dumps(event.opening(SHOWN_TO_ASKER).to_json())
    assert "CANARY" not in shown
    assert base64.b64encode(event.sections["detail"].salt).decode() not in shown
    assert "CANARY" in json.dumps(event.opening(SECTIONS).to_json())


def test_a_withheld_section_can_be_shown_later_and_only_as_it_was() -> None:
    event = sealed()
    opening = event.opening(SHOWN_TO_ASKER)
    detail = event.sections["detail"]
    assert opening.with_section(detail) == event.opening(SECTIONS)
    for other in (Section("detail", {}, detail.salt), Section("detail", detail.body, b"\1" * 32)):
        with pytest.raises(InvalidEvent, match="not the one"):
            opening.with_section(other)
    with pytest.raises(InvalidEvent, match="withheld"):
        opening.body("detail")


def test_a_commitment_to_a_known_number_can_not_be_told_without_its_salt() -> None:
    number = "9434765919"
    event = seal(an_event(subjects=[number]), at_ms=START_MS)
    held = event.sections["subjects"].commitment
    guesses = [Section("subjects", [number], salt).commitment for salt in (b"\0" * 32, secrets.token_bytes(32))]
    assert held not in guesses
    assert seal(an_event(subjects=[number]), at_ms=START_MS).commitment != event.commitment


def test_a_section_can_not_be_moved_under_another_name() -> None:
    salt = secrets.token_bytes(32)
    assert Section("who", {}, salt).commitment != Section("why", {}, salt).commitment


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}', '{"a":{"b":1,"b":1}}', '{"a":NaN}', '{"a":Infinity}', "{", "",
        "[" * 100_000,
    ],
)  # fmt: skip
def test_json_with_two_meanings_is_refused(text: str) -> None:
    with pytest.raises(InvalidEvent):
        loads(text)


def test_a_float_in_a_section_is_refused_however_whole_it_looks() -> None:
    opening = sealed().opening(SECTIONS).to_json()
    opening["what"]["body"]["v"] = 1.0
    with pytest.raises(InvalidEvent, match="floating"):
        _ = Opening.from_json(loads(json.dumps(opening))).commitment


def test_keys_are_sorted_as_rfc_8785_does_by_utf_16_not_by_code_point() -> None:
    assert canonical({"\ufb33": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\ufb33":1}'.encode()


ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**54), 2**54) | st.text() | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(st.characters(max_codepoint=127)) | st.text(), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(ANY_VALUE)
def test_the_canonical_form_is_that_of_the_rfc_8785_library_however_it_is_made(value: object) -> None:
    try:
        expected = rfc8785.dumps(value) if not a_float_in(value) else None  # type: ignore[arg-type]
    except (rfc8785.CanonicalizationError, UnicodeError):
        expected = None
    if expected is None:
        with pytest.raises(InvalidEvent):
            canonical(value)  # type: ignore[arg-type]
    else:
        assert canonical(value) == expected  # type: ignore[arg-type]


def a_float_in(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(a_float_in, value.values()))
    return any(map(a_float_in, value)) if isinstance(value, list | tuple) else isinstance(value, float)


@pytest.mark.parametrize("value", [{1: "a"}, {None: 1}, {True: 1}, {"a": {2: 1}}, b"x", {"a": {1, 2}}, object()])
def test_what_json_has_no_word_for_has_no_canonical_form(value: object) -> None:
    with pytest.raises(InvalidEvent):
        canonical(value)  # type: ignore[arg-type]


@given(st.integers(10**12, 10**13 - 1), st.binary(min_size=32, max_size=32))
def test_a_leaf_is_71_bytes_with_one_spelling(at_ms: int, commitment: bytes) -> None:
    leaf = Leaf(at_ms, commitment)
    assert len(leaf.text) == 71
    assert Leaf.parse(leaf.text) == leaf
    assert leaf_ms(leaf.text) == at_ms
    spare = bytearray(leaf.text)
    spare[68] += 1  # another letter whose spare bits are not zero
    with pytest.raises(InvalidEvent):
        Leaf.parse(bytes(spare))


@pytest.mark.parametrize(
    "opening", [None, [], {}, {name: {} for name in SECTIONS}, {name: {"commitment": "AA=="} for name in SECTIONS}]
)
def test_an_opening_that_is_none_is_refused(opening: object) -> None:
    with pytest.raises(InvalidEvent):
        Opening.from_json(opening)


def test_a_leafs_time_is_thirteen_digits() -> None:
    for at_ms in (0, 10**12 - 1, 10**13):
        with pytest.raises(InvalidEvent):
            Leaf(at_ms, b"\0" * 32)
