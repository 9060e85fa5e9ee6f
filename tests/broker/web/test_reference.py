"""The API's pages: whole, true to the document, and commands that the real programs take; and the footer's pages."""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from broker.web.reference import GROUPS, groups
from tests.builders_area import MORNING, Area, the_time
from tests.builders_families import a_linked_area
from tests.builders_pages import Officer, text_of
from tests.deploy.commands import refusal

FOOTER = ("/help", "/privacy", "/accessibility", "/cookies", "/transparency", "/api-reference")


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    with the_time(MORNING):
        made = a_linked_area(tmp_path_factory.mktemp("reference") / "northshire")
        yield made
        made.close()


def document(area: Area) -> dict[str, Any]:
    said: dict[str, Any] = area.http.get("/api-reference/openapi.json").json()
    return said


def shown(area: Area, path: str) -> str:
    answer = area.http.get(path)
    assert answer.status_code == 200, path
    return str(answer.text)


def test_every_operation_is_told_once_with_all_that_it_takes_and_gives(area: Area) -> None:
    said = document(area)
    told = [f"{one.method} {one.path}" for group in groups(said) for one in group.operations]
    assert sorted(told) == sorted(f"{how.upper()} {path}" for path, ways in said["paths"].items() for how in ways)
    for group in groups(said):
        page = shown(area, f"/api-reference/{group.place}")
        for one in group.operations:
            assert f'id="{one.anchor}"' in page
            operation = said["paths"][one.path][one.method.lower()]
            for parameter in operation.get("parameters", ()):
                assert f"<code>{parameter['name']}</code>" in page, (one.path, parameter["name"])
            for status in (code for code in operation["responses"] if not code.endswith("XX")):
                assert status in {answer.status for answer in one.answers}


def test_every_link_within_these_pages_leads_to_a_place_that_is_there(area: Area) -> None:
    pages = {path: shown(area, path) for path in ("/api-reference", "/api-reference/agencies")}
    pages |= {f"/api-reference/{place}": shown(area, f"/api-reference/{place}") for place, *_ in GROUPS.values()}
    for path, page in pages.items():
        ids = re.findall(r'\bid="([^"]+)"', page)
        assert len(ids) == len(set(ids)), path
        for link in re.findall(r'href="((?:/api-reference)?[^"]*#[^"]*)"', page):
            place, _, anchor = link.partition("#")
            assert f'id="{anchor}"' in pages[place or path], (path, link)


def test_the_members_of_a_shape_are_those_of_the_document(area: Area) -> None:
    said = document(area)
    shapes = {one.title: one for group in groups(said) for one in group.shapes if group.place == "searches"}
    body = said["components"]["schemas"]["broker__api__searches__SearchBody"]
    assert [row.name for row in shapes["SearchBody"].rows] == list(body["properties"])
    assert {row.name for row in shapes["SearchBody"].rows if row.due} == set(body["required"])
    forms = {row.name: text_of(str(row.form)) for row in shapes["SearchBody"].rows}
    assert forms["household"] == "list, at most 6, each MemberBody "
    assert forms["acknowledged"] == "always true "
    assert all(row.due for row in shapes["FamilyView"].rows)  # of what is given, nothing is ever left out


def test_the_page_says_who_may_call_and_that_it_is_anybody_where_it_is(area: Area) -> None:
    page = text_of(shown(area, "/api-reference/log"))
    assert "GET /audit/policy The C2SP tlog-policy" in page
    policy = page[page.index("GET /audit/policy The") :]
    assert policy[: policy.index("200")].rstrip().endswith("Who may call: anybody.")
    assert "Who may call: a person signed in here , from our own pages." in page


def test_a_part_that_is_none_is_a_page_not_found_and_echoes_nothing(area: Area) -> None:
    answer = area.http.get("/api-reference/samplewick")
    assert answer.status_code == 404
    assert "samplewick" not in answer.text


def test_every_command_of_the_guide_is_one_that_the_programs_take(area: Area) -> None:
    page = shown(area, "/api-reference/agencies")
    blocks = re.findall(r'(?s)<pre class="service-command"[^>]*>(.*?)</pre>', page)
    lines = [line for block in blocks for line in html.unescape(block).splitlines()]
    assert len(lines) >= 10
    for line in lines:
        words = [word for word in shlex.split(line) if not word.startswith("AGENCY_BROKER=")]
        assert refusal(words) is None, line


def test_the_document_comes_as_a_file_and_is_the_one_that_the_application_has(area: Area) -> None:
    answer = area.http.get("/api-reference/openapi.json")
    assert answer.headers["content-disposition"] == 'attachment; filename="openapi.json"'
    assert json.loads(answer.text) == json.loads(json.dumps(area.http.app.openapi()))  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", FOOTER)
def test_the_footer_s_pages_are_open_to_anybody_load_nothing_from_elsewhere_and_keep_one_s_navigation(
    area: Area, path: str
) -> None:
    size = area.size()
    page = shown(area, path)
    assert not [place for place in re.findall(r'(?:src|href)="([^"]+)"', page) if re.match(r"(https?:)?//", place)]
    assert [place for place in FOOTER if f'class="govuk-footer__link" href="{place}"' in page] == list(FOOTER)
    assert "Sign out" not in page
    reviewer = Officer.of(area, "LINK_REVIEWER", person="links-f").get(path).text
    assert 'href="/pairs"' in reviewer and "Sign out" in reviewer
    assert area.size() == size


def test_the_pages_say_what_this_broker_is_set_to(area: Area) -> None:
    assert "for 15 minutes, or it had been 8 hours" in text_of(shown(area, "/help"))
    assert "kept for 7 years" in text_of(shown(area, "/privacy"))
    cookies = text_of(shown(area, "/cookies"))
    assert "__Host-broker-session" in cookies and "__Host-broker-leaving" in cookies
    assert f"--partnership {area.settings.partnership} " in shown(area, "/api-reference/agencies")
