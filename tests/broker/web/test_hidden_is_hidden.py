"""Hidden is hidden on every page: with a record that may not be shown and without it, for the asker and for everybody
else but the agency that protects it and information governance, pages are the same bytes.

The answers of the API are held to this in `test_silence`; here a real gateway asks a real broker, and what is compared
is what browsers get: status, headers, length, and bytes with ids and times masked, in the order of the page.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient

from broker.web.pages import NAVIGATION
from linkage.agency import clock as agency_clock
from linkage.agency.gateway.app import create_gateway
from linkage.agency.gateway.settings import DemoPerson
from linkage.agency.gateway.store import GatewayStore
from linkage.agency.gateway.typed import Typed, TypedPerson
from tests.broker.test_considering import a_round
from tests.broker.test_silence import masked, nothing_for_screening, unsigned, without
from tests.builders import COUNCIL, ICB, POLICE
from tests.builders_area import MORNING, Area, the_time
from tests.builders_families import ADOPTED, BIRTH, FAY, KIT, NOBODY, ROBIN, VIC, Someone, a_linked_area
from tests.builders_pages import Officer, text_of
from tests.linkage.agency.gateway.builders import as_form, csrf_of, some_settings
from tests.sizes import LONG

ANALYST: Final = DemoPerson(id="p-analyst", name="Sample Analyst", role="MASH_ANALYST")
DECIDER: Final = DemoPerson(id="p-decider", name="Sample Decision-maker", role="MASH_DECISION_MAKER")
HOLDER: Final = DemoPerson(id="p-rep", name="Sample Representative", role="AGENCY_REP")
VARIES: Final = re.compile(
    r"[0-9a-f]{16,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?:nonce-|nonce=\"|value=\")[\w-]{16,}|\d\d:\d\d(?::\d\d(?:\.\d{6})?)?"
)
"""Ids, tokens and times of the day: what is of one request, and never of a record."""
DISK: Final = re.compile(r"\d+ MiB")
"""How much room the machine has: the operator's page says it."""


@dataclass
class Shown:
    """What a browser got, page by page, in the order it was asked."""

    pages: dict[str, tuple[int, dict[str, str], int, str]]

    @classmethod
    def none(cls) -> Shown:
        return cls({})

    def keep(self, name: str, answer: Any) -> Any:
        """One more page."""
        headers = {key: VARIES.sub("*", text) for key, text in answer.headers.items() if key != "set-cookie"}
        text = DISK.sub("", answer.text)
        self.pages[name] = (answer.status_code, headers, len(text), VARIES.sub("*", text))
        return answer


def differences(one: Shown, other: Shown) -> list[str]:
    """Where two worlds can be told apart: page by page, what of it."""
    found = [f"{name} is there once only" for name in one.pages.keys() ^ other.pages.keys()]
    if list(one.pages) != list(other.pages):
        found.append("the pages come in another order")
    for name in (each for each in one.pages if each in other.pages):
        (status, headers, length, text), (status_too, headers_too, length_too, text_too) = (
            one.pages[name],
            other.pages[name],
        )
        if (status, headers) != (status_too, headers_too):
            found.append(f"{name}: {status} {dict(headers.items() ^ headers_too.items())} {status_too}")
        pairs = zip(text.split("<"), text_too.split("<"), strict=False)
        told = [(one_s.strip(), other_s.strip()) for one_s, other_s in pairs if one_s != other_s]
        if text != text_too or length != length_too:
            found.append(f"{name}: {length} and {length_too} bytes; {told[:2]}")
    return found


@dataclass
class Browser:
    """Somebody signed in at an agency's gateway, which asks the area's own broker."""

    http: TestClient

    @classmethod
    def of(cls, area: Area, folder: Path, person: DemoPerson, agency: str = COUNCIL) -> Browser:
        asker = area.asker(person.role, agency=agency)
        folder.mkdir(parents=True)
        store = GatewayStore(folder / "gateway.sqlite", secrets.token_bytes(32))
        app = create_gateway(
            some_settings(people=(person,)), store=store, encoder=asker.encoder, broker=asker.broker,
            now=agency_clock.now,
        )  # fmt: skip
        http = TestClient(app, base_url="https://testserver", follow_redirects=False)
        http.headers["Origin"] = "https://testserver"
        assert http.post("/sign-in", data={"person": person.id}).status_code == 303
        return cls(http)

    def post(self, path: str, of: str, **form: str) -> Any:
        """A form of a page, sent."""
        return self.http.post(path, data={"csrf": csrf_of(self.http.get(of).text), **form})

    def searched(self, child: TypedPerson, *, case: str, household: tuple[TypedPerson, ...] = ()) -> str:
        """Where a search leads: to its results, or to the one view."""
        asked = Typed(
            child=child, household=household, case_reference=case, purpose="MASH_SCREEN", told="yes", acknowledged=True
        )
        for _ in household:
            assert self.post("/searches/new", "/searches/new", action="add").status_code == 303
        answer = self.post("/searches/new", "/searches/new", **as_form(asked))
        assert answer.status_code == 303
        place = str(answer.headers["location"])
        assert place != "/searches/new", text_of(self.http.get(place).text)
        return place


def typed(one: Someone, **changes: str) -> TypedPerson:
    """As an analyst types them, who was told no number."""
    return one.typed(nhs_number="", **changes)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    with the_time(MORNING):
        made = a_linked_area(tmp_path_factory.mktemp("hidden") / "northshire")
        yield made
        made.close()


Make = Callable[[str], Area]


@pytest.fixture
def make(base: Area, tmp_path: Path) -> Iterator[Make]:
    """Worlds that begin alike."""
    made: list[Area] = []

    def one(name: str) -> Area:
        made.append(base.copied(tmp_path / name))
        return made[-1]

    yield one
    for area in made:
        area.close()


def the_asker_s_pages(area: Area, folder: Path, child: Someone, *household: Someone) -> Shown:
    """Every page of a search and of a view, and those that come after."""
    shown = Shown.none()
    for person in (ANALYST, DECIDER):
        browser = Browser.of(area, folder / person.id, person)
        place = browser.searched(
            typed(child), case="H1", household=tuple(typed(one, relation="sibling") for one in household)
        )
        page = shown.keep(f"{person.role} answer", browser.http.get(place)).text
        if "/views/" in place:
            view = place
            file = browser.post(f"{view}/json", view)
            told = {"search": "", "view": "", **file.json()}
            shown.pages[f"{person.role} file"] = (200, {}, len(file.content), VARIES.sub("*", masked(told).decode()))
            shown.keep(f"{person.role} wrong person", browser.http.get(f"{view}/wrong-person"))
        for contact in sorted(set(re.findall(r'href="(/contacts/[0-9a-f]+/threshold)"', page))):
            shown.keep(f"{person.role} threshold", browser.http.get(contact))
        shown.keep(f"{person.role} work", browser.http.get("/work"))
        shown.keep(f"{person.role} form", browser.http.get("/searches/new"))
    return shown


@pytest.mark.parametrize(("change", "child"), [(nothing_for_screening, VIC), (unsigned, ROBIN)][: 2 if LONG else 1])
def test_the_asker_s_pages_are_the_same_with_a_record_that_may_not_be_shown_and_without_it(
    make: Make, tmp_path: Path, change: Callable[[Area], None], child: Someone
) -> None:
    worlds = []
    for name in ("with", "without"):
        area = make(name)
        change(area)
        if name == "without":
            without(area, POLICE, "police", child.id)
        worlds.append(the_asker_s_pages(area, tmp_path / f"{name}-gateways", child))
    assert differences(*worlds) == []
    assert len(worlds[0].pages) >= 9
    assert all(status == 200 for status, *_ in worlds[0].pages.values())


@pytest.mark.parametrize(("child", "hidden"), [(ROBIN, FAY), (ADOPTED, BIRTH)][: 2 if LONG else 1])
def test_naming_somebody_hidden_in_the_household_shows_the_pages_of_naming_nobody(
    make: Make, tmp_path: Path, child: Someone, hidden: Someone
) -> None:
    worlds = []
    for name, named in (("hidden", hidden), ("nobody", NOBODY)):
        shown = the_asker_s_pages(make(name), tmp_path / f"{name}-gateways", child, named)
        assert not [key for key, page in shown.pages.items() if named.family in page[3] or named.given in page[3]]
        worlds.append(shown)
    assert differences(*worlds) == []


def everybody_else_s_pages(area: Area, folder: Path) -> Shown:
    """What everybody sees afterwards but the agency that protects a record, and information governance."""
    shown = Shown.none()
    for role in ("LINK_REVIEWER", "SERVICE_PLANNER", "OPERATOR"):
        someone = Officer.of(
            area, role, person=f"x-{role.lower()}", organisation=ICB if role == "SERVICE_PLANNER" else ""
        )
        for _, place in NAVIGATION[role]:
            shown.keep(f"{role} {place}", someone.get(place))
    for place in ("/transparency", "/transparency/children", "/help", "/privacy", "/api-reference"):
        shown.keep(place, area.http.get(place))
    for agency in (ICB, POLICE):
        holder = Browser.of(area, folder / agency, HOLDER, agency)
        for place in ("/inbox", "/our-data", "/our-data/accesses.csv", "/our-data?which=new"):
            shown.keep(f"{agency} {place}", holder.http.get(place))
    return shown


def test_a_search_for_a_child_who_is_hidden_leaves_everybody_s_pages_as_one_for_nobody_does(
    make: Make, tmp_path: Path
) -> None:
    """The police ask; the council protects the child, and alone is told."""
    worlds = []
    for name, child in (("hidden", FAY), ("nobody", NOBODY)):
        area = make(name)
        browser = Browser.of(area, tmp_path / name / "asker", ANALYST, POLICE)
        browser.http.get(browser.searched(typed(KIT), case="H2"))  # so that there is something to list
        shown = Shown.none()
        place = browser.searched(typed(child), case="H3")
        shown.keep("results", browser.http.get(place))
        assert "No match to show" in shown.pages["results"][3]
        shown.keep("work", browser.http.get("/work"))
        a_round(area)
        area.size()
        worlds.append(Shown(shown.pages | everybody_else_s_pages(area, tmp_path / name).pages))
    assert differences(*worlds) == []
    assert len(worlds[0].pages) == 18
    assert all(status == 200 for status, *_ in worlds[0].pages.values())


def test_the_comparison_finds_what_differs(make: Make, tmp_path: Path) -> None:
    """Where the record may be shown, the same two worlds do differ: in the answer, and in its length."""
    worlds = []
    for name in ("with", "without"):
        area = make(name)
        if name == "without":
            without(area, POLICE, "police", VIC.id)
        worlds.append(the_asker_s_pages(area, tmp_path / f"{name}-gateways", VIC))
    held, absent = (one.pages[f"{ANALYST.role} answer"] for one in worlds)
    assert held[2] != absent[2] and held[3] != absent[3]
