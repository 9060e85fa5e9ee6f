"""What the threat list asks for and no other file tries: the whole dump against dictionaries (T1), encodings in answers
(T2), and one agency's rows under another's names (T10)."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from broker import validation
from broker.keys import Keys
from broker.reception import Reception
from broker.store.items import ItemRow
from linkage.agency.encode import encode_people
from linkage.agency.keys import LinkageKeys
from linkage.agency.people import Person
from linkage.agency.standardise import standardise_person
from tests.broker.test_nightly import segment
from tests.builders import COUNCIL, ICB, PARTNERSHIP, Batch, a_batch, a_person, a_ref, an_item
from tests.builders_area import ANALYST, MORNING, Area, the_time
from tests.builders_broker import Caller, agreed
from tests.builders_families import CHILDREN, ROBIN, a_linked_area, strangers

REGISTER = (*CHILDREN, *strangers())  # a dictionary that holds everybody, with every detail right


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    with the_time(MORNING):
        made = a_linked_area(tmp_path_factory.mktemp("dump") / "northshire")
        yield made
        made.close()


def guessed(area: Area, keys: LinkageKeys) -> dict[str, list[int]]:
    """The tokens that everybody's name, date, home and number give under a linkage key, by column."""
    people = [
        standardise_person(
            Person(
                given_name=one.given, family_name=one.family, date_of_birth=one.born, postcode=one.postcode, sex=one.sex,
                nhs_number=one.nhs,
            ),
            today=MORNING.date(),
        ).people
        for one in REGISTER
    ]  # fmt: skip
    encoded = encode_people(pa.concat_tables(people), keys, area.home(COUNCIL).profile)
    return {
        name: [value for value in encoded[name].to_pylist() if value is not None]
        for name in encoded.column_names
        if name.startswith(("t_", "id_"))
    }


def held(area: Area) -> set[int]:
    """Every token of the vault's persons, opened with its key."""
    table: pa.Table = segment(area.broker, "persons")
    tokens = [name for name in table.column_names if name.startswith(("t_", "id_"))]
    return {value for name in tokens for value in table[name].to_pylist() if value is not None}


def spelt(tokens: Iterable[int]) -> list[bytes]:
    """Ways in which a file might say a token."""
    return [
        spelling
        for token in tokens
        for eight in [struct.pack("<q", token)]
        for spelling in (eight, eight[::-1], eight.hex().encode(), str(token).encode(), base64.b64encode(eight)[:10])
    ]


def test_a_dump_without_one_of_the_two_keys_confirms_no_guess_and_with_both_confirms_everybody(area: Area) -> None:
    """T1.  The linkage key of the agencies is one, the broker's pepper the other; vault and spool are of the dump."""
    theirs = guessed(area, area.home(COUNCIL).link_keys)
    another = guessed(area, LinkageKeys(bytes(32), partnership=PARTNERSHIP, epoch="2026-1"))
    numbers, keys = theirs["id_nhs_number"], area.broker.keys
    assert len(set(numbers)) == len(REGISTER)

    opened = held(area)  # whoever has the vault's key
    pepper = {keys.pepper_one(token) for token in numbers}
    assert len(pepper & opened) == len(REGISTER)  # both keys: the attack works, so that it would be seen to
    every = [token for tokens in theirs.values() for token in tokens]
    assert len({keys.pepper_one(token) for token in every} & opened) > 5 * len(REGISTER)

    # the linkage key, and the vault opened, but no pepper (or another's)
    others = Keys.make(area.folder / "another-broker")
    assert opened.isdisjoint(every)
    assert opened.isdisjoint(others.pepper_one(token) for token in numbers)
    # every key of the broker, but not the linkage key
    assert opened.isdisjoint(keys.pepper_one(token) for token in another["id_nhs_number"])
    assert opened.isdisjoint(keys.pepper_one(int(one.nhs)) for one in REGISTER)
    # the linkage key and every file but the keys
    dump = [
        path.read_bytes()
        for path in [*area.folder.glob("broker.sqlite*"), *(area.folder / "data").rglob("*")]
        if path.is_file() and "keys" not in path.parts
    ]
    assert sum(map(len, dump)) > 1_000_000
    for spelling in spelt([*numbers, *pepper]):
        assert not any(spelling in content for content in dump)


def test_no_encoding_leaves_in_an_answer(area: Area) -> None:
    """T2.  Neither as it was sent nor as it is kept; of filters, no eight bytes of one."""
    analyst = area.asker(ANALYST)
    sent = analyst.body(ROBIN.typed(), case="T2")
    answer = analyst.ask(sent)
    told = json.dumps([answer, analyst.open(answer)]).encode()
    row = sent["subject"]
    tokens = [int(value) for part in ("tokens", "identifiers") for value in row[part].values() if value]
    assert len(tokens) > 10
    assert any(one in json.dumps(sent).encode() for one in spelt(tokens[:1]))  # it would be found
    kept = [area.broker.keys.pepper_one(token) for token in tokens]
    assert [one for one in spelt([*tokens, *kept]) if one in told] == []
    filters = [base64.b64decode(text) for text in row["filters"].values() if text]
    assert filters
    words = [raw[at : at + 8] for raw in filters for at in range(0, len(raw), 8)]
    assert [one for one in spelt(struct.unpack("<q", word)[0] for word in words if any(word)) if one in told] == []
    assert [text for text in row["filters"].values() if text and text.encode()[:40] in told] == []


def test_whatever_names_a_batch_bears_the_rows_of_another_agency_stay_as_they_are(
    http: TestClient, desk: Reception
) -> None:
    """T10.  The council sends, then deletes, rows under the very references of the health board's."""
    record, items = a_ref(ICB, "health", "alice"), [a_ref("item", number) for number in range(2)]

    def rows_of(agency: str) -> list[tuple[str, ...]]:
        with desk.store.reading() as tx:
            rows = tx.all(ItemRow, agency=agency)
            return sorted((row.flow, row.record_ref, row.item_ref, row.batch, row.sealed.hex()) for row in rows)

    def handed_in(agency: str, op: str = "upsert", **said: Any) -> Batch:
        sent = [an_item(ref, record, op=op) for ref in items]
        night = agreed(a_batch(agency=agency, persons=[a_person(record)], items=sent, **said))
        id_ = Caller(http, agency).hand_in(night)
        assert validation.validate_sealed(desk) == {id_: "accepted"}
        return night

    handed_in(ICB, flow="health")
    before = rows_of(ICB)
    assert len(before) == len(items)
    first = handed_in(COUNCIL)
    assert [row[1:3] for row in rows_of(COUNCIL)] == [row[1:3] for row in before]
    assert rows_of(ICB) == before
    handed_in(COUNCIL, "delete", sequence=2, kind="delta", previous=first.sha256)
    assert rows_of(COUNCIL) == []  # its own are gone
    assert rows_of(ICB) == before
