"""Agreements spoilt from good ones, ten thousand of them in `make properties`: each is refused with its place, or means exactly what it says."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agreements import (
    VOCABULARY,
    Agreement,
    DocumentRefused,
    Mode,
    Signature,
    Snapshot,
    decide,
    from_canonical,
    read,
)
from agreements.agreement import Document
from agreements.document.parsing import dated
from tests.agreements.worlds import LONG
from tests.spec import table

ROOT = Path(__file__).resolve().parents[2]
SPEC, DEMO = ROOT / "tests" / "spec", ROOT / "deploy" / "demo" / "agreements"
UMBRELLAS = [
    document
    for folder in (SPEC, DEMO)
    if isinstance(document := read((folder / "northshire-tier1.toml").read_bytes()), Agreement)
]
GOOD = [SPEC / "northshire-mash.toml", SPEC / "northshire-icb-r12.toml", *sorted(DEMO.glob("*.toml"))]
STRANGE = (
    0, -1, 2**53, 10**30, 1.5, True, "", " ", "none", "no", "é", "e\u0301", "\u202e", "a" * 5000, [], {}, [[]], [{}],
    date(2026, 4, 1), date(1, 1, 1), date(9999, 12, 30), date(9999, 12, 31), date(2199, 12, 31), date(1989, 12, 31), "P9999Y",
    "P9999M", "P9999D", "P150Y", "PT9999M", datetime(2026, 4, 1, tzinfo=UTC), "2026-04-01", "P2Y", "PT4H", "record", "health.sealed", "S47", "*",
    "northshire-la", "../../etc/passwd", "x@1.0.0",
)  # fmt: skip
UNTOLD = (None, float("nan"), float("inf"), 1.0, "\x00", "a\u202eb", "\u2066a", "e\u0301", "\u3164", "\ud800")
"""What JSON can hold and no agreement does."""
PYTHON = re.compile(
    r"[Ii]nput should|String should|Value error|pattern|'(int|str|list|dict)'|NoneType|<class|object at"
)
Body = dict[str, Any]
EACH = 5000 if LONG else 200


def umbrellas_for(path: Path) -> list[Agreement]:
    """The umbrella of the file's own folder."""
    return [UMBRELLAS[0 if path.parent == SPEC else 1]]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every key and index of a table, with what holds it."""
    if isinstance(value, dict | list):
        for step in value if isinstance(value, dict) else range(len(value)):
            yield value, step
            yield from places(value[step])


def spoilt_table(draw: Random, body: Body) -> str:
    """One to three places of a table changed: taken out, said twice, renamed, swapped, or of another kind."""
    body = copy.deepcopy(body)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        holder, step = draw.choice(list(places(body)))
        other_holder, other = draw.choice(list(places(body)))
        match draw.randrange(7):
            case 0:
                del holder[step]
            case 1:
                holder[step] = draw.choice(STRANGE)
            case 2 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[step]))
            case 3 if isinstance(holder, dict):
                holder[draw.choice((f"{step}s", "x", step.upper(), "if", "priority"))] = holder[step]
            case 4:
                holder[step] = copy.deepcopy(other_holder[other])
            case 5 if isinstance(holder[step], str):
                holder[step] = spelt_otherwise(draw, holder[step])
            case _:
                holder[step] = [copy.deepcopy(holder[step])]
    return table.text_of(body)


def spelt_otherwise(draw: Random, word: str) -> str:
    """A word with a letter lost, doubled, or of another case."""
    if not word:
        return "x"
    at = draw.randrange(len(word))
    return draw.choice((word[:at] + word[at + 1 :], word[:at] + word[at:] + word[at], word.swapcase(), word + " "))


def spoilt_text(draw: Random, text: str) -> bytes:
    """One to three changes of the text itself: bytes, lines, brackets."""
    raw = bytearray(text.encode())
    for _ in range(draw.choice((1, 1, 2, 3))):
        at = draw.randrange(len(raw) or 1)
        match draw.randrange(5):
            case 0 if raw:
                raw[at] ^= 1 << draw.randrange(8)
            case 1:
                del raw[at : at + draw.choice((1, 2, 40))]
            case 2:
                raw[at:at] = draw.choice(
                    (b'"', b"[", b"]", b"{", b"=", b"\n", b"#", b"\x00", b"\xff", b"'''", b"1e5", b",")
                )
            case 3:
                lines = raw.split(b"\n")
                lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines))
                raw = bytearray(b"\n".join(lines))
            case _:
                lines = raw.split(b"\n")
                del lines[draw.randrange(len(lines))]
                raw = bytearray(b"\n".join(lines))
    return bytes(raw)


def plain(value: Any) -> Any:
    """A parsed table as JSON has it."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) else value


def said(document: Document) -> Body:
    """What the canonical form says, without the digests it pins."""
    body: Body = json.loads(document.canonical)
    for pinned in ("vocabulary", "under"):
        if pinned in body:
            body[pinned] = body[pinned]["ref"]
    return body


def means_what_it_says(document: Document, body: Body) -> None:
    """No key is left out, none invented, and what is evaluated is what is written: read here a second time."""
    assert said(document) == plain(body)
    if not isinstance(document, Agreement):
        assert document.categories == set(body["categories"]) and document.at_most.word == body["at_most"]
        assert document.purposes == (set(body["for"]) if "for" in body else None)
        return
    assert list(document.parties) == [party["id"] for party in body["parties"]]
    assert [limit.id for limit in document.limits] == [limit["id"] for limit in body.get("limits", [])]
    for limit, written in zip(document.limits, body.get("limits", []), strict=True):
        assert (limit.categories, limit.at_most.word) == (set(written["categories"]), written["at_most"])
        assert (limit.tag, limit.lift) == (written.get("when", {}).get("tag"), written.get("lift", "never"))
    for grant, written in zip(document.grants, body.get("grants", []), strict=True):
        assert (grant.sources, grant.organisations) == (set(written["from"]), set(written["to"]["orgs"]))
        assert (grant.roles, grant.purposes) == (set(written["to"]["roles"]), set(written["for"]))
        assert grant.not_purposes == set(written.get("but_not_for", ()))
        assert grant.basis.art6 == set(written["basis"]["art6"])
        assert grant.basis.conditions == set(written["basis"].get("condition", ()))
        assert grant.basis.gateways == set(written["basis"].get("gateway", ()))
        assert grant.basis.le_authority == set(written["basis"].get("le_authority", ()))
        given = written.get("given", {})
        assert (grant.case_reference, grant.threshold) == (given.get("case_reference", False), given.get("threshold"))
        assert (grant.link, grant.about) == (given.get("link"), set(written["about"]))
        window = str(grant.recorded_within) if grant.recorded_within else None
        assert window == given.get("recorded_within")
        assert (grant.break_glass is None) is ("break_glass" not in written)
        modes = {name: Mode.parse(mode) for mode, names in written["disclose"].items() for name in names}
        assert dict(grant.modes) == modes
        assert set(modes) <= {"record", *VOCABULARY.shareable}


def refused_or_faithful(source: str | bytes, umbrellas: list[Agreement]) -> bool:
    """Whether it loaded."""
    try:
        document = read(source, umbrellas=umbrellas)
    except DocumentRefused as refused:
        assert refused.findings
        for finding in refused.findings:
            assert finding.path and finding.message and finding.fix and finding.severity == "refused"
            assert not PYTHON.search(f"{finding.message} {finding.fix}"), finding
        return False
    text = source if isinstance(source, str) else source.decode("utf-8")
    means_what_it_says(document, tomllib.loads(text))
    assert from_canonical(document.canonical, umbrellas=umbrellas) == document
    return True


@pytest.mark.parametrize("path", GOOD, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_p18_a_good_document_says_the_same_in_toml_and_in_json(path: Path) -> None:
    body = tomllib.loads(path.read_text("utf-8"))
    document = read(path.read_bytes(), umbrellas=umbrellas_for(path))
    means_what_it_says(document, body)
    assert read(table.text_of(body), umbrellas=umbrellas_for(path)) == document
    assert from_canonical(document.canonical, umbrellas=umbrellas_for(path)) == document


def another(draw: Random, body: Body) -> Body:
    """A good agreement made another good one: other clauses, texts, days, windows, tags, modes."""
    body = copy.deepcopy(body)
    body["grants"] = [one for one in body["grants"] if draw.random() < 0.8 or one["id"] == "health-cp"]
    body["version"] = f"{draw.randint(0, 9)}.{draw.randint(0, 99)}.{draw.randint(0, 999)}"
    body["title"] = draw.choice(("Other words", 'Quoted "words"', "\u00e9t\u00e9 \\ \u00a3")) + f" {draw.random()}"
    period = body["period"]
    period["effective"] = draw.choice((date(1990, 1, 1), date(2026, 3, 29), date(2026, 4, 1)))
    period["expires"] = draw.choice((date(2027, 3, 28), date(2028, 2, 29), date(2199, 12, 31)))
    period["review_by"] = draw.choice((date(2026, 10, 25), date(2027, 3, 28)))
    period["if_review_overdue"] = draw.choice(("warn", "suspend"))
    for limit in body["limits"]:
        limit["when"] = {"tag": draw.choice(sorted(VOCABULARY.tags))}
        limit["at_most"] = draw.choice(("none", "existence", "status"))
        if draw.random() < 0.5:
            limit["for"] = draw.sample(sorted(VOCABULARY.purposes), draw.randint(1, 4))
    for grant in body["grants"]:
        if grant.get("break_glass") is None and draw.random() < 0.7:
            grant.setdefault("given", {})["recorded_within"] = draw.choice(("P9999D", "P1800M", "P150Y", "P18M", "P2Y"))
        modes = [mode for mode, names in grant["disclose"].items() if len(names) > 1]
        for mode in modes if grant["id"] in ("screen-index", "police-s47") else ():
            if draw.random() < 0.5:
                grant["disclose"][mode] = draw.sample(grant["disclose"][mode], len(grant["disclose"][mode]) - 1)
    return body


def test_p18_agreements_that_disclose_something_say_the_same_in_toml_and_in_json() -> None:
    path = SPEC / "northshire-mash.toml"
    good, umbrellas, draw = tomllib.loads(path.read_text("utf-8")), umbrellas_for(path), Random(18)
    case = table.CASES[0]
    request, facts, at = table.request(case), table.facts(case), table.world(case).at
    discloses, digests = 0, set()
    while discloses < 1000:
        document = read(table.text_of(another(draw, good)), umbrellas=umbrellas)
        assert isinstance(document, Agreement)
        again = read(table.text_of(dated(said(document))), umbrellas=umbrellas)
        assert again == document == from_canonical(document.canonical, umbrellas=umbrellas)
        digests.add(document.digest)
        signatures = [
            Signature(party, one.digest, f"{party}/1", datetime(2026, 3, 1, tzinfo=UTC))
            for one in (document, *umbrellas)
            for party in one.parties
        ]
        discloses += bool(decide(Snapshot.of([document, *umbrellas], signatures), VOCABULARY, request, facts, at).shown)
        assert len(digests) < 20_000, "hardly any of them discloses anything"
    assert len(digests) >= discloses


@pytest.mark.parametrize("spoil", [spoilt_table, spoilt_text], ids=["its table", "its text"])
def test_properties_spoilt_agreements_are_refused_with_a_place_or_mean_what_they_say(
    spoil: Callable[[Random, Any], str | bytes],
) -> None:
    draw = Random(spoil.__name__)
    texts = {path: path.read_text("utf-8") for path in GOOD}
    loaded = 0
    for _ in range(EACH):
        path = draw.choice(GOOD)
        given = tomllib.loads(texts[path]) if spoil is spoilt_table else texts[path]
        loaded += refused_or_faithful(spoil(draw, given), umbrellas_for(path))
    assert EACH / 50 < loaded < EACH * 49 / 50, "neither kind alone: the test would prove half of what it says"


def test_properties_a_canonical_form_loads_exactly_where_its_toml_does() -> None:
    draw = Random("canonical")
    bodies = {path: json.loads(read(path.read_bytes(), umbrellas=umbrellas_for(path)).canonical) for path in GOOD}
    loaded = 0
    for _ in range(EACH // 2):
        path = draw.choice(GOOD)
        body = copy.deepcopy(bodies[path])
        pinned = [body[name] for name in ("vocabulary", "under") if name in body]  # a digest is not in the TOML
        holder, step = draw.choice([one for one in places(body) if not any(one[0] is pin for pin in pinned)])
        match draw.randrange(5):
            case 0:
                holder[step] = draw.choice(UNTOLD)
            case 1 if isinstance(holder, dict):
                holder[draw.choice(("owner", "title", "x\u202e"))] = draw.choice(UNTOLD)
            case 2:
                del holder[step]
            case 3 if isinstance(holder[step], str):
                holder[step] += draw.choice((" at most", *(one for one in UNTOLD if isinstance(one, str))))
            case _:
                other_holder, other = draw.choice(list(places(body)))
                holder[step] = copy.deepcopy(other_holder[other])
        try:
            pins = {name: body[name]["ref"] for name in ("vocabulary", "under") if name in body}
            text = table.text_of(dated(body | pins))
        except (KeyError, TypeError, AttributeError):  # its pins are no pins, or TOML has no word for it
            text = ""
        raw = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )
        documents: list[Document | None] = []
        for given in (raw, text):
            try:
                load = from_canonical if isinstance(given, bytes) else read
                documents.append(load(given, umbrellas=umbrellas_for(path)))  # type: ignore[arg-type]
            except DocumentRefused as refused:
                assert all(one.path and one.fix and not PYTHON.search(one.message) for one in refused.findings)
                documents.append(None)
        assert documents[0] == documents[1], raw
        loaded += documents[0] is not None
    assert EACH / 50 < loaded < EACH / 2 * 49 / 50
