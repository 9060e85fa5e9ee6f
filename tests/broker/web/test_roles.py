"""Where each role begins, what it may open, and that it may open nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, get_args

import pytest
from fastapi.routing import APIRoute

from broker.app import ROUTERS
from broker.settings import BrokerRole, Inspection
from broker.web.pages import NAVIGATION, PageRoute, home_of
from tests.builders_area import MORNING, Area, the_time
from tests.builders_families import a_linked_area
from tests.builders_pages import Officer, text_of

ROLES: Final = get_args(BrokerRole)
IG: Final = frozenset({"IG_OFFICER", "DPO", "CALDICOTT"})
MAY: Final[Mapping[str, frozenset[str]]] = {
    "/ig": IG | {"INSPECTOR"},
    "/log": IG | {"INSPECTOR"},
    "/statistics": IG | {"SERVICE_PLANNER"},
    "/reports": IG | {"INSPECTOR"},
    "/breaches": IG,
    "/rights": IG,
    "/agreements": IG | {"INSPECTOR"},
    "/reviews": IG,
    "/pairs": frozenset({"LINK_REVIEWER"}),
    "/operations": frozenset({"OPERATOR"}),
    "/sign-out": frozenset(ROLES),
}
"""Which role gets past the door of the pages that begin so."""
NO_INSPECTOR_S: Final = {
    "POST /log/{event}/detail", "POST /log/{event}/flag", "GET /agreements/what-if", "POST /agreements/what-if",
}  # fmt: skip
"""What in a part that inspectors read they may not: to open a detail, to act, to read past decisions of others."""
OPEN: Final = (
    "/", "/sign-in", "/sign-in/start", "/sign-in/return", "/transparency", "/transparency/children", "/help", "/privacy",
    "/accessibility", "/cookies", "/api-reference", "/api-reference/agencies", "/api-reference/openapi.json",
    "/api-reference/{group}",
)  # fmt: skip


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    with the_time(MORNING):
        made = a_linked_area(tmp_path_factory.mktemp("roles") / "northshire")
        inspections = tuple(
            Inspection(person=person, first=MORNING.date(), last=MORNING.date()) for person in ("x-inspector", "n-1")
        )
        made.settings = made.settings.model_copy(update={"inspections": inspections})
        yield made
        made.close()


def page_routes() -> list[APIRoute]:
    return [
        route
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, PageRoute) and route.path not in OPEN
    ]


def planner_s(role: str) -> str:
    return "northshire-council" if role == "SERVICE_PLANNER" else ""


@pytest.mark.parametrize("role", ROLES)
def test_each_role_gets_past_the_doors_of_its_own_pages_and_of_no_other(area: Area, role: str) -> None:
    wrong = []
    for route in page_routes():
        path = re.sub(r"\{[a-z]+(:path)?\}", "0" * 32, route.path)
        someone = Officer.of(area, role, person=f"x-{role.lower()}", organisation=planner_s(role))
        (method,) = route.methods
        answer = someone.get(path) if method == "GET" else someone.post(path)
        may = role in MAY[f"/{route.path.split('/')[1]}"]
        if role == "INSPECTOR" and f"{method} {route.path}" in NO_INSPECTOR_S:
            may = False
        if (answer.status_code != 403) is not may or answer.status_code >= 500:
            wrong.append((method, route.path, answer.status_code))
    assert wrong == []


@pytest.mark.parametrize("role", ROLES)
def test_the_front_page_leads_on_to_where_the_role_s_work_begins_and_every_place_in_the_navigation_is_there(
    area: Area, role: str
) -> None:
    someone = Officer.of(area, role, person="n-1", organisation=planner_s(role))
    assert someone.get("/").headers["location"] == home_of(role)
    for name, place in NAVIGATION[role]:
        answer = someone.get(place)
        assert answer.status_code == 200, place
        assert f'href="{place}"' in answer.text
        assert answer.text.count("<h1") == 1
        title = re.search(r"<title[^>]*>\s*(.*?)\s*</title>", answer.text, re.S)
        assert title and title[1].endswith(": Northshire broker")
        assert name in text_of(answer.text)
    own = {place for _, place in NAVIGATION[role]}
    others = {place for other, places in NAVIGATION.items() if other != role for _, place in places} - own
    assert not [place for place in others if f'href="{place}"' in someone.get(home_of(role)).text]


def test_an_address_of_no_form_of_ours_and_one_of_nothing_give_the_same_page(area: Area) -> None:
    someone = Officer.of(area, "LINK_REVIEWER", person="links-9")
    pages = []
    for pair in ("0" * 32, "made-up", "0" * 31):
        answer = someone.get(f"/pairs/{pair}")
        assert answer.status_code == 404
        pages.append(re.sub(r"[0-9a-f-]{36}|nonce=\"[^\"]*\"", "*", answer.text))
    assert len(set(pages)) == 1


def test_whoever_is_not_signed_in_is_led_to_the_sign_in_page(area: Area) -> None:
    for route in page_routes():
        (method,) = route.methods
        path = re.sub(r"\{[a-z]+(:path)?\}", "0" * 32, route.path)
        answer = area.http.request(method, path, follow_redirects=False)
        assert (answer.status_code, answer.headers.get("location")) in ((303, "/"), (415, None)), route.path
