"""What a draft would have changed is read from the log's own receipts, and reading them is in the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agreements import Mode
from audit.cli import auditor
from broker import analysing, clock
from broker.analysing import Candidate
from broker.cli import app
from broker.errors import BadAgreement, NotFound
from broker.store.log import EventRow
from tests.builders import COUNCIL, POLICE
from tests.builders_area import AGREEMENTS, ANALYST, DECIDER, MORNING, OPERATOR, Area, Clock, the_time
from tests.builders_families import NOBODY, ROBIN, SOLO, a_linked_area

UMBRELLA, MASH = AGREEMENTS / "northshire-tier1.toml", AGREEMENTS / "northshire-mash.toml"
ATTENDANCE = '"education.attendance", '


@pytest.fixture(scope="module")
def clock_() -> Iterator[Clock]:
    with the_time(MORNING) as made:
        yield made


@pytest.fixture(scope="module")
def asked(clock_: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Area, dict[str, str]]]:
    """An area in which two analysts and a decision-maker have asked, and the event of each view."""
    area = a_linked_area(tmp_path_factory.mktemp("analysing") / "northshire")
    events = {}
    for name, role, child in (("screened", ANALYST, ROBIN), ("again", ANALYST, ROBIN), ("school", ANALYST, SOLO)):
        view = area.asker(role).view(child.typed(), case=f"W-{name}")
        events[name] = view["receipt"]["event_id"]
    answer = area.asker(DECIDER).search(NOBODY.typed(), case="W-nobody")
    assert answer["candidates"] == []
    yield area, events
    area.close()


def a_draft(*changes: tuple[str, str], version: str = "3.1.0") -> bytes:
    """The next version of the demo's agreement, with these texts replaced, once each."""
    text = MASH.read_text("utf-8").replace('version = "3.0.0"', f'version = "{version}"', 1)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text.encode()


def candidate(*changes: tuple[str, str]) -> Candidate:
    return Candidate.of(a_draft(*changes), [UMBRELLA.read_bytes()])


def replayed(area: Area, draft: Candidate, **more: Any) -> Any:
    given = {"after": None, "who": OPERATOR, "at": clock.now()} | more
    return analysing.replay_past(area.broker.store, area.broker.trail, draft, **given)


def test_a_dry_run_of_a_new_version_shows_exactly_which_past_queries_would_change_verdict(
    asked: tuple[Area, dict[str, str]],
) -> None:
    area, events = asked
    changes = replayed(area, candidate((ATTENDANCE, "")))
    assert {one.id for one in changes.changed} == {
        event
        for event in events.values()
        if any("education.attendance" in modes for modes in shown_in(area, event).values())
    }
    assert changes.changed and changes.looked_at > len(changes.changed)
    for one in changes.changed:
        assert one.past.facts.source == COUNCIL
        assert dict(one.was) == {"education.attendance": Mode.STATUS}
        assert dict(one.would) == {"education.attendance": Mode.NONE}
        assert one.past.modes["education.attendance"] is Mode.STATUS
    (group,) = changes.groups()
    assert (group.organisation, group.role, group.source) == (COUNCIL, ANALYST, COUNCIL)


def shown_in(area: Area, event: str) -> dict[str, dict[str, str]]:
    """The categories that a view's event says were shown, by source."""
    opening = area.broker.trail.opening(event, show=("what",))
    body: Any = opening.body("what")
    categories: dict[str, dict[str, str]] = body["categories"]
    return categories


def test_a_new_version_of_the_same_words_would_have_changed_nothing(asked: tuple[Area, dict[str, str]]) -> None:
    area, _ = asked
    assert replayed(area, candidate()).changed == ()


def test_a_version_that_asks_for_more_names_every_view_that_would_have_gone_dark(
    asked: tuple[Area, dict[str, str]],
) -> None:
    area, events = asked
    roles = 'roles = ["MASH_ANALYST", "MASH_DECISION_MAKER"]'
    only = 'roles = ["MASH_DECISION_MAKER"]'
    changes = replayed(area, candidate((roles, only), (roles, only)))
    assert {one.id for one in changes.changed} == set(events.values())
    assert all(mode is Mode.NONE for one in changes.changed for mode in one.would.values())


def test_only_what_was_asked_since_a_day_is_looked_at(asked: tuple[Area, dict[str, str]]) -> None:
    area, _ = asked
    assert replayed(area, candidate((ATTENDANCE, "")), after=clock.now()).looked_at == 0


def test_reading_past_decisions_is_itself_in_the_log_with_the_draft_it_was_for(
    asked: tuple[Area, dict[str, str]],
) -> None:
    area, _ = asked
    draft = candidate((ATTENDANCE, ""))
    with area.broker.store.reading() as reading:
        before = len(reading.all(EventRow, type="audit.searched"))
    replayed(area, draft)
    with area.broker.store.reading() as reading:
        events = reading.all(EventRow, type="audit.searched", order=("-seq",))
    assert len(events) == before + 1
    opened = area.broker.trail.opening(events[0].event_id, show=("what", "who"))
    what: Any = opened.body("what")
    assert (what["searched"], what["candidate"], what["digest"]) == (
        "decisions", "northshire-mash@3.1.0", draft.document.digest,
    )  # fmt: skip
    who: Any = opened.body("who")
    assert who["role"] == "OPERATOR"


def test_against_the_register_a_draft_changes_what_it_says_and_nothing_else(asked: tuple[Area, dict[str, str]]) -> None:
    area, _ = asked
    with area.broker.store.reading() as reading:
        same = analysing.against_register(reading, candidate(), at=clock.now())
        fewer = analysing.against_register(reading, candidate((ATTENDANCE, "")), at=clock.now())
    assert not same
    assert fewer and not any(change.more for change in fewer.changes)
    assert all("education.attendance" in line for line in fewer.lines())


def test_clauses_nobody_used_and_refusals_are_told_from_the_receipts(asked: tuple[Area, dict[str, str]]) -> None:
    area, _ = asked
    unused, missed = analysing.used(area.broker.store, area.broker.trail, months=1, who=OPERATOR, at=clock.now())
    assert unused == ()  # the area's agreements were signed this month: it is too soon to tell
    (parent,) = missed  # the hub may be told of the child and its siblings, not of a parent
    assert (parent.test, parent.source, parent.categories, parent.count) == (
        "about",
        POLICE,
        ("police.domestic_abuse",),
        2,
    )


def test_what_is_in_force_is_looked_over_with_what_arrives_and_who_is_there(asked: tuple[Area, dict[str, str]]) -> None:
    area, _ = asked
    with area.broker.store.reading() as reading:
        remarks = analysing.looked_over(reading, at=clock.now())
    assert {remark.kind for remark in remarks} >= {"gap", "unreachable"}
    unfed = [remark for remark in remarks if "nobody sends" in remark.message]
    assert unfed and all(remark.ref.partition("@")[0].startswith("northshire-") for remark in unfed)


# --- the commands ---------------------------------------------------------------------------------------------------


def run(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["agreements", *map(str, args)])
    return result.exit_code, result.output


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    path = tmp_path / "draft.toml"
    path.write_bytes(a_draft((ATTENDANCE, "")))
    return path


def test_two_files_are_held_against_each_other_without_a_database(draft: Path, tmp_path: Path) -> None:
    assert run("diff", MASH, MASH, "--umbrella", UMBRELLA) == (0, "Nothing changes.\n")
    code, told = run("diff", MASH, draft, "--umbrella", UMBRELLA)
    assert code == 1 and told.startswith("no longer: ") and "education.attendance at status" in told
    code, told = run("diff", MASH, draft, "--umbrella", UMBRELLA, "--json")
    (first, *_) = json.loads(told)
    assert code == 1 and first["change"] == "no longer" and "MASH_SCREEN" in first["purposes"]
    assert run("diff", MASH, tmp_path / "absent.toml", "--umbrella", UMBRELLA)[0] == 3
    (tmp_path / "bad.toml").write_text("id = ")
    assert run("diff", MASH, tmp_path / "bad.toml", "--umbrella", UMBRELLA)[0] == 1  # refused, as `check` has it
    assert run("lint", tmp_path / "bad.toml")[0] == 1
    assert run("lint", tmp_path / "absent.toml")[0] == 3
    assert run("diff")[0] == 2


def test_who_can_see_is_told_of_files_and_a_term_that_is_none_is_named() -> None:
    code, told = run(
        "who-can-see", MASH, "--umbrella", UMBRELLA, "--org", POLICE, "--category", "health.not_brought", "--on",
        "2026-11-22",
    )  # fmt: skip
    assert code == 0 and f"{POLICE}, MASH_ANALYST or MASH_DECISION_MAKER may see:" in told
    assert "northshire-mash@3.0.0#screen-index" in told
    code, told = run(
        "who-can-see", MASH, "--umbrella", UMBRELLA, "--role", "MASH_ANALYST", "--as", "csv", "--on", "2026-11-22"
    )
    assert code == 0 and told.splitlines()[0].startswith("organisation,role,source,purpose,category,mode,clause")
    for option, term, said in (
        ("--role", "MANAGER", "--role: 'MANAGER' is no role of the vocabulary; write one of "),
        ("--org", "northshire-polce", "write northshire-police, if that is meant"),
        ("--source", "a-charity", "--source: 'a-charity' is no party to any agreement here; write one of northshire-"),
        ("--purpose", "s47", "write S47, if that is meant"),
        ("--category", "health.notbrought", "write health.not_brought, if that is meant"),
    ):
        code, told = run("who-can-see", MASH, "--umbrella", UMBRELLA, option, term)
        assert code == 2 and said in told
    assert run("who-can-see", MASH, "--umbrella", UMBRELLA, "--on", "2030-01-01") == (0, "Nobody can.\n")


def test_files_are_looked_over_without_a_database() -> None:
    code, told = run("lint", MASH, "--umbrella", UMBRELLA, "--on", "2026-11-22", "--json", "--no-gaps")
    kinds = {(one["kind"], one["severity"]) for one in json.loads(told)}
    assert code == 1 and ("over-broad", "warning") in kinds and not any(kind == "gap" for kind, _ in kinds)
    assert run("lint", MASH, "--umbrella", UMBRELLA, "--unused", "3")[0] == 2


def test_a_draft_without_its_umbrella_can_not_be_read() -> None:
    with pytest.raises(BadAgreement):
        Candidate.of(a_draft())


@pytest.fixture(scope="module")
def config(asked: tuple[Area, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of a copy of the area, as an operator gives them."""
    area = asked[0].copied(tmp_path_factory.mktemp("commands") / "northshire")
    area.close()
    path = area.folder / "broker.toml"
    path.write_text(
        'environment = "demo"\npartnership = "northshire"\nbase_url = "http://127.0.0.1:8400"\n'
        'database_url = "sqlite:///broker.sqlite"\ndata_dir = "data"\nlinger_ms = 0\n'
    )
    return path


def test_an_operator_holds_a_draft_against_what_was_asked_here(
    config: Path, draft: Path, asked: tuple[Area, dict[str, str]]
) -> None:
    code, told = run("what-if", draft, "--umbrella", UMBRELLA, "--config", config)
    assert code == 1 and "past decisions would be otherwise." in told.splitlines()[0]
    assert "education.attendance status -> none" in told
    code, told = run("what-if", draft, "--umbrella", UMBRELLA, "--config", config, "--json")
    (group,) = json.loads(told)["groups"]
    assert code == 1 and set(group["ids"]) <= set(asked[1].values())
    assert run("what-if", "northshire-mash@3.0.0", "--config", config)[0] == 0
    assert run("what-if", draft, "--umbrella", UMBRELLA, "--config", config, "--since", "2026-11-23")[0] == 0
    assert run("what-if", "nobody@1.0.0", "--config", config)[0] == 2
    assert run("what-if", draft, "--config", config)[0] == 1  # the register holds the umbrella


def test_an_auditor_decides_again_the_receipts_that_an_officer_took_out(
    config: Path, asked: tuple[Area, dict[str, str]], tmp_path: Path
) -> None:
    event, folder, bundle = asked[1]["screened"], tmp_path / "receipts", tmp_path / "bundle.json"
    code, told = run("receipts", event, "--out", folder, "--by", "ig-1", "--config", config, "--json")
    assert code == 0 and {one["source"] for one in json.loads(told)} >= {COUNCIL, POLICE}
    assert run("export", "--bundle", "--out", bundle, "--config", config)[0] == 0
    again = CliRunner().invoke(auditor, ["replay", str(folder), str(bundle), "--json"])
    assert again.exit_code == 0 and json.loads(again.output)["receipts"] == len(json.loads(told))
    assert run("export", "--to", "keys", "--out", tmp_path / "keys.json", "--config", config)[0] == 0
    trusting = ["replay", str(folder), str(bundle), "--keys", str(tmp_path / "keys.json")]
    assert CliRunner().invoke(auditor, trusting).exit_code == 0
    assert run("receipts", "0" * 32, "--out", folder, "--by", "ig-1", "--config", config)[0] == 1
    assert run("receipts", event, "--out", folder, "--by", "a name", "--config", config)[0] == 2
    assert run("receipts", event, "--out", bundle, "--by", "ig-1", "--config", config)[0] == 3


def test_that_receipts_were_taken_out_is_in_the_log_with_who_did(asked: tuple[Area, dict[str, str]]) -> None:
    area, events = asked
    broker, who = area.broker, {"person": "ig-1", **OPERATOR}
    analysing.receipts_of(broker.store, broker.trail, events["again"], who=who, at=clock.now())
    with broker.store.reading() as reading:
        (newest,) = reading.all(EventRow, type="audit.searched", order=("-seq",), limit=1)
    opened = broker.trail.opening(newest.event_id, show=("what", "who"))
    what: Any = opened.body("what")
    said: Any = opened.body("who")
    assert (what["searched"], what["event"], said["person"]) == ("receipts", events["again"], "ig-1")
    with pytest.raises(NotFound):
        analysing.receipts_of(broker.store, broker.trail, newest.event_id, who=who, at=clock.now())


def test_an_operator_asks_the_register_what_it_means(config: Path, draft: Path) -> None:
    code, told = run("diff", draft, "--umbrella", UMBRELLA, "--config", config)
    assert code == 1 and told.startswith("no longer: ") and "from 22 November 2026" in told
    assert run("diff", "northshire-mash@3.0.0", "--config", config) == (0, "Nothing changes.\n")
    assert run("diff", draft, "--config", config)[1] == told
    code, told = run("diff", "northshire-mash@3.0.0", draft, "--config", config)
    assert code == 1 and "education.attendance" in told
    code, told = run("who-can-see", "--org", POLICE, "--category", "health.not_brought", "--config", config)
    assert code == 0 and "northshire-mash@3.0.0#screen-index" in told
    for option in ("--org", "--source"):
        code, told = run("who-can-see", option, "northshire-polis", "--config", config)
        assert code == 2 and "write northshire-police, if that is meant" in told
    for asked in (("diff", "northshire-mash@3.0.1"), ("what-if", "northshire-mash@3.0.1"),
                  ("diff", "northshire-mash@3.0.0", "northshire-mash@3.0.1")):  # fmt: skip
        code, told = run(*asked, "--config", config)
        assert code == 2 and "write northshire-mash@3.0.0, if that is meant" in told
    code, told = run("lint", "--config", config, "--unused", 1, "--no-gaps")
    assert code == 1 and "note: refused: northshire-mash@3.0.0#screen-index" in told
