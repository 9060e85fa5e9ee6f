"""Samples at the broker: by a checkpoint that witnesses fixed after the period, all that must be, and drawn again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from typer.testing import CliRunner

from audit.checkpoint import SignedCheckpoint
from audit.cli import auditor
from audit.policy import Policy
from audit.sampling import Candidate, draw, seed_of
from audit.tiles import bundles_of, tiles_of
from broker import clock as wall
from broker import reviewing, sampling, signin, witnesses
from broker.cli import app as command
from broker.cli.audit import watch
from broker.errors import Malformed, NotAllowed, NotFound, WrongState
from broker.packs import pack
from broker.reports.table import Period
from broker.settings import DemoPerson
from broker.shards import begin_anew, log_keys
from broker.store import Store
from broker.trail import Trail
from tests.broker.test_reviewing import ONE, logged, officer, types
from tests.broker.test_witnesses import SHARD, Site
from tests.builders_area import the_time
from tests.builders_log import put

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.broker.store.close()


def shown(site: Site, count: int, **parts: Any) -> list[str]:
    return [logged(site.broker.store, site.broker.trail, at=wall.now(), flagged=False, **parts) for _ in range(count)]


def past(hours: float = 2) -> Period:
    """A period that ends now."""
    now = wall.now()
    return Period(now - hours * HOUR, now)


def taken(site: Site, period: Period, **terms: Any) -> sampling.Drawn:
    return sampling.take(
        site.broker.store, site.broker.trail, period, who=ONE.who(), at=wall.now() + HOUR, **terms
    ).answer


def test_without_witnesses_a_sample_is_drawn_and_says_that_nobody_witnessed_it(site: Site) -> None:
    ids = shown(site, 30)
    glass = shown(site, 2, what={"outcome": "disclosed", "break_glass": True})
    detail = {"outcome": "disclosed", "categories": {"northshire-police": {"police.domestic_abuse": "detail"}}}
    sensitive = shown(site, 1, what=detail)
    period = past()
    with pytest.raises(WrongState, match="waits"):
        taken(site, period)  # nothing was signed since the end
    site.grow()
    size = site.broker.trail.advance_pending()
    made = taken(site, period)
    assert types(site.broker.store, site.broker.trail, size) == ["audit.flagged"]
    assert (made.witnessed, made.candidates, made.drawn) == (False, 33, 23)
    assert made.by_reason == {"break_glass": 2, "lot": 20, "sensitive_detail": 1}
    what: Any = site.broker.trail.opening(made.event_id, show=("what",)).body("what")
    assert (what["kind"], what["witnessed"], what["not_measured"]) == ("sample", False, ["staff_linked"])
    queue = reviewing.queue(site.broker.store, site.broker.trail, ONE, reason="lawfulness", at=wall.now())
    kinds = {one.event.event_id: one.kind for one in queue}
    assert {kinds[one] for one in glass} == {"break_glass"}
    assert kinds[sensitive[0]] == "sample"
    assert len(kinds) == 23
    assert set(kinds) <= {*ids, *glass, *sensitive}
    with pytest.raises(WrongState, match="was drawn"):
        taken(site, period)


def test_with_witnesses_it_waits_for_a_quorum_after_the_end_and_the_host_can_not_choose(site: Site) -> None:
    site.enrols(3)
    shown(site, 40)
    before = site.cosigned(0, 1, 2, at=wall.now() - HOUR)
    site.hands_in(before).raise_for_status()
    period = past()
    site.grow()
    with pytest.raises(WrongState, match="quorum"):
        taken(site, period)
    note = site.cosigned(0)
    site.hands_in(note).raise_for_status()
    with pytest.raises(WrongState, match="quorum"):
        taken(site, period)
    site.hands_in(site.cosigned(1, note=SignedCheckpoint.parse(note))).raise_for_status()
    first = SignedCheckpoint.parse(note).checkpoint
    for _ in range(3):  # later checkpoints that others cosign do not matter any more
        site.grow()
        site.hands_in(site.cosigned(0, 1, 2)).raise_for_status()
    again = SignedCheckpoint(first, SignedCheckpoint.parse(note).signatures[:1])  # nor does a newer line under it
    site.hands_in(site.cosigned(0, note=again, at=wall.now() + timedelta(seconds=9))).raise_for_status()
    made = taken(site, period)
    assert made.witnessed
    drawn_by = SignedCheckpoint.parse(made.note)
    assert drawn_by.checkpoint == first
    assert drawn_by.signatures[1] == SignedCheckpoint.parse(note).signatures[1]


def test_the_first_line_fixes_the_seed_though_its_checkpoint_never_got_a_quorum_and_each_witness_is_waited_for(
    site: Site,
) -> None:
    site.enrols(3)
    shown(site, 40)
    period = past()
    site.grow()
    first = site.cosigned(2)
    site.hands_in(first).raise_for_status()
    site.grow()
    newest, later = site.fetch("checkpoint"), wall.now() + timedelta(seconds=2)
    site.hands_in(site.cosigned(0, note=newest, at=later)).raise_for_status()
    with pytest.raises(WrongState, match="yet to sign"):
        sampling.take(site.broker.store, site.broker.trail, period, who=ONE.who(), at=period.until + HOUR / 12)
    with pytest.raises(WrongState, match="quorum"):
        taken(site, period)
    site.hands_in(site.cosigned(1, note=newest, at=later)).raise_for_status()
    made = sampling.take(site.broker.store, site.broker.trail, period, who=ONE.who(), at=period.until + HOUR / 12)
    assert SignedCheckpoint.parse(made.answer.note).checkpoint == SignedCheckpoint.parse(first).checkpoint


def test_who_witnesses_is_settled_at_the_periods_end_whoever_is_enrolled_or_removed_before_the_draw(site: Site) -> None:
    site.enrols(2)
    shown(site, 40)
    period = past()
    newcomer = site.keys[2]
    store, trail = site.broker.store, site.broker.trail
    witnesses.enrol(store, trail, str(newcomer.verifier), "northshire-icb", who=ONE.who(), at=wall.now())
    site.grow()
    note = site.fetch()
    early = site.cosigned(2, note=note)
    site.hands_in(early).raise_for_status()
    later = wall.now() + timedelta(seconds=2)
    site.hands_in(site.cosigned(0, 1, note=note, at=later)).raise_for_status()
    witnesses.remove(store, trail, "witness-0.example", who=ONE.who(), at=wall.now())
    site.grow()
    made = taken(site, period)
    lines = {line.name for line in SignedCheckpoint.parse(made.note).signatures}
    assert lines == {trail.origin, "witness-0.example", "witness-1.example"}


def test_a_line_in_a_compromised_shard_draws_nothing_and_the_draw_says_which_shard_was_left_out(site: Site) -> None:
    site.enrols(2)
    shown(site, 30)
    period = past()
    site.grow()
    site.hands_in(site.cosigned(0, 1)).raise_for_status()
    trail = site.broker.trail
    old = trail.origin
    new = begin_anew(trail, site.broker.settings.log_base, compromised=True, who=ONE.who(), at=wall.now())
    with pytest.raises(WrongState, match="quorum"):
        taken(site, period)
    newest = trail.signed()
    assert newest is not None
    signed = SignedCheckpoint.parse(newest.note.decode())
    site.hands_in(site.cosigned(0, 1, note=signed)).raise_for_status()
    made = taken(site, period)
    assert SignedCheckpoint.parse(made.note).checkpoint.origin == new.log_id
    what: Any = trail.opening(made.event_id, show=("what",)).body("what")
    assert what["logs_left_out"] == [old]


def test_a_host_that_removes_every_witness_draws_nothing_and_the_week_stays_owed_in_sight_of_all(
    site: Site, tmp_path: Path
) -> None:
    site.enrols(2)
    shown(site, 4)
    store, trail, now = site.broker.store, site.broker.trail, wall.now()
    note = site.cosigned(0, 1)
    site.hands_in(note).raise_for_status()
    policy = tmp_path / "policy"  # as partners hold it
    policy.write_bytes(site.http.get("/audit/policy").raise_for_status().content)
    for key in site.keys[:2]:
        witnesses.remove(store, trail, key.name, who=ONE.who(), at=now + 10 * DAY)
    site.grow()
    with the_time(now + 10 * DAY):
        later = wall.now()
        week = sampling.due_week(now + 7 * DAY)
        with pytest.raises(WrongState, match="2 of the 2 who witnessed then were removed since"):
            sampling.take(store, trail, week, who=ONE.who(), at=later)
        with store.reading() as reading:
            (owed,) = sampling.owed(reading, at=later)
        assert (owed.period, "were removed since" in owed.why) == (week, True)
        told = watch(site.broker)  # the nightly part
        assert (told["sample"]["state"], told["owed"]) == ("not drawn", [owed.to_json()])
        with store.reading() as reading:  # weeks later too, and as long as it is not drawn
            assert [one.period for one in sampling.owed(reading, at=later + 28 * DAY)] == [week]
        assert site.hands_in(note).status_code == 401  # whoever is removed is told so
    folder, state = tmp_path / "log", tmp_path / "state"
    size = site.fetch().checkpoint.size
    for name in ("checkpoint", *(tile.path for tile in (*tiles_of(size), *bundles_of(size)))):
        put(folder / name, site.http.get(f"{SHARD}/{name}").raise_for_status().content)
    arguments = ["consistency", "--log", folder, "--policy", policy, "--state", state]
    assert CliRunner().invoke(auditor, [*map(str, arguments)]).exit_code == 5


@pytest.mark.parametrize(("outcome", "weeks"), [("0_listed", 0), ("10_listed", 1)])
def test_a_week_in_which_nobody_was_shown_owes_no_sample(store: Store, trail: Trail, outcome: str, weeks: int) -> None:
    now = wall.now()
    logged(store, trail, "search.authorised", what={"outcome": outcome}, at=now, flagged=False)
    trail.advance_pending()
    with store.reading() as reading:
        assert len(sampling.owed(reading, at=now + 8 * DAY)) == weeks


def test_a_week_that_waited_for_its_witnesses_is_drawn_when_they_are_back(site: Site) -> None:
    site.enrols(2)
    shown(site, 4)
    now = wall.now()
    with the_time(now + 30 * DAY):
        assert [one["why"] != "" for one in watch(site.broker)["owed"]] == [True]
        site.grow()
        site.hands_in(site.cosigned(0, 1, at=wall.now())).raise_for_status()
        assert watch(site.broker)["owed"] == []
    (drawn,) = sampling.samples(site.broker.store, ONE)
    assert (drawn.since <= now < drawn.until, drawn.candidates) == (True, 4)


def test_whoever_has_the_candidates_and_a_policy_draws_the_same(site: Site) -> None:
    site.enrols(2)
    shown(site, 60)
    period = past()
    site.grow()
    site.hands_in(site.cosigned(0, 1)).raise_for_status()
    made = taken(site, period, percent=10, least=5)
    size = site.broker.trail.advance_pending()
    found = sampling.redraw(
        site.broker.store, site.broker.trail, ONE, sample=made.sample, reason="lawfulness", at=wall.now()
    )
    assert types(site.broker.store, site.broker.trail, size) == ["audit.searched"]
    told = json.loads(json.dumps(found.to_json()))
    with site.broker.store.reading() as reading:
        policy = Policy.parse(witnesses.policy_of(reading, log_keys(reading)).text.encode())
    ended_s = int(datetime.fromisoformat(told["until"]).timestamp())
    seed = seed_of(SignedCheckpoint.parse(told["note"]), policy, ended_s=ended_s)
    again = draw(
        [Candidate(**one) for one in told["candidates"]], seed.value, percent=told["percent"], least=told["least"]
    )
    assert dict(again.drawn) == told["drawn"]
    assert len(again.drawn) == made.drawn == 6


def test_what_has_not_ended_or_showed_nobody_is_not_drawn_and_only_information_governance_looks(site: Site) -> None:
    with pytest.raises(WrongState, match="nothing to draw"):
        period = past()
        site.grow()
        taken(site, period)
    with pytest.raises(Malformed):
        taken(site, Period(wall.now(), wall.now() + timedelta(days=2)))
    with pytest.raises(Malformed):
        taken(site, past(), percent=0)
    with pytest.raises(NotFound):
        sampling.redraw(site.broker.store, site.broker.trail, ONE, sample="0" * 32, reason="lawfulness", at=wall.now())
    with pytest.raises(NotAllowed):
        sampling.samples(site.broker.store, officer("op-1", "OPERATOR"))


def test_the_last_week_is_from_monday_to_sunday_in_london() -> None:
    week = sampling.due_week(datetime(2026, 4, 1, 2, 0, tzinfo=UTC))  # the clocks went forward on the Sunday
    assert (week.since, week.until) == (
        datetime(2026, 3, 23, 0, 0, tzinfo=UTC), datetime(2026, 3, 29, 23, 0, tzinfo=UTC),
    )  # fmt: skip


def test_the_monthly_pack_counts_and_names_nobody_and_its_digest_is_in_the_log(site: Site) -> None:
    shown(site, 3)
    event = shown(site, 1, what={"outcome": "disclosed", "break_glass": True})[0]
    refused = {"outcome": "NO_DSA"}
    logged(site.broker.store, site.broker.trail, "search.refused", what=refused, at=wall.now(), flagged=True)
    store, trail = site.broker.store, site.broker.trail
    reviewing.queue(store, trail, ONE, reason="lawfulness", at=wall.now())
    reviewing.take(store, trail, ONE, event_id=event, at=wall.now())
    reviewing.decide(store, trail, ONE, event_id=event, decision="justified", at=wall.now())
    size = trail.advance_pending()
    at = wall.now()
    made = pack(store, trail, ONE, month=at.date(), reason="lawfulness", at=at)
    assert types(store, trail, size) == ["audit.report_issued"]
    what: Any = trail.opening(made.event_id, show=("what",)).body("what")
    assert (what["sha256"], what["month"]) == (made.sha256, f"{at:%Y-%m}")
    told = json.loads(made.content)
    assert (told["disclosures"]["events"], told["break_glass"]["events"], told["refusals"]["outcome"]) == (
        4, 1, {"NO_DSA": 1},
    )  # fmt: skip
    assert told["flags"] == {"out_of_hours": 1}
    assert told["reviews"]["decided"] == {"justified": 1}
    assert told["reviews"]["break_glass_in_time"] == {"in_time": 1}
    assert told["reviews"]["waiting"] == 1
    assert told["integrity"]["state"] == "none"
    assert "p-81" not in made.content.decode()
    assert "child-1" not in made.content.decode()
    with pytest.raises(Malformed):
        pack(store, trail, ONE, month=date(2199, 1, 1), reason="lawfulness", at=at)


# --- By command and by HTTP -----------------------------------------------------------------------------------------


def test_rules_flags_reviews_samples_and_the_pack_by_command(site: Site, tmp_path: Path) -> None:
    settings = site.broker.settings
    config = tmp_path / "broker.toml"
    config.write_text(
        f'environment = "demo"\npartnership = "{settings.partnership}"\nbase_url = "{settings.base_url}"\n'
        f'data_dir = "{settings.data_dir}"\ndatabase_url = "{settings.database_url.get_secret_value()}"\n'
    )

    def run(*arguments: str, code: int = 0) -> Any:
        done = CliRunner().invoke(command, ["audit", *arguments, "--config", str(config), "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if code == 0 else done.output

    done = CliRunner().invoke(command, ["audit", "run", "--config", str(config)])
    assert (done.exit_code, "no hour of the log is over yet" in done.output) == (0, True), done.output
    two_days_ago = wall.now() - timedelta(days=2)
    with site.broker.store.engine.begin() as connection:  # the log was opened a week ago
        connection.execute(text("UPDATE audit_head SET last_ms = last_ms - 604800000"))
    ids = [logged(site.broker.store, site.broker.trail, at=two_days_ago, flagged=False) for _ in range(3)]
    site.grow()
    day = f"{two_days_ago.astimezone(reviewing.LONDON):%Y-%m-%d}"
    ours, why = ("--by", "ig-1"), ("--reason", "lawfulness")

    drawn = run("sample", *ours, "--from", day, "--to", day)
    assert (drawn["candidates"], drawn["drawn"], drawn["witnessed"]) == (3, 3, False)
    assert "was drawn" in run("sample", *ours, "--from", day, "--to", day, code=1)
    assert [one["sample"] for one in run("samples", *ours)["samples"]] == [drawn["sample"]]
    out = tmp_path / "sample.json"
    run("redraw", drawn["sample"], *ours, *why, "--out", str(out))
    with site.broker.store.reading() as reading:
        (tmp_path / "policy").write_text(witnesses.policy_of(reading, log_keys(reading)).text)
    found = CliRunner().invoke(auditor, ["sample", str(out), "--policy", str(tmp_path / "policy")])
    assert (found.exit_code, "3 of 3" in found.output) == (0, True)

    run("flag", ids[0], *ours, "--why", "complaint")
    flags = run("flags", *ours, *why, "--from", day, "--to", f"{wall.now():%Y-%m-%d}")
    assert [one["rule"] for one in flags] == ["by_hand.complaint"]
    assert {one["event"]["event_id"] for one in run("reviews", *ours, *why)} == set(ids)
    run("take", ids[0], *ours)
    assert run("review", ids[0], *ours, "--decision", "training", "--note", "To be told")["state"] == "decided"
    assert "does not sign that off" in run("signoff", ids[0], *ours, "--agree", code=1)
    assert run("signoff", ids[0], "--by", "ig-2", "--agree")["state"] == "closed"

    register = run("rules")
    assert {rule["rule"] for rule in register["rules"] if rule["not_measured_because"]} >= {"own_family", "own_record"}
    run("rules", "--set", "burst.an_hour=30", "--why", "trial", *ours)
    assert [(one["before"], one["value"]) for one in run("rules")["changes"]] == [(60, 30)]
    run("rules", "--set", "burst", "--why", "trial", *ours, code=2)
    run("rules", "--set", "burst.an_hour=0", "--why", "trial", *ours, code=2)
    run("run")  # draws last week's sample, where the three events lie in it: that hangs on the day of the week
    done = run("run")
    assert (done["sample"]["state"], "own_family" in done["not_measured"]) == ("not drawn", True)

    made = tmp_path / "pack.json"
    told = run("pack", "--month", f"{wall.now():%Y-%m}", *ours, *why, "--out", str(made))
    assert sha256(made.read_bytes()).hexdigest() == told["sha256"]
    run("pack", "--month", f"{wall.now():%Y-%m}", *ours, *why, "--out", str(made), code=2)


def test_samples_by_http(tmp_path: Path) -> None:
    people = (DemoPerson(person="ig-1", label="IG", role="IG_OFFICER"),)
    site = Site(tmp_path, base_url="https://testserver", demo_people=people)
    broker = site.broker
    with broker.store.engine.begin() as connection:
        connection.execute(text("UPDATE audit_head SET last_ms = last_ms - 604800000"))
    logged(broker.store, broker.trail, at=wall.now() - timedelta(days=2), flagged=False)
    site.grow()
    cookie, session = signin.sign_in_to_demo(broker.store, broker.settings, "ig-1", at=wall.now())
    http = TestClient(site.app, base_url="https://testserver")
    http.headers |= {
        "X-CSRF-Token": session.csrf, "Origin": "https://testserver", "Cookie": f"{signin.COOKIE}={cookie}",
    }  # fmt: skip
    day = f"{(wall.now() - timedelta(days=2)).astimezone(reviewing.LONDON):%Y-%m-%d}"
    size = broker.trail.advance_pending()
    made = http.post("/audit/samples", json={"first": day, "last": day})
    assert (made.status_code, made.json()["drawn"]) == (201, 1)
    assert http.post("/audit/samples", json={"first": day, "last": day}).status_code == 409
    assert [one["sample"] for one in http.get("/audit/samples").json()["samples"]] == [made.json()["sample"]]
    again = http.get(f"/audit/samples/{made.json()['sample']}?purpose=lawfulness")
    assert len(again.json()["candidates"]) == 1
    assert types(broker.store, broker.trail, size) == ["audit.flagged", "audit.searched"]
    broker.store.close()
