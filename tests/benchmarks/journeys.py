"""The ten tasks for new users, walked by a script in Chromium on the demonstration: clicks, seconds, errors.

What a script can measure is the system's own part: the clicks and keys that a task takes, the seconds that pages take
from a click to the answer, the faults on the way, and whether the answer stands on the page.  Seconds are the system's
own and 200 ms a key; how long a person thinks, five new users of each role must show.  A task whose page is not there
is skipped, and says so.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from playwright.sync_api import Browser, Locator, Page, sync_playwright

from deploy.demo.__main__ import ORGANISATIONS, Demo, tool
from tests.benchmarks.sizes import sized
from tests.journeys.conftest import four_free_ports

TOPIC: Final = "journeys"
MINUTES: Final = 45
CHILDREN: Final = sized(20_000, 1_500)
SEARCHES: Final = sized(60, 10)
A_KEY: Final = 0.2  # seconds
LATE: Final = timedelta(days=4)  # before now, when the police's last batch came
MISSING: Final = {
    5: ("ask Health for two kinds of information", 60, 6, "no page of targeted requests yet"),
    6: ("share one kind, less of another, decline a third", 150, 10, "no page of a holder's answers yet"),
    7: ("emergency access: when it ends, who is told", 60, 4, "no page of emergency access yet"),
    10: ("stop all sharing under one agreement", 60, 4, "no page of a suspension yet"),
}
"""Tasks without pages: what, seconds, clicks, why."""

Row = dict[str, Any]


@dataclass
class Walk:
    """One person's way through one task."""

    page: Page
    clicks: int = 0
    keys: int = 0
    own: float = 0.0
    errors: list[str] = field(default_factory=list)

    def type(self, where: Locator, text: str) -> None:
        """Type into a box."""
        where.fill(text)
        self.keys += len(text)

    def choose(self, where: Locator) -> None:
        """Click what leads nowhere: a radio, a box to tick."""
        where.check()
        self.clicks += 1

    def press(self, where: Locator) -> None:
        """Click what leads to another page, and wait for it."""
        began = time.perf_counter()
        with self.page.expect_navigation(wait_until="load"):
            where.click()
        self.own += time.perf_counter() - began
        self.clicks += 1
        if self.page.get_by_role("heading", name="There is a problem").count():
            self.errors.append("a form came back with faults")

    def stands(self, what: str, where: Locator) -> None:
        """Hold that an answer stands on the page."""
        if not where.count():
            self.errors.append(f"not on the page: {what}")

    @property
    def seconds(self) -> float:
        """The system's own and the typing's."""
        return self.own + A_KEY * self.keys


@dataclass(frozen=True)
class Task:
    """One of the ten, with its targets."""

    number: int
    what: str
    seconds: float
    clicks: int | None
    way: Callable[[Sites], Walk]


@dataclass
class Sites:
    """The demonstration as it is served, and a browser."""

    demo: Demo
    browser: Browser
    folder: Path

    def signed_in(self, name: str, *, at: int = 1) -> Page:
        """A page of somebody who has signed in: at the council's gateway, or at the broker (0)."""
        page = self.browser.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True).new_page()
        page.goto(f"http://127.0.0.1:{self.demo.port + at}/")
        page.get_by_label(name, exact=True).check()
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("button", name="Sign out").wait_for()
        return page

    def child(self, kind: str) -> dict[str, Any]:
        """One of the area's children worth searching for."""
        return next(one for one in self.demo.showcase() if one["kind"] == kind)

    def searched(self, child: dict[str, Any], *, case: str) -> Walk:
        """An analyst's search, typed and sent: clicks counted from the last key on."""
        walk = Walk(self.signed_in("Sample Analyst"))
        page = walk.page
        page.get_by_role("link", name="New search").click()
        for label, part in (
            ("Given name(s)", "given_name"), ("Family name", "family_name"), ("Postcode", "postcode"),
            ("NHS number", "nhs_number"),
        ):  # fmt: skip
            walk.type(page.get_by_label(label), child[part])
        for label, text in zip(("Year", "Month", "Day"), child["date_of_birth"].split("-"), strict=True):
            walk.type(page.get_by_label(label, exact=True), text)
        for label in ("Screening a contact", "I am asking for this purpose only"):
            walk.choose(page.get_by_label(label))
        walk.choose(page.get_by_label("Yes", exact=True))
        walk.type(page.get_by_label("Case reference"), case)
        walk.clicks = 0
        walk.press(page.get_by_role("button", name="Search", exact=True).last)
        return walk


# --- The tasks ---------------------------------------------------------------------------------------------------------


def whom_to_ring(sites: Sites) -> Walk:
    """1: already open, and the number, without scrolling."""
    walk = sites.searched(sites.child("open_case"), case="SAMPLE-0101")
    for what, where in (
        ("already open", walk.page.get_by_role("heading", name="Already open")),
        ("the number to ring", walk.page.locator(".service-ring a[href^='tel:']").first),
    ):
        walk.stands(what, where)
        box = where.bounding_box() if where.count() else None
        if box is None or box["y"] + box["height"] > 720:
            walk.errors.append(f"not on the first screen: {what}")
    return walk


def do_the_police_know(sites: Sites) -> Walk:
    """2: the police's feed is late: the page says that nobody can tell, and whom to ring."""
    walk = sites.searched(sites.child("open_case"), case="SAMPLE-0102")
    walk.keys = 0  # the view is open already, as the task has it
    police = walk.page.locator("li").filter(has_text="Northshire Police").filter(has_text="Out of date")
    walk.stands("the police are out of date", police)
    walk.stands("the police's number", police.first.locator("a[href^='tel:']"))
    if "Nothing to show" in (police.first.inner_text() if police.count() else ""):
        walk.errors.append("a late feed reads as an absence")
    return walk


def a_possible_match(sites: Sites) -> Walk:
    """3: what to do with a possible match: ring, and record nothing."""
    misheard = sites.child("open_case") | {"given_name": "Jake", "nhs_number": ""}
    walk = sites.searched(misheard, case="SAMPLE-0103")
    walk.keys = 0
    walk.stands("a possible match", walk.page.get_by_text("Possible match: check with the agency").first)
    walk.stands("record nothing", walk.page.get_by_text("Do not record this as fact until they confirm.").first)
    if walk.page.get_by_role("heading", name="Family view").count() == 0:
        walk.press(walk.page.get_by_role("button", name="Who to ring").first)
    walk.stands("a number to ring", walk.page.locator("a[href^='tel:']").first)
    return walk


def what_would_unlock(sites: Sites) -> Walk:
    """4: what would open the dates of domestic abuse, and who decides."""
    walk = sites.searched(sites.child("open_case"), case="SAMPLE-0104")
    walk.keys = walk.clicks = 0
    began = time.perf_counter()
    walk.page.get_by_role("link", name="Not shown to you").click()
    walk.own, walk.clicks = time.perf_counter() - began, 1
    row = walk.page.get_by_role("row").filter(has_text="omestic abuse")
    walk.stands("domestic abuse is withheld, and why", row)
    told = row.first.inner_text().lower() if row.count() else ""
    if "decision-maker" not in told and "manager" not in told:
        walk.errors.append("the page does not name who decides")
    return walk


def the_wrong_child(sites: Sites) -> Walk:
    """8: say that it is the wrong child."""
    walk = sites.searched(sites.child("open_case"), case="SAMPLE-0108")
    walk.keys = walk.clicks = 0
    walk.own = 0.0
    walk.press(walk.page.get_by_role("link", name="Tell us this is the wrong person"))
    walk.choose(walk.page.get_by_label("The whole child"))
    walk.choose(walk.page.get_by_label("I know the child, and this is another"))
    walk.press(walk.page.get_by_role("button", name="Report and close this view"))
    walk.stands("it was reported", walk.page.get_by_role("heading", name="Reported at"))
    return walk


def who_saw_this_child(sites: Sites) -> Walk:
    """9: who saw a child last month; one entry proved offline.  The officer has the subject's reference, as from an
    earlier event; the copy of the public log is fetched in between, as a machine does it every hour."""
    sites.searched(sites.child("open_case"), case="SAMPLE-0109")
    subject = _subject_of_the_newest_view(sites)
    walk = Walk(sites.signed_in("Sample IG Officer", at=0))
    page, today = walk.page, datetime.now()  # noqa: DTZ005, TID251  (what stands on the officer's calendar)
    walk.press(page.get_by_role("link", name="Log", exact=True))
    for name, day in (("first", today - timedelta(days=31)), ("last", today)):
        for part in ("day", "month", "year"):
            walk.type(page.locator(f"#{name}-{part}"), str(getattr(day, part)))
    walk.type(page.get_by_label("Subject (reference)"), subject)
    walk.choose(page.get_by_label("To check that processing was lawful"))
    walk.press(page.get_by_role("button", name="Search the log"))
    walk.press(page.get_by_role("link", name="Family view disclosed").first)
    with page.expect_download() as coming:
        page.get_by_role("link", name="Download opening").click()
    walk.clicks += 1
    opening, log, policy = (sites.folder / name for name in ("opening.json", "log", "policy"))
    coming.value.save_as(opening)
    sites.demo.agency("log", "fetch", "--home", str(sites.demo.home(ORGANISATIONS[0])), "--out", str(log))
    policy.write_text(sites.demo.broker("log", "policy"))
    began = time.perf_counter()
    done = subprocess.run(
        [tool("auditor"), "inclusion", "--log", str(log), "--policy", str(policy), "--event", str(opening)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    walk.own += time.perf_counter() - began
    if done.returncode:
        walk.errors.append(f"auditor ended with {done.returncode}")
    return walk


TASKS: Final = (
    Task(1, "who works with the child, on which number", 60, 1, whom_to_ring),
    Task(2, "do the police know, their feed being late", 20, None, do_the_police_know),
    Task(3, "a possible match: what now", 30, None, a_possible_match),
    Task(4, "what would open the dates of domestic abuse", 30, 1, what_would_unlock),
    Task(8, "the wrong child: put it right", 40, 4, the_wrong_child),
    Task(9, "who saw this child, one entry proved offline", 180, 8, who_saw_this_child),
)


# --- Running them ------------------------------------------------------------------------------------------------------


def rows() -> Iterator[Row]:
    """The rows of `make bench ONLY=journeys`, and a table of them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="journeys-")))
        demo = Demo(folder / "demo", four_free_ports(), CHILDREN, 1)
        demo.prepare()
        the_police_are_late(demo)
        stack.enter_context(demo.serving_broker())
        stack.enter_context(demo.serving_gateways())
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        sites = Sites(demo, browser, folder)
        told = []
        for task in TASKS:
            walk = task.way(sites)
            told.append((task, walk))
            yield from _rows(task, walk)
        for number, (what, seconds, clicks, why) in MISSING.items():
            yield _row(number, what, "seconds", None, seconds, why, "s")
            yield _row(number, what, "clicks", None, clicks, why, "")
        times = [sites.searched(sites.child("open_case"), case=f"SAMPLE-1{n:03}").own for n in range(SEARCHES)]
        claim = f"from Search to the family view in the browser, p95 of {SEARCHES}, {CHILDREN:,} children, audited"
        yield {
            "claim": claim, "ours": round(quantiles(times, n=20)[-1], 3), "peer": None, "peer_name": None, "ratio": None,
            "goal": 1.0, "held": quantiles(times, n=20)[-1] <= 1.0, "unit": "s",
        }  # fmt: skip
        print("\n".join(_table(told)), flush=True)
        browser.close()


def the_police_are_late(demo: Demo) -> None:
    """Put back by days when the police's last batch was extracted."""
    with sqlite3.connect(demo.config.parent / "broker.sqlite") as database:
        (as_of,) = database.execute("SELECT as_of FROM agency_flow WHERE agency = 'northshire-police'").fetchone()
        earlier = (datetime.fromisoformat(as_of) - LATE).isoformat(sep=" ", timespec="microseconds")
        database.execute("UPDATE agency_flow SET as_of = ? WHERE agency = 'northshire-police'", (earlier,))


def _subject_of_the_newest_view(sites: Sites) -> str:
    page = sites.signed_in("Sample IG Officer", at=0)
    page.get_by_role("link", name="Log", exact=True).click()
    page.get_by_label("To check that processing was lawful").check()
    page.get_by_role("button", name="Search the log").click()
    page.get_by_role("link", name="Family view disclosed").first.click()
    page.get_by_role("heading", name="Prove it").wait_for()
    about = page.locator("h2:has-text('About whom') + div li").all_inner_texts()
    return next(one for one in about if "/" not in one)


def _rows(task: Task, walk: Walk) -> Iterator[Row]:
    yield _row(task.number, task.what, "seconds (ours and typing)", round(walk.seconds, 2), task.seconds, None, "s")
    if task.clicks is not None:
        yield _row(task.number, task.what, "clicks", walk.clicks, task.clicks, None, "")
    said = "; ".join(walk.errors) or None
    yield _row(task.number, task.what, "errors, or answers that do not stand there", len(walk.errors), 0, said, "")


def _row(
    number: int, what: str, measure: str, ours: float | None, goal: float, why: str | None, unit: str
) -> Row:  # fmt: skip
    return {
        "claim": f"task {number}, {what}: {measure}", "ours": ours, "peer": None, "peer_name": why, "ratio": None,
        "goal": goal, "held": None if ours is None else ours <= goal, "unit": unit,
    }  # fmt: skip


def _table(told: list[tuple[Task, Walk]]) -> Iterator[str]:
    yield "  task                                                       s  target   own s  keys  clicks  target  errors"
    done: dict[int, str] = {}
    for task, walk in told:
        clicks = "-" if task.clicks is None else str(task.clicks)
        done[task.number] = (
            f"  {task.number:2} {task.what:50} {walk.seconds:7.1f} {task.seconds:7.0f} {walk.own:7.2f} {walk.keys:5} "
            f"{walk.clicks:7} {clicks:>7} {len(walk.errors):7}  {'; '.join(walk.errors)}"
        )
    for number, (what, seconds, clicks, why) in MISSING.items():
        done[number] = f"  {number:2} {what:50} {'':>7} {seconds:7.0f} {'':7} {'':5} {'':7} {clicks:7}  {why}"
    yield from (done[number] for number in sorted(done))
