"""Deltas: what differs from what was accepted last, and nothing is ever lost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agreements.vocabulary import codes_for_agencies
from broker.gathering import _Flow
from linkage.agency import batch, client
from linkage.agency.batch import Encoded
from linkage.agency.client import BadBatch
from linkage.agency.settings import Home
from linkage.matching import intake
from tests.linkage.agency.builders import BAND, CODES, CONTACT, MAPPING, MOTHER, NOW, PUPIL, a_home, an_extract
from tests.linkage.agency.test_client import OtherSide
from tests.sizes import LONG

ANY_NUMBER = MAPPING.replace("max_bad_share = 0.9", "max_bad_share = 1.0").replace(
    "contact = ", "may_be_empty = true\ncontact = "
).replace("values.type", "may_be_empty = true\nvalues.type")  # fmt: skip
Row = dict[str, Any]


def encoded(folder: Path, home: Home, *, delta: bool = True, days: int = 0, **extract: Any) -> Encoded:
    mapping = an_extract(folder / "extract", **{"mapping": ANY_NUMBER, **extract})
    now = NOW + timedelta(days=days)
    return batch.encode_extract(mapping, home, folder / "batch", codes=CODES, now=now, delta=delta)


def accept(home: Home, made: Encoded) -> None:
    """What the client does on an accepted verdict."""
    sha256 = str(made.summary()["manifest_sha256"])
    home.remember(made.manifest.flow, sequence=made.manifest.sequence, manifest_sha256=sha256, pending=None)


def tables(made: Encoded) -> dict[str, pa.Table]:
    return {name: pq.read_table(made.folder / f"{name}.parquet") for name in made.manifest.tables}


def said(table: pa.Table) -> list[Row]:
    """The rows as the broker keeps them, in an order of their own."""
    kept = table.drop_columns([name for name in ("op",) if name in table.column_names])
    return sorted(kept.to_pylist(), key=repr)


class Held:
    """What a broker holds of a flow, by its own rules for deltas."""

    def __init__(self) -> None:
        self.flow: _Flow | None = None
        self.items: dict[str, Row] = {}

    def take(self, made: Encoded) -> None:
        new = tables(made)
        if made.manifest.kind == "full" or self.flow is None:
            assert made.manifest.kind == "full"
            self.flow, self.items = _Flow.of_all(new["persons"], new["relationships"]), {}
        else:
            self.flow = self.flow.changed(new["persons"], new["relationships"])
        gone = {row["record_ref"] for row in new["persons"].to_pylist() if row["op"] == "delete"}
        self.items = {ref: item for ref, item in self.items.items() if item["record_ref"] not in gone}
        for item in new["items"].to_pylist():
            self.items.pop(item["item_ref"], None)
            if item["op"] == "upsert":
                self.items[item["item_ref"]] = item

    def says(self) -> list[list[Row]]:
        assert self.flow is not None
        people, relations = (part.anew().fresh for part in self.flow.parts)
        items = [{name: value for name, value in item.items() if name != "op"} for item in self.items.values()]
        return [said(people), said(relations), sorted(items, key=repr)]


@cache
def known_codes() -> Any:
    return codes_for_agencies()


PEOPLE = ("P1", "P2", "P3", "C1")


@st.composite
def nights(draw: st.DrawFn) -> list[tuple[dict[str, list[Mapping[str, str]]], str]]:
    """Extracts, each with what becomes of its batch."""
    made = []
    for night in range(draw(st.integers(3, 5))):
        there = sorted(draw(st.sets(st.sampled_from(PEOPLE), min_size=1)))
        pupils: list[Mapping[str, str]] = []
        for who in there:
            base = MOTHER if who == "C1" else PUPIL
            for alias in range(draw(st.integers(1, 2))):  # a record of several rows
                surname = draw(st.sampled_from(["Canarysmith", "Canaryjones"]))
                uprn = draw(st.sampled_from(["100023336956", "100023336957", ""]))
                known_as = draw(st.sampled_from(["", "Zed"])) if alias == 0 else ""
                pupils.append({**base, "PupilID": who, "Surname": surname, "UPRN": uprn, "KnownAs": known_as})
        contacts: list[Mapping[str, str]] = [
            {**CONTACT, "ContactID": child, "Checked": draw(st.sampled_from("YN"))}
            for child in there if child != "C1" and "C1" in there and draw(st.booleans())
        ]  # fmt: skip
        bands: list[Mapping[str, str]] = [
            {**BAND, "PupilID": child, "Percent": draw(st.sampled_from(["87.5", "60"])), "HalfTermEnd": day}
            for child in there
            for day in ("2026-10-23", "2026-05-22")
            if child != "C1" and draw(st.booleans())
        ]
        outcome = "accepted" if night == 0 else draw(st.sampled_from(["accepted", "accepted", "rejected", "lost"]))
        extract: dict[str, list[Mapping[str, str]]] = {"pupils": pupils, "contacts": contacts, "bands": bands}
        made.append((extract, outcome))
    return made


@settings(deadline=None, max_examples=100 if LONG else 3)
@given(nights())
def test_a_full_night_and_its_deltas_say_what_the_last_full_night_says(several: Any) -> None:
    with TemporaryDirectory() as name:
        home, held = a_home(Path(name) / "home"), Held()
        for n, (extract, outcome) in enumerate(several):
            made = encoded(Path(name) / f"night{n}", home, days=n, **extract)
            assert made.manifest.kind == ("full" if n == 0 else "delta")
            whole = encoded(Path(name) / f"full{n}", home, delta=False, days=n, **extract)
            if outcome == "accepted":
                verdict = intake.check(made.folder, made.manifest, known_codes())
                assert verdict.accepted, verdict.findings
                held.take(made)
                accept(home, made)
                one = Held()
                one.take(whole)
                assert held.says() == one.says()


def test_a_delta_names_only_what_is_new_changed_or_gone(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    pupils = [{**PUPIL, "PupilID": f"P{n}"} for n in range(1, 9)]
    first = encoded(tmp_path / "1", home, pupils=[*pupils, MOTHER])
    accept(home, first)
    same = encoded(tmp_path / "2", home, pupils=[MOTHER, *reversed(pupils)])
    assert {name: entry.rows for name, entry in same.manifest.tables.items()} == {
        "persons": 0, "relationships": 0, "items": 0,
    }  # fmt: skip
    moved = [{**PUPIL, "PupilID": "P1", "Postcode": "SW1A 2AA"}, *pupils[1:7], {**PUPIL, "PupilID": "P9"}]
    after = encoded(tmp_path / "3", home, pupils=[*moved, MOTHER], bands=[BAND, {**BAND, "PupilID": "P2"}])
    assert (after.manifest.kind, after.manifest.sequence) == ("delta", 2)
    assert after.manifest.previous == first.summary()["manifest_sha256"]
    people = tables(after)["persons"].to_pylist()
    ref = {who: home.record_ref("education", who) for who in ("P1", "P2", "P8", "P9")}
    assert {(row["op"], row["record_ref"]) for row in people} == {
        ("upsert", ref["P1"]), ("upsert", ref["P9"]), ("delete", ref["P8"]),
        ("upsert", ref["P2"]),  # an item about it is new: whatever a delta touches comes with its person
    }  # fmt: skip
    assert after.summary()["changed"] == {"persons": 2, "relationships": 1, "items": 1}
    assert after.summary()["withdrawn"] == {"persons": 1, "relationships": 1, "items": 0}


def test_without_what_was_accepted_or_under_another_key_only_a_full_batch_can_follow(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    assert encoded(tmp_path / "1", home).manifest.kind == "full"  # nothing was accepted yet
    made = encoded(tmp_path / "2", home)
    accept(home, made)
    assert encoded(tmp_path / "3", home).manifest.kind == "delta"
    assert encoded(tmp_path / "4", home, delta=False).manifest.kind == "full"
    settings_file = home.folder / "agency.toml"
    settings_file.write_text(settings_file.read_text().replace("2026-1", "2026-2"))
    assert encoded(tmp_path / "5", Home(home.folder)).manifest.kind == "full"
    settings_file.write_text(settings_file.read_text().replace("2026-2", "2026-1"))
    for path in (home.folder / "told").rglob("*.persons.parquet"):
        path.write_bytes(path.read_bytes()[:100])
    assert encoded(tmp_path / "6", Home(home.folder)).manifest.kind == "full"


def test_what_a_home_keeps_of_a_batch_names_nobody_and_is_its_owners_alone(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    encoded(tmp_path / "1", home)
    kept = list((home.folder / "told").rglob("*.parquet"))
    assert len(kept) == 3
    for path in kept:
        assert path.stat().st_mode & 0o077 == 0
        text = (path.read_bytes() + repr(pq.read_table(path).to_pylist()).encode()).lower()
        for value in (b"zoe", b"canary", b"20150314", b"9434765919", b"sw1a", b"p1'", b"persistent"):
            assert value not in text


def test_what_was_never_accepted_is_forgotten_in_the_end(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    made = encoded(tmp_path / "1", home)
    accept(home, made)
    encoded(tmp_path / "2", home, pupils=[PUPIL])
    assert len(list((home.folder / "told").rglob("*.parquet"))) == 6
    encoded(tmp_path / "3", home, days=400)  # by then both are old; one is what the broker has
    left = {path.name.partition(".")[0] for path in (home.folder / "told").rglob("*.parquet")}
    assert made.summary()["manifest_sha256"] in left
    assert len(left) == 1


def test_a_delta_that_does_not_follow_what_is_accepted_is_not_sent(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    other = OtherSide(home.public["client"], verdict="sealed")
    first = encoded(tmp_path / "1", home)
    client.submit(first.folder, home, other.broker(home))
    accept(home, first)
    second = encoded(tmp_path / "2", home, bands=[])
    third = encoded(tmp_path / "3", home, pupils=[PUPIL], contacts=[])
    client.submit(second.folder, home, other.broker(home))  # arrived, without a verdict yet
    assert third.manifest.previous == first.summary()["manifest_sha256"]
    beyond = encoded(tmp_path / "4", home).manifest  # nothing can be built on what may yet be rejected
    assert (beyond.kind, beyond.sequence) == ("full", 3)
    other.verdict = "accepted"
    for held in other.batches.values():
        held["state"] = "accepted"
    with pytest.raises(BadBatch, match="encode again"):
        client.submit(third.folder, home, other.broker(home))
    assert home.state("education")["manifest_sha256"] == second.summary()["manifest_sha256"]
    client.submit(second.folder, home, other.broker(home))  # again: nothing is done twice
