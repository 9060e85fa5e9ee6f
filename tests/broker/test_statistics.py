"""Planning statistics end to end: who may ask, what is counted, what two people see of it, and what is refused."""

from __future__ import annotations

import atexit
import csv
import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sqlalchemy import text as sql
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from agreements import Agreement, read, sign
from agreements.statistics import Counted, Quarter, Withheld, shipped
from broker import activation, register, signin, statistics
from broker import clock as broker_clock
from broker.callers import Caller
from broker.cli import app
from broker.errors import NotAllowed, Undecipherable
from broker.keys import Keys
from broker.linked import InService
from broker.settings import DemoPerson
from broker.store import Store
from broker.store.log import EventRow
from broker.store.releases import ReleaseRow, open_counted, seal_counted
from linkage.agency import client
from linkage.agency import clock as agency_clock
from tests.builders import COUNCIL, ICB, POLICE
from tests.builders_area import (
    AGREEMENTS,
    BASE_URL,
    MORNING,
    NIGHT,
    OPERATOR,
    Area,
    Clock,
    Extract,
    Someone,
    nhs_number,
    the_time,
)

TABLE, PERIOD = "attendance-by-age", "2026-Q3"
GIVEN = ("Bela", "Coro", "Denik", "Filo", "Garus", "Holin", "Jenya", "Lorik", "Moru", "Nevel", "Ory", "Ralf", "Selda")
FAMILY = ("Ashwood", "Birchley", "Cedarby", "Dunmere", "Elmford", "Fernhill", "Gorsley")
PUPILS, LATE, HIDDEN, ADULT = 210, 1, 3, 2
A_PLANNER = Caller(kind="officer", organisation=COUNCIL, person="planner-1", role="SERVICE_PLANNER", method="command")


def pupil(n: int) -> Someone:
    """Children of 4 to 17; no two share a name and a date of birth."""
    return Someone(
        id=f"p{n}", given=f"{GIVEN[n % 13]}", family=f"{FAMILY[n % 7]}{n}", born=f"{2009 + n % 14}-{1 + n * 5 % 12:02d}-{2 + n * 11 % 27:02d}",
        sex="FM"[n % 2], postcode=f"NS{20 + n % 60} {1 + n % 9}{'ABDEFGHJLN'[n % 10]}{'PQRSTUWXYZ'[n // 10 % 10]}", nhs=nhs_number(2000 + n),
    )  # fmt: skip


def band(n: int) -> str:
    return "SEVERE" if n % 35 == 0 else "PERSISTENT" if n % 4 == 0 else "ABOVE_90"


def extracts(*more: int) -> Mapping[tuple[str, str], Extract]:
    """Pupils with an attendance band in May; a late one who joins in August; three whom social care shields
    altogether; two adults whose records a school keeps; and any `more` who join in August too."""
    education, health, social_care, police = (Extract() for _ in range(4))
    for n in range(PUPILS + HIDDEN):
        education.knows(pupil(n), nhs_number="")
        health.knows(pupil(n))
        education.item(pupil(n), "education.attendance", band(n), "2026-05-22")
    for n in range(PUPILS, PUPILS + HIDDEN):
        social_care.knows(pupil(n), shield="full")
        social_care.item(pupil(n), "social_care.contact", "1A", "2026-04-01", outcome_code="NFA")
    for n in (PUPILS + HIDDEN, *more):
        education.knows(pupil(n), nhs_number="")
        education.item(pupil(n), "education.attendance", band(n), "2026-08-20")
    for n in range(900, 900 + ADULT):
        education.knows(pupil(n), nhs_number="", person_role="parent")
        education.item(pupil(n), "education.attendance", "PERSISTENT", "2026-05-22")
    social_care.item(pupil(PUPILS), "social_care.child_in_need", "N1", "2026-04-01")
    police.knows(pupil(1))
    police.item(pupil(1), "police.missing_episode", "LOW", "2026-06-01", ended_on="2026-06-02", role="subject")
    return {
        (COUNCIL, "education"): education, (COUNCIL, "social_care"): social_care, (ICB, "health"): health,
        (POLICE, "police"): police,
    }  # fmt: skip


@cache
def _linked() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="planning-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with the_time(NIGHT):
        area = Area(folder)
        area.install()
        area.push(extracts())
        done = area.link()
        assert (done["state"], done["batches"]) == ("published", {"accepted": 4}), done
        area.close()
    return folder


@pytest.fixture(scope="module")
def clock() -> Iterator[Clock]:
    with the_time(MORNING) as clock:
        yield clock


@pytest.fixture
def area(clock: Clock, tmp_path: Path) -> Iterator[Area]:
    shutil.copytree(_linked(), tmp_path / "northshire")
    made = Area(tmp_path / "northshire")
    yield made
    made.close()
    clock.put(MORNING)


def next_night(area: Area, clock: Clock, *more: int) -> None:
    """Another night's extracts, in which some have joined a school, linked; and the morning after it."""
    clock.put(NIGHT + timedelta(days=1))
    for agency in (COUNCIL, ICB, POLICE):
        home = area.home(agency)
        caller = client.Broker(home, now=agency_clock.now, http=area.http, sleep=lambda _: None)
        for batch in client.receipts(home):
            client.settle(home, caller, batch)
    area.push(extracts(*more))
    assert area.link()["state"] == "published"
    clock.put(MORNING + timedelta(days=1))


@dataclass(frozen=True)
class Staff:
    """Somebody signed in at the broker itself."""

    area: Area
    cookie: str
    csrf: str

    @classmethod
    def of(cls, area: Area, person: str, role: str, organisation: str = "") -> Staff:
        broker = area.broker
        cookie, session = signin.start(
            broker.store, broker.settings, person=person, role=role, organisation=organisation, method="demo",
            at=broker_clock.now(),
        )  # fmt: skip
        return cls(area, cookie, session.csrf)

    def get(self, path: str) -> Any:
        return self.area.http.get(f"/v1/statistics{path}", headers={"Cookie": f"{signin.COOKIE}={self.cookie}"})

    def post(self, path: str, **body: Any) -> Any:
        headers = {
            "Cookie": f"{signin.COOKIE}={self.cookie}", "X-CSRF-Token": self.csrf, "Origin": BASE_URL,
            "Sec-Fetch-Site": "same-origin",
        }  # fmt: skip
        return self.area.http.post(f"/v1/statistics{path}", json=body, headers=headers)

    def ask(self, table: str = TABLE, period: str = PERIOD) -> dict[str, Any]:
        answer = self.post("/releases", table=table, period=period)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def approve(self, release: str) -> dict[str, Any]:
        answer = self.post(f"/releases/{release}/check", agree=True)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def planner(area: Area) -> Staff:
    return Staff.of(area, "planner-1", "SERVICE_PLANNER", COUNCIL)


@pytest.fixture
def officer(area: Area) -> Staff:
    return Staff.of(area, "ig-1", "IG_OFFICER")


def rows(area: Area) -> list[ReleaseRow]:
    with area.broker.store.reading() as tx:
        return tx.all(ReleaseRow, order=("prepared_at", "id"))


def counted(area: Area) -> Counted:
    return open_counted(area.broker.keys, rows(area)[0])


def events(area: Area) -> list[str]:
    area.broker.trail.advance_pending()
    with area.broker.store.reading() as tx:
        return [row.type for row in tx.all(EventRow, order=("seq",)) if row.type.startswith("statistics.")]


def test_nobody_sees_a_figure_before_a_second_person_has_approved_it(
    area: Area, planner: Staff, officer: Staff
) -> None:
    prepared = planner.ask()
    release = prepared["release"]["release"]
    assert (prepared["release"]["state"], prepared["figures"], prepared["refusals"]) == ("prepared", None, [])
    assert planner.get(f"/releases/{release}").json()["figures"] is None
    assert planner.get(f"/releases/{release}/csv").status_code == 409
    seen = officer.get(f"/releases/{release}").json()["figures"]
    assert officer.approve(release)["state"] == "approved"
    shown = planner.ask()
    assert shown["figures"] == seen
    assert events(area) == [
        "statistics.prepared", "statistics.opened", "statistics.opened", "statistics.opened",
        "statistics.approved", "statistics.disclosed",
    ]  # fmt: skip


def test_what_is_published_is_rounded_hidden_and_as_the_ledger_counted(
    area: Area, planner: Staff, officer: Staff
) -> None:
    officer.approve(planner.ask()["release"]["release"])
    answer = planner.ask()
    # With so few pupils the finer table would tell of a child: the coarser one stands in.
    assert answer["release"]["published_as"] == "absence-by-age-half"
    figures = answer["figures"]
    true = counted(area).counts
    assert int(true.sum()) == PUPILS + LATE, "neither the shielded nor the adults"
    table = shipped().tables["absence-by-age-half"]
    levels = [[level.code for level in dimension.levels] for dimension in table.dimensions]
    for row in figures["rows"]:
        place = [row["age_halves"], row["absence"]]
        if "total" not in place:
            real = int(true[levels[0].index(place[0]), levels[1].index(place[1])])
            assert row["children"] == (real + 2) // 5 * 5
    total = next(row["children"] for row in figures["rows"] if {row["age_halves"], row["absence"]} == {"total"})
    assert total == sum(row["children"] for row in figures["rows"] if "total" not in row.values())
    assert any("Figures under 10" in note for note in figures["notes"])
    assert "northshire-council housing is not connected, and not counted." in figures["notes"]
    text = planner.get(f"/releases/{answer['release']['release']}/csv").text
    table_rows = list(csv.reader(io.StringIO(text)))
    assert table_rows[0] == ["Age", "Persistent or severe absence", "Children"]
    assert [row[-1] for row in table_rows[1:10]] == [str(row["children"]) for row in figures["rows"]]
    assert "hidden" not in text, "how many figures are hidden is nowhere told"


def test_who_asks_again_gets_the_same_figures_whatever_has_come_in_since(
    area: Area, clock: Clock, planner: Staff, officer: Staff
) -> None:
    release = planner.ask()["release"]["release"]
    before = officer.get(f"/releases/{release}").json()["figures"]
    next_night(area, clock, *range(300, 340))
    planner, officer = Staff.of(area, "planner-1", "SERVICE_PLANNER", COUNCIL), Staff.of(area, "ig-1", "IG_OFFICER")
    officer.approve(release)
    again = planner.ask()
    assert (again["release"]["release"], again["figures"]) == (release, before)


def test_scenario_18_a_release_that_differs_from_another_by_one_child_is_refused(area: Area, planner: Staff) -> None:
    assert planner.ask(period="2026-Q2")["release"]["state"] == "prepared"
    refused = planner.ask(period="2026-Q3")  # one pupil joined in August
    assert refused["release"] is None
    assert [one["code"] for one in refused["refusals"]] == ["SDC_SUPPRESSED"]
    assert refused["refusals"][0]["sentence"] == "Not published, so that no child can be recognised."
    assert len(rows(area)) == 1
    assert events(area)[-1] == "statistics.refused"


def test_a_quarter_in_which_many_joined_is_no_difference_of_a_few(area: Area, clock: Clock) -> None:
    next_night(area, clock, *range(300, 340))
    planner = Staff.of(area, "planner-1", "SERVICE_PLANNER", COUNCIL)
    assert planner.ask(period="2026-Q2")["release"]["state"] == "prepared"
    assert planner.ask(period="2026-Q3")["release"]["state"] == "prepared"


def test_a_table_is_not_counted_without_an_organisation_that_paused_its_part(area: Area, planner: Staff) -> None:
    area.suspend(COUNCIL, "northshire-planning")
    refused = planner.ask()
    assert refused["release"] is None
    assert {one["code"] for one in refused["refusals"]} == {"DSA_SUSPENDED"}
    assert rows(area) == []


def test_another_organisations_pause_leaves_a_table_without_its_data_alone(area: Area, planner: Staff) -> None:
    area.suspend(POLICE, "northshire-planning")
    assert planner.ask(TABLE)["release"]["state"] == "prepared"
    assert {one["code"] for one in planner.ask("missing-by-age-and-sex")["refusals"]} == {"DSA_SUSPENDED"}


def test_a_record_that_a_restriction_of_its_owner_names_is_not_counted(area: Area, planner: Staff) -> None:
    broker, at = area.broker, broker_clock.now().replace(microsecond=0)
    planner.ask(period="2026-Q2")
    whole = counted(area)
    service = InService(broker.store, broker.vault).area()
    assert service is not None
    child = min(whole.members)
    record = next(ref for agency, flow, ref in service.index.records_of(child) if flow == "education")
    source = (Path(__file__).parents[1] / "spec" / "northshire-icb-r12.toml").read_text()
    lines = source.replace("northshire-icb", COUNCIL).replace("r_7Q2M4XK9TD", record).splitlines()
    lines = [line for line in lines if not line.startswith(("for =", "categories =", "at_most ="))]
    sealed = "\n".join([*lines, 'categories = ["record"]', 'at_most = "none"']).encode()
    document = read(sealed)
    ref = register.import_document(broker.store, broker.trail, sealed, who=OPERATOR, at=at)
    jws = sign(document, kid=f"{COUNCIL}/signatory-1", key=area.signatory(COUNCIL), at=at)
    register.add_signatures(broker.store, broker.trail, ref, jws, who=OPERATOR, at=at)
    activation.activate(broker.store, broker.trail, ref, who=OPERATOR, at=at)
    assert planner.ask("need-and-sen", "2026-Q2")["refusals"], "one child fewer than the table before"
    kept = rows(area)[0]
    with broker.store.reading() as tx:
        now = statistics.count_children(
            tx, broker.keys, InService(broker.store, broker.vault), A_PLANNER, shipped(), shipped().tables[TABLE],
            Quarter.parse("2026-Q2"), at=at,
        )  # fmt: skip
    assert whole.members - now.children.keys() == {child}
    assert kept.state == "prepared"


def in_force(area: Area, name: str, *, by: str) -> str:
    """Somebody takes an agreement out of force and puts it back: its ref."""
    who = {**OPERATOR, "person": by}
    with area.broker.store.reading() as tx:
        ref = next(one.ref for one in register.documents(tx, at=broker_clock.now()) if one.ref.startswith(name))
    activation.suspend(area.broker.store, area.broker.trail, ref, who=who, at=broker_clock.now())
    activation.activate(area.broker.store, area.broker.trail, ref, who=who, at=broker_clock.now())
    return ref


def test_who_put_the_agreement_in_force_is_refused_and_nothing_is_kept_that_others_would_get(
    area: Area, planner: Staff
) -> None:
    ref = in_force(area, "northshire-planning", by="northshire-ig-1")
    refused = Staff.of(area, "northshire-ig-1", "SERVICE_PLANNER", COUNCIL).ask()
    assert refused["release"] is None and rows(area) == []
    (told,) = refused["refusals"]
    assert told["code"] == "APPROVED_BY_ASKER"
    assert told["sentence"] == f"You put {ref} in force, so you cannot ask under it. Ask a colleague."
    assert events(area)[-1] == "statistics.refused"
    assert planner.ask()["release"]["state"] == "prepared", "a colleague is answered"


def test_who_put_the_agreement_in_force_does_not_read_figures_that_others_had_approved_either(
    area: Area, planner: Staff, officer: Staff
) -> None:
    release = planner.ask()["release"]["release"]
    officer.approve(release)
    ref = in_force(area, "northshire-planning", by="northshire-ig-1")
    own = Staff.of(area, "northshire-ig-1", "SERVICE_PLANNER", COUNCIL)
    for answer in (own.ask(), own.get(f"/releases/{release}").json()):
        assert answer["figures"] is None
        assert [(one["code"], ref in one["sentence"]) for one in answer["refusals"]] == [("APPROVED_BY_ASKER", True)]
    assert own.get(f"/releases/{release}/csv").status_code == 409
    assert events(area)[-3:] == ["statistics.refused"] * 3
    assert planner.ask()["figures"] is not None, "a colleague reads them"
    activation.suspend(area.broker.store, area.broker.trail, ref, who=OPERATOR, at=broker_clock.now())
    assert own.get(f"/releases/{release}").json()["figures"] is None, "nor once the agreement is suspended"


def test_who_has_had_a_table_prepared_under_an_agreement_does_not_put_it_in_force(area: Area, planner: Staff) -> None:
    assert planner.ask()["release"]["state"] == "prepared"
    with pytest.raises(NotAllowed, match="planner-1 has asked under agreements"):
        in_force(area, "northshire-planning", by="planner-1")


def test_who_put_the_umbrella_in_force_is_refused_and_who_put_another_agreement_in_force_is_not(area: Area) -> None:
    in_force(area, "northshire-mash", by="ig-2")
    assert Staff.of(area, "ig-2", "SERVICE_PLANNER", COUNCIL).ask()["release"]["state"] == "prepared"
    in_force(area, "northshire-tier1", by="ig-3")
    (told,) = Staff.of(area, "ig-3", "SERVICE_PLANNER", COUNCIL).ask("need-and-sen")["refusals"]
    assert told["code"] == "APPROVED_BY_ASKER"
    assert len(rows(area)) == 1


def test_without_an_agreement_in_force_nothing_is_counted_and_nothing_kept(area: Area, planner: Staff) -> None:
    with area.broker.store.reading() as tx:
        refs = [one.ref for one in register.documents(tx, at=broker_clock.now()) if one.kind == "agreement"]
    for ref in refs:
        activation.suspend(area.broker.store, area.broker.trail, ref, who=OPERATOR, at=broker_clock.now())
    refused = planner.ask()
    assert (refused["release"], [one["code"] for one in refused["refusals"]], rows(area)) == (None, ["NO_DSA"], [])
    activation.activate(area.broker.store, area.broker.trail, refs[0], who=OPERATOR, at=broker_clock.now())
    for ref in refs[1:]:
        activation.activate(area.broker.store, area.broker.trail, ref, who=OPERATOR, at=broker_clock.now())
    assert planner.ask()["release"]["state"] == "prepared"


def test_a_count_that_relied_on_no_clause_is_not_kept(area: Area, planner: Staff) -> None:
    """Nobody holds anything of the table: the agreement would give it, and there is nothing to give."""
    with area.broker.store.transaction() as tx:
        tx.session.execute(sql("delete from item"))
    refused = planner.ask("missing-by-age-and-sex")
    assert refused["release"] is None and rows(area) == []
    assert [one["code"] for one in refused["refusals"]] == ["SDC_SUPPRESSED"]
    assert events(area)[-1] == "statistics.refused"


def test_what_could_not_be_published_blocks_no_later_count_that_can(area: Area, clock: Clock, planner: Staff) -> None:
    kept = shipped().tables[TABLE]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(statistics, "protect", lambda *_, **__: Withheld("few_children"))
        withheld = planner.ask()
        again = planner.ask()
    assert withheld["release"]["state"] == again["release"]["state"] == "withheld"
    assert len(rows(area)) == 1, "withheld for the same reason: what is there stands"
    prepared = planner.ask()
    assert prepared["release"]["state"] == "prepared" and prepared["refusals"] == []
    assert [row.state for row in rows(area)] == ["withheld", "prepared"] and kept.asked
    assert planner.ask()["release"]["release"] == prepared["release"]["release"]
    assert [one for one in events(area) if one != "statistics.opened"] == ["statistics.prepared"] * 2


@pytest.mark.parametrize(
    ("table", "period", "status"),
    [
        ("absence-by-age-half", PERIOD, 404),  # published in another's stead alone
        ("children-by-name", PERIOD, 404),
        (TABLE, "2026-Q4", 400),  # not over
        (TABLE, "2020-Q1", 400),
        (TABLE, "9999-Q4", 422),  # no calendar has the day after it
        (TABLE, "0000-Q1", 422),
        (TABLE, "2026-07", 422),
    ],
)
def test_nothing_is_counted_but_declared_tables_of_quarters_that_are_over(
    planner: Staff, table: str, period: str, status: int
) -> None:
    assert planner.post("/releases", table=table, period=period).status_code == status


def test_planners_ask_and_information_governance_checks_and_nobody_does_both(
    area: Area, planner: Staff, officer: Staff
) -> None:
    reviewer = Staff.of(area, "links-1", "LINK_REVIEWER")
    for staff in (officer, reviewer):
        assert staff.post("/releases", table=TABLE, period=PERIOD).status_code == 403
    assert reviewer.get("/releases").status_code == 403
    release = planner.ask()["release"]["release"]
    assert planner.post(f"/releases/{release}/check", agree=True).status_code == 403
    assert Staff.of(area, "planner-1", "IG_OFFICER").post(f"/releases/{release}/check", agree=True).status_code == 403
    other = Staff.of(area, "planner-2", "SERVICE_PLANNER", ICB)
    assert other.get(f"/releases/{release}").status_code == 404
    assert other.get("/releases").json()["releases"] == []
    assert {one["code"] for one in other.ask()["refusals"]} == {"RECIPIENT_NOT_NAMED"}
    assert [one["release"] for one in officer.get("/releases").json()["releases"]] == [release]
    assert officer.post(f"/releases/{release}/check", agree=False).status_code == 400, "a refusal says why"
    rejected = officer.post(f"/releases/{release}/check", agree=False, reason="figures_wrong").json()
    assert (rejected["state"], rejected["reason"]) == ("rejected", "figures_wrong")
    assert events(area)[-1] == "statistics.rejected"
    assert planner.ask()["release"]["release"] != release, "what was rejected may be asked for anew"


def test_an_agreement_may_be_used_up_for_a_quarter(area: Area, planner: Staff, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "USUAL_BUDGET", 2)
    planner.ask("attendance-by-age")
    planner.ask("need-and-sen")
    assert planner.post("/releases", table="protection-by-age", period=PERIOD).status_code == 429


def test_of_several_agreements_the_strictest_terms_the_fewest_releases_and_the_tables_of_all_hold() -> None:
    umbrella = read((AGREEMENTS / "northshire-tier1.toml").read_bytes())
    source = (AGREEMENTS / "northshire-planning.toml").read_text()

    def an_agreement(*lines: str) -> Agreement:
        head, _, rest = source.partition("[statistics]")
        text = f"{head}[statistics]\n" + "\n".join(lines) + "\n" + rest[rest.index("[retention]") :]
        document = read(text.encode(), umbrellas=[umbrella])
        assert isinstance(document, Agreement)
        return document

    one = an_agreement("threshold = 20", "releases_a_quarter = 3", 'tables = ["need-and-sen", "attendance-by-age"]')
    other = an_agreement("rounding = 10", 'tables = ["need-and-sen"]')
    terms, budget, tables = statistics.terms_of([one, other])
    assert (terms.threshold, terms.rounding, budget, tables) == (20, 10, 3, {"need-and-sen"})
    assert statistics.terms_of([])[0].threshold == 10


def test_a_service_planner_of_a_demo_is_somebodys_staff() -> None:
    planner = {"person": "planner-1", "label": "Planner", "role": "SERVICE_PLANNER"}
    made = DemoPerson(**planner, organisation=COUNCIL)
    assert made.organisation == COUNCIL
    for wrong in (planner, {"person": "ig-1", "label": "IG", "role": "IG_OFFICER", "organisation": COUNCIL}):
        with pytest.raises(ValidationError, match="organisation"):
            DemoPerson(**wrong)


def test_while_the_log_can_not_record_nothing_is_prepared_that_is_seen(
    area: Area, planner: Staff, officer: Staff, tmp_path: Path
) -> None:
    release = planner.ask()["release"]["release"]
    officer.approve(release)
    area.broker.trail.advance_pending()
    signer = area.settings.data_dir / "signer"
    signer.rename(tmp_path / "away")
    refused = planner.post("/releases", table=TABLE, period=PERIOD)
    assert refused.status_code == 503
    assert set(refused.json()) == {"type", "title", "status", "instance"}
    (tmp_path / "away").rename(signer)


def test_the_command_prepares_lists_approves_and_writes(area: Area, tmp_path: Path) -> None:
    config = tmp_path / "broker.toml"
    config.write_text(
        f'environment = "demo"\npartnership = "northshire"\nbase_url = "{BASE_URL}"\n'
        f'database_url = "sqlite:///{area.folder}/broker.sqlite"\ndata_dir = "{area.folder}/data"\n'
    )

    def typed(*arguments: object, code: int = 0) -> Any:
        done = CliRunner().invoke(app, ["statistics", *map(str, arguments), "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout or done.stderr)

    assert TABLE in {one["table"] for one in typed("tables")}
    at = ("--config", config)
    asking = ("release", TABLE, "--period", PERIOD, "--by", "planner-1", "--organisation", COUNCIL, *at)
    release = typed(*asking)["release"]["release"]
    assert typed("show", release, "--by", "ig-1", *at)["figures"]["table"] == "absence-by-age-half"
    assert "error" in typed("approve", release, "--by", "planner-1", *at, code=1)
    assert typed("approve", release, "--by", "ig-1", *at)["state"] == "approved"
    out = tmp_path / "table.csv"
    assert typed(*asking, "--out", out)["figures"]["period"] == PERIOD
    assert out.read_text().startswith("Age,Persistent or severe absence,Children")
    assert [one["state"] for one in typed("list", *at)] == ["approved"]
    late = ("release", TABLE, "--period", "2026-Q2", "--by", "planner-1", "--organisation", COUNCIL, *at)
    assert [one["code"] for one in typed(*late, code=1)["refusals"]] == ["SDC_SUPPRESSED"]
    in_force(area, "northshire-planning", by="northshire-ig-1")
    barred = ("release", "need-and-sen", "--period", PERIOD, "--by", "northshire-ig-1", "--organisation", COUNCIL, *at)
    assert [one["code"] for one in typed(*barred, code=1)["refusals"]] == ["APPROVED_BY_ASKER"]
    assert len(rows(area)) == 1


def a_release(keys: Keys, **changes: Any) -> ReleaseRow:
    counted = Counted(
        release="a" * 32, period=PERIOD, dimensions=("age", "need"), counts=np.array([[12, 3], [40, 0]]),
        members=frozenset({"p-1", "p-2"}),
    )  # fmt: skip
    sealed, wrapped = seal_counted(keys, counted)
    known: dict[str, Any] = {
        "id": "a" * 32, "organisation": COUNCIL, "asked": "t", "period": PERIOD, "attempt": 0, "published_as": "t",
        "catalogue": "c", "run": "r", "state": "prepared", "terms": {"threshold": 10}, "figures": [[10, "c"]],
        "feeds": [], "sealed": sealed, "key_wrapped": wrapped, "prepared_by": "p", "prepared_at": MORNING,
        "event_id": "e",
    }  # fmt: skip
    return ReleaseRow(**(known | changes))


def test_what_the_ledger_keeps_opens_for_its_own_release_alone(store: Store, keys: Keys) -> None:
    with store.transaction() as tx:
        tx.add(a_release(keys))
    with store.reading() as reading:
        row = reading.one(ReleaseRow, id="a" * 32)
    assert row is not None
    opened = open_counted(keys, row)
    assert (opened.members, opened.counts.tolist()) == ({"p-1", "p-2"}, [[12, 3], [40, 0]])
    assert b"p-1" not in row.sealed
    moved = a_release(keys, id="b" * 32, sealed=row.sealed)
    with pytest.raises(Undecipherable):
        open_counted(keys, moved)


def test_a_release_is_checked_but_never_changed_and_never_deleted(store: Store, keys: Keys) -> None:
    with store.transaction() as tx:
        tx.add(a_release(keys))
    with store.transaction() as tx:
        row = tx.one(ReleaseRow, id="a" * 32)
        assert row is not None
        row.state, row.checked_by = "approved", "ig-1"
        tx.add(row)
    for change in ("UPDATE statistics_release SET period = '2020-Q1'", "DELETE FROM statistics_release"):
        with pytest.raises(DBAPIError, match="never changes"), store.engine.begin() as connection:
            connection.execute(sql(change))
