"""The gateway's pages in a real browser, filled with what a broker answers: whole, at three widths, with and without
scripts, by keyboard, and with nothing for axe to find."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Page, expect

from tests.journeys.conftest import Visitor
from tests.linkage.agency.gateway.builders import (
    NOW,
    Running,
    a_candidate,
    a_contact,
    a_gateway,
    a_kept_search,
    a_kept_view,
    a_search_answer,
    a_view,
)

pytestmark = pytest.mark.browser
Visit = Callable[..., Visitor]
Serve = Callable[[FastAPI], str]


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return a_gateway(tmp_path)


def sign_in(page: Page, site: str, name: str = "Sample Analyst") -> None:
    page.goto(site)
    page.get_by_label(name).check()
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="My work").wait_for()


def every_page(running: Running) -> list[str]:
    contact = a_contact(running, asked=True, urgency="red", received_at=NOW.isoformat())
    return [
        "/work",
        "/searches/new",
        f"/searches/{a_kept_search(running, a_search_answer(a_candidate('a'), a_candidate('b', 'possible')), contact=contact)}",
        f"/searches/{a_kept_search(running, a_search_answer(), contact=contact)}",
        f"/views/{a_kept_view(running, a_view(), contact=contact)}",
        f"/views/{a_kept_view(running, a_view(tiles=[], family=[], chronology=[], withheld=[], first_call={'kind': 'none'}))}",
        f"/views/{a_kept_view(running, a_view(), contact=contact)}?basis=opinion",
        f"/views/{a_kept_view(running, a_view(), contact=contact)}/paper",
        f"/views/{a_kept_view(running, a_view(), contact=contact)}/wrong-person",
        f"/views/{a_kept_view(running, a_view(), contact=contact)}/emergency",
        f"/views/{a_kept_view(running, a_view(emergency='0' * 32), contact=contact)}",
        f"/contacts/{contact}/threshold",
        f"/contacts/{contact}/clock",
        "/about/help",
    ]


@pytest.mark.parametrize(("width", "scripts"), [(1280, True), (390, True), (320, False)])
def test_no_page_has_a_fault_that_axe_the_console_or_a_narrow_window_finds(
    running: Running, serve: Serve, visitor: Visit, width: int, scripts: bool
) -> None:
    site = serve(running.app)
    visit = visitor(width=width, scripts=scripts)
    visit.page.goto(site)
    found = {"/": visit.violations()} if scripts else {}
    sign_in(visit.page, site)
    for path in every_page(running):
        visit.page.goto(site + path)
        assert visit.page.locator("h1").count() == 1
        if scripts:
            found[path] = visit.violations()
        assert not visit.scrolls_sideways(), path
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("scripts", [True, False])
def test_the_form_grows_by_a_person_shows_faults_and_forgets_nothing(
    running: Running, serve: Serve, visitor: Visit, scripts: bool
) -> None:
    site = serve(running.app)
    visit = visitor(scripts=scripts)
    page = visit.page
    sign_in(page, site)
    page.get_by_role("link", name="New search").click()
    page.get_by_label("Family name").fill("Samplewick")
    page.get_by_role("button", name="Add a person").click()
    page.get_by_text("Person 1", exact=True).wait_for()
    expect(page.locator("#person-0-given_name")).to_be_focused(timeout=30_000)
    assert page.get_by_label("Family name").first.input_value() == "Samplewick"

    page.get_by_label("Family name").first.press("Enter")  # searches: it must not add another person
    page.get_by_role("heading", name="There is a problem").wait_for()
    assert page.get_by_text("Person 2", exact=True).count() == 0
    assert page.title() == "Error: New search: Northshire gateway"
    page.get_by_role("link", name="Choose why you are asking").click()
    if scripts:
        expect(page.locator("#purpose")).to_be_focused(timeout=30_000)
        assert visit.violations() == []
    page.get_by_role("button", name="Remove person 1").click()
    page.get_by_role("button", name="Clear and start again").click()
    assert page.get_by_label("Family name").input_value() == ""


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (390, 844)])
def test_already_open_and_the_number_to_ring_are_on_the_first_screen(
    running: Running, serve: Serve, visitor: Visit, width: int, height: int
) -> None:
    site = serve(running.app)
    page = visitor(width=width, height=height).page
    sign_in(page, site)
    page.goto(f"{site}/views/{a_kept_view(running, a_view(), contact=a_contact(running))}")
    for one in (page.get_by_role("heading", name="Already open"), page.locator(".service-ring a").first):
        box = one.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < height
    assert page.locator(".service-ring a").first.get_attribute("href") == "tel:01632960104"


def test_the_receipt_comes_down_as_a_file_that_names_nobody(running: Running, serve: Serve, visitor: Visit) -> None:
    site = serve(running.app)
    page = visitor().page
    sign_in(page, site)
    view = a_kept_view(running, a_view())
    page.goto(f"{site}/views/{view}")
    with page.expect_download() as coming:
        page.get_by_role("button", name="Download the receipt").click()
    assert coming.value.suggested_filename == f"receipt-{view}.json"
    assert json.loads(Path(coming.value.path()).read_text()) == a_view()["receipt"]


def test_print_shows_every_section_its_watermark_and_no_controls(
    running: Running, serve: Serve, visitor: Visit
) -> None:
    site = serve(running.app)
    page = visitor().page
    sign_in(page, site)
    page.goto(f"{site}/views/{a_kept_view(running, a_view())}")
    page.emulate_media(media="print")
    assert page.locator(".service-watermark").is_visible()
    assert "Do not pass on." in page.locator(".service-watermark").inner_text()
    assert page.get_by_text("4.1 To screen a contact").first.is_visible()
    for hidden in (".service-actions", ".govuk-service-navigation", ".service-footer", ".service-network"):
        assert not page.locator(hidden).first.is_visible(), hidden


def test_signing_out_leaves_nothing_to_go_back_to(running: Running, serve: Serve, visitor: Visit) -> None:
    site = serve(running.app)
    page = visitor().page
    sign_in(page, site)
    page.goto(f"{site}/views/{a_kept_view(running, a_view())}")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Find out who knows a child").wait_for()
    page.go_back()
    page.wait_for_load_state()
    assert page.get_by_text("Samplewick").count() == 0
