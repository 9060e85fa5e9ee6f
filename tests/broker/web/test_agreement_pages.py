"""The register of agreements as pages: plain words, signatures, what a version changes, who can see what, what if."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

import pytest

from broker import clock, register
from tests.builders_area import AFTER_EXPIRY, AGREEMENTS, ANALYST, MORNING, OPERATOR, Area, Clock, the_time
from tests.builders_families import ROBIN, a_linked_area
from tests.builders_pages import Officer, text_of, written

NOW, NEXT = "northshire-mash@3.0.0", "northshire-mash@3.1.0"


@pytest.fixture(scope="module")
def clock_() -> Iterator[Clock]:
    with the_time(MORNING) as made:
        yield made


@pytest.fixture(scope="module")
def area(clock_: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    """An area in which somebody has asked, and a draft of the next version has come in."""
    made = a_linked_area(tmp_path_factory.mktemp("agreements") / "northshire")
    made.asker(ANALYST).view(ROBIN.typed(), case="D1")
    text = (AGREEMENTS / "northshire-mash.toml").read_text("utf-8")
    draft = text.replace('version = "3.0.0"', 'version = "3.1.0"', 1).replace('"education.attendance", ', "", 1)
    register.import_document(made.broker.store, made.broker.trail, draft.encode(), who=OPERATOR, at=clock.now())
    made.size()
    yield made
    made.close()


@pytest.fixture
def officer(area: Area) -> Officer:
    return Officer.of(area)


def test_the_register_says_how_each_stands_and_who_has_yet_to_sign(area: Area, officer: Officer) -> None:
    size = area.size()
    said = officer.page("/agreements")
    assert f"Agreement {NOW} In force 3 of 3 1 Apr 2026 to 31 Mar 2028 31 Mar 2027" in said
    assert f"Agreement {NEXT} Draft 0 of 3 waits for Northshire Council" in said
    assert "northshire-tier1@2.1.0 In force 3 of 4 waits for northshire-family-hubs" in said
    assert "Nothing can be disclosed" not in said
    assert written(area, size) == []


def test_one_agreement_is_told_in_plain_words_first_with_signatures_and_the_command_for_who_has_yet_to_sign(
    officer: Officer,
) -> None:
    said = officer.page(f"/agreements/{NEXT}")
    words, signatures = said.split("Where each party stands", 1)
    assert "Each clause stands alone: what two clauses half allow, neither allows." in words
    assert "Has not signed" in signatures
    assert f"broker agreements sign {NEXT}.toml --key YOUR-KEY.pem --kid northshire-council/signatory-1" in signatures
    assert "No key is ever given to this service." in signatures
    assert "[[grants]]" in signatures  # the text that is signed comes last
    assert "broker agreements sign" not in officer.page(f"/agreements/{NOW}")
    assert officer.get("/agreements/northshire-mash@9.9.9").status_code == 404


def test_the_text_and_the_pages_to_sign_come_down_as_files(officer: Officer) -> None:
    text = officer.get(f"/agreements/{NOW}/toml")
    assert text.content == (AGREEMENTS / "northshire-mash.toml").read_bytes()
    assert text.headers["content-disposition"] == f'attachment; filename="{NOW}.toml"'
    printed = officer.get(f"/agreements/{NOW}/print")
    assert printed.headers["content-disposition"] == f'attachment; filename="{NOW}.html"'
    assert "Signed electronically on" in printed.text


def test_what_a_version_changes_is_told_in_words_and_not_in_codes(officer: Officer) -> None:
    said = officer.page(f"/agreements/diff?before={NOW}&after={NEXT}")
    assert "1 change" in said
    assert (
        "No longer: Northshire Council, Northshire Icb and Northshire Police MASH analyst or MASH decision-maker may "
        "see Attendance at status for MASH screening, threshold not yet known, of Northshire Council" in said
    )
    assert "[northshire-mash@3.0.0#screen-index]" in said
    assert "Nothing changes until every party concerned signs." in said
    assert "1 change" in officer.page(f"/agreements/diff?after={NEXT}")
    assert "Nothing changes" in officer.page(f"/agreements/diff?before={NOW}&after={NOW}")
    assert officer.get("/agreements/diff?after=northshire-mash@9.9.9").status_code == 404


def test_who_can_see_what_is_asked_by_four_lists_and_comes_down_as_a_table(officer: Officer) -> None:
    asked = "org=northshire-council&role=MASH_ANALYST&source=northshire-police&purpose=MASH_SCREEN"
    said = officer.page(f"/agreements/who-can-see?{asked}")
    assert "MASH analyst at Northshire Council Northshire Police MASH screening" in said
    assert "Missing episode: existence" in said
    file = officer.get(f"/agreements/who-can-see.csv?{asked}")
    rows = list(csv.DictReader(io.StringIO(file.text)))
    assert {row["source"] for row in rows} == {"northshire-police"}
    assert ("police.missing_episode", "existence") in {(row["category"], row["mode"]) for row in rows}
    assert "Nobody can." in officer.page(
        "/agreements/who-can-see?org=northshire-council&role=SERVICE_PLANNER&purpose=S47"
    )
    assert officer.get("/agreements/who-can-see?org=elsewhere").status_code == 404


def test_what_if_reads_the_past_once_that_is_recorded_and_counts_what_would_change(
    area: Area, officer: Officer
) -> None:
    size = area.size()
    officer.page("/agreements/what-if")
    assert "Choose a document" in text_of(officer.post("/agreements/what-if").text)
    assert written(area, size) == []
    said = text_of(officer.post("/agreements/what-if", ref=NEXT).text)
    assert written(area, size) == ["audit.searched"]
    assert "past requests would change" in said
    assert "MASH analyst, Northshire Council Northshire Council MASH screening" in said
    assert "Attendance status none" in said
    assert "0 of " in text_of(officer.post("/agreements/what-if", ref=NOW).text)


def test_the_calendar_has_reviews_and_last_days_soonest_first_and_remarks_say_what_to_do(officer: Officer) -> None:
    said = officer.page("/agreements/calendar")
    assert f"31 Mar 2027 129 days Review: sharing goes on {NOW}" in said
    assert said.index("31 Mar 2027") < said.index("31 Mar 2028")
    said = officer.page("/agreements/remarks")
    assert "it can't apply: northshire-family-hubs has not signed northshire-early-help@1.1.0 have it signed" in said


def test_once_all_have_ended_it_says_that_nothing_can_be_disclosed(area: Area, clock_: Clock) -> None:
    clock_.put(AFTER_EXPIRY)
    officer = Officer.of(area)
    said = officer.page("/agreements")
    assert "No agreement is in force. Nothing can be disclosed." in said
    assert NOW not in said
    assert "Show 5 documents that ended" in said
    assert "Ended, by its dates" in officer.page("/agreements?ended=true")
    assert "Nothing falls due within three years." in officer.page("/agreements/calendar")


def test_the_register_is_sorted_by_any_of_its_columns_without_a_script(area: Area, clock_: Clock) -> None:
    clock_.put(MORNING)
    officer = Officer.of(area)

    def told(sort: str) -> list[str]:
        return re.findall(
            r'<a class="govuk-link" href="/agreements/[^"]+@[^"]+">([^<]+)</a>',
            officer.get(f"/agreements?sort={sort}").text,
        )

    as_it_stands = told("")
    assert told("document") == sorted(as_it_stands) and told("-document") == sorted(as_it_stands)[::-1]
    assert len(set(as_it_stands)) > 2 and sorted(told("ends")) == sorted(as_it_stands)
    assert 'aria-sort="descending"' in officer.get("/agreements?sort=-signed&ended=true").text
    assert 'href="/agreements?sort=state&amp;ended=true"' in officer.get("/agreements?ended=true").text
    assert officer.get("/agreements?sort=secret").status_code == 404
