"""The broker's own pages in a real browser: at three widths, with and without scripts, and with nothing for axe to find."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from playwright.sync_api import Page, expect

from broker.settings import DemoPerson, Inspection
from broker.web.pages import NAVIGATION
from tests.builders_area import ANALYST, MORNING, Area, the_time
from tests.builders_families import ROBIN, a_linked_area
from tests.journeys.conftest import Visitor, served

pytestmark = pytest.mark.browser
Visit = Callable[..., Visitor]
Serve = Callable[[FastAPI], str]
PEOPLE = (
    DemoPerson(person="ig-1", label="Sample IG Officer", role="IG_OFFICER"),
    DemoPerson(person="links-1", label="Sample Link Reviewer", role="LINK_REVIEWER"),
    DemoPerson(person="plan-1", label="Sample Planner", role="SERVICE_PLANNER", organisation="northshire-council"),
    DemoPerson(person="op-1", label="Sample Operator", role="OPERATOR"),
    DemoPerson(person="insp-1", label="Sample Inspector", role="INSPECTOR"),
)
INSPECTION = Inspection(person="insp-1", first=MORNING.date(), last=MORNING.date())


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    with the_time(MORNING):
        made = a_linked_area(tmp_path_factory.mktemp("pages") / "northshire")
        made.settings = made.settings.model_copy(update={"demo_people": PEOPLE, "inspections": (INSPECTION,)})
        for case in ("W1", "W2", "W3"):
            made.asker(ANALYST).view(ROBIN.typed(), case=case)
        yield made
        made.close()


@pytest.fixture(scope="module")
def site(area: Area) -> Iterator[str]:
    with served(area.http.app) as address:  # type: ignore[arg-type]
        yield address


def sign_in(page: Page, site: str, label: str) -> None:
    page.goto(site)
    page.get_by_label(label, exact=True).check()
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()


def wide(page: Page) -> bool:
    return bool(page.viewport_size and page.viewport_size["width"] > 1000)


def looked_at(visit: Visitor, *, scripts: bool) -> list[str]:
    """What is wrong with the page as it stands."""
    page = visit.page
    page.wait_for_load_state()
    wrong = visit.violations() if scripts else []
    if visit.scrolls_sideways():
        wrong.append("wider than its window")
    if page.locator("h1").count() != 1:
        wrong.append("not one heading")
    return wrong


def the_way_of_a_link_reviewer(visit: Visitor) -> Iterator[str]:
    """Every page of link review, each as it is reached."""
    page = visit.page
    yield "the queue"
    page.get_by_role("link", name="Look").first.click()
    page.get_by_role("heading", name="Same person?", level=1).wait_for()
    yield "a pair"
    page.get_by_role("button", name="Record").click()
    page.get_by_role("heading", name="There is a problem").wait_for()
    yield "a pair with faults"
    page.get_by_role("button", name="Ask the agencies").click()
    page.get_by_role("heading", name="Ask the agencies").wait_for()
    yield "whom to ring"
    page.get_by_role("link", name="Back to the pair").click()
    page.get_by_label("Cannot tell: pass on").check()
    page.get_by_label("Why", exact=True).select_option("not_enough")
    page.get_by_label("The agreement levels").check()
    page.get_by_role("button", name="Record").click()
    page.get_by_role("heading", name="Decided: Cannot tell: pass on").wait_for()
    yield "done"


def the_way_of_a_review(visit: Visitor) -> Iterator[str]:
    """From an event of the log to a decision about it, by way of the rules and the samples."""
    page = visit.page
    yield "the dashboard"
    page.goto(page.url.replace("/ig", "/log"))
    page.get_by_label("To check that processing was lawful").check()
    page.get_by_label("Kind of operation").select_option("disclosure")
    page.get_by_role("button", name="Search the log").click()
    page.get_by_role("link", name="Role").click()
    page.locator("th[aria-sort]").wait_for()
    yield "events, sorted"
    page.get_by_text("Export what fits").click()
    page.get_by_role("button", name="Export").click()
    page.get_by_role("heading", name="There is a problem").wait_for()
    yield "events, with faults"
    page.get_by_label("Why do you take this").select_option("lawfulness")
    page.get_by_label("JSON").check()
    page.get_by_role("button", name="Export").click()
    page.get_by_role("button", name="Download").wait_for()
    yield "an export"
    page.get_by_role("link", name="Back to the events").click()
    page.get_by_role("link", name="Family view disclosed").nth(0 if wide(page) else 1).click()  # each visit its own
    page.get_by_role("heading", name="Prove it").wait_for()
    event = page.url.rpartition("/")[2]
    yield "an event"
    page.get_by_label("Why it is worth a look").select_option(label="A pattern that no rule has")
    page.get_by_role("button", name="Flag it").click()
    page.locator(f'a[href="/reviews/{event}"]').click()
    page.get_by_role("button", name="Take it").click()
    page.get_by_role("button", name="Record decision").click()
    page.get_by_role("heading", name="There is a problem").wait_for()
    yield "a case with faults"
    page.get_by_label("Justified").check()
    page.get_by_role("button", name="Record decision").click()
    page.get_by_text("Waiting for a second reviewer. You decided it").wait_for()
    yield "a case that waits"
    for name, heading in (("Queue", "Reviews"), ("Rules", "Rules"), ("Samples", "Samples")):
        page.goto(page.url.split("/reviews")[0] + "/reviews" + ("" if name == "Queue" else f"/{name.lower()}"))
        page.get_by_role("heading", name=heading, exact=True, level=1).wait_for()
        yield name
    page.goto(page.url.replace("samples", "rules/burst"))
    page.get_by_role("button", name="Change").click()
    page.get_by_role("heading", name="There is a problem").wait_for()
    yield "a rule with faults"


def the_register(visit: Visitor) -> Iterator[str]:
    """Every page of agreements."""
    page = visit.page
    site = page.url.rpartition("/")[0]
    for path in (
        "", "/northshire-planning@1.0.0", "/who-can-see?org=northshire-council&role=MASH_ANALYST&source=northshire-police", "/calendar", "/remarks",
        "/diff?before=northshire-planning@1.0.0&after=northshire-early-help@1.1.0",
    ):  # fmt: skip
        page.goto(f"{site}/agreements{path}")
        yield f"agreements{path}"
    page.goto(f"{site}/agreements/what-if")
    page.get_by_role("button", name="Decide again").click()
    page.get_by_role("heading", name="There is a problem").wait_for()
    yield "what if, with a fault"
    page.get_by_label("Document").select_option("northshire-mash@3.0.0")
    page.get_by_role("button", name="Decide again").click()
    page.get_by_text("past requests would change").wait_for()
    yield "what if"


def rights_and_reports(visit: Visitor) -> Iterator[str]:
    """Subject access, erasure, breaches and reports."""
    page = visit.page
    site = page.url.rpartition("/")[0]
    page.goto(f"{site}/log")
    page.get_by_label("To check that processing was lawful").check()
    page.get_by_label("Kind of operation").select_option("disclosure")
    page.get_by_role("button", name="Search the log").click()
    page.get_by_role("link", name="Family view disclosed").first.click()
    page.get_by_role("heading", name="Prove it").wait_for()
    subjects = page.locator("h2:has-text('About whom') + div li").all_inner_texts()
    person = next(one for one in subjects if "/" not in one)
    page.goto(f"{site}/rights")
    page.get_by_role("button", name="Show the ledger").click()
    page.get_by_role("heading", name="There is a problem").wait_for()
    yield "rights, with faults"
    page.locator("#subject").fill(person)
    page.get_by_label("The person themselves").check()
    page.get_by_role("button", name="Show the ledger").click()
    page.get_by_role("heading", name="about this subject").wait_for()
    yield "a ledger"
    page.get_by_role("button", name="Show it to print").click()
    page.get_by_role("heading", name="Who looked at this record").wait_for()
    yield "a ledger to print"
    page.goto(f"{site}/breaches")
    page.get_by_role("button", name="Make it").click()
    page.get_by_role("heading", name="There is a problem").wait_for()
    yield "breaches, with faults"
    page.goto(f"{site}/reports")
    yield "reports"
    page.get_by_role("link", name="R2: Refusals").click()
    page.get_by_label("To check that processing was lawful").check()
    page.get_by_role("button", name="Make it").click()
    page.get_by_text("do not pass on").wait_for()
    yield "a report to print"


def the_places_of_the_navigation(visit: Visitor, role: str) -> Iterator[str]:
    for _, place in NAVIGATION[role]:
        visit.page.locator(f'nav a[href="{place}"], .govuk-service-navigation a[href="{place}"]').first.click(
            force=True
        )
        visit.page.wait_for_url(f"**{place}")
        yield place


def what_is_public(visit: Visitor) -> Iterator[str]:
    """A planner's first page, and what anybody may read."""
    page = visit.page
    yield "statistics"
    page.get_by_role("link", name="What is shared, and why").click()
    page.get_by_role("heading", name="What we share about children, and why").wait_for()
    yield "transparency"
    page.get_by_role("link", name="A page for children").click()
    page.get_by_role("heading", name="If you are in danger now").wait_for()
    yield "for children"
    for name, heading in (
        ("Help", "Help"), ("Privacy notice", "Privacy notice"), ("Accessibility", "Accessibility"), ("Cookies", "Cookies"),
        ("API reference", "API reference"),
    ):  # fmt: skip
        page.locator(".govuk-footer").get_by_role("link", name=name, exact=True).click()
        page.get_by_role("heading", name=heading, level=1).wait_for()
        yield name
    page.get_by_role("link", name="Log", exact=True).click()
    page.get_by_role("heading", name="GET /audit/events", exact=True).wait_for()
    yield "a part of the API"
    page.get_by_role("link", name="All of the API").click()
    page.get_by_role("link", name="guide for agencies").click()
    page.get_by_role("heading", name="Guide for agencies").wait_for()
    yield "the guide"


WAYS: list[tuple[str, Callable[[Visitor], Iterator[str]]]] = [
    ("Sample Link Reviewer", the_way_of_a_link_reviewer),
    ("Sample IG Officer", the_way_of_a_review),
    ("Sample IG Officer", the_register),
    ("Sample IG Officer", rights_and_reports),
    ("Sample Planner", what_is_public),
    ("Sample Inspector", lambda visit: the_places_of_the_navigation(visit, "INSPECTOR")),
    ("Sample Operator", lambda visit: the_places_of_the_navigation(visit, "OPERATOR")),
]


@pytest.mark.parametrize(("width", "scripts"), [(1280, True), (320, False)])
def test_no_page_has_a_fault_that_axe_the_console_or_a_narrow_window_finds(
    site: str, visitor: Visit, width: int, scripts: bool
) -> None:
    found: dict[str, list[str]] = {}
    for label, way in WAYS:
        visit = visitor(width=width, scripts=scripts)
        sign_in(visit.page, site, label)
        for where in way(visit):
            found[where] = looked_at(visit, scripts=scripts)
    assert {where: wrong for where, wrong in found.items() if wrong} == {}


def test_a_link_reviewer_decides_a_pair_by_keyboard_alone(site: str, visitor: Visit) -> None:
    page = visitor().page
    sign_in(page, site, "Sample Link Reviewer")
    page.goto(f"{site}/pairs")
    press_to(page, "Look")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Same person?", level=1).wait_for()
    expect(page.locator("h1")).to_be_focused()  # where reading begins after an answer: only then tab on
    press_to(page, "Same person")
    page.keyboard.press("ArrowUp")  # round to the last: Cannot tell
    expect(page.get_by_label("Cannot tell: pass on")).to_be_checked()
    press_to(page, "Why")
    page.keyboard.press("End")  # the last reason
    expect(page.get_by_label("Why", exact=True)).to_have_value("agency_cannot_tell")
    press_to(page, "The agreement levels")
    page.keyboard.press("Space")
    press_to(page, "Record")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Decided: Cannot tell: pass on").wait_for()


def press_to(page: Page, name: str) -> None:
    """Press Tab until what has the focus bears this name."""
    for _ in range(60):
        page.keyboard.press("Tab")
        at = "document.activeElement.labels?.[0]?.innerText || document.activeElement.innerText || ''"
        if str(page.evaluate(at)).strip().startswith(name):
            return
    raise AssertionError(f"the keyboard does not reach {name}")
