"""One linked child, as an analyst, a decision-maker and an officer meet them: in a browser, on the demonstration."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from deploy.demo.__main__ import ORGANISATIONS, Demo, tool
from tests.journeys.conftest import Visitor

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Visit = Callable[..., Visitor]
INVENTED = {
    "given_name": "Zebedee", "family_name": "Samplewick", "date_of_birth": "2014-08-03", "postcode": "NX1 1AA",
    "nhs_number": "9434765919",
}  # fmt: skip


@pytest.fixture(scope="module")
def sites(told: tuple[Demo, str]) -> Iterator[Demo]:
    demo, _ = told
    with demo.serving_broker(), demo.serving_gateways():
        yield demo


def showcase(demo: Demo, kind: str) -> dict[str, Any]:
    return next(each for each in demo.showcase() if each["kind"] == kind)


def sign_in(page: Page, demo: Demo, name: str) -> None:
    page.goto(f"http://127.0.0.1:{demo.port + 1}/")
    page.get_by_label(name).check()
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="My work").wait_for()


def search(page: Page, child: dict[str, Any], *, case: str, purpose: str = "Screening a contact") -> None:
    """Type, and click once."""
    page.get_by_role("link", name="New search").click()
    page.get_by_label("Given name(s)").fill(child["given_name"])
    page.get_by_label("Family name").fill(child["family_name"])
    parts = zip(("Year", "Month", "Day"), child["date_of_birth"].split("-"), strict=True)
    for part, value in parts:
        page.get_by_label(part, exact=True).fill(value)
    page.get_by_label("Postcode").fill(child["postcode"])
    page.get_by_label("NHS number").fill(child["nhs_number"])
    page.get_by_label("Case reference").fill(case)
    page.get_by_label(purpose).check()
    page.get_by_label("Yes", exact=True).check()
    page.get_by_label("I am asking for this purpose only").check()
    page.get_by_role("button", name="Search", exact=True).last.click()
    page.wait_for_load_state()


@pytest.mark.parametrize(("width", "height", "scripts"), [(1280, 720, True), (390, 844, False)])
def test_one_click_after_typing_an_analyst_sees_whom_to_ring_and_who_knows_the_child(
    sites: Demo, visitor: Visit, width: int, height: int, scripts: bool
) -> None:
    child = showcase(sites, "open_case")
    visit = visitor(width=width, height=height, scripts=scripts)
    page = visit.page
    sign_in(page, sites, "Sample Analyst")
    search(page, child, case=f"SAMPLE-{width}")
    for answer in (page.get_by_role("heading", name="Already open"), page.locator(".service-ring a").first):
        box = answer.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < height
    tiles = page.locator(".service-tile h3").all_inner_texts()
    assert all(any(organisation.name in tile for tile in tiles) for organisation in ORGANISATIONS)
    assert page.locator("section:has(#not-shown) tbody tr").count() <= 6  # reasons, not a wall of them
    assert child["family_name"] not in page.title() + page.url
    if scripts:
        assert visit.violations() == []
    assert not visit.scrolls_sideways()


def test_level_four_recorded_by_a_decision_maker_opens_dated_events(sites: Demo, visitor: Visit) -> None:
    child = showcase(sites, "open_case")
    visit = visitor()
    page = visit.page
    sign_in(page, sites, "Sample Decision-maker")
    search(page, child, case="SAMPLE-0447")
    assert page.locator(".service-events > li").count() == 0
    page.get_by_role("link", name="Decide the threshold").click()
    page.get_by_label("There is reasonable cause to suspect significant harm").check()
    page.get_by_role("button", name="Record level 4").click()
    page.get_by_text("Level 4 is recorded for this contact.").wait_for()
    search(page, child, case="SAMPLE-0447", purpose="Section 47 enquiry")
    page.get_by_role("heading", name="Chronology").wait_for()
    dated = page.locator(".service-events time").first
    assert re.fullmatch(r"\d{1,2} [A-Z][a-z]{2} \d{4}", dated.inner_text())
    assert visit.violations() == []


def test_a_child_who_is_hidden_and_one_who_does_not_exist_give_the_same_page(sites: Demo, visitor: Visit) -> None:
    visit = visitor()
    page = visit.page
    sign_in(page, sites, "Sample Analyst")
    pages = []
    for child in (showcase(sites, "full_shield"), INVENTED):
        search(page, child, case="SAMPLE-0999")
        page.get_by_role("heading", name="No match to show").wait_for()
        pages.append(re.sub(r"[0-9a-f]{32}|\d\d:\d\d|(?:nonce|value)=\"[^\"]*\"", "*", page.content()))
    assert pages[0] == pages[1]
    assert visit.violations() == []


def test_the_officer_finds_the_disclosure_and_proves_it_offline_from_the_two_downloads(
    sites: Demo, visitor: Visit, tmp_path: Path
) -> None:
    visit = visitor()
    analyst = visitor().page
    sign_in(analyst, sites, "Sample Analyst")
    search(analyst, showcase(sites, "open_case"), case="SAMPLE-0500")
    analyst.get_by_role("heading", name="Family view").wait_for()

    page = visit.page
    page.goto(sites.url)
    page.get_by_label("Sample IG Officer").check()
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Log", exact=True).click()
    page.get_by_label("To check that processing was lawful").check()
    page.get_by_label("Member of staff").fill("p-analyst")
    page.get_by_role("button", name="Search the log").click()
    page.get_by_role("link", name="Family view disclosed").first.click()
    page.get_by_role("heading", name="Prove it").wait_for()
    assert page.get_by_text("p-analyst").first.is_visible()
    assert visit.violations() == []
    command = page.locator("#command").input_value()
    files = []
    for link in ("Download opening", "Download proof"):
        with page.expect_download() as coming:
            page.get_by_role("link", name=link).click()
        files.append(tmp_path / coming.value.suggested_filename)
        coming.value.save_as(files[-1])
    assert command.endswith(files[0].name)

    log, policy = tmp_path / "log", tmp_path / "policy"
    sites.agency("log", "fetch", "--home", str(sites.home(ORGANISATIONS[0])), "--out", str(log))
    policy.write_text(sites.broker("log", "policy"))
    checked = [tool("auditor"), "inclusion", "--log", str(log), "--policy", str(policy), "--event", str(files[0])]
    assert "is entry" in sites.run(*checked)
    assert "is entry" in sites.run(*checked, "--proof", str(files[1]))


def test_a_wrong_person_is_reported_in_four_clicks_and_the_view_closes(sites: Demo, visitor: Visit) -> None:
    visit = visitor()
    page = visit.page
    sign_in(page, sites, "Sample Analyst")
    search(page, showcase(sites, "open_case"), case="SAMPLE-0600")
    view = page.url
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("link", name="Tell us this is the wrong person").click()
    page.get_by_role("heading", name="Tell us this is the wrong person").wait_for()
    assert visit.violations() == []
    assert not visit.scrolls_sideways()
    page.get_by_role("button", name="Report and close this view").click()
    page.get_by_role("heading", name="There is a problem").wait_for()
    assert visit.violations() == []
    page.get_by_label("The whole child").check()
    page.get_by_label("I know the child, and this is another").check()
    page.get_by_role("button", name="Report and close this view").click()
    page.get_by_role("heading", name="Reported at").wait_for()
    page.get_by_text("A reviewer looks at it. Do not use what you saw.").wait_for()
    assert visit.violations() == []
    page.goto(view)
    page.get_by_role("heading", name="Page not found").wait_for()

    reviewer = visitor().page
    reviewer.goto(sites.url)
    reviewer.get_by_label("Sample Link Reviewer").check()
    reviewer.get_by_role("button", name="Sign in").click()
    reviewer.goto(f"{sites.url}/pairs?reason=wrong_person")
    assert reviewer.get_by_role("row").filter(has_text="omebody who knows the child says").count() == 1


def test_a_holder_s_representative_decides_what_waits_and_sees_who_saw_their_data(
    sites: Demo, visitor: Visit, tmp_path: Path
) -> None:
    visit = visitor(width=390, height=844)
    page = visit.page
    page.goto(f"http://127.0.0.1:{sites.port + 1}/")
    page.get_by_label("Sample Representative").check()
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Inbox").wait_for()
    assert visit.violations() == []
    assert not visit.scrolls_sideways()
    first = page.locator("tbody th a").first
    case = first.inner_text()
    first.click()
    page.get_by_text("They have not been told.").wait_for()
    page.get_by_text("It would have let you share, but for:").wait_for()
    assert visit.violations() == []
    page.get_by_role("button", name="Record the decision").click()
    page.get_by_role("heading", name="There is a problem").wait_for()
    page.get_by_label("We do not share it").check()
    page.get_by_label("Not relevant to what was asked").check()
    assert visit.violations() == []
    page.get_by_role("button", name="Record the decision").click()
    page.get_by_text("Recorded: your organisation does not share this, and why.").wait_for()
    page.get_by_role("link", name="Not shared").click()
    page.get_by_role("link", name=case).first.click()
    page.get_by_text("Not relevant to what was asked.").wait_for()
    assert page.get_by_role("button", name="Record the decision").count() == 0  # once and for good

    page.goto(f"http://127.0.0.1:{sites.port + 1}/our-data")
    page.get_by_role("heading", name="Who has seen our information").wait_for()
    assert visit.violations() == []
    assert not visit.scrolls_sideways()
    assert page.get_by_text("Up to date").count() >= 1
    with page.expect_download() as coming:
        page.get_by_role("link", name="Download all of it as CSV").click()
    seen = list(csv.DictReader(Path(coming.value.path()).read_text().splitlines()))
    mine = next(row["local_id"] for row in seen if row["local_id"])
    page.get_by_label("One child, by our own case number").fill("no such number")
    page.get_by_role("button", name="Who has seen this record").click()
    page.get_by_text("No record of ours has this case number").first.wait_for()
    assert visit.violations() == []
    page.get_by_label("One child, by our own case number").fill(mine)
    page.get_by_role("button", name="Who has seen this record").click()
    page.get_by_role("heading", name=mine).wait_for()
    assert mine not in page.url
    assert page.locator("tbody tr").count() >= 1
    assert visit.violations() == []


def test_a_print_is_a_disclosure_of_its_own_and_the_paper_bears_its_receipt(sites: Demo, visitor: Visit) -> None:
    visit = visitor()
    page = visit.page
    sign_in(page, sites, "Sample Analyst")
    search(page, showcase(sites, "open_case"), case="SAMPLE-0700")
    seen = page.locator("#recorded ~ p .service-once").first.inner_text()
    page.get_by_role("button", name="Print").click()
    page.get_by_role("button", name="Print this page").wait_for()
    printed = page.locator("#recorded ~ p .service-once").first.inner_text()
    assert re.fullmatch("[0-9a-f]{32}", printed)
    assert printed != seen
    page.emulate_media(media="print")
    assert printed in page.locator(".service-watermark").inner_text()
    page.emulate_media(media="screen")
    assert visit.violations() == []


def test_in_an_emergency_the_glass_is_broken_in_three_clicks_and_no_name_leaves_with_the_reason(
    sites: Demo, visitor: Visit
) -> None:
    child = showcase(sites, "open_case")
    visit = visitor()
    page = visit.page
    sign_in(page, sites, "Sample Decision-maker")
    search(page, child, case="SAMPLE-0800")
    page.get_by_role("link", name="Emergency access").click()
    page.get_by_text("ring 999 first").wait_for()
    assert page.locator("main a[href^='tel:']").count() >= 2  # the numbers come before the form
    page.get_by_role("button", name="Open for 60 minutes").click()
    page.get_by_role("link", name="Choose why you cannot wait").wait_for()
    assert visit.violations() == []
    page.get_by_label("A child is missing now and at risk").check()
    page.get_by_label("In your words, no names").fill(f"{child['given_name']} was not at school and is not at home")
    page.get_by_role("button", name="Open for 60 minutes").click()
    page.get_by_role("heading", name="Emergency access. Ends").wait_for()
    page.get_by_text("“[removed] was not at school and is not at home”").wait_for()
    assert visit.violations() == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert not visit.scrolls_sideways()
    seen = page.url
    page.get_by_role("button", name="End now").click()
    page.get_by_role("heading", name="My work").wait_for()
    page.goto(seen)
    page.get_by_role("heading", name="Page not found").wait_for()
